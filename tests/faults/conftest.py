import os

import pytest

from tests.postgres import Postgres
from tests.server import Server

# Full sizes take minutes: they run with COMPTOIR_SLOW_TESTS=1 alone.
SLOW = bool(os.environ.get("COMPTOIR_SLOW_TESTS"))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and not SLOW:
            item.add_marker(pytest.mark.skip(reason="takes minutes: COMPTOIR_SLOW_TESTS=1"))


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL of our own, to be frozen and halted."""
    with Postgres() as postgres:
        yield postgres


@pytest.fixture
def server(tmp_path):
    """A server on SQLite that a test may kill."""
    with Server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def postgres_server(tmp_path, postgres):
    """A server of two processes on PostgreSQL that a test may kill."""
    url = postgres.create_database(f"faults_{tmp_path.name}".lower().replace("-", "_")[:60])
    with Server(tmp_path / "server", environment={"DATABASE_URL": url}, arguments=["--workers", "2"]) as server:
        yield server
        # A frozen database would hold up the server's own end.
        postgres.thaw()
