"""Messages as they pass: both versions' rules, usage in every shape, streams, and counting offline."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import StreamError
from providers.formats import messages
from providers.media_tokens import MOST_IMAGE_TOKENS, PAGE_TOKENS, document_tokens, image_size, image_tokens
from providers.request_body import InvalidRequest, parse_body
from providers.sse import EventSplitter
from providers.tokens import CEILING, TokenUsage
from tests.providers.exchange import Seen, data, raw

HELLO = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
OLD, NEW = "2023-06-01", "2026-10-21"


def asked(rules=OLD, **fields):
    return messages.read_request(raw(HELLO | fields), rules)


def turn(role, *blocks):
    return {"messages": [HELLO["messages"][0], {"role": role, "content": list(blocks)}]}


# Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_tokens", [None, "5", -1, 1.5, True, 10**400])
def test_callers_must_say_how_much_may_be_written(max_tokens):
    with pytest.raises(InvalidRequest) as refused:
        asked(max_tokens=max_tokens)
    assert refused.value.param == "max_tokens"


def test_a_caller_may_warm_the_cache_and_write_nothing():
    assert asked(max_tokens=0, stream=True) == ("m", True)


@pytest.mark.parametrize("version", ["", "2023", "2023-6-1", "2023-13-01", "2023-02-30", "tomorrow", "２０２３-06-01"])
def test_a_version_that_is_no_date_is_refused(version):
    for read in (messages.read_request, messages.read_count_request):
        with pytest.raises(InvalidRequest) as refused:
            read(raw(HELLO), version)
        assert refused.value.param == "anthropic-version"


@pytest.mark.parametrize(
    ("version", "strict"),
    [(None, False), (OLD, False), ("2023-01-01", False), ("2026-10-20", False), (NEW, True), ("2031-01-01", True)],
)
def test_a_date_keeps_the_rules_of_the_version_before_it(version, strict):
    assert messages.is_strict(version) is strict


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_only_the_older_version_samples(name):
    assert asked(OLD, **{name: 1}) == ("m", False)
    assert asked(NEW, **{name: None}) == ("m", False)
    with pytest.raises(InvalidRequest) as refused:
        asked(NEW, **{name: 1})
    assert refused.value.param == name
    assert NEW in str(refused.value)


DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}


@pytest.mark.parametrize(
    ("role", "block", "param"),
    [
        ("assistant", DOCUMENT, "messages[1].content[1]"),
        ("user", CITED, "messages[1].content[1].citations"),
    ],
)
def test_only_the_older_version_takes_what_the_wrong_side_says(role, block, param):
    said = turn(role, {"type": "text", "text": "y"}, block)
    assert asked(OLD, **said) == ("m", False)
    with pytest.raises(InvalidRequest) as refused:
        asked(NEW, **said)
    assert refused.value.param == param
    escaped = json.dumps(HELLO | said).replace("document", "docum\\u0065nt").replace("citations", "c\\u0069tations")
    with pytest.raises(InvalidRequest):
        messages.read_request(parse_body(escaped.encode()), NEW)


@pytest.mark.parametrize(
    "said",
    [
        turn("user", DOCUMENT | {"citations": {"enabled": True}}),
        turn("user", {"type": "text", "text": "x", "citations": None}),
        turn("assistant", CITED),
        turn("assistant", {"type": "text", "text": '"document"'}),
        {"messages": [{"role": "system", "content": "Be brief."}]},
        {"messages": [{"role": "user", "content": [7]}]},
        {"messages": [7]},
    ],
)
def test_the_newer_version_leaves_the_rest_to_the_provider(said):
    assert asked(NEW, **said) == ("m", False)


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
        # What the split leaves out.
        (
            {"cache_creation_input_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": 4}},
            TokenUsage(cache_write_tokens=3, cache_write_1h_tokens=4),
        ),
        (
            {
                "cache_creation_input_tokens": 7,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            },
            TokenUsage(cache_write_tokens=7, cache_write_1h_tokens=0),
        ),
        ({"cache_creation_input_tokens": 7, "cache_creation": None}, TokenUsage(cache_write_tokens=7)),
        # More thinking than there was output.
        (
            {"output_tokens": 3, "output_tokens_details": {"thinking_tokens": 5}},
            TokenUsage(output_tokens=3, reasoning_tokens=3),
        ),
        (
            {"input_tokens": 5, "output_tokens": 6, "server_tool_use": {"web_search_requests": 2}},
            TokenUsage(5, output_tokens=6),
        ),
        ({"input_tokens": -5, "output_tokens": 10**18}, None),
        ({"output_tokens": 9}, TokenUsage(output_tokens=9)),
        ({"input_tokens": "x", "output_tokens": True}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_becomes_disjoint_counts(reported, usage):
    assert messages.read_usage(reported) == usage


NAMES = [
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "output_tokens_details", "thinking_tokens",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_usage_is_ever_negative_or_an_error(first, second):
    seen, _, _ = read_stream(started(first), event("message_delta", delta={}, usage=second))
    for usage in (messages.read_usage(first), seen.reported or TokenUsage()):
        for name in usage.__struct_fields__ if usage else ():
            value = getattr(usage, name)
            assert value is None or 0 <= value <= CEILING


# Streams ---------------------------------------------------------------------------------------------------------


def event(kind, **more):
    return f"event: {kind}\n".encode() + data({"type": kind, **more})


def started(usage=None):
    return event("message_start", message={"model": "real", "content": [], "usage": usage})


def read_stream(*events):
    seen = Seen()
    reader = messages.StreamReader(seen)
    passed = b"".join(reader.saw(each)[0] for each in EventSplitter().feed(b"".join(events)))
    return seen, reader, passed


def test_what_message_start_says_of_the_output_is_a_placeholder():
    start = started({"input_tokens": 25, "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 1}})
    text = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
    seen, reader, _ = read_stream(start, text)
    assert seen.reported == TokenUsage(25)
    assert not messages.is_complete(reader)
    stream = [start, text, event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15})]
    seen, reader, passed = read_stream(*stream, event("message_stop"))
    assert seen.reported == TokenUsage(25, output_tokens=15)
    assert (seen.text, seen.stop_reason, seen.response_model, reader.ended) == ("Hi", "end_turn", "real", True)
    assert passed == b"".join(stream) + event("message_stop")


@pytest.mark.parametrize(
    ("begun", "deltas", "usage"),
    [
        # Cumulative: the last counts, never the sum.
        ({"input_tokens": 9}, [{"output_tokens": 2}, {"output_tokens": 5}], TokenUsage(9, output_tokens=5)),
        # The end knows more of the input than the beginning did.
        (
            {"input_tokens": 0, "output_tokens": 0},
            [{"input_tokens": 7, "cache_read_input_tokens": 30, "output_tokens": 5}],
            TokenUsage(7, 30, output_tokens=5),
        ),
        # All of it was read from the cache after all.
        (
            {"input_tokens": 9},
            [{"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 5}],
            TokenUsage(0, 9, output_tokens=5),
        ),
        # Zeros for what was said before.
        (
            {"input_tokens": 9, "cache_read_input_tokens": 3},
            [{"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5}],
            TokenUsage(9, 3, output_tokens=5),
        ),
        ({"input_tokens": 9}, [{"input_tokens": None, "output_tokens": 5}], TokenUsage(9, output_tokens=5)),
        # The whole repeated without its split is no second write.
        (
            {
                "input_tokens": 9,
                "cache_creation_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100},
            },
            [{"cache_creation_input_tokens": 100, "output_tokens": 5}],
            TokenUsage(9, None, 0, 100, 5),
        ),
        (
            None,
            [{"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}}],
            TokenUsage(output_tokens=5, reasoning_tokens=2),
        ),
        ({"input_tokens": 9}, [None, "no", []], TokenUsage(9)),
    ],
)  # fmt: skip
def test_the_usage_of_a_stream_is_what_it_reported_in_the_end(begun, deltas, usage):
    seen, _, _ = read_stream(started(begun), *[event("message_delta", delta={}, usage=each) for each in deltas])
    assert seen.reported == usage


def test_everything_that_is_written_counts_as_text():
    seen, _, _ = read_stream(
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm "}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "secret"}),
        event("content_block_start", index=1, content_block={"type": "text", "text": "Hi "}),
        event("content_block_start", index=2, content_block={"type": "tool_use", "name": "f", "input": {}}),
        event("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"a":1}'}),
        event("content_block_start", index=3, content_block={"type": "tool_use", "name": "g", "input": {"b": 2}}),
    )
    assert seen.text == 'hm Hi f{"a":1}g{"b":2}'


def test_a_whole_answer_tells_text_reason_model_and_usage():
    body = {
        "model": "real", "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 4},
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Hi"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
    }  # fmt: skip
    seen = Seen()
    messages.read_answer(json.dumps(body, separators=(",", ":")).encode(), seen)
    assert (seen.text, seen.stop_reason, seen.response_model) == ('hmHif{"a":1}', "tool_use", "real")
    assert seen.reported == TokenUsage(3, output_tokens=4)


def test_an_error_in_mid_stream_is_raised():
    with pytest.raises(StreamError) as failed:
        read_stream(event("error", error={"type": "full", "message": "No more room."}))
    assert (failed.value.message, failed.value.code) == ("No more room.", "full")


def test_what_is_no_utf_8_is_read_as_the_caller_will_read_it():
    broken = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi!"}).replace(b"!", b"\xff")
    seen, _, passed = read_stream(broken)
    assert (seen.text, passed) == ("Hi�", broken)


# Counting --------------------------------------------------------------------------------------------------------


def png(width, height):
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)).decode()


def count(**fields):
    return messages.count_request(raw(HELLO | fields))


def test_system_turns_and_tools_count():
    alone = count()
    assert alone >= 1
    assert count(system="Be brief.") > alone
    assert count(system=[{"type": "text", "text": "Be brief."}]) == count(system="Be brief.")
    assert count(tools=[{"name": "f", "input_schema": {"type": "object"}}]) > alone
    assert count(tools=None, system=None) == alone


def test_earlier_thinking_and_marks_do_not_count_and_calls_do():
    blocks = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    thought = {"type": "thinking", "thinking": "word " * 99, "signature": "word " * 99}
    assert count(messages=[{"role": "user", "content": [thought, *blocks]}]) == count()
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Paris"}}
    assert count(messages=[{"role": "assistant", "content": [*blocks, call]}]) > count()


def test_pictures_count_by_their_size_and_pages_one_by_one():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png(280, 280)}}
    pdf = base64.b64encode(b"%PDF-1.7 << /Type /Pages >> << /Type /Page >> << /Type/Page/Parent >>").decode()
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}}
    said = HELLO["messages"][0]
    for block, tokens in [
        (picture, 100),
        ({"type": "image", "source": {"type": "url", "url": "https://x.example/" + "a" * 999}}, MOST_IMAGE_TOKENS),
        (document, 2 * PAGE_TOKENS),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, PAGE_TOKENS),
        ({"type": "tool_result", "tool_use_id": "t", "content": [picture]}, 100),
        ({"type": "image"}, MOST_IMAGE_TOKENS),
    ]:
        assert count(messages=[said, {"role": "user", "content": [block]}]) == count() + tokens
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 50}}
    assert count() + 40 < count(messages=[said, {"role": "user", "content": [text]}]) < count() + 60


def test_a_prompt_that_no_python_value_holds_is_counted_as_it_is_written():
    assert messages.count_request(parse_body(b'{"messages":[1e999]}')) > 1


JPEG = b"\xff\xd8" + b"\xff\xe1\x00\x08exif!!" + b"\xff\xff\xc0" + struct.pack(">HBHH", 11, 8, 30, 40)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (base64.b64decode(png(7, 9)), (7, 9)),
        (b"GIF89a" + struct.pack("<HH", 7, 9), (7, 9)),
        (b"RIFF....WEBPVP8X" + bytes(8) + b"\x06\x00\x00\x08\x00\x00", (7, 9)),
        (b"RIFF....WEBPVP8L" + bytes(5) + struct.pack("<I", 6 | 8 << 14), (7, 9)),
        (b"RIFF....WEBPVP8 " + bytes(10) + struct.pack("<HH", 7, 9), (7, 9)),
        (JPEG, (40, 30)),
        (JPEG[:-3], None),
        (b"\xff\xd8\xff\xe1\xff\xff", None),
        (b"RIFF....WEBPnone", None),
        (b"BM", None),
        (b"", None),
    ],
)
def test_the_size_of_a_picture_stands_in_its_first_bytes(head, size):
    assert image_size(head) == size


def test_no_picture_is_more_than_a_model_looks_at():
    assert image_tokens(png(1000, 1000)) == 1296
    assert image_tokens(png(8000, 8000)) <= MOST_IMAGE_TOKENS
    assert image_tokens(png(8000, 10)) == 56
    assert image_tokens(png(0, 10)) == image_tokens("!") == image_tokens(None) == image_tokens(7) == MOST_IMAGE_TOKENS
    assert document_tokens("é") == document_tokens(None) == PAGE_TOKENS


@given(st.binary(max_size=60))
def test_no_first_bytes_are_an_error(tail):
    for head in (b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBPVP8X", b"RIFF....WEBPVP8 ", b"\xff\xd8\xff", b""):
        size = image_size(head + tail)
        assert size is None or len(size) == 2
        assert 1 <= image_tokens(base64.b64encode(head + tail).decode()) <= MOST_IMAGE_TOKENS
