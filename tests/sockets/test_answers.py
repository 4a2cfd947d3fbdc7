"""Good answers over real sockets: what the caller gets, what the provider was sent, and what was counted."""

import time

import pytest

from tests.upstream import Script


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_answer_is_counted_as_the_provider_billed_it(api, model, upstream, stream):
    upstream.play(model, Script(chunks=11, cache_read_tokens=64, cache_write_tokens=16))
    answer = api.ask(model, text="Count me, id=counted", stream=stream)
    assert answer.status_code == 200
    text = api.dialect.streamed_text(answer.content) if stream else api.dialect.text_of(answer.json())
    assert text == "token " * 11
    row, (bill,) = api.row(answer), upstream.ledger["counted"]
    assert row["outcome"] == "completed"
    assert row["usage_source"] == "reported"
    assert row["input_tokens"] == bill.input_tokens
    assert (row["cache_read_tokens"], row["cache_write_tokens"], row["output_tokens"]) == (64, 16, 11)
    # 3 a million for what went in, cached or not since the cache has no price of its own; 15 for what came out.
    assert row["cost_nanos"] == (bill.input_tokens + 64 + 16) * 3_000 + 11 * 15_000
    assert row["requested_model"] == row["upstream_model"] == row["response_model"] == model
    assert bool(row["stream"]) is stream
    assert row["dialect"] == api.dialect.name
    assert row["endpoint"] == ("messages" if api.dialect.name == "anthropic" else "chat_completions")
    assert row["upstream_request_id"] == upstream.calls[0].id
    assert row["stop_reason"] in {"stop", "end_turn"}
    assert row["attempts"] == 1
    assert 0 < row["overhead_us"] < 1_000_000


def test_the_provider_gets_its_own_credential_and_nothing_of_the_callers(api, model, upstream):
    api.ask(model, headers={"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "anthropic-workspace-id": "w"})
    sent = upstream.calls[0].headers
    assert api.key not in str(sent)
    assert "sk-upstream" in str(sent)
    assert not {"cookie", "x-forwarded-for", "anthropic-workspace-id"} & set(sent)


def test_what_the_dialect_does_not_know_passes_through_to_a_provider_of_the_same(api, upstream):
    model = "gpt-test" if api.dialect.name == "openai" else "claude-test"
    api.ask(model, temperature=0.5, some_new_field={"deep": [1, 2.50, "é"]})
    sent = upstream.calls[0].json
    assert sent["some_new_field"] == {"deep": [1, 2.5, "é"]}
    assert sent["temperature"] == 0.5


def test_a_stream_of_the_same_dialect_passes_unchanged(api, upstream):
    import httpx

    model = "gpt-test" if api.dialect.name == "openai" else "claude-test"
    fields = {"stream_options": {"include_usage": True}} if api.dialect.name == "openai" else {}
    through = api.ask(model, stream=True, **fields).content
    direct = httpx.post(
        upstream.url + api.dialect.path.removeprefix("/v1"),
        content=upstream.calls[0].body,
        headers=api.dialect.headers,
    ).content
    assert through == direct


def test_usage_is_kept_from_callers_who_did_not_ask_for_it(server, upstream):
    from tests.api import OPENAI, Api

    api = Api(server, server.api_key, OPENAI)
    for model in ("gpt-test", "claude-test"):
        raw = api.ask(model, stream=True).content
        assert b"usage" not in raw
        assert all(event["choices"] for event in api.dialect.events_of(raw))
        asked = api.dialect.events_of(api.ask(model, stream=True, stream_options={"include_usage": True}).content)
        assert asked[-1]["choices"] == []
        assert asked[-1]["usage"]["completion_tokens"] == 8
    assert upstream.calls[0].json["stream_options"] == {"include_usage": True}


def test_the_first_token_is_timed_and_does_not_wait_for_the_last(api, model, upstream):
    upstream.play(model, Script(chunks=10, delay=0.05, first_byte_delay=0.1))
    with api.streaming(model) as answer:
        parts = answer.iter_bytes()
        while not api.dialect.streamed_text(next(parts)):
            pass
        sent = upstream.calls[0].sent_chunks
        for _ in parts:
            pass
    assert sent < 10
    row = api.row(answer)
    assert 140 <= row["time_to_first_token_ms"] < row["duration_ms"] - 150
    assert row["duration_ms"] >= 590


def test_a_client_that_leaves_ends_the_providers_work_within_a_second(api, model, upstream):
    # Slow enough that what is under way when the client leaves is a chunk or two, also on a busy machine.
    upstream.play(model, Script(chunks=100, delay=0.1))
    with api.streaming(model) as answer:
        parts = answer.iter_bytes()
        next(parts)
        time.sleep(0.5)
    left = time.monotonic()
    upstream.wait_until(lambda u: u.calls[0].left_at, timeout=3, what="the upstream call ended")
    assert upstream.calls[0].left_at - left < 1
    row = api.row(answer)
    assert row["outcome"] == "client_cancelled"
    assert abs(row["output_tokens"] - upstream.calls[0].bill.output_tokens) <= 2
    assert row["cost_nanos"] > 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_before_the_answer_ends_the_providers_work_too(api, model, upstream, stream):
    import httpx

    upstream.play(model, Script(silent=True))
    with pytest.raises(httpx.ReadTimeout):
        api.post(json=api.dialect.body(model, "Hi", stream=stream), timeout=0.3)
    upstream.wait_until(lambda u: u.calls and u.calls[0].left_at, timeout=3, what="the upstream call ended")
    assert upstream.calls[0].left_after < 1.3
    rows = api.server.rows(outcome="client_cancelled", upstream_model=model, at_least=1)
    assert rows[-1]["attempts"] == 1


def test_model_lists_answer_in_the_callers_dialect(api, upstream):
    answer = api.client.get("/v1/models", headers=api.headers)
    assert answer.status_code == 200
    names = [model["id"] for model in answer.json()["data"]]
    assert {"gpt-test", "claude-test"} <= set(names)
    item = api.client.get("/v1/models/gpt-test", headers=api.headers).json()
    assert item["id"] == "gpt-test"
    assert ("display_name" in item) is (api.dialect.name == "anthropic")
    assert ("owned_by" in item) is (api.dialect.name == "openai")
    assert upstream.requests == []


def test_an_unmetered_question_leaves_no_row(api):
    answer = api.client.get("/v1/models", headers=api.headers)
    assert api.request_id(answer).startswith("req_")
    assert api.server.rows(id=api.request_id(answer)) == []


def test_tokens_are_counted_by_the_provider_where_it_can_and_here_where_not(server, upstream):
    from tests.api import ANTHROPIC, Api

    api = Api(server, server.api_key, ANTHROPIC)
    upstream.play("claude-test", Script(input_tokens=2095))
    body = {"model": "claude-test", "messages": [{"role": "user", "content": "How many?"}]}
    assert api.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 2095}
    answer = api.post("/v1/messages/count_tokens", json=body | {"model": "gpt-test"})
    assert 2 <= answer.json()["input_tokens"] <= 20


def test_a_revoked_key_stops_within_a_second_and_a_new_one_works_at_once(server, upstream):
    from tests.api import OPENAI, Api

    api = Api(server, server.create_api_key("short-lived"), OPENAI)
    assert api.ask("gpt-test").status_code == 200
    server.manage(
        "shell",
        "-c",
        "from console.models import ApiKey; from console.services import revoke_api_key;"
        "revoke_api_key(api_key=ApiKey.objects.get(name='short-lived'), actor=None)",
    )
    time.sleep(1)
    assert api.ask("gpt-test").status_code == 401


def test_machines_find_health_readiness_and_metrics(api):
    for path in ("/healthz", "/readyz"):
        answer = api.client.get(path)
        assert answer.status_code == 200
    metrics = api.client.get("/metrics").text
    assert "comptoir_" in metrics
    assert api.key not in metrics
