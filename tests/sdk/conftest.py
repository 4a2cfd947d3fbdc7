import os

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/sdk/" in str(item.path):
            item.add_marker("sdk")


@pytest.fixture(scope="session", autouse=True)
def the_library_is_the_one_that_is_meant():
    """In a run for an older library, make sure that it is the one which is imported."""
    import importlib

    if wanted := os.environ.get("TEST_SDK_VERSION"):
        name, version = wanted.split("==")
        assert importlib.import_module(name).__version__ == version
