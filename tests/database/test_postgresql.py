"""Every test that uses the database once more, on PostgreSQL, in a test run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from tests.server import ROOT

HERE = Path(__file__).parent
# It plays a clock of its own over thousands of steps: the database is not what it is about.
SIMULATION = ROOT / "tests" / "chaos" / "test_simulation.py"


@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(os.environ.get("DATABASE_URL")), reason="this run is about the database in DATABASE_URL")
def test_all_that_uses_the_database_works_on_postgresql(postgres_url, database_files):
    # To look through all files for such tests again takes longer than to name them. Asked for alone, it runs them all.
    is_alone = all(file.is_relative_to(HERE) for file in database_files)
    files = ["tests"] if is_alone else sorted(str(file) for file in database_files if file != SIMULATION)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "database and not browser", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--color=no", "--tb=short", "--create-db", f"--ignore={SIMULATION}", *files],
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
