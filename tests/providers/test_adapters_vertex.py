"""Claude on Vertex AI, as far as it can be without Google: assertions and tokens are checked where they arrive."""

import asyncio
import json

import pytest

from providers.adapters import vertex
from providers.adapters.vertex import InvalidCredential, account_of, predicting_body
from providers.credentials import Secret
from providers.errors import OwnAccount, Rejected, TimedOut, Unreachable
from tests.providers.calls import MESSAGE, Caller, make_target
from tests.upstream import Script, Upstream
from tests.upstream.vertex import VertexUpstream

pytestmark = pytest.mark.anyio

MODEL = "claude-sonnet-4-5@20250929"


@pytest.fixture(scope="module")
def running():
    with VertexUpstream() as running:
        yield running


@pytest.fixture
def google(running):
    running.forget()
    vertex._source.cache_clear()
    yield running
    assert not running.mistakes


def caller(google, credential=None, name=MODEL, **fields):
    headers = {"anthropic-version": "2023-06-01"}
    credential = google.credential_json() if credential is None else credential
    return Caller(make_target("vertex", google.url, credential=credential, headers=headers, name=name, **fields))


async def test_a_service_account_gets_a_token_and_an_answer(google):
    google.play(MODEL, Script(text=("Très bien.",)))
    async with caller(google) as call:
        answer = json.loads(await call.ask(headers={"anthropic-beta": "context-1m-2025-08-07"}))
    assert answer["content"] == [{"type": "text", "text": "Très bien."}]
    request = google.requests[-1]
    assert request.path.endswith(f"/models/{MODEL}:rawPredict")
    sent = json.loads(request.sent)
    assert sent == {"anthropic_version": "vertex-2023-10-16"} | {k: v for k, v in MESSAGE.items() if k != "model"}
    assert request.headers["anthropic-beta"] == "context-1m-2025-08-07"


@pytest.mark.parametrize("piece", [None, 5])
async def test_a_stream_passes_as_it_is(google, piece):
    google.play(MODEL, Script(text=("Ça ", "va."), piece=piece))
    async with caller(google) as call:
        raw = await call.stream()
    assert google.requests[-1].path.endswith(":streamRawPredict")
    assert raw.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert "Ça ".encode() in raw


async def test_a_token_is_used_until_it_runs_out_and_asked_for_once(google):
    google.token_delay = 0.1
    async with caller(google) as call, caller(google) as other:
        await asyncio.gather(*(each.ask() for each in (call, other) for _ in range(10)))
        assert google.asked_for_token == 1
        await call.ask()
    assert google.asked_for_token == 1
    assert len({request.headers["authorization"] for request in google.calls}) == 1


async def test_a_token_that_is_about_to_run_out_is_replaced_while_it_is_still_used(google):
    google.token_seconds = 100
    async with caller(google) as call:
        await call.ask()
        google.token_delay = 0.3
        began = asyncio.get_running_loop().time()
        await call.ask()
        await call.ask()
        assert asyncio.get_running_loop().time() - began < 0.3
        await asyncio.to_thread(google.wait_until, lambda upstream: len(upstream.tokens) == 2)
        google.token_seconds = 3599
        while google.asked_for_token == 2:
            await asyncio.sleep(0.05)
            await call.ask()
    assert google.calls[1].headers["authorization"] == google.calls[0].headers["authorization"]
    assert google.calls[-1].headers["authorization"] != google.calls[0].headers["authorization"]


async def test_a_token_that_has_run_out_is_waited_for(google):
    google.token_seconds = -1
    async with caller(google) as call:
        await call.ask()
        google.token_seconds = 3599
        await call.ask()
    assert google.asked_for_token == 2
    assert google.calls[-1].headers["authorization"] == "Bearer ya29.scripted-1"


async def test_who_leaves_while_a_token_is_fetched_leaves_it_to_the_others(google):
    google.token_delay = 0.2
    async with caller(google) as call:
        leaving = asyncio.create_task(call.ask())
        await asyncio.sleep(0.05)
        staying = asyncio.create_task(call.ask())
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert b"token" in await staying
    assert google.asked_for_token == 1


@pytest.mark.parametrize("change", [{"client_email": "other@example.org"}, {"private_key": "no key"}])
async def test_a_service_account_that_is_refused_is_this_servers_own_matter(google, change):
    async with caller(google, google.credential_json(**change)) as call:
        for _ in range(3):
            with pytest.raises(OwnAccount) as refused:
                await call.ask()
    assert "BEGIN PRIVATE KEY" not in refused.value.detail
    # Nobody hammers an endpoint that has refused.
    assert google.asked_for_token <= 1
    assert not google.calls


@pytest.mark.parametrize(
    "credential",
    [
        "AIza-an-api-key",
        "{}",
        '{"type":"authorized_user","client_id":"x","client_secret":"y","refresh_token":"z"}',
        '{"type":"external_account","client_email":"x","private_key":"y","token_uri":"https://example.org/t",'
        '"credential_source":{"file":"/etc/passwd"}}',
        '{"type":"service_account","client_email":"x","private_key":"y","token_uri":"https://u:p@example.org/t"}',
    ],
)
async def test_no_other_kind_of_credential_is_taken(google, credential):
    with pytest.raises(InvalidCredential):
        account_of(Secret(credential))
    async with caller(google, credential) as call:
        with pytest.raises(OwnAccount):
            await call.ask()


@pytest.mark.parametrize(
    "token_uri",
    [
        "https://169.254.169.254/token",
        "http://metadata.google.internal/token",
        "http://127.0.0.1:{other}/token",
        "https://127.0.0.1:{other}/token",
        "https://localhost:{other}/token",
        "http://127.0.0.1:{other}/v1/messages",
    ],
)
async def test_no_token_is_asked_for_where_no_provider_may_stand(google, token_uri):
    with Upstream() as other:
        credential = google.credential_json(token_uri=token_uri.format(other=other.port))
        async with caller(google, credential) as call:
            with pytest.raises(Unreachable):
                await call.ask()
        assert not other.requests
    assert not google.requests


@pytest.mark.parametrize("refusal", [(503, {"error": "backend_error"}), (429, {"error": "rate_limited"})])
async def test_a_token_endpoint_that_fails_is_a_provider_that_cannot_be_reached(google, refusal, monkeypatch):
    monkeypatch.setattr("google.auth._exponential_backoff._DEFAULT_RETRY_TOTAL_ATTEMPTS", 1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    google.token_refusal = refusal
    async with caller(google) as call:
        with pytest.raises(Unreachable):
            await call.ask()


async def test_a_token_endpoint_that_never_answers_is_waited_for_as_long_as_a_connection(google, monkeypatch):
    monkeypatch.setattr(vertex, "TOKEN_SECONDS", 0.3)
    google.token_delay = 5
    async with caller(google) as call:
        with pytest.raises(TimedOut):
            await call.ask()


async def test_a_token_endpoint_that_never_answers_is_not_asked_again_at_once(google, monkeypatch):
    monkeypatch.setattr(vertex, "TOKEN_SECONDS", 0.3)
    google.token_delay = 5
    async with caller(google) as call:
        for _ in range(3):
            with pytest.raises(TimedOut):
                await call.ask()
    assert google.asked_for_token == 1


async def test_token_endpoints_that_hang_hold_up_nobody_elses(google):
    google.token_delay = 30
    with VertexUpstream() as other:
        async with asyncio.timeout(20):
            hanging = []
            for number in range(8):
                target = caller(google, google.credential_json(private_key_id=f"key-{number}")).target
                hanging.append(asyncio.create_task(vertex.token_of(target)))
            await asyncio.to_thread(google.wait_until, lambda upstream: upstream.asked_for_token == 8)
            assert await vertex.token_of(caller(other).target)
            assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()


async def test_all_attempts_at_a_token_have_one_time_together(google, monkeypatch):
    monkeypatch.setattr(vertex, "TOKEN_SECONDS", 0.5)
    monkeypatch.setattr("google.auth._exponential_backoff._DEFAULT_RETRY_TOTAL_ATTEMPTS", 100)
    monkeypatch.setattr("google.auth._exponential_backoff._DEFAULT_INITIAL_INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr("google.auth._exponential_backoff._DEFAULT_MULTIPLIER", 1)
    google.token_refusal = (503, {"error": "backend_error"})
    async with caller(google) as call:
        with pytest.raises(TimedOut):
            await call.ask()
    assert google.asked_for_token < 10


async def test_a_redirect_of_the_token_endpoint_leads_nowhere(google):
    with Upstream() as other:
        google.token_refusal = (302, {})
        async with caller(google) as call:
            with pytest.raises((OwnAccount, Unreachable)):
                await call.ask()
        assert not other.requests


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_what_google_says_of_a_request_is_read_out_of_its_list(google, status):
    google.play(MODEL, Script(status=status, message="Prompt is too long."))
    async with caller(google) as call:
        with pytest.raises(Rejected) as refused:
            await call.ask()
    assert not isinstance(refused.value, OwnAccount)
    assert (refused.value.status, refused.value.message) == (status, "Prompt is too long.")
    assert refused.value.code.isupper()


async def test_a_token_that_google_refuses_shows_nowhere(google):
    async with caller(google) as call:
        await call.ask()
        google.tokens[:] = ["another"]
        with pytest.raises(OwnAccount) as refused:
            await call.ask()
    assert "ya29" not in refused.value.message + refused.value.detail
    assert "ya29.scripted-0" in call.adapter.secrets(call.target, {"authorization": "Bearer ya29.scripted-0"})


async def test_tokens_are_counted_by_google(google):
    google.play(MODEL, Script(input_tokens=123))
    body = {"model": MODEL, "messages": MESSAGE["messages"]}
    async with caller(google) as call:
        assert json.loads(await call.ask(body, format="count_tokens")) == {"input_tokens": 123}
    assert google.requests[-1].path.endswith("/publishers/anthropic/models/count-tokens:rawPredict")


async def test_other_paths_are_called_with_the_body_as_it_is():
    with VertexUpstream() as google:
        endpoints = {"chat_completions": "/endpoints/openapi/chat/completions"}
        async with caller(google, endpoints=endpoints) as call:
            with pytest.raises(Rejected):
                await call.ask(b'{"model":"google/gemini-2.5-flash"}', format="chat_completions")
    request = google.requests[-1]
    assert request.path.endswith("/locations/europe-west1/endpoints/openapi/chat/completions")
    assert request.body == b'{"model":"google/gemini-2.5-flash"}'


def test_bodies_keep_what_python_cannot_hold():
    body = b'{"model":"m","max_tokens":1,"messages":[1e999,{"a":-0.0}]}'
    assert predicting_body(body) == (
        b'{"max_tokens":1,"messages":[1e999,{"a":-0.0}],"anthropic_version":"vertex-2023-10-16"}'
    )
