"""The limiter of a process: which limits hold, what a refusal and the headers say, and what is put right afterwards."""

import asyncio
import datetime
import itertools
import time
from types import SimpleNamespace

import msgspec
import pytest

from gateway import rates, shared_rates
from gateway.calls import Call, Caller
from gateway.errors import GatewayError
from gateway.rates import RateLimiter, duration
from providers.dialects import anthropic, openai
from providers.formats import chat_completions, messages
from providers.tokens import TokenUsage
from tests.valkey import Valkey
from usage.rate_limits import Rule

ORGANIZATION, WORKSPACE, KEY, USER = 1, 2, 3, 4
numbers = itertools.count()


@pytest.fixture(autouse=True)
def stopped_clock(request, monkeypatch):
    """Nothing fills up while a test of one limiter goes on, however busy the machine is; a fleet has real time."""
    if not request.node.get_closest_marker("anyio"):
        now = time.monotonic()
        monkeypatch.setattr(rates, "time", SimpleNamespace(**vars(time) | {"monotonic": lambda: now}))


def rule(scope="organization", scope_id=None, *, patterns=(), label="", **figures):
    ids = {"organization": ORGANIZATION, "workspace": WORKSPACE, "api_key": KEY}
    known = {"requests": None, "input_tokens": None, "output_tokens": None, "concurrent": None}
    return Rule(f"rule{next(numbers)}", scope, scope_id or ids[scope], patterns, label, **known | figures)


def keeper_of(*rules):
    found = {}
    for one in rules:
        found.setdefault((one.scope, one.scope_id), []).append(one)
    return SimpleNamespace(current=SimpleNamespace(rates={scope: tuple(of) for scope, of in found.items()}))


def limiter_of(*rules, processes=1):
    return RateLimiter(keeper_of(*rules), "one", least_processes=processes)


def call(model="m", *, key=KEY, format=chat_completions, prompt=b'[{"role":"user","content":"hi"}]', **fields):
    caller = Caller(ORGANIZATION, "org_1", WORKSPACE, "wrkspc_1", key, USER, "api")
    fields = {"messages": msgspec.Raw(prompt)} | {name: msgspec.Raw(raw) for name, raw in fields.items()}
    return Call(format=format, caller=caller, fields=fields, model=model)


def admit(limiter, one=None, *, size=10, most=None):
    one = one or call()
    return limiter.admit_now(one, limiter.limits_of(one), size, most)


def refused(limiter, one=None, *, size=10, most=None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        admit(limiter, one, size=size, most=most)
    error = caught.value
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    return error


def header(error, name):
    return dict(error.headers).get(name)


def remaining(ticket):
    return {name.decode(): value.decode() for name, value in ticket.headers(openai)}


# Which limits ------------------------------------------------------------------------------------------------------


def test_nothing_is_done_where_nothing_limits():
    assert limiter_of().limits_of(call()) is None
    assert limiter_of(rule("api_key", 99, requests=1)).limits_of(call()) is None
    assert limiter_of(rule(patterns=("gpt-*",), requests=1)).limits_of(call("claude")) is None


def test_a_limit_of_every_scope_holds():
    for scope in ("organization", "workspace", "api_key"):
        limiter = limiter_of(rule(scope, requests=2), rule(requests=100))
        admit(limiter), admit(limiter)
        assert refused(limiter).values["scope"] == {"api_key": "API key"}.get(scope, scope)


def test_keys_of_an_organization_share_its_limit_and_have_their_own():
    limiter = limiter_of(rule(requests=3), rule("api_key", requests=2))
    admit(limiter), admit(limiter)
    assert refused(limiter).values["allowed"] == 2
    # What its own limit refuses takes nothing of the organization's, but a place in both is kept for it.
    assert limiter.limits_of(call(key=9)).quotas[0].level == pytest.approx(1, abs=0.01)


def test_a_model_is_limited_by_its_own_name_behind_an_alias():
    limiter = limiter_of(rule(patterns=("gpt-5",), label="gpt-5", requests=1))
    alias = call("fast")
    alias.plan = SimpleNamespace(targets=[SimpleNamespace(public_name="gpt-5")])
    admit(limiter, alias)
    assert refused(limiter, call("gpt-5")).values["models"] == "gpt-5"
    assert limiter.limits_of(call("other")) is None


def test_models_of_a_group_share_its_limit():
    limiter = limiter_of(rule(patterns=("opus-*", "haiku"), label="big and small", requests=2))
    admit(limiter, call("opus-4")), admit(limiter, call("haiku"))
    assert refused(limiter, call("opus-5")).values["models"] == "big and small"


def test_the_playground_is_limited_by_workspace_and_organization():
    limiter = limiter_of(rule("workspace", requests=1))
    admit(limiter, call(key=None))
    refused(limiter, call(key=None))


def test_a_limit_that_is_changed_keeps_what_was_used():
    one = rule(requests=3)
    limiter = limiter_of(one)
    admit(limiter), admit(limiter)
    limiter.keeper = keeper_of(one._replace(requests=1))
    assert refused(limiter).values["allowed"] == 1
    limiter.keeper = keeper_of()
    assert limiter.limits_of(call()) is None


# What a refusal says ------------------------------------------------------------------------------------------------


def test_a_refusal_names_limit_scope_and_wait_in_the_reader_s_language():
    limiter = limiter_of(rule("workspace", requests=1, name="one"))
    admit(limiter)
    error = refused(limiter)
    assert error.message == (
        "Rate limit of requests a minute reached (workspace “one”): at most 1 for every model. Try again in 60 s."
    )
    assert header(error, b"retry-after") == b"60"
    assert header(error, b"x-ratelimit-remaining-requests") == b"0"
    assert header(error, b"x-should-retry") is None
    assert error.openai_type == "requests"
    for language in ("fr", "es"):
        spoken = error.speak(language).message
        assert "60" in spoken
        assert "one" in spoken
        assert "Rate limit" not in spoken


def test_a_refusal_quotes_the_models_of_the_limit():
    limiter = limiter_of(rule("api_key", requests=1, name="ci", patterns=("m",), label="m"))
    admit(limiter)
    error = refused(limiter)
    assert "(API key “ci”): at most 1 for “m”." in error.message
    assert "pour «\u202fm\u202f»." in error.speak("fr").message


def test_each_kind_says_what_it_counts():
    for figures, size, kind, word in (
        (
            {"input_tokens": 15},
            10,
            "tokens",
            "input tokens a minute reached (organization “”): at most 15 for",
        ),
        (
            {"output_tokens": 300},
            10,
            "tokens",
            "output tokens a minute reached (organization “”): at most 300 for",
        ),
        ({"concurrent": 1}, 10, "requests", "requests at the same time reached (organization “”): at most 1 for"),
    ):
        limiter = limiter_of(rule(**figures))
        admit(limiter, size=size)
        error = refused(limiter, size=size)
        assert word in error.message
        assert error.openai_type == kind
        assert int(header(error, b"retry-after")) >= 1


def test_who_waits_as_told_succeeds(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    limiter = limiter_of(rule(requests=7, input_tokens=1000))
    for _ in range(7):
        admit(limiter)
    for _ in range(20):
        wait = int(header(refused(limiter), b"retry-after"))
        now[0] += wait
        admit(limiter).settle(TokenUsage(input_tokens=10, output_tokens=1))


def test_what_waiting_cannot_cure_is_not_to_be_tried_again():
    for limiter, size in (
        (limiter_of(rule(requests=0)), 10),
        (limiter_of(rule(concurrent=0)), 10),
        (limiter_of(rule(input_tokens=100)), 101),
    ):
        error = refused(limiter, size=size)
        assert header(error, b"x-should-retry") == b"false"
        assert header(error, b"retry-after") is None
        assert "Try again" not in error.message
    assert "about 101 input tokens" in error.message


def test_what_cannot_be_told_from_its_bytes_takes_at_most_all():
    limiter = limiter_of(rule(input_tokens=100))
    picture = call(
        prompt=b'[{"role":"user","content":[{"type":"image_url","image_url":"data:image/png;base64,AAAA"}]}]'
    )
    admit(limiter, picture, size=5000).settle(TokenUsage(input_tokens=40, output_tokens=1))
    assert limiter.limits_of(call()).quotas[0].level == pytest.approx(60, abs=2)


# Tokens -------------------------------------------------------------------------------------------------------------


def test_tokens_are_put_right_when_the_request_ends_and_cached_ones_are_free():
    limiter = limiter_of(rule(input_tokens=10_000, output_tokens=1000))
    ticket = admit(limiter, size=500)
    usage = TokenUsage(input_tokens=100, cache_read_tokens=5000, cache_write_tokens=20, output_tokens=30)
    ticket.settle(usage)
    ticket.settle(usage)
    quotas = limiter.limits_of(call()).quotas
    assert [quota.level for quota in quotas] == [pytest.approx(9880, abs=60), pytest.approx(970, abs=20)]


def test_a_request_that_used_nothing_gives_its_tokens_back_and_one_that_never_began_everything():
    limiter = limiter_of(rule(requests=10, input_tokens=1000, concurrent=5))
    admit(limiter).settle()
    admit(limiter).settle(None)
    quotas = limiter.limits_of(call()).quotas
    assert [quota.level for quota in quotas] == [pytest.approx(8, abs=0.01), pytest.approx(1000, abs=5)]
    ticket = admit(limiter)
    ticket.withdraw()
    ticket.settle(TokenUsage(input_tokens=10))
    assert quotas[0].level == pytest.approx(8, abs=0.01)
    assert limiter.limits_of(call()).gauges[0].held == 0


def test_more_than_was_foreseen_counts_from_when_it_is_known(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(rates, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    limiter = limiter_of(rule(input_tokens=1000))
    ticket = admit(limiter, size=1000)
    now[0] += 600
    ticket.settle(TokenUsage(input_tokens=1500, output_tokens=1))
    # A full one would let through, with these, more within a minute than the limit and a burst.
    admit(limiter, size=500)
    refused(limiter, size=1)


def test_more_than_was_foreseen_is_paid_back_by_waiting():
    limiter = limiter_of(rule(output_tokens=600))
    admit(limiter).settle(TokenUsage(input_tokens=1, output_tokens=1500))
    assert int(header(refused(limiter), b"retry-after")) == pytest.approx((900 + 600) / 10, abs=2)


def test_what_is_set_aside_for_an_answer_is_learned_and_never_above_what_it_may_have():
    limiter = limiter_of(rule(output_tokens=10_000))
    quota = limiter.limits_of(call()).quotas[0]

    def taken(**most):
        before = quota.level
        ticket = admit(limiter, **most)
        amount = before - quota.level
        return ticket, amount

    ticket, amount = taken()
    assert amount == pytest.approx(rates.FIRST_OUTPUT, abs=30)
    ticket.settle(TokenUsage(input_tokens=1, output_tokens=900))
    ticket, amount = taken()
    assert amount == pytest.approx(900, abs=30)
    ticket.settle(TokenUsage(input_tokens=1, output_tokens=100))
    assert taken()[1] == pytest.approx(820, abs=30)
    assert taken(most=50)[1] == pytest.approx(50, abs=30)


def test_how_long_an_answer_may_get_is_read_from_the_request():
    limiter = limiter_of(rule(input_tokens=10, output_tokens=10))
    limits = limiter.limits_of(call())
    prompt = len(b'[{"role":"user","content":"hi"}]') // 4
    assert rates.estimates(call(max_tokens=b"7"), limits) == (prompt, 7)
    assert rates.estimates(call(max_completion_tokens=b"9", max_tokens=b"7"), limits) == (prompt, 9)
    assert rates.estimates(call(max_tokens=b'"x"'), limits) == (prompt, None)
    assert rates.estimates(call(), limits) == (prompt, None)
    limiter = limiter_of(rule(requests=10))
    assert rates.estimates(call(), limiter.limits_of(call())) == (None, None)


# At the same time -----------------------------------------------------------------------------------------------------


def test_requests_at_the_same_time_end_once():
    limiter = limiter_of(rule(concurrent=2), rule("api_key", concurrent=1))
    ticket = admit(limiter)
    assert refused(limiter).values["scope"] == "API key"
    ticket.settle()
    ticket.settle()
    other = admit(limiter)
    refused(limiter)
    other.withdraw()
    other.withdraw()
    assert [gauge.held for gauge in limiter.limits_of(call()).gauges] == [0, 0]


def test_who_is_one_too_many_takes_no_request():
    limiter = limiter_of(rule(requests=10, concurrent=1))
    admit(limiter)
    refused(limiter)
    assert limiter.limits_of(call()).quotas[0].level == pytest.approx(9, abs=0.01)


# Headers --------------------------------------------------------------------------------------------------------------


def test_the_headers_of_one_dialect(monkeypatch):
    monkeypatch.setattr(rates.time, "time", lambda: 1_800_000_000.5)
    limiter = limiter_of(rule(requests=50, input_tokens=80_000, output_tokens=16_000))
    ticket = admit(limiter, call(format=messages), size=2600)
    told = {name.decode(): value.decode() for name, value in ticket.headers(anthropic)}
    assert told == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:02Z",
        "anthropic-ratelimit-tokens-limit": "96000",
        "anthropic-ratelimit-tokens-remaining": "93000",
        "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:03Z",
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "77000",
        "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:00:03Z",
        "anthropic-ratelimit-output-tokens-limit": "16000",
        "anthropic-ratelimit-output-tokens-remaining": "16000",
        "anthropic-ratelimit-output-tokens-reset": "2027-01-15T08:00:02Z",
    }
    for name in told:
        if name.endswith("reset"):
            assert datetime.datetime.fromisoformat(told[name]).tzinfo is not None


def test_the_headers_of_the_other():
    limiter = limiter_of(rule(requests=50, input_tokens=40_000))
    ticket = admit(limiter, size=22_000)
    told = remaining(ticket)
    assert told.pop("x-ratelimit-reset-tokens") == "33s"
    assert told.pop("x-ratelimit-reset-requests") == "1.2s"
    assert told == {
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "49",
        "x-ratelimit-limit-tokens": "40000",
        "x-ratelimit-remaining-tokens": "18000",
    }


def test_the_most_restrictive_limit_speaks():
    limiter = limiter_of(
        rule(requests=50, input_tokens=40_000, output_tokens=8000), rule("workspace", requests=90, input_tokens=30_000)
    )
    told = remaining(admit(limiter))
    assert told["x-ratelimit-limit-requests"] == "50"
    # Once a workspace narrows the tokens down, the sum of both kinds says nothing any more.
    assert told["x-ratelimit-limit-tokens"] == "30000"


def test_what_remains_is_never_below_zero_nor_above_the_limit():
    limiter = limiter_of(rule(requests=1, input_tokens=700, output_tokens=300))
    ticket = admit(limiter, call(format=messages), size=100)
    told = dict(ticket.headers(anthropic))
    assert told[b"anthropic-ratelimit-input-tokens-remaining"] == b"700"
    ticket.settle(TokenUsage(input_tokens=5000, output_tokens=5000))
    for dialect in (openai, anthropic):
        told = dict(ticket.headers(dialect))
        assert {value for name, value in told.items() if b"remaining" in name} == {b"0"}


def test_spans_are_written_as_the_dialect_does():
    spans = {
        0: "0ms",
        0.0121: "13ms",
        1: "1s",
        8.64: "8.64s",
        59.9: "59.9s",
        60: "1m0s",
        360: "6m0s",
        3725.5: "1h2m5.5s",
    }
    assert {seconds: duration(seconds) for seconds in spans} == spans


# Many processes -------------------------------------------------------------------------------------------------------


def test_without_redis_each_process_admits_its_share():
    limiters = [limiter_of(rule(requests=60, concurrent=8), processes=4) for _ in range(4)]
    admitted = 0
    for limiter in limiters:
        for _ in range(40):
            try:
                admit(limiter).settle()
                admitted += 1
            except GatewayError:
                pass
    assert admitted == 60
    assert limiters[0].limits_of(call()).gauges[0].share == 2


def test_headers_of_a_share_name_the_limit_as_it_is_set_and_what_this_process_still_lets_through():
    limiter = limiter_of(rule(requests=60, input_tokens=40_000), processes=4)
    told = remaining(admit(limiter, size=1000))
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-limit-tokens"]) == ("60", "40000")
    left = int(told["x-ratelimit-remaining-requests"])
    assert left == 14
    assert 9000 <= int(told["x-ratelimit-remaining-tokens"]) < 9100
    assert told["x-ratelimit-reset-requests"] in {"4s", "3.999s"}
    # Whoever goes by it is not refused.
    for _ in range(left):
        told = remaining(admit(limiter, size=1))
    assert told["x-ratelimit-remaining-requests"] == "0"
    assert header(refused(limiter, size=1), b"x-ratelimit-limit-requests") == b"60"


def test_a_limit_below_the_number_of_processes_lets_some_through():
    limiter = limiter_of(rule(requests=2), processes=4)
    quota = limiter.limits_of(call()).quotas[0]
    assert quota.capacity == 1
    assert int(header(refused(limiter), b"retry-after")) == 60


@pytest.fixture(scope="module")
def valkey():
    with Valkey() as valkey:
        yield valkey


class Fleet:
    """Limiters of several processes on one server; patient ones, where the machine may be busy with other tests."""

    def __init__(self, url, rules, count, *, patience=2.0):
        self.keeper = keeper_of(*rules)
        told = {"redis_url": url, "patience": patience}
        self.limiters = [RateLimiter(self.keeper, f"p{number}", **told) for number in range(count)]

    async def __aenter__(self):
        await asyncio.gather(*(limiter.start() for limiter in self.limiters))
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*(limiter.stop() for limiter in self.limiters))

    async def attempt(self, limiter, one=None, *, size=10):
        """The ticket, or the refusal."""
        one = one or call()
        try:
            return await limiter.admit(one, limiter.limits_of(one), size)
        except GatewayError as error:
            return error

    async def attempts(self, count, **options):
        asked = (self.attempt(self.limiters[number % len(self.limiters)], **options) for number in range(count))
        return await asyncio.gather(*asked)


def admitted(results):
    return [result for result in results if not isinstance(result, GatewayError)]


async def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_many_processes_admit_together_what_one_would(valkey):
    async with Fleet(valkey.url, [rule(requests=60, concurrent=1000)], 4) as fleet:
        assert all(limiter.is_shared for limiter in fleet.limiters)
        began = time.monotonic()
        results = await fleet.attempts(200)
        elapsed = time.monotonic() - began
        assert 60 <= len(admitted(results)) <= 60 + elapsed + 1
        waits = [int(header(error, b"retry-after")) for error in results if isinstance(error, GatewayError)]
        # One a second, of which some have passed for who asked last.
        for place, wait in enumerate(sorted(waits)[:100], 1):
            assert place - elapsed - 1 <= wait <= place + 1
        await until(lambda: fleet.limiters[0].processes == 4)


@pytest.mark.anyio
async def test_requests_at_the_same_time_are_limited_over_all_processes(valkey):
    async with Fleet(valkey.url, [rule(concurrent=5)], 3) as fleet:
        tickets = admitted(await fleet.attempts(30))
        assert len(tickets) == 5
        for ticket in tickets[:2]:
            ticket.settle()
            ticket.settle()
        again, end = [], time.monotonic() + 20
        while len(again) < 2 and time.monotonic() < end:
            await asyncio.sleep(0.1)
            again += admitted(await fleet.attempts(30))
        assert len(again) == 2
        assert admitted(await fleet.attempts(30)) == []


@pytest.mark.anyio
async def test_tokens_are_put_right_for_all_within_a_second(valkey):
    async with Fleet(valkey.url, [rule(input_tokens=1000)], 2) as fleet:
        first, second = fleet.limiters
        ticket = await fleet.attempt(first, size=900)
        assert isinstance(await fleet.attempt(second, size=200), GatewayError)
        ticket.settle(TokenUsage(input_tokens=100, output_tokens=1))
        await until(lambda: not ticket.limits.quotas[0].owed)
        await asyncio.sleep(0.1)
        assert not isinstance(await fleet.attempt(second, call(key=8), size=200), GatewayError)


@pytest.mark.anyio
async def test_who_leaves_while_the_server_is_asked_holds_nothing(valkey):
    async with Fleet(valkey.url, [rule(requests=5, concurrent=5)], 1) as fleet:
        limiter = fleet.limiters[0]
        asking = [asyncio.create_task(fleet.attempt(limiter)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.sleep(0.4)
        assert limiter.limits_of(call()).gauges[0].held == 0
        assert len(admitted(await fleet.attempts(6))) == 5


@pytest.mark.anyio
async def test_headers_tell_what_others_took_within_a_second(valkey):
    async with Fleet(valkey.url, [rule(requests=1000)], 2) as fleet:
        first, second = fleet.limiters
        began = time.monotonic()
        ticket = await fleet.attempt(first)
        for _ in range(200):
            await fleet.attempt(second)

        def is_told():
            filled = (time.monotonic() - began) * 1000 / 60
            return int(remaining(ticket)["x-ratelimit-remaining-requests"]) <= 1000 - 201 + filled + 1

        await until(is_told)


@pytest.mark.anyio
async def test_a_server_that_is_gone_fails_nobody_and_the_shares_hold():
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(requests=60, concurrent=1000)], 4, patience=10) as fleet:
            await until(lambda: all(limiter.processes == 4 for limiter in fleet.limiters))
            drained = time.monotonic()
            assert len(admitted(await fleet.attempts(40))) == 40
            # By then each has heard what all have taken.
            await asyncio.sleep(0.7)
            valkey.halt()
            began = time.monotonic()
            results = await fleet.attempts(200)
            assert time.monotonic() - began < 5
            # What was left, and what one who looks a moment later can still get.
            assert 8 <= len(admitted(results)) <= 21 + time.monotonic() - drained
            assert not any(limiter.is_shared for limiter in fleet.limiters)
            valkey.resume()
            await until(lambda: all(limiter.is_shared for limiter in fleet.limiters))
            assert len(admitted(await fleet.attempts(200))) <= 9 + time.monotonic() - began


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ill", "well"),
    [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")],
    ids=["full", "a replica"],
)
async def test_a_server_that_takes_nothing_fails_nobody(ill, well):
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(requests=60, concurrent=1000)], 2) as fleet:
            await until(lambda: all(limiter.shared.processes == 2 for limiter in fleet.limiters))
            assert len(admitted(await fleet.attempts(20))) == 20
            valkey.say(ill)
            assert 1 <= len(admitted(await fleet.attempts(100))) <= 60
            assert not any(limiter.is_shared for limiter in fleet.limiters)
            valkey.say(well)
            await until(lambda: all(limiter.is_shared for limiter in fleet.limiters))


@pytest.mark.anyio
async def test_a_limit_that_nobody_has_asked_for_yet_is_told_whole_where_it_is_shared(valkey):
    async with Fleet(valkey.url, [rule(requests=60, input_tokens=1000)], 4) as fleet:
        await until(lambda: all(limiter.processes == 4 for limiter in fleet.limiters))
        # Too large for ever: the server is not asked.
        refusal = await fleet.attempt(fleet.limiters[0], size=5000)
        assert header(refusal, b"x-ratelimit-remaining-requests") == b"60"
        assert header(refusal, b"x-ratelimit-remaining-tokens") == b"1000"
        assert header(refusal, b"x-ratelimit-reset-tokens") == b"0ms"


async def wait_as_told(fleet, refusal):
    """Wait as long as a refusal says, while others take whatever they can get."""
    until = time.monotonic() + int(header(refusal, b"retry-after"))
    while time.monotonic() < until:
        await fleet.attempt(fleet.limiters[0], call(key=8), size=1)
        await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_who_was_told_when_to_come_is_let_in_although_the_server_was_lost_meanwhile():
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(requests=60)], 1) as fleet:
            await fleet.attempts(60)
            refusal = await fleet.attempt(fleet.limiters[0])
            assert fleet.limiters[0].is_shared
            valkey.halt()
            await wait_as_told(fleet, refusal)
            assert not fleet.limiters[0].is_shared
            assert not isinstance(await fleet.attempt(fleet.limiters[0]), GatewayError)


@pytest.mark.anyio
async def test_who_was_told_when_to_come_without_the_server_is_let_in_with_it():
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(input_tokens=60)], 1, patience=0.1) as fleet:
            await fleet.attempts(60, size=1)
            valkey.freeze()
            await until(lambda: not fleet.limiters[0].is_shared)
            refusal = await fleet.attempt(fleet.limiters[0], size=1)
            valkey.thaw()
            await wait_as_told(fleet, refusal)
            await until(lambda: fleet.limiters[0].is_shared)
            assert not isinstance(await fleet.attempt(fleet.limiters[0], size=1), GatewayError)


class Link:
    """What is between a process and the server: cut, or replies that are as late as ``delay`` says."""

    def __init__(self, monkeypatch):
        self.is_cut, self.delay = False, 0.0
        send = shared_rates.SharedRates._send

        async def sent(shared, command):
            if self.is_cut:
                raise OSError("cut")
            reply = await send(shared, command)
            await asyncio.sleep(self.delay)
            return reply

        monkeypatch.setattr(shared_rates.SharedRates, "_send", sent)


@pytest.mark.anyio
async def test_who_was_told_when_to_come_while_the_server_comes_back_is_let_in(valkey, monkeypatch):
    link = Link(monkeypatch)
    async with Fleet(valkey.url, [rule(requests=60)], 1, patience=0.5) as fleet:
        (limiter,) = fleet.limiters
        await fleet.attempts(60)
        link.is_cut = True
        await until(lambda: not limiter.is_shared)
        link.is_cut, link.delay = False, 0.2
        beat = limiter.shared._beat_at
        await until(lambda: limiter.shared._beat_at != beat)
        # Asked and not answered yet.
        refusals = [await fleet.attempt(limiter) for _ in range(2)]
        assert not limiter.is_shared
        await until(lambda: limiter.is_shared)
        link.delay = 0.0
        await wait_as_told(fleet, refusals[-1])
        assert limiter.is_shared
        assert not isinstance(await fleet.attempt(limiter), GatewayError)


@pytest.mark.anyio
async def test_a_place_is_kept_once_however_often_the_answer_comes_too_late(valkey, monkeypatch):
    link = Link(monkeypatch)
    async with Fleet(valkey.url, [rule(requests=60)], 1, patience=0.1) as fleet:
        (limiter,) = fleet.limiters
        await fleet.attempts(60)
        link.is_cut = True
        await until(lambda: not limiter.is_shared)
        told = [int(header(await fleet.attempt(limiter), b"retry-after")) for _ in range(5)]
        link.is_cut, link.delay = False, 0.3
        await asyncio.sleep(1.8)
        assert not limiter.is_shared
        link.delay = 0.0
        await until(lambda: limiter.is_shared)
        # As many as before are ahead of who comes next.
        refusal = await fleet.attempt(limiter, call(key=8))
        assert int(header(refusal, b"retry-after")) <= told[-1] + 1


def held_up(seconds):
    """As a process is for which the machine has no time."""
    time.sleep(seconds)


@pytest.mark.anyio
async def test_a_process_that_was_held_up_does_not_take_the_server_for_lost(valkey):
    async with Fleet(valkey.url, [rule(requests=60)], 1, patience=0.05) as fleet:
        await fleet.attempts(1)
        for turns in range(3, 9):
            asking = asyncio.create_task(fleet.attempt(fleet.limiters[0]))
            # Until the question is on its way, and no longer.
            for _ in range(turns):
                await asyncio.sleep(0)
            held_up(seconds=0.1)
            assert not isinstance(await asking, GatewayError)
        assert fleet.limiters[0].shared.losses == 0


@pytest.mark.anyio
async def test_a_server_that_hangs_makes_nobody_wait_for_long():
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(requests=6000)], 2, patience=1.0) as fleet:
            await fleet.attempts(10)
            valkey.freeze()
            waits = []
            for _ in range(30):
                began = time.monotonic()
                assert not isinstance(await fleet.attempt(fleet.limiters[0]), GatewayError)
                waits.append(time.monotonic() - began)
            # The first finds out, perhaps one more that a beat was answered, and nobody else waits.
            assert max(waits) < 3
            assert sorted(waits)[-3] < 0.5
            valkey.thaw()
            await until(lambda: fleet.limiters[0].is_shared)
            assert len(admitted(await fleet.attempts(20))) == 20


@pytest.mark.anyio
async def test_a_server_that_forgets_everything_again_and_again_lets_no_more_through():
    with Valkey() as valkey:
        async with Fleet(valkey.url, [rule(requests=120)], 3) as fleet:
            count, began = 0, time.monotonic()
            for round_ in range(12):
                for _ in range(4):
                    count += len(admitted(await fleet.attempts(60)))
                valkey.say("FLUSHALL" if round_ % 2 else "SCRIPT FLUSH")
                await asyncio.sleep(0.1)
            elapsed = time.monotonic() - began
            assert count <= 120 + elapsed * 2 + 6
            assert count >= 120


@pytest.mark.anyio
async def test_a_server_that_was_never_there_is_used_once_it_is(monkeypatch):
    monkeypatch.setattr(RateLimiter, "_count_in_database", lambda self: 2)
    valkey = Valkey().start()
    valkey.halt()
    try:
        async with Fleet(valkey.url, [rule(requests=60)], 1) as fleet:
            limiter = fleet.limiters[0]
            await until(lambda: limiter.processes == 2)
            assert not limiter.is_shared
            began = time.monotonic()
            assert 30 <= len(admitted(await fleet.attempts(100))) <= 30 + time.monotonic() - began
            valkey.resume()
            await until(lambda: limiter.is_shared)
    finally:
        valkey.halt()


def test_a_limit_of_zero_lets_nothing_through():
    for figure in ("requests", "input_tokens", "output_tokens", "concurrent"):
        limiter = limiter_of(rule(**{figure: 0}))
        assert "x-should-retry" in {name.decode() for name, _ in refused(limiter).headers} or figure == "concurrent"


@pytest.mark.anyio
async def test_who_leaves_in_the_moment_of_the_answer_holds_nothing(valkey, monkeypatch):
    async with Fleet(valkey.url, [rule(requests=5, concurrent=1)], 1) as fleet:
        limiter, answers = fleet.limiters[0], []

        class Leaving(shared_rates.Ask):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                answers.append(self.answer)
                self.answer.add_done_callback(lambda _: asking.cancel())

        with monkeypatch.context() as patch:
            patch.setattr(shared_rates, "Ask", Leaving)
            asking = asyncio.create_task(fleet.attempt(limiter))
            (left,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(left, asyncio.CancelledError)
        assert answers[0].result() == (0, 0, 0)
        await asyncio.sleep(0.4)
        assert limiter.limits_of(call()).gauges[0].held == 0
        assert len(admitted(await fleet.attempts(6))) == 1


@pytest.mark.anyio
async def test_a_mistake_in_the_exchange_leaves_nobody_waiting(valkey, monkeypatch):
    async with Fleet(valkey.url, [rule(requests=50)], 1) as fleet:
        limiter = fleet.limiters[0]

        async def broken(*_):
            raise KeyError("unforeseen")

        with monkeypatch.context() as patch:
            patch.setattr(limiter.shared, "_send", broken)
            async with asyncio.timeout(20):
                assert len(admitted(await fleet.attempts(5))) == 5
        await until(lambda: limiter.is_shared)
