"""From one dialect to the other and back: requests, answers and streams, fed as providers send them."""

import json

import pytest

from gateway.calls import Call, Caller
from gateway.metering import Meter
from providers.formats import chat_completions as openai
from providers.formats import messages as anthropic
from providers.request_body import InvalidRequest, parse_body
from providers.sse import EventSplitter
from providers.targets import Target
from providers.translators import anthropic_to_openai, openai_to_anthropic


def target(**fields):
    known = {
        "public_name": "public", "upstream_name": "upstream", "provider_model_id": 1, "provider_id": 1,
        "provider_name": "p", "dialect": "openai", "base_url": "https://x.example/v1", "private_allowed": False,
        "headers": {}, "is_usable": True, "created": 0, "context_window": None, "max_output_tokens": None,
        "endpoints": {},
    }  # fmt: skip
    return Target(**known | fields)


def translated(translator, body, **fields):
    return translator.request(parse_body(json.dumps(body).encode()), target(**fields))


def meter_for(dialect):
    call = Call(dialect, "messages", Caller(1, "o", 1, "w", None, None, "api"), {}, stream=True)
    call.model = "public"
    return Meter(call, None, lambda: "")


def retold(dialect, translation, meter, stream):
    """The events that a caller gets for a provider's ``stream`` of ``dialect``."""
    reader = dialect.StreamReader(meter)
    told = b""
    for event in EventSplitter().feed(stream):
        _, said = reader.saw(event)
        told += translation.feed(said) if said is not None else b""
    return [
        json.loads(event.data) if event.data != b"[DONE]" else "[DONE]"
        for event in EventSplitter().feed(told + translation.finish())
    ]


HELLO = {"model": "public", "messages": [{"role": "user", "content": "Hello"}]}


def test_an_anthropic_request_becomes_an_openai_one():
    body, dropped = translated(
        anthropic_to_openai,
        {
            "model": "public",
            "max_tokens": 30,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "One"},
                {"role": "user", "content": [{"type": "text", "text": "Two"}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                                                  {"type": "text", "text": "Three"}]},
            ],
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["END"], "stream": True,
            "metadata": {"user_id": "u1"},
        },
    )  # fmt: skip
    assert body == {
        "model": "upstream",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One\n\nTwo"},
            {"role": "assistant", "content": "Three"},
        ],
        "max_tokens": 30, "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "user": "u1", "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert dropped == ["top_k"]


def test_openai_itself_is_told_of_the_limit_by_its_newer_name():
    body, _ = translated(anthropic_to_openai, HELLO | {"max_tokens": 5}, max_tokens_field="max_completion_tokens")
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


def test_an_openai_request_becomes_an_anthropic_one():
    body, dropped = translated(
        openai_to_anthropic,
        {
            "model": "public",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "In French."}]},
                {"role": "user", "content": "Hello"},
            ],
            "max_completion_tokens": 30, "temperature": 1.7, "stop": "END", "user": "u1", "seed": 7, "n": 1,
        },
    )  # fmt: skip
    assert body == {
        "model": "upstream", "system": "Be brief.\n\nIn French.", "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 30, "temperature": 1, "stop_sequences": ["END"], "metadata": {"user_id": "u1"},
    }  # fmt: skip
    assert dropped == ["seed"]


@pytest.mark.parametrize(("known", "limit"), [(None, 4096), (1000, 1000)])
def test_a_limit_that_nobody_set_is_the_models_own(known, limit):
    body, _ = translated(openai_to_anthropic, HELLO, max_output_tokens=known)
    assert body["max_tokens"] == limit


@pytest.mark.parametrize(
    ("translator", "change"),
    [
        (openai_to_anthropic, {"tools": [{"type": "function"}]}),
        (openai_to_anthropic, {"response_format": {"type": "json_object"}}),
        (openai_to_anthropic, {"n": 2}),
        (openai_to_anthropic, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        (openai_to_anthropic, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (openai_to_anthropic, {"messages": [{"role": "user", "content": 5}]}),
        (openai_to_anthropic, {"messages": [{"role": "system", "content": "alone"}]}),
        (openai_to_anthropic, {"messages": ["text"]}),
        (anthropic_to_openai, {"tools": [{"name": "f"}]}),
        (anthropic_to_openai, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
        (anthropic_to_openai, {"messages": [{"role": "user"}]}),
        (anthropic_to_openai, {"messages": [{"role": "tool", "content": "x"}]}),
        (anthropic_to_openai, {"messages": [None]}),
        (anthropic_to_openai, {"messages": [{"role": ["user"], "content": "x"}]}),
        (anthropic_to_openai, {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}),
        (openai_to_anthropic, {"messages": [{"role": {}, "content": "x"}]}),
        (anthropic_to_openai, {"system": 5}),
    ],
)
def test_what_would_change_the_meaning_is_refused(translator, change):
    with pytest.raises(InvalidRequest):
        translated(translator, HELLO | {"max_tokens": 5} | change)


def openai_stream(finish="stop"):
    def chunk(delta, finish=None):
        return {"id": "x", "model": "real", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    documents = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, finish),
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}},
    ]
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents) + openai.DONE


@pytest.mark.parametrize(
    ("finish", "stop"), [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")]
)
def test_an_openai_stream_is_retold_in_anthropics_events(finish, stop):
    meter = meter_for(anthropic)
    events = retold(openai, anthropic_to_openai.Stream(meter, "req_1"), meter, openai_stream(finish))
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["id"] == "msg_1"
    assert events[0]["message"]["model"] == "real"
    assert "".join(event["delta"]["text"] for event in events[2:4]) == "Hello"
    assert events[-2]["delta"]["stop_reason"] == stop
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (9, 2)


@pytest.mark.parametrize("with_usage", [True, False])
def test_an_anthropic_stream_is_retold_in_openais_chunks(with_usage):
    begun = {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 1}
    documents = [
        {"type": "message_start", "message": {"model": "real", "content": [], "usage": begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip
    stream = b"".join(
        f"event: {d['type']}\n".encode() + b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents
    )
    meter = meter_for(openai)
    chunks = retold(anthropic, openai_to_anthropic.Stream(meter, "req_1", with_usage=with_usage), meter, stream)
    assert chunks.pop() == "[DONE]"
    usage = chunks.pop() if with_usage else None
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {},
    ]  # fmt: skip
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert all(("usage" in chunk) == with_usage for chunk in chunks)
    if with_usage:
        assert usage["choices"] == []
        assert usage["usage"]["prompt_tokens"] == 12
        assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
        assert usage["usage"]["completion_tokens"] == 2


def test_a_whole_answer_is_retold_both_ways():
    meter = meter_for(anthropic)
    body = {"model": "real", "choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2}}  # fmt: skip
    message = json.loads(
        anthropic_to_openai.answer(openai.read_answer(json.dumps(body).encode(), meter), meter, "req_1")
    )
    assert message["content"] == [{"type": "text", "text": "Hi"}]
    assert (message["stop_reason"], message["usage"]["input_tokens"]) == ("max_tokens", 9)

    meter = meter_for(openai)
    body = {"model": "real", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 9, "output_tokens": 2}}  # fmt: skip
    answer = anthropic.read_answer(json.dumps(body).encode(), meter)
    completion = json.loads(openai_to_anthropic.answer(answer, meter, "req_1"))
    assert completion["choices"][0]["message"]["content"] == "Hi"
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] == 11
