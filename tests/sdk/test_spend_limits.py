"""Spend limits as the official SDKs meet them, over sockets."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

EURO = 10**9


# Keys and their limits a day, in nanos, made all at once: a management command takes its time.
LIMITS = {
    "openai": {"amount_nanos": 1_000},
    "anthropic": {"amount_nanos": 1_000},
    "roomy": {"amount_nanos": EURO},
    "crowded": {"amount_nanos": 20_000_000},
    "shortened": {"amount_nanos": 5_000_000},
    "zero": {"amount_nanos": 0},
    "soft": {"amount_nanos": 1, "is_hard": False},
    "unpriced": {"amount_nanos": EURO},
    "may be unpriced": {"amount_nanos": EURO, "allows_unpriced": True},
    "unknown length": {"amount_nanos": EURO},
}
MAKE = """
import json
from console.models import Workspace
from console.services import create_api_key
from usage.spend_limits import set_spend_limit
workspace, secrets = Workspace.objects.get(slug="default"), {}
for name, limit in json.loads(%r).items():
    key, secrets[name] = create_api_key(workspace=workspace, name=f"limited: {name}", created_by=None)
    set_spend_limit(
        organization=workspace.organization, scope="api_key", scope_id=key.pk, period="day", **limit
    )
    secrets[name, "id"] = key.pk
print(json.dumps([[secrets[name], secrets[name, "id"]] for name in json.loads(%r)]))
"""


@pytest.fixture(scope="module")
def keys(shared_server):
    """``(secret, id)`` of each key, by its name in ``LIMITS``."""
    names = json.dumps(LIMITS)
    made = json.loads(shared_server.manage("shell", "--no-imports", "-c", MAKE % (names, names)))
    # Processes look twice a second.
    time.sleep(0.8)
    return dict(zip(LIMITS, made, strict=True))


def ask(server, secret, model="gpt-test", **options):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=secret, max_retries=3) as client:
        return client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], **({"max_tokens": 100} | options)
        )


def test_an_openai_client_is_refused_once_and_told_why(server, upstream, keys):
    secret, key_id = keys["openai"]
    with pytest.raises(openai.RateLimitError) as refused:
        ask(server, secret)
    answer = refused.value.response
    assert refused.value.code == "insufficient_quota"
    assert refused.value.type == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    for part in ("daily spend limit (API key “limited", "$0.00 of $0.000001 are spent", "up to $0.00", " 00:00 ("):
        assert part in refused.value.message
    (limit,) = server.query("SELECT uid FROM usage_spendlimit WHERE scope = 'api_key' AND scope_id = ?", key_id)
    assert refused.value.message.endswith(f"asked for at {server.base_url}/limits/{limit['uid']}/.")
    assert upstream.requests == []
    (row,) = server.rows(at_least=1, id=answer.headers["x-request-id"])
    assert (row["outcome"], row["error_code"], row["cost_nanos"]) == ("refused", "insufficient_quota", 0)


def test_an_anthropic_client_gets_the_error_that_it_knows(server, upstream, keys):
    secret, _ = keys["anthropic"]
    with (
        anthropic.Anthropic(base_url=server.base_url, api_key=secret, max_retries=3) as client,
        pytest.raises(anthropic.RateLimitError) as refused,
    ):
        client.messages.create(model="claude-test", max_tokens=100, messages=[{"role": "user", "content": "Hi"}])
    body = refused.value.body
    assert body["error"]["type"] == "rate_limit_error"
    assert body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert upstream.requests == []


def test_what_fits_passes_and_what_is_spent_is_the_cost(server, upstream, keys):
    secret, key_id = keys["roomy"]
    for _ in range(3):
        assert ask(server, secret).status_code == 200
    rows = server.rows(at_least=3, api_key_id=key_id)[-3:]
    spent = sum(row["cost_nanos"] for row in rows)
    (book,) = server.query(
        "SELECT settled_nanos FROM usage_ledgerperiod WHERE scope = 'api_key' AND scope_id = ? AND period = 'day'",
        key_id,
    )
    assert book["settled_nanos"] == spent > 0


def test_a_limit_is_never_passed_however_many_ask_at_once(server, upstream, keys):
    (secret, key_id), nanos = keys["crowded"], LIMITS["crowded"]["amount_nanos"]

    def one(_):
        try:
            return ask(server, secret, max_tokens=100).status_code
        except openai.RateLimitError as error:
            assert error.code == "insufficient_quota"
            return 429

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(one, range(80)))
    assert 200 in codes
    spent = sum(row["cost_nanos"] for row in server.rows(at_least=80, api_key_id=key_id))
    assert spent <= nanos


def test_a_caller_that_takes_less_gets_what_can_be_afforded(server, upstream, keys):
    # Some three hundred tokens at 15 a million.
    secret, _ = keys["shortened"]
    with pytest.raises(openai.RateLimitError):
        ask(server, secret, max_tokens=5_000)
    answer = ask(server, secret, max_tokens=5_000, extra_headers={"x-comptoir-lower-max-tokens": "true"})
    tokens = int(answer.headers["x-comptoir-max-tokens"])
    assert 16 <= tokens < 500
    assert json.loads(upstream.requests[-1].body)["max_tokens"] == tokens


def test_a_limit_of_zero_refuses_all(server, upstream, keys):
    secret, _ = keys["zero"]
    with pytest.raises(openai.RateLimitError, match="zero"):
        ask(server, secret)


def test_a_soft_limit_refuses_nothing(server, upstream, keys):
    assert ask(server, keys["soft"][0]).status_code == 200


def test_a_model_without_a_price_is_refused_unless_it_may_pass(server, upstream, keys):
    server.add_provider(upstream.url, "unpriced-test", name="unpriced", price=None)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(server, keys["unpriced"][0], model="unpriced-test")
    assert refused.value.code == "model_not_priced"
    assert upstream.requests == []
    assert ask(server, keys["may be unpriced"][0], model="unpriced-test").status_code == 200


def test_how_long_the_answer_may_get_must_be_known(server, upstream, keys):
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens is needed"):
        ask(server, keys["unknown length"][0], max_tokens=None)
