"""What holds of chat completions for every conversation and every stream: nothing is lost, twisted or made up."""

import json
import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.conversation import Refusal, Text, ToolCall, ToolResult
from providers.errors import StreamError
from providers.formats import chat_completions as format
from providers.translators import chat_completions as chat
from tests.providers.exchange import data, documents, raw, retold, target

# Requests --------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
NAMES = st.text("abc", min_size=1, max_size=4)
TEXTS = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
IMAGES = st.builds(
    lambda url, detail: {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})},
    st.sampled_from(["https://x.example/a.png", "data:image/png;base64,iVBORw0KGgo="]),
    st.sampled_from([None, "low", "high"]),
)
AUDIO = st.just({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})
FILES = st.sampled_from(
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
    ]
)
SYSTEM = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "developer"]),
    WORDS | st.lists(TEXTS, min_size=1, max_size=3),
)
USER = st.builds(
    lambda content, name: {"role": "user", "content": content} | ({"name": name} if name else {}),
    WORDS | st.lists(TEXTS | IMAGES | AUDIO | FILES, min_size=1, max_size=3),
    st.none() | NAMES,
)
ASSISTANT = st.builds(
    lambda content, refusal: {"role": "assistant", "content": content} | ({"refusal": refusal} if refusal else {}),
    WORDS | st.lists(TEXTS, min_size=1, max_size=2),
    st.none() | WORDS,
)
ARGUMENTS = st.dictionaries(NAMES, st.integers(0, 9) | WORDS, max_size=2).map(json.dumps)


@st.composite
def rounds(draw):
    """An assistant's calls, and the results of the tools."""
    called = draw(st.lists(st.tuples(NAMES, ARGUMENTS, WORDS), min_size=1, max_size=3))
    calls = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments, _) in enumerate(called)
    ]
    asked = {"role": "assistant", "content": draw(st.none() | WORDS), "tool_calls": calls}
    return [asked] + [
        {"role": "tool", "tool_call_id": f"call_{index}", "content": result}
        for index, (_, _, result) in enumerate(called)
    ]


MESSAGES = st.lists(
    st.one_of(SYSTEM.map(lambda each: [each]), USER.map(lambda each: [each]), ASSISTANT.map(lambda each: [each]),
              rounds()),
    min_size=1, max_size=5,
).map(lambda groups: [message for group in groups for message in group])  # fmt: skip
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "max_tokens": st.integers(1, 99),
        "stop": WORDS | st.lists(WORDS, min_size=1, max_size=4), "seed": st.integers(0, 9), "user": NAMES,
        "reasoning_effort": st.sampled_from(["low", "high"]), "stream": st.booleans(),
        "response_format": st.sampled_from([
            {"type": "text"}, {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}},
        ]),
    },
)  # fmt: skip
TOOLS = st.lists(NAMES, min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            "tools": st.just([
                {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names
            ])
        },
        optional={
            "tool_choice": st.sampled_from(
                ["auto", "none", "required", {"type": "function", "function": {"name": names[0]}}]
            ),
            "parallel_tool_calls": st.booleans(),
        },
    )
)  # fmt: skip


def meaning(conversation):
    """What a conversation says, whichever way its texts are cut into parts and its turns into messages."""
    said = []
    for turn in chat._merged(conversation.turns):
        texts, refusals = [], []
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        for part in results + [part for part in turn.parts if not isinstance(part, ToolResult)]:
            match part:
                case Text():
                    texts.append(part.text)
                case ToolResult():
                    said.append((part.id, "\n\n".join(text.text for text in part.content)))
                case ToolCall():
                    said.append((part.id, part.name, json.loads(part.arguments)))
                case Refusal():
                    refusals.append(part.text)
                case _:
                    said.append(part)
        said.append((turn.role, turn.name, "\n\n".join(texts), "\n\n".join(refusals)))
    return said, conversation.tools, conversation.tool_choice, conversation.output_format, conversation.stream


@settings(max_examples=60)
@given(MESSAGES, OPTIONS, st.just({}) | TOOLS)
def test_what_is_read_and_written_again_means_the_same(messages, options, tools):
    body = {"model": "public", "messages": messages, **options, **tools}
    before, asked = chat.read_request(raw(body)), chat.read_request(raw(body))
    written = chat.write_request(asked, target())
    after = chat.read_request(raw(written))
    assert meaning(after) == meaning(before)
    assert after.options == before.options
    assert asked.dropped() == []
    # What has been written once is written the same again.
    assert chat.write_request(after, target()) == written


# Streams ---------------------------------------------------------------------------------------------------------


def chunk(delta, finish=None, **more):
    return {"model": "real", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


STREAM = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Let me sée."}),
    chunk({"content": "Grüße, "}),
    chunk({"content": "Welt \U0001f30d"}),
    chunk({"tool_calls": [{"index": 0, "id": "call_a", "function": {"name": "f", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "call_b", "function": {"name": "g", "arguments": "{"}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":"ü"}'}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]}),
    chunk({}, "tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}},
]  # fmt: skip
BYTES = b": hello\n\n" + b"".join(data(each) for each in STREAM) + format.DONE
SHOWN = {"include_reasoning": True}


def shown(stream, cuts=None):
    return retold(stream, format, chat.AnswerReader(), chat.AnswerWriter, cuts=cuts, fields=SHOWN, with_usage=True)


def test_a_stream_cut_at_any_byte_comes_out_the_same():
    whole, meter = shown(BYTES)
    for cut in range(1, len(BYTES)):
        told, seen = shown(BYTES, [cut])
        assert told == whole, cut
        assert (seen.text, seen.reported) == (meter.text, meter.reported), cut
    assert shown(BYTES, range(1, len(BYTES)))[0] == whole
    assert shown(BYTES.replace(b"\n", b"\r\n"), range(1, len(BYTES)))[0] == whole


def words_of(told):
    """All text in a caller's stream, and the arguments of its calls."""
    texts, arguments = [], {}
    for document in documents(told):
        for choice in document["choices"] if document != "[DONE]" else ():
            delta = choice["delta"]
            texts += [delta.get(name) or "" for name in ("content", "reasoning_content", "refusal")]
            for call in delta.get("tool_calls", ()):
                arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
    return "".join(texts), arguments


@st.composite
def mutations(draw):
    """The stream with bytes changed, events repeated, left out and swapped, and values of other types."""
    events = [data(each) for each in STREAM]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(events) - 1))
        event = events[at]
        match draw(st.integers(0, 5)):
            case 0:
                byte = draw(st.integers(6, len(event) - 1))
                events[at] = event[:byte] + bytes([draw(st.integers(0, 255))]) + event[byte + 1 :]
            case 1:
                byte = draw(st.integers(6, len(event) - 1))
                events[at] = event[:byte] + event[byte + draw(st.integers(1, 9)) :]
            case 2:
                events.insert(draw(st.integers(0, len(events))), event)
            case 3:
                del events[at]
                if not events:
                    return b""
            case 4:
                other = draw(st.integers(0, len(events) - 1))
                events[at], events[other] = events[other], events[at]
            case 5:
                wrong = draw(st.sampled_from([b"null", b"[]", b"{}", b"7", b'""', b"true", b"[null]", b"1e9"]))
                events[at] = re.sub(rb'"[^"]*"(?=[,}\]])|\{[^{}]*\}|\[[^\[\]]*\]', wrong, event, count=1)
    return b"".join(events) + draw(st.sampled_from([format.DONE, b"", b"data: [DO"]))


@settings(max_examples=300)
@given(mutations())
def test_no_mutated_stream_crashes_or_makes_up_text(stream):
    try:
        told, meter = shown(stream)
    except StreamError:
        return
    text, arguments = words_of(told)
    # A call that nothing was sent for has the empty object as its arguments.
    told_text = text + "".join(written for written in arguments.values() if written != "{}")
    assert Counter(told_text) <= Counter(meter.text)
    finishes = [
        choice["finish_reason"]
        for document in documents(told)
        if document != "[DONE]"
        for choice in document["choices"]
    ]
    assert [finish for finish in finishes if finish] == finishes[-1:]
    assert told.endswith(format.DONE)
