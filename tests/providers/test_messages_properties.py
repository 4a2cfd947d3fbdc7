"""What holds of messages for every conversation and every stream: nothing is lost, twisted or made up."""

import itertools
import json
import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.conversation import (
    ArgumentsPiece,
    RedactedPiece,
    SignaturePiece,
    StopPiece,
    Text,
    TextPiece,
    ThinkingPiece,
    ToolCall,
    ToolCallPiece,
    ToolResult,
)
from providers.errors import StreamError
from providers.formats import messages as format
from providers.translators import messages
from tests.providers.exchange import Seen, data, documents, raw, reply_for, retold, target

# Requests --------------------------------------------------------------------------------------------------------

# Texts of white space alone, and spaces at the end of the last turn, are not for this format.
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(lambda text: f"{text}.")
NAMES = st.text("abc", min_size=1, max_size=4)
CACHE = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])
SOURCES = st.sampled_from(
    [
        {"type": "url", "url": "https://x.example/a"},
        {"type": "file", "file_id": "file_1"},
    ]
)
PNG = st.just({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="})
PDF = st.just({"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="})
PLAIN = WORDS.map(lambda text: {"type": "text", "media_type": "text/plain", "data": text})
TEXTS = st.builds(lambda text, cache: {"type": "text", "text": text} | cache, WORDS, CACHE)
IMAGES = st.builds(lambda source, cache: {"type": "image", "source": source} | cache, SOURCES | PNG, CACHE)
DOCUMENTS = st.builds(
    lambda source, cache, about: {"type": "document", "source": source} | cache | about,
    SOURCES | PDF | PLAIN,
    CACHE,
    st.fixed_dictionaries({}, optional={"title": WORDS, "context": WORDS}),
)
THOUGHTS = st.builds(
    lambda text, proof: {"type": "thinking", "thinking": text, "signature": proof}, st.text(max_size=4), WORDS
) | WORDS.map(lambda text: {"type": "redacted_thinking", "data": text})
INPUTS = st.dictionaries(NAMES, st.integers(0, 9) | WORDS | st.none(), max_size=2)


@st.composite
def conversations(draw):
    """Turns of both sides, some of them with calls of tools, whose results follow."""
    turns, calls = [], 0
    for _ in range(draw(st.integers(1, 3))):
        blocks = draw(st.lists(TEXTS | IMAGES | DOCUMENTS, max_size=3))
        returned = [
            {"type": "tool_result", "tool_use_id": f"toolu_{calls - number}"}
            | draw(CACHE)
            | draw(
                st.fixed_dictionaries(
                    {}, optional={"content": WORDS | st.lists(TEXTS | IMAGES, max_size=2), "is_error": st.booleans()}
                )
            )
            for number in range(_calls_in(turns))
        ]
        turns.append({"role": "user", "content": returned + blocks if returned or blocks else draw(WORDS)})
        answered = draw(st.lists(THOUGHTS | TEXTS, max_size=3))
        for _ in range(draw(st.integers(0, 2))):
            calls += 1
            call = {"type": "tool_use", "id": f"toolu_{calls}", "name": draw(NAMES), "input": draw(INPUTS)}
            answered.append(call | draw(CACHE))
        if answered:
            turns.append({"role": "assistant", "content": answered})
    return turns


def _calls_in(turns):
    blocks = turns[-1]["content"] if turns else ()
    return sum(isinstance(block, dict) and block["type"] == "tool_use" for block in blocks)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "system": WORDS | st.lists(TEXTS, min_size=1, max_size=3), "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 0.9), "top_k": st.integers(1, 9), "stop_sequences": st.lists(WORDS, min_size=1),
        "metadata": NAMES.map(lambda name: {"user_id": name}), "stream": st.booleans(),
        "thinking": st.sampled_from([{"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}]),
        "output_config": st.fixed_dictionaries({}, optional={
            "effort": st.sampled_from(["low", "high", "max"]),
            "format": st.just({"type": "json_schema", "schema": {"type": "object"}})}),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "cache_control": st.just({"type": "ephemeral"}),
    },
)  # fmt: skip
TOOLS = st.lists(NAMES, min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            "tools": CACHE.map(lambda cache: [
                {"name": name, "description": "F.", "input_schema": {"type": "object"}, "strict": True} | cache
                for name in names
            ])
        },
        optional={
            "tool_choice": st.sampled_from([
                {"type": "auto"}, {"type": "none"}, {"type": "any", "disable_parallel_tool_use": True},
                {"type": "tool", "name": names[0]},
            ]),
        },
    )
)  # fmt: skip


def meaning(conversation):
    """What a conversation says, whichever way its plain texts are cut into blocks."""
    said = []
    for turn in conversation.turns:
        for part in turn.parts:
            match part:
                case ToolCall():
                    said.append((turn.role, part.id, part.name, json.loads(part.arguments), part.cache))
                case Text(cache=None) if said and said[-1][:2] == (turn.role, "text") and turn.role == "system":
                    said[-1] = (turn.role, "text", f"{said[-1][2]}\n\n{part.text}")
                case Text(cache=None):
                    said.append((turn.role, "text", part.text))
                case ToolResult():
                    said.append((turn.role, part))
                case _:
                    said.append((turn.role, part))
    return said, conversation.tools, conversation.tool_choice, conversation.output_format, conversation.stream


@settings(max_examples=40)
@given(conversations(), OPTIONS, st.just({}) | TOOLS)
def test_what_is_read_and_written_again_means_the_same(turns, options, tools):
    body = {"model": "public", "max_tokens": 50, "messages": turns, **options, **tools}
    before, asked = messages.read_request(raw(body)), messages.read_request(raw(body))
    written = messages.write_request(asked, target())
    after = messages.read_request(raw(written))
    assert meaning(after) == meaning(before)
    assert after.options == before.options
    assert asked.dropped() == []
    # What has been written once is written the same again.
    assert messages.write_request(after, target()) == written


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["text", "user", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "text", "source", "content", "role", "input", "name", "id"]), inner)
    ),
    max_leaves=6,
)


@given(st.sampled_from(["messages", "system", "tools", "tool_choice", "output_config", "metadata", "thinking"]), JSON)
def test_no_request_is_an_error_of_ours(name, value):
    body = {"model": "public", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}], name: value}
    for wrapped in (value, [value], [{"role": "user", "content": [value]}], [{"role": "assistant", "content": value}]):
        try:
            conversation = messages.read_request(raw(body | {name: wrapped}))
            messages.write_request(conversation, target())
        except format.InvalidRequest as refusal:
            assert str(refusal)


# Streams ---------------------------------------------------------------------------------------------------------


def event(kind, **more):
    return f"event: {kind}\n".encode() + data({"type": kind, **more})


def block(index, start, *deltas):
    yield event("content_block_start", index=index, content_block=start)
    for delta in deltas:
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


USAGE = {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 1}
STREAM = [
    event("message_start", message={"id": "m", "model": "real", "content": [], "usage": USAGE}),
    *block(0, {"type": "thinking", "thinking": "", "signature": ""},
           {"type": "thinking_delta", "thinking": "Let me sée."}, {"type": "signature_delta", "signature": "c2ln"}),
    event("ping"),
    *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Grüße, "},
           {"type": "text_delta", "text": "Welt \U0001f30d"}),
    *block(2, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
           {"type": "input_json_delta", "partial_json": '{"query":"x"}'}),
    *block(3, {"type": "tool_use", "id": "toolu_a", "name": "f", "input": {}},
           {"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": '{"a":'},
           {"type": "input_json_delta", "partial_json": '"ü"}'}),
    *block(4, {"type": "tool_use", "id": "toolu_b", "name": "g", "input": {"b": 1}}),
    event("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 20}),
    event("message_stop"),
]  # fmt: skip
BYTES = b"".join(STREAM)
THINKS = {"thinking": {"type": "adaptive"}}


def shown(stream, cuts=None):
    return retold(stream, format, messages.AnswerReader(), messages.AnswerWriter, cuts=cuts, fields=THINKS)


def test_a_stream_cut_at_any_byte_comes_out_the_same():
    whole, meter = shown(BYTES)
    for first in range(1, 60):
        told, seen = shown(BYTES, range(first, len(BYTES), 59))
        assert told == whole, first
        assert (seen.text, seen.reported) == (meter.text, meter.reported), first
    assert shown(BYTES, range(1, len(BYTES)))[0] == whole
    assert shown(BYTES.replace(b"\n", b"\r\n"), range(1, len(BYTES)))[0] == whole


def checked(told):
    """The blocks of a stream that was told, after a look at its order."""
    events = documents(told)
    assert [each["type"] for each in events[-2:]] == ["message_delta", "message_stop"]
    assert events[0]["type"] == "message_start"
    blocks, is_open = [], False
    for each in events[1:-2]:
        kind = each["type"].removeprefix("content_block_")
        assert is_open == (kind != "start")
        is_open = kind != "stop"
        if kind == "start":
            blocks.append({"told": ""} | each["content_block"])
        elif kind == "delta":
            blocks[-1]["told"] += "".join(value for name, value in each["delta"].items() if name != "type")
        assert each["index"] == len(blocks) - 1
    assert not is_open
    return blocks


def test_a_stream_of_this_format_comes_out_as_it_came_in():
    told, _ = shown(BYTES)
    assert [(each["type"], each["told"]) for each in checked(told)] == [
        ("thinking", "Let me sée.c2ln"), ("text", "Grüße, Welt \U0001f30d"), ("tool_use", '{"a":"ü"}'),
        ("tool_use", '{"b":1}'),
    ]  # fmt: skip


@st.composite
def mutations(draw):
    """The stream with bytes changed, events repeated, left out and swapped, and values of other types."""
    events = list(STREAM)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(events) - 1))
        told = events[at]
        start = told.index(b"data: ") + 6
        match draw(st.integers(0, 5)):
            case 0:
                byte = draw(st.integers(start, len(told) - 1))
                events[at] = told[:byte] + bytes([draw(st.integers(0, 255))]) + told[byte + 1 :]
            case 1:
                byte = draw(st.integers(start, len(told) - 1))
                events[at] = told[:byte] + told[byte + draw(st.integers(1, 9)) :]
            case 2:
                events.insert(draw(st.integers(0, len(events))), told)
            case 3:
                del events[at]
            case 4:
                other = draw(st.integers(0, len(events) - 1))
                events[at], events[other] = events[other], events[at]
            case 5:
                wrong = draw(st.sampled_from([b"null", b"[]", b"{}", b"7", b'""', b"true", b"[null]", b"1e9"]))
                pattern = rb'"[^"]*"(?=[,}\]])|\{[^{}]*\}|\[[^\[\]]*\]|(?<=:)\d+'
                places = [found.span() for found in re.finditer(pattern, told[start:])]
                if places:
                    first, last = draw(st.sampled_from(places))
                    events[at] = told[: start + first] + wrong + told[start + last :]
    return b"".join(events)


@settings(max_examples=200)
@given(mutations())
def test_no_mutated_stream_crashes_or_makes_up_text(stream):
    try:
        told, meter = shown(stream)
    except StreamError:
        return
    checked(told)
    words = "".join(
        value
        for each in documents(told)
        if each["type"] == "content_block_delta"
        for name, value in each["delta"].items()
        # A call that nothing was sent for has the empty object as its input; a proof is no text that counts.
        if name in ("text", "thinking") or (name == "partial_json" and value != "{}")
    )
    assert Counter(words) <= Counter(meter.text)


# Pieces in whatever order ------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.one_of(
        st.builds(TextPiece, WORDS | st.just("")), st.builds(ThinkingPiece, WORDS), st.builds(SignaturePiece, WORDS),
        st.builds(RedactedPiece, WORDS), st.builds(ToolCallPiece, st.integers(0, 3), NAMES, NAMES),
        st.builds(ArgumentsPiece, st.integers(0, 3), st.sampled_from(['{"a":', "{", "}", '"}', '"\\"{"', "1", ""])),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=100)
@given(PIECES, st.lists(st.integers(0, 12), max_size=4))
def test_pieces_in_any_order_make_a_stream_of_whole_blocks_with_all_their_words(pieces, cuts):
    pieces = [*pieces, StopPiece("end")]
    writer = messages.AnswerWriter(reply_for(Seen(), THINKS))
    told = b""
    for start, end in itertools.pairwise([0, *sorted(cuts), len(pieces)]):
        told += writer.feed(pieces[start:end])
    blocks = checked(told + writer.finish())
    texts = "".join(each["told"] for each in blocks if each["type"] == "text")
    assert texts == "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    calls = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert [(each["id"], each["name"]) for each in blocks if each["type"] == "tool_use"] == [
        (call.id, call.name) for call in calls
    ]
    whole = json.loads(messages.write_answer(pieces, reply_for(Seen(), THINKS)))
    assert "".join(each["text"] for each in whole["content"] if each["type"] == "text") == texts
    assert [each["type"] for each in whole["content"]] == [each["type"] for each in blocks]
