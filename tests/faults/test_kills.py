"""kill -9 of the server under load loses no record and counts none twice."""

import os

import pytest

from tests.faults import storm
from tests.server import Server


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "server") as server:
        yield server


@pytest.mark.timeout(180)
def test_kills_under_load_lose_nothing(server, upstream):
    key = storm.prepare(server, upstream)
    report = storm.run(server, upstream, key, total=300, at_once=50, kills=6, seed=7)
    print(report)
    assert report.problems == []
    assert report.kills == 6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("COMPTOIR_SLOW_TESTS"), reason="takes minutes: COMPTOIR_SLOW_TESTS=1")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_kills_under_two_thousand_requests_lose_nothing(server, upstream, seed):
    key = storm.prepare(server, upstream)
    report = storm.run(server, upstream, key, total=2000, at_once=50, kills=30, seed=seed)
    print(report)
    assert report.problems == []
    assert report.kills == 30
