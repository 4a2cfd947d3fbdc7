"""The official OpenAI library with a changed base URL; it runs in its current and its older major version."""

import openai
import pytest

from tests.upstream import Script

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello id=sdk"}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.api_key, max_retries=0) as client:
        yield client


# The second is translated on its way to an Anthropic-shaped upstream.
both_upstreams = pytest.mark.parametrize("model", ["gpt-test", "claude-test"])


@both_upstreams
def test_chat_answers_with_usage(client, upstream, model):
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=50)
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "token " * 8
    assert answer.choices[0].finish_reason == "stop"
    (bill,) = upstream.ledger["sdk"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (bill.input_tokens, 8)
    assert answer.usage.total_tokens == bill.input_tokens + 8
    assert answer._request_id.startswith("req_")


@both_upstreams
def test_chat_streams_without_the_usage_that_was_not_asked_for(client, upstream, model):
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "token " * 8
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


@both_upstreams
def test_chat_streams_with_usage_where_it_is_asked_for(client, upstream, model):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    (bill,) = upstream.ledger["sdk"]
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (bill.input_tokens, 8)
    assert all(chunk.usage is None for chunk in chunks[:-1])


@both_upstreams
def test_an_answer_that_was_cut_short_says_so(client, upstream, model):
    upstream.play(model, Script(stop="length"))
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8)
    assert answer.choices[0].finish_reason == "length"


def test_models_are_listed_and_retrieved(client):
    models = {model.id: model for model in client.models.list()}
    assert {"gpt-test", "claude-test"} <= set(models)
    assert client.models.retrieve("gpt-test") == models["gpt-test"]
    assert models["gpt-test"].object == "model"


def test_a_wrong_key_is_an_authentication_error_with_its_request_id(client):
    with pytest.raises(openai.AuthenticationError) as raised:
        client.with_options(api_key="sk-wrong").chat.completions.create(model="gpt-test", messages=MESSAGES)
    assert raised.value.request_id.startswith("req_")
    assert raised.value.code == "invalid_api_key"
    assert raised.value.type == "invalid_request_error"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-unknown", messages=MESSAGES)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-unknown")


def test_a_missing_field_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="gpt-test", messages=openai.NOT_GIVEN)
    assert raised.value.param == "messages"


def test_a_limit_of_the_provider_is_a_rate_limit_error(client, upstream):
    upstream.play("gpt-test", Script.refuse(429, headers=[("retry-after", "1")]))
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model="gpt-test", messages=MESSAGES)
    assert raised.value.response.headers["retry-after"] == "1"


def test_a_failing_provider_is_a_server_error_that_the_library_tries_again(client, upstream):
    upstream.play("gpt-test", Script.refuse(503), Script())
    answer = client.with_options(max_retries=1).chat.completions.create(model="gpt-test", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert len(upstream.calls) == 2


def test_a_refused_credential_upstream_is_not_tried_again(client, upstream):
    upstream.play("gpt-test", Script.refuse(401))
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=2).chat.completions.create(model="gpt-test", messages=MESSAGES)
    assert len(upstream.calls) == 1


@both_upstreams
def test_a_stream_that_breaks_off_raises(client, upstream, model):
    upstream.play(model, Script(chunks=20, cut_at=2500))
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert "cut off" in str(raised.value)


@both_upstreams
def test_closing_a_stream_ends_the_providers_work(client, upstream, model):
    upstream.play(model, Script(chunks=500, delay=0.02))
    with client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    upstream.wait_until(lambda u: u.calls[0].left_at, timeout=2)


@pytest.mark.anyio
async def test_the_asynchronous_client_streams_too(server, upstream):
    async with openai.AsyncOpenAI(base_url=f"{server.base_url}/v1", api_key=server.api_key) as client:
        stream = await client.chat.completions.create(model="gpt-test", messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "token " * 8
