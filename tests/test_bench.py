"""``./comptoir bench`` measures something and counts every answer; whether it is fast is not asked here."""

import re
import subprocess
import sys

import pytest

from tests.server import ROOT


@pytest.mark.timeout(180)
def test_the_benchmark_prints_its_table_and_counts_every_answer():
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--seconds", "0.3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert "CPU a request" in done.stdout, done.stderr
    assert "requests failed" not in done.stdout
    rows, answers = re.search(r"Counted: ([\d,]+) rows for ([\d,]+) answers", done.stdout).groups()
    assert rows == answers != "0"
