import os

import pytest

from tests.postgres import Postgres


@pytest.fixture(scope="session")
def postgres_url():
    """An empty PostgreSQL: the one in ``TEST_DATABASE_URL``, or one of our own for this run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
    else:
        with Postgres() as postgres:
            yield postgres.create_database("comptoir")
