"""The language model of the first run, through both libraries: what it really said is what is counted."""

import anthropic
import openai
import pytest

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "Say hello."}]

pytestmark = pytest.mark.model


def counted(site, request_id):
    row = site.row(request_id)
    assert (row["outcome"], row["usage_source"], row["cost_nanos"]) == ("completed", "reported", 0)
    return (row["input_tokens"] or 0) + (row["cache_read_tokens"] or 0), row["output_tokens"]


@pytest.fixture
def openai_client(site):
    with openai.OpenAI(base_url=f"{site.base_url}/v1", api_key=site.api_key) as client:
        yield client


@pytest.fixture
def anthropic_client(site):
    with anthropic.Anthropic(base_url=site.base_url, api_key=site.api_key) as client:
        yield client


def test_it_is_listed_and_answers_an_openai_client(openai_client, site):
    assert MODEL in [model.id for model in openai_client.models.list()]
    answer = openai_client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=24)
    assert answer.choices[0].message.content.strip()
    assert 0 < answer.usage.completion_tokens <= 24
    assert counted(site, answer._request_id) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)


def test_it_streams_to_an_openai_client(openai_client, site):
    with openai_client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION, max_tokens=24, stream=True, stream_options={"include_usage": True}
    ) as answer:
        request_id = answer.headers["x-request-id"]
        chunks = list(answer.parse())
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(words) > 3
    usage = chunks[-1].usage
    assert counted(site, request_id) == (usage.prompt_tokens, usage.completion_tokens)


def test_it_answers_an_anthropic_client(anthropic_client, site):
    answer = anthropic_client.messages.create(model=MODEL, system="Be kind.", messages=QUESTION, max_tokens=24)
    assert answer.content[0].text.strip()
    assert answer.stop_reason in {"end_turn", "max_tokens"}
    given = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted(site, answer._request_id) == (given, answer.usage.output_tokens)


def test_it_streams_to_an_anthropic_client_every_time(anthropic_client, site):
    for _ in range(3):
        with anthropic_client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=16) as stream:
            assert "".join(stream.text_stream).strip()
            final, request_id = stream.get_final_message(), stream.response.headers["request-id"]
        assert counted(site, request_id)[1] == final.usage.output_tokens


def test_its_tokens_are_counted_before_they_are_spent(anthropic_client):
    count = anthropic_client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    answer = anthropic_client.messages.create(model=MODEL, messages=QUESTION, max_tokens=1)
    given = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    # Counted by another tokenizer and without the chat template around the words.
    assert count / 2 <= given <= count + 40
