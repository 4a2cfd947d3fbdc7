"""Spend limits as the official SDKs meet them, over sockets."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

EURO = 10**9


NUMBERS = itertools.count(1)


@pytest.fixture
def limited(server):
    """Makes a key with a limit of so many nanos a day."""

    def make(nanos, *arguments):
        name = f"limited {next(NUMBERS)}"
        secret = server.create_api_key(name)
        amount = f"{nanos / EURO:.9f}"
        server.manage("set_spend_limit", "--key", name, "--period", "day", "--amount", amount, *arguments)
        # Processes look twice a second.
        time.sleep(0.8)
        return secret

    return make


def ask(server, secret, model="gpt-test", **options):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=secret, max_retries=3) as client:
        return client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], **({"max_tokens": 100} | options)
        )


def test_an_openai_client_is_refused_once_and_told_why(server, upstream, limited):
    secret = limited(1_000)
    with pytest.raises(openai.RateLimitError) as refused:
        ask(server, secret)
    answer = refused.value.response
    assert refused.value.code == "insufficient_quota"
    assert refused.value.type == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    for part in ("daily spend limit (API key “limited", "$0.00 of $0.000001 are spent", "up to $0.00", " 00:00 ("):
        assert part in refused.value.message
    (limit,) = server.query("SELECT uid FROM usage_spendlimit ORDER BY id DESC LIMIT 1")
    assert refused.value.message.endswith(f"asked for at {server.base_url}/limits/{limit['uid']}/.")
    assert upstream.requests == []
    (row,) = server.rows(at_least=1, id=answer.headers["x-request-id"])
    assert (row["outcome"], row["error_code"], row["cost_nanos"]) == ("refused", "insufficient_quota", 0)


def test_an_anthropic_client_gets_the_error_that_it_knows(server, upstream, limited):
    secret = limited(1_000)
    with (
        anthropic.Anthropic(base_url=server.base_url, api_key=secret, max_retries=3) as client,
        pytest.raises(anthropic.RateLimitError) as refused,
    ):
        client.messages.create(model="claude-test", max_tokens=100, messages=[{"role": "user", "content": "Hi"}])
    body = refused.value.body
    assert body["error"]["type"] == "rate_limit_error"
    assert body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert upstream.requests == []


def test_what_fits_passes_and_what_is_spent_is_the_cost(server, upstream, limited):
    secret = limited(1 * EURO)
    for _ in range(3):
        assert ask(server, secret).status_code == 200
    rows = server.rows(at_least=3, api_key_id=key_id(server))[-3:]
    spent = sum(row["cost_nanos"] for row in rows)
    (book,) = server.query(
        "SELECT settled_nanos FROM usage_ledgerperiod WHERE scope = 'api_key' AND scope_id = ? AND period = 'day'",
        key_id(server),
    )
    assert book["settled_nanos"] == spent > 0


def key_id(server):
    """The newest key's."""
    (row,) = server.query("SELECT max(id) AS id FROM console_apikey")
    return row["id"]


def test_a_limit_is_never_passed_however_many_ask_at_once(server, upstream, limited):
    nanos = 20_000_000
    secret = limited(nanos)

    def one(_):
        try:
            return ask(server, secret, max_tokens=100).status_code
        except openai.RateLimitError as error:
            assert error.code == "insufficient_quota"
            return 429

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(one, range(80)))
    assert 200 in codes
    key = key_id(server)
    spent = sum(row["cost_nanos"] for row in server.rows(at_least=80, api_key_id=key))
    assert spent <= nanos


def test_a_caller_that_takes_less_gets_what_can_be_afforded(server, upstream, limited):
    # Some three hundred tokens at 15 a million.
    secret = limited(5_000_000)
    with pytest.raises(openai.RateLimitError):
        ask(server, secret, max_tokens=5_000)
    answer = ask(server, secret, max_tokens=5_000, extra_headers={"x-comptoir-lower-max-tokens": "true"})
    tokens = int(answer.headers["x-comptoir-max-tokens"])
    assert 16 <= tokens < 500
    assert json.loads(upstream.requests[-1].body)["max_tokens"] == tokens


def test_a_limit_of_zero_refuses_all(server, upstream, limited):
    secret = limited(0)
    with pytest.raises(openai.RateLimitError, match="zero"):
        ask(server, secret)


def test_a_soft_limit_refuses_nothing(server, upstream, limited):
    assert ask(server, limited(1, "--soft")).status_code == 200


def test_a_model_without_a_price_is_refused_unless_it_may_pass(server, upstream, limited):
    server.add_provider(upstream.url, "unpriced-test", name="unpriced", price=None)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(server, limited(EURO), model="unpriced-test")
    assert refused.value.code == "model_not_priced"
    assert upstream.requests == []
    assert ask(server, limited(EURO, "--allow-unpriced"), model="unpriced-test").status_code == 200


def test_how_long_the_answer_may_get_must_be_known(server, upstream, limited):
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens is needed"):
        ask(server, limited(EURO), max_tokens=None)
