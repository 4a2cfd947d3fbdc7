"""Every test that uses the database once more, on PostgreSQL, in a test run of its own."""

import os
import subprocess
import sys

import pytest
from django.db import connection

from tests.server import ROOT


@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(os.environ.get("DATABASE_URL")), reason="this run is about the database in DATABASE_URL")
def test_all_that_uses_the_database_works_on_postgresql(postgres_url):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "database and not browser", "-p", "no:cacheprovider"]
    done = subprocess.run(
        # The simulation plays a clock of its own over thousands of steps: the database is not what it is about.
        [*command, "--color=no", "--tb=short", "--create-db", "--ignore=tests/chaos/test_simulation.py", "tests"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": postgres_url},
        capture_output=True,
        text=True,
    )
    print(done.stdout[-20_000:], done.stderr[-4000:])
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_tests_run_on_the_database_that_they_were_given(db):
    wanted = "postgresql" if os.environ.get("DATABASE_URL", "").startswith("postgres") else "sqlite"
    assert connection.vendor == wanted
