"""kill -9 of the server under load loses no record and counts none twice."""

import pytest

from tests.faults import storm


def weather(server, upstream, **size):
    """Raise a storm and insist that nothing was lost in it."""
    report = storm.run(server, upstream, storm.prepare(server, upstream), at_once=50, **size)
    print(report)
    assert report.problems == []
    assert report.kills == size["kills"]


@pytest.mark.timeout(180)
def test_kills_under_load_lose_nothing(server, upstream):
    weather(server, upstream, total=300, kills=6, seed=7)


@pytest.mark.timeout(180)
def test_kills_of_two_processes_on_postgresql_lose_nothing(postgres_server, upstream):
    weather(postgres_server, upstream, total=150, kills=3, seed=8)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_kills_under_two_thousand_requests_lose_nothing(server, upstream, seed):
    weather(server, upstream, total=2000, kills=30, seed=seed)
