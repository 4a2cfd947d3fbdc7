import os

import pytest

from bench.chaos.world import World

# Full sizes take minutes to hours: they run with COMPTOIR_SLOW_TESTS=1 alone, or as ``./comptoir bench chaos``.
SLOW = bool(os.environ.get("COMPTOIR_SLOW_TESTS"))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and not SLOW:
            item.add_marker(pytest.mark.skip(reason="takes minutes: COMPTOIR_SLOW_TESTS=1"))


@pytest.fixture(scope="module")
def world():
    """Two gateway processes on PostgreSQL and Valkey, each scenario an organization of its own in it."""
    with World(workers=2) as world:
        yield world
        assert not world.upstream.mistakes
