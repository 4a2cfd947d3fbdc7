"""Through the official OpenAI library: completions of a text, calls of tools and their results, thoughts."""

import json

import openai
import pytest

from tests.upstream import Script
from tests.upstream.scripts import ToolCall


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.api_key, max_retries=0) as client:
        yield client


# The second asks a provider who takes conversations only.
both_upstreams = pytest.mark.parametrize("model", ["gpt-test", "claude-test"])


@both_upstreams
def test_a_text_is_completed(client, upstream, model):
    answer = client.completions.create(model=model, prompt="Once upon id=sdk", max_tokens=50)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "token " * 8
    assert answer.choices[0].finish_reason == "stop"
    (bill,) = upstream.ledger["sdk"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (bill.input_tokens, 8)


@both_upstreams
def test_a_text_is_completed_in_a_stream(client, upstream, model):
    options = {"include_usage": True}
    asked = {"model": model, "prompt": "Once upon id=sdk", "max_tokens": 50}
    chunks = list(client.completions.create(**asked, stream=True, stream_options=options))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "token " * 8
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    (bill,) = upstream.ledger["sdk"]
    assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], bill.input_tokens)


def test_what_a_conversation_cannot_give_is_refused(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.completions.create(model="claude-test", prompt=["One", "Two"])
    assert raised.value.param == "prompt"


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}},
}
CALLS = (ToolCall("call_a", "weather", '{"town":"Nîmes"}'), ToolCall("call_b", "weather", '{"town":"Gap"}'))


@both_upstreams
def test_calls_of_tools_come_in_a_stream_and_their_results_go_back(client, upstream, model):
    upstream.play(model, Script(tools=CALLS, stop="tool_calls"))
    messages = [{"role": "user", "content": "Where does it rain? id=sdk"}]
    asked = {"model": model, "tools": [WEATHER], "max_tokens": 50}
    calls, finish = {}, None
    for chunk in client.chat.completions.create(**asked, messages=messages, stream=True):
        finish = chunk.choices[0].finish_reason or finish
        for part in chunk.choices[0].delta.tool_calls or ():
            call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
            call["arguments"] += part.function.arguments
    assert finish == "tool_calls"
    assert [(call["id"], call["name"], json.loads(call["arguments"])) for call in calls.values()] == [
        ("call_a", "weather", {"town": "Nîmes"}), ("call_b", "weather", {"town": "Gap"}),
    ]  # fmt: skip

    upstream.play(model, Script())
    whole = [{"id": call.pop("id"), "type": "function", "function": call} for call in calls.values()]
    messages += [{"role": "assistant", "content": None, "tool_calls": whole}] + [
        {"role": "tool", "tool_call_id": call["id"], "content": "Rain"} for call in whole
    ]
    answer = client.chat.completions.create(**asked, messages=messages)
    assert answer.choices[0].message.content == "token " * 8


def test_thoughts_come_to_those_who_ask(client, upstream):
    upstream.play("claude-test", Script(reasoning=("Let me ", "see.")))
    asked = {"model": "claude-test", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}
    answer = client.chat.completions.create(**asked, extra_body={"include_reasoning": True})
    assert answer.choices[0].message.reasoning_content == "Let me see."
    upstream.play("claude-test", Script(reasoning=("Let me ", "see.")))
    answer = client.chat.completions.create(**asked)
    assert not hasattr(answer.choices[0].message, "reasoning_content")
