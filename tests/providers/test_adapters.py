"""Calling providers that take a body as it is: what is waited for how long, and what their refusals say."""

import asyncio
import contextlib
import json
import socket

import pytest

from providers.adapters.extras import load, missing_extra
from providers.adapters.http import url_of
from providers.adapters.refusals import read_error, rejection
from providers.errors import Broken, OwnAccount, Rejected, TimedOut, Unreachable
from tests.providers.calls import MESSAGE, Caller, make_target
from tests.upstream import Script, Upstream

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def running():
    with Upstream() as running:
        yield running


@pytest.fixture
def provider(running):
    running.forget()
    yield running
    assert not running.mistakes


def caller(provider, **fields):
    return Caller(make_target("anthropic-compatible", provider.origin, **fields))


@contextlib.asynccontextmanager
async def answering(*parts):
    """A server that sends ``parts`` to whoever comes, waiting where a part is a number of seconds; its base URL."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close_clients()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


# Waiting -----------------------------------------------------------------------------------------------------------


async def test_a_connection_that_nobody_takes_is_given_up():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        # One fits into the queue of those that wait; the next ones get no word.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with Caller(make_target("openai-compatible", base_url, connect_timeout=0.3)) as call:
            with pytest.raises(Unreachable) as failure:
                await call.ask(format="chat_completions")
        for each in waiting:
            each.close()
    assert failure.value.timeout == "connect"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_does_not_begin_is_given_up(provider, stream):
    provider.play("scripted-1", Script(silent=True))
    body = MESSAGE | {"model": "scripted-1"}
    async with caller(provider, first_byte_timeout=0.2) as call:
        with pytest.raises(TimedOut) as failure:
            await (call.stream(body) if stream else call.ask(body))
    assert failure.value.timeout == "first_byte"


async def test_headers_are_no_beginning():
    async with (
        answering(0.2, STREAM_HEAD, 0.2, PING) as base_url,
        Caller(make_target("anthropic-compatible", base_url, first_byte_timeout=0.3)) as call,
    ):
        with pytest.raises(TimedOut) as failure:
            await call.stream()
    assert failure.value.timeout == "first_byte"


async def test_a_stream_may_last_longer_than_its_beginning_and_pause_as_long_as_it_may():
    async with (
        answering(STREAM_HEAD, 0.1, PING, 0.5, PING, 0.5, PING) as base_url,
        Caller(make_target("anthropic-compatible", base_url, first_byte_timeout=0.3, idle_timeout=0.8)) as call,
    ):
        assert await call.stream() == 3 * PING


@pytest.mark.parametrize("parts", [(STREAM_HEAD + PING, 5), (STREAM_HEAD, PING, 0.1, PING, 5)])
async def test_silence_in_a_stream_ends_it(parts):
    async with (
        answering(*parts) as base_url,
        Caller(make_target("anthropic-compatible", base_url, first_byte_timeout=3, idle_timeout=0.3)) as call,
    ):
        with pytest.raises(TimedOut) as failure:
            await call.stream()
    assert failure.value.timeout == "idle"


async def test_the_patience_of_one_call_is_not_that_of_the_next_on_its_connection(provider):
    quick, slow = Script(), Script(first_byte_delay=0.4, delay=0.01)
    provider.play("scripted-1", quick, slow)
    body = MESSAGE | {"model": "scripted-1"}
    async with caller(provider, first_byte_timeout=0.3, idle_timeout=0.2) as call:
        assert b"message_stop" in await call.stream(body)
        patient = Caller(make_target("anthropic-compatible", provider.origin))
        patient.upstream = call.upstream
        assert b"message_stop" in await patient.stream(body)
    assert len({request.id for request in provider.requests}) == 2


async def test_a_stream_that_breaks_before_its_first_byte_breaks_while_it_can_still_go_elsewhere():
    async with (
        answering(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\n") as base_url,
        Caller(make_target("anthropic-compatible", base_url)) as call,
    ):
        with pytest.raises(Broken):
            await call.open(MESSAGE, stream=True)


async def test_leaving_before_the_first_byte_ends_the_providers_work(provider):
    provider.play("scripted-1", Script(first_byte_delay=5))
    async with caller(provider) as call:
        asking = asyncio.create_task(call.stream(MESSAGE | {"model": "scripted-1"}))
        await asyncio.to_thread(provider.wait_until, lambda upstream: upstream.requests)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.to_thread(provider.wait_until, lambda upstream: upstream.requests[-1].left_at is not None)


# Where -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "base_url", "path", "url"),
    [
        ("anthropic", "https://api.anthropic.com", "/messages", "https://api.anthropic.com/v1/messages"),
        ("openai", "https://api.openai.com/v1", "/messages", "https://api.openai.com/v1/messages"),
        (
            "openai",
            "https://my.openai.azure.com",
            "/openai/deployments/{model}/chat/completions?api-version=2024-10-21",
            "https://my.openai.azure.com/openai/deployments/gpt%2F4%20%3Fo/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_a_path_stands_under_the_base_url_and_may_name_the_model(kind, base_url, path, url):
    assert str(url_of(kind, base_url, path, "gpt/4 ?o")) == url


async def test_headers_of_the_caller_stand_before_those_of_the_provider(provider):
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "sk-upstream"}
    async with caller(provider, headers=headers) as call:
        await call.ask(MESSAGE, headers={"anthropic-version": "2026-10-21"})
    sent = provider.requests[-1].headers
    assert (sent["anthropic-version"], sent["x-api-key"]) == ("2026-10-21", "sk-upstream")


# Refusals ----------------------------------------------------------------------------------------------------------

# What real providers and the programs in front of them send: status, headers, body; and what it means.
REFUSALS = {
    "openai": (
        429,
        {},
        {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
        ("Slow down.", "rate_limit_exceeded", None),
    ),
    "openai parameter": (
        400,
        {},
        {"error": {"message": "No.", "type": "invalid_request_error", "param": "messages[0]", "code": None}},
        ("No.", "invalid_request_error", "messages[0]"),
    ),
    "anthropic": (
        404,
        {},
        {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}, "request_id": "req_1"},
        ("model: x", "not_found_error", None),
    ),
    "anthropic in particular": (
        404,
        {},
        {"error": {"type": "not_found_error", "message": "x", "details": {"error_code": "file_expired"}}},
        ("x", "file_expired", None),
    ),
    "gemini": (
        400,
        {},
        [{"error": {"code": 400, "message": "Unknown name.", "status": "INVALID_ARGUMENT"}}],
        ("Unknown name.", "INVALID_ARGUMENT", None),
    ),
    "google field": (
        400,
        {},
        {
            "error": {
                "code": 400,
                "message": "Bad.",
                "status": "INVALID_ARGUMENT",
                "details": [{"fieldViolations": [{"field": "contents[0]", "description": "x"}]}],
            }
        },
        ("Bad.", "INVALID_ARGUMENT", "contents[0]"),
    ),
    "azure content filter": (
        400,
        {},
        {
            "error": {
                "message": "Filtered.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
        ("Filtered.", "content_filter", "prompt"),
    ),
    "azure deployment": (
        404,
        {},
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        ("The API deployment does not exist.", "DeploymentNotFound", None),
    ),
    "azure gateway": (429, {}, {"statusCode": 429, "message": "Rate limit."}, ("Rate limit.", None, None)),
    "mistral": (
        400,
        {},
        {"object": "error", "message": "Invalid model", "type": "invalid_model", "param": None, "code": "1500"},
        ("Invalid model", "invalid_model", None),
    ),
    "mistral validation": (
        422,
        {},
        {
            "object": "error",
            "message": {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required"}]},
            "type": "invalid_request_error",
        },
        ("model: Field required", "invalid_request_error", "model"),
    ),
    "fastapi validation": (
        422,
        {},
        {
            "detail": [
                {"loc": ["body", "messages", 0, "role"], "msg": "field required", "type": "value_error.missing"},
                {"loc": ["body"], "msg": "extra"},
            ]
        },
        ("messages.0.role: field required; extra", None, "messages.0.role"),
    ),
    "fastapi": (404, {}, {"detail": "Not Found"}, ("Not Found", None, None)),
    "openrouter": (
        429,
        {},
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {"provider_name": "X", "raw": '{"error":{"message":"Busy.","code":"busy"}}'},
            }
        },
        ("Busy.", None, None),
    ),
    "openrouter in words": (
        429,
        {},
        {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "x is rate-limited"}}},
        ("x is rate-limited", None, None),
    ),
    "ollama": (404, {}, {"error": "model 'x' not found"}, ("model 'x' not found", None, None)),
    "vllm": (
        400,
        {},
        {"object": "error", "message": "Too long.", "type": "BadRequestError", "param": None, "code": 400},
        ("Too long.", "BadRequestError", None),
    ),
    "llama.cpp": (
        500,
        {},
        {"error": {"code": 500, "message": "Failed.", "type": "server_error"}},
        ("Failed.", "server_error", None),
    ),
    "amazon": (
        429,
        {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/coral/"},
        {"message": "Too many requests."},
        ("Too many requests.", "ThrottlingException", None),
    ),
    "amazon json": (
        400,
        {},
        {"__type": "com.amazon.coral.service#SerializationException", "Message": "Bad."},
        ("Bad.", "SerializationException", None),
    ),
    "oauth": (
        400,
        {},
        {"error": "invalid_grant", "error_description": "Expired."},
        ("Expired.", "invalid_grant", None),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_the_refusal_of_each_kind_of_provider_is_read(name):
    status, headers, body, (message, code, param) = REFUSALS[name]
    error = rejection(status, headers, json.dumps(body).encode(), lambda text: text)
    assert not isinstance(error, OwnAccount)
    assert (error.status, error.message, error.code, error.param) == (status, message, code, param)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {}),
        (402, {"error": {"message": "Insufficient Balance"}}),
        (403, {"error": {"code": 403, "message": "The caller lacks it.", "status": "PERMISSION_DENIED"}}),
        (429, {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}),
        (429, {"error": {"message": "x", "code": None, "type": "insufficient_quota"}}),
        (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Credit balance is too low."}}),
        (
            429,
            {
                "type": "error",
                "error": {
                    "type": "rate_limit_error",
                    "message": "x",
                    "details": {"error_code": "enforced_spend_limit_reached"},
                },
            },
        ),
        (
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": "API key not valid.",
                        "status": "INVALID_ARGUMENT",
                        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                    }
                }
            ],
        ),
    ],
)
def test_what_is_about_this_servers_own_account_is_told_apart(status, body):
    assert isinstance(rejection(status, {}, json.dumps(body).encode(), lambda text: text), OwnAccount)


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low."}, 402),
        (403, {"type": "billing_error", "message": "x"}, 402),
        (429, {"code": "insufficient_quota", "message": "x"}, 429),
        (403, {"type": "permission_error", "message": "x"}, 403),
        (400, {"code": "invalid_api_key", "message": "x"}, 400),
    ],
)
def test_an_account_without_money_is_told_from_one_without_rights(status, error, told):
    found = rejection(status, {}, json.dumps({"error": error}).encode(), lambda text: text)
    assert isinstance(found, OwnAccount)
    assert found.status == told
    assert found.detail.startswith(str(status))


def test_a_prompt_that_an_error_repeats_is_no_matter_of_the_account():
    body = b'{"error":{"message":"Not JSON: your credit balance is too low","type":"invalid_request_error"}}'
    assert type(rejection(400, {}, body, lambda text: text)) is Rejected


@pytest.mark.parametrize("what", ["image", "audio"])
def test_a_prompt_that_a_local_model_cannot_take_is_the_callers_mistake(what):
    message = f"{what} input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    error = rejection(500, {}, body, lambda text: text)
    assert type(error) is Rejected
    assert (error.status, error.message) == (400, f"{what} input is not supported")


def test_a_prompt_that_a_moderation_refuses_is_not_a_matter_of_the_account():
    metadata = {"reasons": ["violence"], "flagged_input": "…", "provider_name": "X"}
    body = json.dumps({"error": {"code": 403, "message": "Flagged.", "metadata": metadata}}).encode()
    error = rejection(403, {}, body, lambda text: text)
    assert type(error) is Rejected
    assert (error.status, error.code, error.message) == (400, "content_filter", "Flagged.")


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, {}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, {}, 2),
        ({"retry-after-ms": "soon", "retry-after": "9"}, {}, 9),
        ({}, {"error": {"message": "x", "details": [{"retryDelay": "36.2s"}]}}, 37),
        ({"retry-after": "1"}, {"error": {"message": "x", "details": [{"retryDelay": "36s"}]}}, 1),
        ({}, {"error": {"message": "x", "details": [{"retryDelay": "nans"}]}}, None),
        ({"retry-after": "inf"}, {}, 3600),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, {}, 0),
        ({"retry-after": "Mon, 99999999999999999999 Jan 2020 00:00:00 GMT"}, {}, None),
        ({}, {}, None),
    ],
)
def test_how_long_to_wait_is_read_wherever_it_stands(headers, body, seconds):
    assert rejection(429, headers, json.dumps(body).encode(), lambda text: text).retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"null", b"[]", b"[[]]", b"7", b'"\xff"', b'{"error":null}', b'{"error":[]}', b'{"error":[7]}',
        b'{"detail":[7,{"loc":7,"msg":[]}]}',
        b'{"error":{"message":{},"metadata":{"raw":7},"details":{"retryDelay":[]}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_body_that_says_nothing_is_read_as_that(body):
    assert read_error(body)[:3] == (None, None, None)


def test_errors_in_errors_end_somewhere():
    body = json.dumps({"error": {"message": "innermost"}})
    for _ in range(6):
        body = json.dumps({"error": {"message": "outer", "metadata": {"raw": body}}})
    assert read_error(body).message == "outer"


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_a_credential_that_a_provider_repeats_is_not_passed_on(provider, header):
    secret = "sk-upstream-1234"
    value = f"Bearer {secret}" if header == "authorization" else secret
    provider.play("scripted-1", Script.refuse(400, message=f"The key {secret} is odd."))
    async with caller(provider, headers={header: value}) as call:
        with pytest.raises(Rejected) as refused:
            await call.ask(MESSAGE | {"model": "scripted-1"})
    assert refused.value.message == "The key *** is odd."
    assert secret not in refused.value.detail


@pytest.mark.parametrize("before", [0, 40, 190, 280, 990])
def test_no_part_of_a_refusal_shows_any_of_a_credential(before):
    secret = "sk-" + "s3cret" * 20
    text = "x" * before + secret
    bodies = [{"error": {"message": text, "code": text, "param": text}}, {"note": text}]
    for body in bodies:
        error = rejection(400, {}, json.dumps(body).encode(), lambda said: said and said.replace(secret, "***"))
        told = f"{error.message} {error.code} {error.param} {error.detail}"
        assert "sk-" not in told


# Libraries ---------------------------------------------------------------------------------------------------------


async def test_what_is_not_installed_is_named(monkeypatch):
    assert [missing_extra(name) for name in ("http", "bedrock", "vertex")] == [None, None, None]
    monkeypatch.setattr("providers.adapters.extras.MODULES", {"bedrock": ["no_such_package.module"]})
    assert missing_extra("bedrock") == "bedrock"
    with pytest.raises(Unreachable) as failure:
        await load("bedrock")
    assert "COMPTOIR_EXTRAS=bedrock" in failure.value.detail
