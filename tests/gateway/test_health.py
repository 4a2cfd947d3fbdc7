"""Who rests after failing, for how long, and who is asked meanwhile."""

from types import SimpleNamespace

import pytest

from gateway.health import Health
from providers.errors import Broken, OwnAccount, Rejected, TimedOut, Unreachable


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock)


def target(model, provider=None, renewed_at=0):
    return SimpleNamespace(provider_model_id=model, provider_id=provider or model, renewed_at=renewed_at)


FIRST, SECOND = target(1), target(2)
BOTH = [FIRST, SECOND]
DOWN = Unreachable("It does not listen.")


def rejected(status, retry_after=None):
    return Rejected("No.", status=status, retry_after=retry_after)


def fail(health, target, times=3, error=DOWN):
    for _ in range(times):
        health.failed(target, error)


def test_a_target_that_fails_time_and_again_stands_behind_the_others(health):
    fail(health, FIRST, times=2)
    assert health.ordered(BOTH) == BOTH
    fail(health, FIRST, times=1)
    assert health.ordered(BOTH) == [SECOND, FIRST]


def test_nobody_is_refused_where_all_rest(health):
    fail(health, FIRST)
    fail(health, SECOND)
    assert health.ordered(BOTH) == BOTH


@pytest.mark.parametrize(
    "error", [DOWN, TimedOut("Late.", timeout="first_byte"), Broken("Cut."), rejected(500)], ids=repr
)
def test_every_failure_of_a_provider_counts(health, error):
    fail(health, FIRST, error=error)
    assert health.ordered(BOTH) == [SECOND, FIRST]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_callers_mistake_says_that_the_provider_is_well(health, status):
    fail(health, FIRST, times=9, error=rejected(status))
    assert health.ordered(BOTH) == BOTH
    fail(health, FIRST)
    health.failed(FIRST, rejected(status))
    assert health.ordered(BOTH) == BOTH


def test_a_success_between_failures_forgets_them(health):
    fail(health, FIRST, times=2)
    health.succeeded(FIRST)
    fail(health, FIRST, times=2)
    assert health.ordered(BOTH) == BOTH


def test_a_refused_account_and_a_dead_server_are_its_providers_and_an_error_of_a_model_is_its_own(health):
    sibling = target(3, provider=1)
    fail(health, FIRST, error=rejected(500))
    assert health.ordered([sibling, SECOND]) == [sibling, SECOND]
    health.failed(FIRST, OwnAccount("Wrong key.", status=401))
    assert health.ordered([sibling, SECOND]) == [SECOND, sibling]


def test_one_request_tries_a_target_whose_rest_is_over_and_the_others_wait_for_it(health, clock):
    fail(health, FIRST)
    clock.now += Health.SHORTEST
    assert health.ordered(BOTH) == BOTH
    # Looking is no trial.
    assert health.ordered(BOTH) == BOTH
    health.asked(FIRST)
    assert health.ordered(BOTH) == [SECOND, FIRST]
    health.succeeded(FIRST)
    assert health.ordered(BOTH) == BOTH


def test_each_trial_that_fails_makes_the_next_rest_twice_as_long_up_to_a_limit(health, clock):
    fail(health, FIRST)
    for seconds in (5, 10, 20, 40, 80, 120, 120):
        clock.now += seconds - 0.1
        assert health.ordered(BOTH) == [SECOND, FIRST]
        clock.now += 0.2
        assert health.ordered(BOTH) == BOTH
        health.asked(FIRST)
        health.failed(FIRST, DOWN)


def test_failures_during_a_rest_do_not_make_it_longer(health, clock):
    fail(health, FIRST, times=50)
    clock.now += Health.SHORTEST
    assert health.ordered(BOTH) == BOTH


def test_a_trial_that_never_ends_is_followed_by_another(health, clock):
    fail(health, FIRST)
    clock.now += Health.SHORTEST
    health.asked(FIRST)
    clock.now += Health.SHORTEST
    assert health.ordered(BOTH) == BOTH


@pytest.mark.parametrize("seconds", [1, 30, 3600])
def test_a_provider_that_says_how_long_is_left_alone_so_long(health, clock, seconds):
    health.failed(FIRST, rejected(429, retry_after=seconds))
    clock.now += seconds - 0.1
    assert health.ordered(BOTH) == [SECOND, FIRST]
    clock.now += 0.2
    assert health.ordered(BOTH) == BOTH


def test_a_provider_that_says_to_come_back_at_once_does_not_rest(health):
    health.failed(FIRST, rejected(503, retry_after=0))
    assert health.ordered(BOTH) == BOTH


@pytest.mark.parametrize("error", [rejected(429, 3600), OwnAccount("Wrong key.", status=401), DOWN], ids=repr)
def test_a_renewed_provider_is_asked_first_again_and_rests_for_what_it_does_from_then_on(health, error):
    fail(health, FIRST, error=error)
    renewed = target(1, renewed_at=1)
    assert health.ordered([renewed, SECOND]) == [renewed, SECOND]
    # Requests that were on their way with the old credential say nothing of the new one.
    fail(health, FIRST, error=error)
    assert health.ordered([renewed, SECOND]) == [renewed, SECOND]
    fail(health, renewed, error=error)
    assert health.ordered([renewed, SECOND]) == [SECOND, renewed]


def test_what_nobody_has_asked_for_a_day_is_forgotten(health, clock):
    for number in range(100):
        fail(health, target(1, renewed_at=number), times=1)
    health.failed(FIRST, rejected(429, retry_after=3 * 86_400))
    clock.now += Health.REMEMBERED + 1
    health.failed(SECOND, DOWN)
    # Who asked to be left alone for longer still is.
    assert len(health._rests) == 2
    assert health.ordered(BOTH) == [SECOND, FIRST]
