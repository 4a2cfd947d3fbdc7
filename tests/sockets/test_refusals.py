"""Every way to be refused, over real sockets: status, shape, request id, and the row that follows."""

import json
import socket
import time

import httpx
import pytest

MEGABYTE = 1024 * 1024
LIMIT = 32 * MEGABYTE

UNAUTHORIZED = {"openai": ("invalid_request_error", "invalid_api_key"), "anthropic": ("authentication_error", None)}
INVALID = {"openai": "invalid_request_error", "anthropic": "invalid_request_error"}
NOT_FOUND = {"openai": "invalid_request_error", "anthropic": "not_found_error"}
TOO_LARGE = {"openai": "invalid_request_error", "anthropic": "request_too_large"}


def refused(api, answer, status, kind, code=None):
    """Check a refusal's outside, and return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    request_id = api.request_id(answer)
    assert request_id.startswith("req_")
    assert len(request_id) == 30
    error_type, error_code, message = api.dialect.error_of(answer.json())
    assert error_type == kind
    if code and api.dialect.name == "openai":
        assert error_code == code
    if api.dialect.name == "anthropic":
        assert answer.json()["request_id"] == request_id
    assert isinstance(message, str)
    assert message
    return message


def has_no_row(api, answer):
    return api.server.rows(id=api.request_id(answer)) == []


def refused_row(api, answer, code=None):
    row = api.row(answer)
    assert row["outcome"] == "refused"
    assert row["status"] == answer.status_code
    assert row["error_message"]
    assert row["cost_nanos"] == 0
    assert row["usage_source"] == "none"
    assert not row["output_tokens"]
    assert row["attempts"] == 0
    return row


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer"}, {"x-api-key": ""}, {"authorization": "Basic dXNlcjpwYXNz"}],
    ids=["nothing", "empty bearer", "empty x-api-key", "basic"],
)
def test_a_call_without_a_key_is_refused(api, upstream, headers):
    answer = api.post(json=api.dialect.body("gpt-test", "Hi"), headers=api.dialect.headers | headers)
    refused(api, answer, 401, *UNAUTHORIZED[api.dialect.name])
    assert has_no_row(api, answer)
    assert upstream.requests == []


@pytest.mark.parametrize("spelling", ["authorization", "x-api-key"])
@pytest.mark.parametrize("wrong", ["nonsense", "sk-comptoir-" + "0" * 40, "one of another server"])
def test_a_wrong_key_is_refused_however_it_is_sent(api, upstream, spelling, wrong):
    if wrong == "one of another server":
        from console.api_keys import new_secret

        wrong = new_secret()
    value = f"Bearer {wrong}" if spelling == "authorization" else wrong
    answer = api.post(json=api.dialect.body("gpt-test", "Hi"), headers=api.dialect.headers | {spelling: value})
    message = refused(api, answer, 401, *UNAUTHORIZED[api.dialect.name])
    assert wrong not in message
    assert upstream.requests == []


def test_two_different_keys_are_refused_and_the_same_twice_is_fine(api, upstream):
    body = api.dialect.body("gpt-test", "Hi")
    different = api.headers | {"x-api-key": api.key[:-1] + ("0" if api.key[-1] != "0" else "1")}
    refused(api, api.post(json=body, headers=different), 401, *UNAUTHORIZED[api.dialect.name])
    assert upstream.requests == []
    assert api.post(json=body, headers=api.headers | {"x-api-key": api.key}).status_code == 200


def test_either_header_opens_either_dialect(api):
    for headers in ({"x-api-key": api.key}, {"authorization": f"Bearer {api.key}"}):
        answer = api.post(json=api.dialect.body("gpt-test", "Hi"), headers=api.dialect.headers | headers)
        assert answer.status_code == 200


def test_a_deleted_providers_model_is_refused_at_once_and_its_names_can_be_given_again(api, server, upstream):
    name, model = f"short-lived {api.dialect.name}", f"gone-{api.dialect.name}"
    server.add_provider(upstream.url, model, name=name)
    assert api.ask(model).status_code == 200
    delete = "from providers.models import *; from providers.services import *; "
    server.manage("shell", "-c", delete + f"delete_provider(provider=Provider.objects.get(name='{name}'), actor=None)")
    time.sleep(1)  # as the dialog promises
    refused(api, api.ask(model), 404, NOT_FOUND[api.dialect.name], "model_not_found")
    server.add_provider(upstream.url, model, name=name)
    assert api.ask(model).status_code == 200


def test_an_unknown_model_is_refused_and_counted(api, upstream):
    answer = api.ask("gpt-unknown")
    message = refused(api, answer, 404, NOT_FOUND[api.dialect.name], "model_not_found")
    assert "gpt-unknown" in message
    assert refused_row(api, answer)["requested_model"] == "gpt-unknown"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b'{"model": "gpt-test",}', b"\xff\xfe{\x00", b'{"model": "\xff"}', b"{}x"],
    ids=["empty", "open", "list", "string", "null", "comma", "utf-16", "bad utf-8", "tail"],
)
def test_a_body_that_is_no_json_object_is_refused(api, upstream, body):
    answer = api.post(content=body, headers=api.headers | {"content-type": "application/json"})
    refused(api, answer, 400, INVALID[api.dialect.name])
    refused_row(api, answer)
    assert upstream.requests == []


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(api, upstream, missing):
    body = api.dialect.body("gpt-test", "Hi")
    del body[missing]
    answer = api.post(json=body)
    message = refused(api, answer, 400, INVALID[api.dialect.name])
    assert missing in message
    if api.dialect.name == "openai":
        assert answer.json()["error"]["param"] == missing
    refused_row(api, answer)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "wrong",
    [{"model": 5}, {"model": ""}, {"model": None}, {"messages": []}, {"messages": "Hi"}, {"stream": "yes"}],
    ids=str,
)
def test_a_field_of_the_wrong_kind_is_refused(api, upstream, wrong):
    answer = api.post(json=api.dialect.body("gpt-test", "Hi") | wrong)
    message = refused(api, answer, 400, INVALID[api.dialect.name])
    assert next(iter(wrong)) in message
    assert upstream.requests == []


def test_anthropic_callers_must_say_how_much_they_want(server, upstream):
    from tests.api import ANTHROPIC, Api

    api = Api(server, server.api_key, ANTHROPIC)
    body = api.dialect.body("claude-test", "Hi")
    del body["max_tokens"]
    assert "max_tokens" in refused(api, api.post(json=body), 400, "invalid_request_error")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_the_wrong_method_is_told_the_right_one(api, method):
    answer = api.client.request(method, api.dialect.path, headers=api.headers)
    refused(api, answer, 405, INVALID[api.dialect.name])
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/", "/v1/chat", "/v1/models/no/such", "/v1/é", "/v1/organizations/me", "//v1/models"]
)
def test_an_unknown_path_under_v1_is_a_json_404(api, path):
    answer = api.client.get(f"{api.client.base_url}".rstrip("/") + path, headers=api.headers)
    refused(api, answer, 404, NOT_FOUND[api.dialect.name])


def test_a_path_is_named_as_it_was_asked_for(api):
    for path in ("/api/v1/nope", "/ikalas/api/v1/nope"):
        assert api.client.get(path).json()["error"]["message"] == f"There is nothing at GET {path}."


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/v1/messages/nothing", 404), ("GET", "/v1/messages", 405)]
)
def test_below_messages_errors_are_anthropics_whatever_the_headers(api, method, path, status):
    answer = api.client.request(method, path, headers={"x-api-key": "k"})
    assert answer.status_code == status
    assert answer.json()["type"] == "error"
    assert "request-id" in answer.headers


def test_errors_before_the_key_is_known_come_in_the_callers_dialect_too(api):
    answer = api.client.get("/v1/nothing", headers=api.dialect.headers)
    api.dialect.error_of(answer.json())
    assert answer.status_code in {401, 404}


# The size of the body ----------------------------------------------------------------------------------------------


def big_body(api, size):
    """A legal call of exactly ``size`` bytes."""
    body = json.dumps(api.dialect.body("gpt-test", "@")).encode()
    return body.replace(b"@", b"a" * (size - len(body) + 1))


def test_a_body_of_exactly_the_limit_is_taken(api, upstream):
    answer = api.post(content=big_body(api, LIMIT), headers=api.headers | {"content-type": "application/json"})
    assert answer.status_code == 200
    assert len(upstream.calls[0].body) >= LIMIT - 100


def test_an_honestly_announced_body_that_is_too_large_is_refused(api, upstream):
    answer = api.post(content=big_body(api, LIMIT + 1), headers=api.headers | {"content-type": "application/json"})
    refused(api, answer, 413, TOO_LARGE[api.dialect.name], "request_too_large")
    refused_row(api, answer)
    assert upstream.requests == []


def test_a_body_without_a_length_is_counted_as_it_comes(api, upstream):
    def endless():
        yield b'{"model": "'
        for _ in range(40):
            yield b"a" * MEGABYTE

    with httpx.Client(base_url=api.server.base_url, timeout=20) as client:
        try:
            answer = client.post(api.dialect.path, content=endless(), headers=api.headers)
        except (httpx.WriteError, httpx.ReadError):
            # The server had answered and closed while this side was still sending: what was lost is checked raw below.
            answer = None
    if answer is not None:
        refused(api, answer, 413, TOO_LARGE[api.dialect.name], "request_too_large")
    assert upstream.requests == []


@pytest.mark.parametrize("announced", [10, LIMIT * 2], ids=["too little", "too much"])
def test_a_body_that_lies_about_its_length_never_reaches_a_provider(api, upstream, announced):
    head = "".join(
        f"{name}: {value}\r\n"
        for name, value in (api.headers | {"host": "x", "content-type": "application/json"}).items()
    )
    request = f"POST {api.dialect.path} HTTP/1.1\r\n{head}content-length: {announced}\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api.server.port), timeout=10) as connection:
        connection.sendall(request.encode() + json.dumps(api.dialect.body("gpt-test", "Hi")).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    status = int(answer.split()[1]) if answer else None
    assert status in {400, 413, None}
    assert b"<html" not in answer.lower()
    assert upstream.requests == []


def test_a_too_large_body_in_chunks_gets_its_answer_before_it_ends(api, upstream):
    """Raw, so that the answer is read although this side has not finished sending."""
    head = "".join(f"{name}: {value}\r\n" for name, value in (api.headers | {"host": "x"}).items())
    chunk = b"%x\r\n%s\r\n" % (MEGABYTE, b" " * MEGABYTE)
    with socket.create_connection(("127.0.0.1", api.server.port), timeout=10) as connection:
        connection.sendall(f"POST {api.dialect.path} HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n".encode())
        for _ in range(32):
            connection.sendall(chunk)
        connection.sendall(b"2\r\n{}\r\n")
        answer = connection.recv(65536)
    assert answer.split()[1] == b"413"
    assert api.dialect.request_id_header.encode() in answer
    assert upstream.requests == []


def test_a_compressed_body_is_refused_as_such(api, upstream):
    answer = api.post(content=b"\x1f\x8b", headers=api.headers | {"content-encoding": "gzip"})
    refused(api, answer, 415, INVALID[api.dialect.name])
    assert upstream.requests == []
