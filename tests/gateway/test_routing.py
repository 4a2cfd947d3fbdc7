"""What a failure means for the next attempt, and who is asked first."""

import asyncio
import datetime
import random
import time
from types import SimpleNamespace

import pytest

from gateway.errors import GatewayError
from gateway.health import Health
from gateway.routing import FREE_RETRIES, RETRY_SHARE, Router
from gateway.snapshot import Snapshot
from providers.errors import Broken, OwnAccount, Rejected, StreamError, TimedOut, Unreachable
from providers.formats import chat_completions, embeddings, responses
from providers.targets import Route, Target

pytestmark = pytest.mark.anyio
DOWN = Unreachable("It does not listen.")
LATE = TimedOut("Late.", timeout="first_byte")


def target(number, provider=None, **fields):
    values = {
        "public_name": f"model-{number}",
        "upstream_name": f"model-{number}",
        "provider_model_id": number,
        "provider_id": provider or number,
        "provider_name": f"Provider {provider or number}",
        "dialect": "openai",
        "base_url": "https://example.org/v1",
        "private_allowed": False,
        "headers": {},
        "is_usable": True,
        "created": 0,
        "context_window": None,
        "max_output_tokens": None,
        "endpoints": {"chat_completions": "chat/completions"},
    }
    return Target(**values | fields)


class Call:
    """As much of a call as routes look at; it came in ``age`` seconds ago."""

    def __init__(self, format=chat_completions, age=0.0):
        self.format, self.model = format, "fast"
        self.caller = SimpleNamespace(organization_id=1)
        self.began = time.perf_counter() - age

    def elapsed(self):
        return time.perf_counter() - self.began


def router_for(*targets, weights=(), **options):
    keeper = SimpleNamespace(current=Snapshot(1, {}, {1: {"fast": Route("fast", targets, weights)}}))
    told = []
    alerts = SimpleNamespace(failed=lambda *each: told.append(each), succeeded=lambda *each: told.append(each))
    return Router(keeper, Health(), alerts, **options)


async def asked(router, *errors, call=None):
    """The providers that one call asks, where its attempts fail with ``errors`` in turn."""
    plan = await router.plan(call or Call())
    seen = [plan.target.provider_model_id]
    for error in errors:
        plan.failed(error)
        if not await plan.goes_on(error):
            return seen
        seen.append(plan.target.provider_model_id)
    router.succeeded(plan)
    return seen


def rejected(status, retry_after=None):
    return Rejected("No.", status=status, retry_after=retry_after)


ELSEWHERE = [
    *(rejected(status) for status in (404, 408, 409, 429, 500, 502, 503, 529)),
    *(OwnAccount("No.", status=status) for status in (401, 402, 403, 429)),
    *(DOWN, LATE, Broken("Cut."), StreamError("Overloaded.")),
]


@pytest.mark.parametrize("error", ELSEWHERE, ids=lambda error: f"{type(error).__name__} {getattr(error, 'status', '')}")
async def test_what_is_not_the_callers_fault_goes_to_the_next_target_once(error):
    assert await asked(router_for(target(1), target(2)), error, error, error) == [1, 2]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_what_the_caller_got_wrong_is_told_at_once(status):
    assert await asked(router_for(target(1), target(2)), rejected(status)) == [1]


@pytest.mark.parametrize("error", [rejected(500), rejected(503), rejected(429, 0), DOWN], ids=repr)
async def test_who_is_alone_is_asked_once_more_for_what_may_pass(error):
    assert await asked(router_for(target(1)), error, error, error) == [1, 1]


@pytest.mark.parametrize(
    "error",
    [
        *(LATE, Unreachable("Late.", timeout="connect"), rejected(429), rejected(404), OwnAccount("No.", status=401)),
        *(rejected(503, 6), rejected(429, 3600), Broken("Cut.")),
    ],
    ids=repr,
)
async def test_who_is_alone_is_not_asked_again_for_what_will_not_pass_or_may_have_been_done(error):
    assert await asked(router_for(target(1)), error) == [1]


async def test_the_wait_that_a_provider_asks_for_is_kept():
    began = time.monotonic()
    assert await asked(router_for(target(1)), rejected(429, 1)) == [1, 1]
    assert 1 <= time.monotonic() - began < 2


async def test_nobody_waits_where_another_target_is_left():
    began = time.monotonic()
    assert await asked(router_for(target(1), target(2)), rejected(429, 3600)) == [1, 2]
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize(
    "error", [LATE, OwnAccount("Wrong key.", status=401), OwnAccount("No quota.", status=429)], ids=repr
)
async def test_other_models_of_a_provider_that_ran_out_of_time_or_refuses_the_account_are_passed_over(error):
    assert await asked(router_for(target(1, 7), target(2, 7), target(3)), error) == [1, 3]
    assert await asked(router_for(target(1, 7), target(2, 7)), error) == [1]


async def test_another_model_of_a_provider_that_forbids_one_is_asked():
    assert await asked(router_for(target(1, 7), target(2, 7)), OwnAccount("Not this one.", status=403)) == [1, 2]


async def test_nothing_begins_after_the_deadline():
    late = Call(age=601)
    assert await asked(router_for(target(1), target(2)), rejected(500), call=late) == [1]
    assert await asked(router_for(target(1)), rejected(429, 5), call=Call(age=597)) == [1]


async def test_a_later_attempt_ends_with_the_deadline():
    plan = await router_for(target(1), target(2), deadline=0.2).plan(Call())
    assert await plan.goes_on(rejected(500))
    began = time.monotonic()
    with pytest.raises(TimedOut):
        await plan.in_time(asyncio.sleep(5))
    assert time.monotonic() - began < 1


async def test_in_a_total_outage_hardly_more_is_asked_than_there_are_requests():
    router = router_for(target(1), target(2))
    total = 0
    for _ in range(1000):
        total += len(await asked(router, rejected(500), rejected(500), rejected(500)))
    assert total <= 1000 * (1 + RETRY_SHARE) + FREE_RETRIES


async def test_after_an_outage_of_one_the_other_answers_without_being_the_second(monkeypatch):
    router = router_for(target(1), target(2))
    for _ in range(3):
        assert await asked(router, DOWN) == [1, 2]
    for _ in range(50):
        assert await asked(router) == [2]


async def test_a_share_is_what_its_weight_says():
    random.seed(20261120)
    router = router_for(target(1), target(2), target(3), weights=(7, 2, 1))
    firsts = [(await asked(router))[0] for _ in range(3000)]
    assert abs(firsts.count(1) / 3000 - 0.7) < 0.04
    assert abs(firsts.count(2) / 3000 - 0.2) < 0.04
    assert abs(firsts.count(3) / 3000 - 0.1) < 0.04


async def test_a_weight_of_nothing_is_asked_only_where_the_others_fail():
    router = router_for(target(1), target(2), weights=(0, 1))
    assert {tuple(await asked(router)) for _ in range(50)} == {(2,)}
    assert await asked(router, rejected(500)) == [2, 1]


async def test_who_has_no_credential_or_does_something_else_is_passed_over():
    vectors = target(3, endpoints={"embeddings": "embeddings"}, capabilities=("embeddings",))
    router = router_for(target(1, is_usable=False), vectors, target(2))
    assert await asked(router) == [2]
    assert await asked(router, call=Call(embeddings)) == [3]
    with pytest.raises(GatewayError) as refused:
        await router_for(target(1, is_usable=False)).plan(Call())
    assert refused.value.status == 503
    with pytest.raises(GatewayError) as refused:
        await router_for(vectors).plan(Call())
    assert refused.value.status == 400


async def test_a_provider_that_lacks_an_endpoint_is_asked_in_its_main_format_and_remembered():
    both = {"chat_completions": "chat/completions", "responses": "responses"}
    router = router_for(target(1, endpoints=both))
    plan = await router.plan(Call(responses))
    assert plan.format_name == "responses"
    assert await plan.goes_on(rejected(404))
    assert plan.format_name == "chat_completions"
    router.succeeded(plan)
    assert (await router.plan(Call(responses))).format_name == "chat_completions"


async def test_a_format_that_a_provider_seemed_to_lack_is_tried_again_as_soon_as_it_is_renewed():
    both = {"chat_completions": "chat/completions", "responses": "responses"}
    router = router_for(target(1, endpoints=both))
    assert await asked(router, rejected(404), call=Call(responses)) == [1, 1]
    renewed = target(1, endpoints=both, renewed_at=datetime.datetime.now(datetime.UTC))
    router.keeper.current = Snapshot(2, {}, {1: {"fast": Route("fast", (renewed,))}})
    assert (await router.plan(Call(responses))).format_name == "responses"


@pytest.mark.parametrize("said", [{"param": "model"}, {"code": "model_not_found"}, {"code": "vector_store_not_found"}])
async def test_a_provider_that_names_what_it_did_not_find_knows_the_endpoint(said):
    both = {"chat_completions": "chat/completions", "responses": "responses"}
    plan = await router_for(target(1, endpoints=both)).plan(Call(responses))
    assert not await plan.goes_on(Rejected("Not found.", status=404, **said))
    assert plan.format_name == "responses"


async def test_a_format_that_a_provider_seemed_to_lack_is_tried_again_after_a_while(monkeypatch):
    monkeypatch.setattr("gateway.routing.LACKING_SECONDS", 0.05)
    router = router_for(target(1, endpoints={"chat_completions": "chat/completions", "responses": "responses"}))
    assert await asked(router, rejected(404), call=Call(responses)) == [1, 1]

    # However many succeed in the other format meanwhile.
    until = time.monotonic() + 1
    while (await router.plan(Call(responses))).format_name == "chat_completions":
        assert time.monotonic() < until
        assert await asked(router, call=Call(responses)) == [1]
        await asyncio.sleep(0.01)
    assert (await router.plan(Call())).format_name == "chat_completions"


async def test_a_trial_is_taken_by_who_asks_and_not_by_who_could_have():
    router = router_for(target(1), target(2))
    second = target(2)
    for _ in range(3):
        router.health.failed(second, DOWN)
    rest = next(iter(router.health._rests.values()))
    rest.until = time.monotonic() - 1
    # Nobody needed the second one, so nobody tried it; now somebody does.
    for _ in range(5):
        assert await asked(router) == [1]
    assert not rest.on_trial
    plan = await router.plan(Call())
    plan.failed(DOWN)
    assert await plan.goes_on(DOWN)
    assert rest.on_trial
