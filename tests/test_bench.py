"""``./comptoir bench`` measures something and counts every answer; whether it is fast is not asked here."""

import datetime
import re
import subprocess
import sys

import pytest

from bench.chaos import page
from bench.chaos.results import Result
from tests.server import ROOT


@pytest.mark.timeout(180)
def test_the_benchmark_prints_its_table_and_counts_every_answer():
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--seconds", "0.3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert "CPU a request" in done.stdout, done.stderr
    assert "requests failed" not in done.stdout
    rows, answers = re.search(r"Counted: ([\d,]+) rows for ([\d,]+) answers", done.stdout).groups()
    assert rows == answers != "0"


def test_the_page_keeps_what_was_not_played_again(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "PAGE", tmp_path / "reliability.md")
    day = datetime.date(2026, 1, 2)

    def write(title, value, **problems):
        result = Result(title, f"What is played in {title.lower()}", 61.4, [1, 2, 3], **problems)
        result.figure("Nanos over", value, "0")
        page.write([result], "2 cores", day, ["chaos", "--only", title])

    write("Rate limits", 1)
    write("Overshoot", 2)
    write("Rate limits", 3, problems=["one thing"])
    text = page.PAGE.read_text()
    sections = text.split("\n## ")
    assert [section.partition("\n")[0] for section in sections[1:]] == ["Overshoot", "Rate limits"]
    assert "| Nanos over | 2 | 0 |" in sections[1] and "did not hold" not in sections[1]
    assert "| Nanos over | 3 | 0 |" in sections[2] and "- one thing" in sections[2]
    assert "Measured on 2026-01-02 in 61 s; seeds 1 to 3; 2 cores; `./comptoir bench chaos --only Overshoot`." in text
    assert text.startswith(page.INTRODUCTION) and "| 1 |" not in text
