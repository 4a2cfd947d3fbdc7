"""
What ``./comptoir bench chaos`` plays at full length, in short: limits hold, and nothing is lost, whatever goes wrong.

One world serves them all; kills ends it and comes last.
"""

import pytest

from bench.chaos import cuts, disk, kills, outage, overshoot, rates, restarts, revocations


def insist(result):
    """Print what it came to, and fail where something did not hold."""
    print(result)
    assert result.problems == []


@pytest.mark.timeout(180)
def test_endless_demand_passes_no_limit_and_uses_all_of_it(world):
    insist(overshoot.run(world, seeds=[1], clients=24, pace=0.05, scale=0.25))


@pytest.mark.timeout(120)
def test_a_database_that_is_away_fails_no_request(world):
    insist(outage.run(world, seed=1, seconds=3, rate=20, kinds=["black_holed"]))


@pytest.mark.timeout(120)
def test_cut_streams_are_counted_as_they_were_billed(world):
    insist(cuts.run(world, seed=1, streams=40, clients=20))


@pytest.mark.timeout(120)
def test_rates_hold_and_nobody_fails_while_valkey_forgets_and_is_away(world):
    insist(rates.run(world, seed=1, seconds=3, limit=120, every=0.4, clients=6, polite=False))


@pytest.mark.timeout(120)
def test_a_revoked_key_is_refused_by_every_process_for_good(world):
    result = revocations.run(world, seed=1, keys=20, live=20, clients=2)
    print(result)
    # Whether it is fast is not asked where others use the machine.
    assert [problem for problem in result.problems if "at most 1 s" not in problem] == []


@pytest.mark.timeout(180)
def test_kills_lose_nothing_and_all_books_agree(world):
    insist(kills.run(world, seed=1, requests=200, kills=2, clients=16))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_replacing_all_processes_fails_nobody():
    from bench.chaos.world import World

    with World(workers=2) as world:
        insist(restarts.run(world, seed=1, restarts=2))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not disk.is_possible(), reason="no file system can be mounted here")
def test_a_full_disk_refuses_what_it_could_not_record():
    insist(disk.run(seed=1))


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_many_seeds_of_overshoot():
    from bench.chaos.world import World

    with World(workers=4) as world:
        insist(overshoot.run(world, seeds=range(1, 6), clients=256, pace=0.5))


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_many_kills():
    from bench.chaos.world import World

    with World(workers=4, worker=True) as world:
        insist(kills.run(world, seed=2, requests=20_000, kills=40))
