"""What the dialects read: requests, usage in every shape that providers send it, streams, errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import StreamError
from providers.formats import chat_completions as openai
from providers.formats import messages as anthropic
from providers.request_body import InvalidRequest, parse_body
from providers.sse import EventSplitter
from providers.tokens import CEILING, TokenUsage

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


class Seen:
    """Stands where a meter does."""

    def __init__(self):
        self.text, self.usage = "", None
        self.response_model = self.stop_reason = None

    def saw_text(self, text):
        self.text += text

    def saw_usage(self, usage):
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage.updated(usage)


def read_stream(dialect, stream, **options):
    seen = Seen()
    reader = dialect.StreamReader(seen, **options)
    passed = b"".join(reader.saw(event)[0] for event in EventSplitter().feed(stream))
    return seen, reader, passed


# Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"model": NaN}',
        b'{"model": tru}',
        b'{"model":"\\ud800"}',
        b'{"model":"\xff"}',
        b"\xef\xbb\xbf{}",
        CHAT.decode().encode("utf-16"),
        CHAT + b"x",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(InvalidRequest):
        parse_body(body)


def test_a_million_small_nodes_build_no_objects():
    fields = parse_body(b'{"model":"m","messages":[' + b"{}," * 1_000_000 + b"{}]}")
    assert len(bytes(fields["messages"])) == 3_000_004


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"model": "a\0b"}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
    ],
)
@pytest.mark.parametrize("dialect", [openai, anthropic])
def test_a_field_that_cannot_be_used_is_named(dialect, change, param):
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]} | change
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(InvalidRequest) as refused:
        dialect.read_request(parse_body(json.dumps(body).encode()))
    assert refused.value.param == param


@pytest.mark.parametrize("max_tokens", [None, "5", -1, 1.5, True, 10**400])
def test_anthropic_callers_must_say_how_much_may_be_written(max_tokens):
    body = {"model": "m", "messages": [{}]} | ({} if max_tokens is None else {"max_tokens": max_tokens})
    with pytest.raises(InvalidRequest) as refused:
        anthropic.read_request(parse_body(json.dumps(body).encode()))
    assert refused.value.param == "max_tokens"


# Usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"input_tokens": 12, "output_tokens": 8}, TokenUsage(12, output_tokens=8)),
        (
            {"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3, "output_tokens": 4},
            TokenUsage(1, 2, 3, output_tokens=4),
        ),
        (
            {
                "input_tokens": 1,
                "cache_creation_input_tokens": 7,
                "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 5},
            },
            TokenUsage(1, None, 3, 4, 9, 5),
        ),
        ({"output_tokens": 9}, TokenUsage(output_tokens=9)),
        ({"input_tokens": "x"}, None),
        ([], None),
    ],
)
def test_anthropic_usage_becomes_disjoint_counts(reported, usage):
    assert anthropic.read_usage(reported) == usage


NAMES = [
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "output_tokens_details", "thinking_tokens",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_usage_object_is_ever_negative_or_an_error(reported):
    usage = anthropic.read_usage(reported)
    for count in usage.__struct_fields__ if usage else ():
        value = getattr(usage, count)
        assert value is None or 0 <= value <= CEILING


# Streams ---------------------------------------------------------------------------------------------------------


def data(document):
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        (
            anthropic,
            b'event: error\ndata: {"type":"error","error":{"type":"full","message":"No more room."}}\n\n',
        ),
    ],
)
def test_an_error_in_mid_stream_is_raised(dialect, event):
    with pytest.raises(StreamError) as failed:
        read_stream(dialect, event)
    assert (failed.value.message, failed.value.code) == ("No more room.", "full")


def anthropic_event(kind, **more):
    return f"event: {kind}\n".encode() + data({"type": kind, **more})


def test_what_message_start_says_of_the_output_is_a_placeholder():
    start = anthropic_event(
        "message_start", message={"model": "real", "content": [], "usage": {"input_tokens": 25, "output_tokens": 1}}
    )
    text = anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
    seen, reader, _ = read_stream(anthropic, start + text)
    assert seen.usage == TokenUsage(25)
    assert not anthropic.is_complete(reader)
    end = anthropic_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15})
    seen, reader, passed = read_stream(anthropic, start + text + end + anthropic_event("message_stop"))
    assert seen.usage == TokenUsage(25, output_tokens=15)
    assert (seen.text, seen.stop_reason, seen.response_model, reader.ended) == ("Hi", "end_turn", "real", True)
    assert passed == start + text + end + anthropic_event("message_stop")


@pytest.mark.parametrize("dialect", [openai, anthropic])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error":1}', b'{"choices":3,"content":3}'])
def test_an_answer_of_another_shape_is_none(dialect, body):
    with pytest.raises(ValueError, match=r".+"):
        dialect.read_answer(body, Seen())


@pytest.mark.parametrize(
    ("dialect", "body", "read"),
    [
        (openai, b'{"error":{"message":"m","type":"t","code":"c","param":"p"}}', ("m", "c", "p")),
        (openai, b'{"error":"flat"}', ("flat", None, None)),
        (openai, b'{"message":"vllm","code":400}', ("vllm", None, None)),
        (openai, b"<html>", (None, None, None)),
        (openai, b"\xff", (None, None, None)),
        (anthropic, b'{"type":"error","error":{"type":"t","message":"m"}}', ("m", "t", None)),
        (anthropic, b"[]", (None, None, None)),
    ],
)
def test_errors_are_read_in_every_shape(dialect, body, read):
    assert dialect.DIALECT.read_error(body) == read
