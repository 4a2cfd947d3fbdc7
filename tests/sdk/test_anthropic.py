"""The official Anthropic library with a changed base URL; it runs in its current and its older major version."""

import anthropic
import pytest

from tests.upstream import Script

MESSAGES = [{"role": "user", "content": "Hello id=sdk"}]
ASK = {"system": "Be brief.", "messages": MESSAGES, "max_tokens": 50}


@pytest.fixture
def client(server):
    with anthropic.Anthropic(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        yield client


# The second is translated on its way to an OpenAI-shaped upstream.
both_upstreams = pytest.mark.parametrize("model", ["claude-test", "gpt-test"])


@both_upstreams
def test_messages_answer_with_usage(client, upstream, model):
    answer = client.messages.create(model=model, **ASK)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", model)
    assert [block.text for block in answer.content] == ["token " * 8]
    assert answer.stop_reason == "end_turn"
    (bill,) = upstream.ledger["sdk"]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (bill.input_tokens, 8)
    assert answer._request_id.startswith("req_")


@both_upstreams
def test_messages_stream_in_the_order_of_the_dialect(client, upstream, model):
    events = list(client.messages.create(model=model, stream=True, **ASK))
    kinds = [event.type for event in events if event.type != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == 8


@both_upstreams
def test_the_stream_helper_builds_the_whole_message(client, upstream, model):
    with client.messages.stream(model=model, **ASK) as stream:
        assert "".join(stream.text_stream) == "token " * 8
        final = stream.get_final_message()
    assert final.usage.output_tokens == 8
    assert final.stop_reason == "end_turn"
    assert final.model == model


@both_upstreams
def test_an_answer_that_was_cut_short_says_so(client, upstream, model):
    upstream.play(model, Script(stop="length"))
    assert client.messages.create(model=model, **ASK).stop_reason == "max_tokens"


@both_upstreams
def test_tokens_are_counted(client, upstream, model):
    upstream.play("claude-test", Script(input_tokens=17))
    counted = client.messages.count_tokens(model=model, messages=MESSAGES, system="Be brief.")
    assert counted.input_tokens == 17 if model == "claude-test" else 3 <= counted.input_tokens <= 30


def test_models_are_listed_and_retrieved(client):
    models = {model.id: model for model in client.models.list()}
    assert {"gpt-test", "claude-test"} <= set(models)
    assert client.models.retrieve("claude-test").display_name == "claude-test"
    assert models["claude-test"].type == "model"


def test_a_wrong_key_is_an_authentication_error_with_its_request_id(client):
    with pytest.raises(anthropic.AuthenticationError) as raised:
        client.with_options(api_key="sk-wrong").messages.create(model="claude-test", **ASK)
    assert raised.value.request_id.startswith("req_")
    assert raised.value.body["error"]["type"] == "authentication_error"
    assert raised.value.body["request_id"] == raised.value.request_id


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-unknown", **ASK)
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-unknown")


def test_a_missing_field_is_a_bad_request(client):
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(model="claude-test", **ASK, extra_body={"max_tokens": None})
    assert "max_tokens" in raised.value.body["error"]["message"]


def test_a_limit_of_the_provider_is_a_rate_limit_error(client, upstream):
    upstream.play("claude-test", Script.refuse(429, headers=[("retry-after", "1")]))
    with pytest.raises(anthropic.RateLimitError) as raised:
        client.messages.create(model="claude-test", **ASK)
    assert raised.value.response.headers["retry-after"] == "1"


def test_an_overloaded_provider_is_told_in_the_dialects_own_way(client, upstream):
    upstream.play("claude-test", Script.refuse(529))
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model="claude-test", **ASK)
    assert raised.value.status_code == 529
    assert raised.value.body["error"]["type"] == "overloaded_error"


def test_a_refused_credential_upstream_is_not_tried_again(client, upstream):
    upstream.play("claude-test", Script.refuse(401))
    with pytest.raises(anthropic.InternalServerError):
        client.with_options(max_retries=2).messages.create(model="claude-test", **ASK)
    assert len(upstream.calls) == 1


@both_upstreams
def test_a_stream_that_breaks_off_raises(client, upstream, model):
    upstream.play(model, Script(chunks=20, cut_at=2500))
    with pytest.raises(anthropic.APIError) as raised:
        list(client.messages.create(model=model, stream=True, **ASK))
    assert "cut off" in str(raised.value)


@both_upstreams
def test_closing_a_stream_ends_the_providers_work(client, upstream, model):
    upstream.play(model, Script(chunks=500, delay=0.02))
    with client.messages.stream(model=model, **ASK) as stream:
        next(iter(stream))
    upstream.wait_until(lambda u: u.calls[0].left_at, timeout=2)


@pytest.mark.anyio
async def test_the_asynchronous_client_streams_too(server, upstream):
    async with (
        anthropic.AsyncAnthropic(base_url=server.base_url, api_key=server.api_key) as client,
        client.messages.stream(model="claude-test", **ASK) as stream,
    ):
        text = "".join([text async for text in stream.text_stream])
    assert text == "token " * 8
