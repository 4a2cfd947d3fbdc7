"""Chat completions as they pass: requests, usage in every shape that providers send it, and streams."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import StreamError
from providers.formats import chat_completions as format
from providers.request_body import field, parse_body
from providers.sse import EventSplitter
from providers.tokens import CEILING, TokenUsage
from tests.providers.exchange import Seen, data

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


def read_stream(stream, **options):
    seen = Seen()
    reader = format.StreamReader(seen, **options)
    passed = b"".join(reader.saw(event)[0] for event in EventSplitter().feed(stream))
    return seen, reader, passed


# Requests --------------------------------------------------------------------------------------------------------


def test_of_a_repeated_field_the_last_counts_for_everybody():
    fields = parse_body(b'{"model":"cheap","model":"dear","messages":[{}]}')
    assert format.read_request(fields) == ("dear", False)
    assert bytes(fields["model"]) == b'"dear"'


def test_usage_is_asked_for_beside_what_the_caller_asked():
    fields = parse_body(CHAT[:-1] + b',"stream_options":{"include_obfuscation":false}}')
    assert not format.wants_usage(fields)
    asking = format.asking_for_usage(fields)
    assert field(asking, "stream_options", dict, what="") == {"include_obfuscation": False, "include_usage": True}
    assert format.wants_usage(asking)
    assert "stream_options" not in parse_body(CHAT)


# Usage -----------------------------------------------------------------------------------------------------------

EVOLINK = {
    "prompt_tokens": 13, "completion_tokens": 1891, "total_tokens": 1904,
    "prompt_tokens_details": {"cached_tokens": 0, "text_tokens": 13, "audio_tokens": 0, "image_tokens": 0},
    "completion_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 1480},
    "input_tokens": 0, "output_tokens": 0, "input_tokens_details": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}, TokenUsage(12, output_tokens=8)),
        (
            {"prompt_tokens": 100, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 60}},
            TokenUsage(40, 60, output_tokens=8),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108,
             "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30}},
            TokenUsage(10, 60, 30, output_tokens=8),
        ),
        # Providers that leave the cache out of the prompt: as the counts say, or as the total does.
        (
            {"prompt_tokens": 10, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 60}},
            TokenUsage(10, 60, output_tokens=8),
        ),
        (
            {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 168,
             "prompt_tokens_details": {"cached_tokens": 60}},
            TokenUsage(100, 60, output_tokens=8),
        ),
        # Twins that are zero, whichever of them.
        (EVOLINK, TokenUsage(13, 0, output_tokens=1891, reasoning_tokens=1480)),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 5, "output_tokens": 6,
             "prompt_tokens_details": {}, "input_tokens_details": {"cached_tokens": 2}},
            TokenUsage(3, 2, output_tokens=6),
        ),
        ({"input_tokens": 5, "output_tokens": 6}, TokenUsage(5, output_tokens=6)),
        # Cloud Temple's reasoning.
        (
            {"prompt_tokens": 70, "completion_tokens": 200, "reasoning_tokens": 40, "total_tokens": 270},
            TokenUsage(70, output_tokens=200, reasoning_tokens=40),
        ),
        # DeepSeek's cache, and Moonshot's.
        (
            {"prompt_tokens": 70, "completion_tokens": 2, "total_tokens": 72, "prompt_cache_hit_tokens": 64,
             "prompt_cache_miss_tokens": 6},
            TokenUsage(6, 64, output_tokens=2),
        ),
        (
            {"prompt_tokens": 1336, "completion_tokens": 31, "total_tokens": 1367, "cached_tokens": 1280,
             "prompt_tokens_details": None},
            TokenUsage(56, 1280, output_tokens=31),
        ),
        # xAI: what was thought stands beside the completion.
        (
            {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399,
             "completion_tokens_details": {"reasoning_tokens": 386}},
            TokenUsage(12, output_tokens=387, reasoning_tokens=386),
        ),
        # Gemini: what was thought stands in the total alone, or beside a completion of nothing.
        (
            {"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016},
            TokenUsage(20, output_tokens=996, reasoning_tokens=572),
        ),
        ({"prompt_tokens": 9, "total_tokens": 52, "completion_tokens": 0},
         TokenUsage(9, output_tokens=43, reasoning_tokens=43)),
        # A total that fits nothing, or that is absurd, says nothing.
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 3}, TokenUsage(9, output_tokens=5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 10**15}, TokenUsage(9, output_tokens=5)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 7}, TokenUsage(0, output_tokens=0)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 20, "reasoning_tokens": 3},
         TokenUsage(9, output_tokens=5, reasoning_tokens=3)),
        ({"prompt_tokens": 5, "completion_tokens": 0}, TokenUsage(5, output_tokens=0)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2.7}, TokenUsage(5, output_tokens=2)),
        ({"prompt_tokens": -5, "completion_tokens": 10**18}, None),
        ({"prompt_tokens": -5, "completion_tokens": 3}, TokenUsage(output_tokens=3)),
        ({"prompt_tokens": "12", "completion_tokens": None}, None),
        ({"prompt_tokens": True, "completion_tokens": float("nan")}, None),
        ({"prompt_tokens": 5, "prompt_tokens_details": "none", "completion_tokens_details": []}, TokenUsage(5)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 9}},
         TokenUsage(5, output_tokens=3, reasoning_tokens=3)),
        ({}, None),
        ("no", None),
        (None, None),
    ],
)  # fmt: skip
def test_usage_becomes_disjoint_counts(reported, usage):
    assert format.read_usage(reported) == usage


NAMES = [*sorted(EVOLINK), "cached_tokens", "cache_write_tokens", "reasoning_tokens", "prompt_cache_hit_tokens"]
COUNTS = st.integers() | st.integers(0, 40) | st.floats() | st.none() | st.booleans() | st.text(max_size=2)
USAGES = st.dictionaries(
    st.sampled_from(NAMES),
    COUNTS | st.lists(COUNTS, max_size=2) | st.dictionaries(st.sampled_from(NAMES), COUNTS, max_size=4),
)


@given(USAGES)
def test_no_usage_object_is_ever_negative_or_an_error(reported):
    usage = format.read_usage(reported)
    for name in usage.__struct_fields__ if usage else ():
        count = getattr(usage, name)
        assert count is None or 0 <= count <= 2 * CEILING


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_no_token_is_counted_twice(prompt, read, written, output):
    reported = {
        "prompt_tokens": prompt + read + written, "completion_tokens": output,
        "total_tokens": prompt + read + written + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }  # fmt: skip
    usage = format.read_usage(reported)
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (prompt, read, written)
    assert usage.total_input + usage.output_tokens == reported["total_tokens"]


# Streams ---------------------------------------------------------------------------------------------------------


def chunk(delta, finish=None, **more):
    return data({"model": "real", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_stream_tells_text_reason_model_and_usage():
    stream = chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hel"})
    stream += chunk({"content": "lo"}) + chunk({}, "stop") + data({"choices": [], "usage": USAGE})
    seen, reader, passed = read_stream(stream + format.DONE)
    assert (seen.text, seen.stop_reason, seen.response_model) == ("Hello", "stop", "real")
    assert seen.reported == TokenUsage(3, output_tokens=2)
    assert reader.ended
    assert passed == stream + format.DONE


def test_usage_that_the_caller_did_not_ask_for_stays_here():
    asked = chunk({"content": "a"}, usage=None) + chunk({}, "stop", usage=None)
    seen, _, passed = read_stream(asked + data({"choices": [], "usage": USAGE}) + format.DONE, hide_usage=True)
    assert seen.reported == TokenUsage(3, output_tokens=2)
    assert passed == chunk({"content": "a"}) + chunk({}, "stop") + format.DONE


def test_usage_in_every_chunk_is_not_added_up():
    parts = [chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": n}) for n in (1, 2, 3)]
    seen, _, _ = read_stream(b"".join(parts))
    assert seen.reported == TokenUsage(3, output_tokens=3)


@pytest.mark.parametrize(
    "last",
    [
        chunk({"content": "a"}, "stop", usage=USAGE),
        chunk({}, "stop", x_groq={"id": "req_1", "usage": USAGE | {"total_time": 0.02}}),
        data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}),
        chunk({}, "stop", usage=USAGE) + data({"choices": [], "usage": None}),
        chunk({}, "stop", usage=USAGE) + data({"choices": [], "x_groq": {"usage": USAGE}, "usage": USAGE}),
    ],
)
def test_usage_is_found_wherever_providers_put_it(last):
    seen, _, passed = read_stream(chunk({"content": "Hi"}) + last)
    assert seen.reported == TokenUsage(3, output_tokens=2)
    assert passed == chunk({"content": "Hi"}) + last


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"reasoning_content": "hm"}, "hm"),
        ({"reasoning_content": "hm", "reasoning": "hm", "content": "Hi"}, "hmHi"),
        ({"refusal": "No."}, "No."),
        ({"audio": {"id": "a", "transcript": "Hi", "data": "UklGRg=="}}, "Hi"),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a"'}}]}, 'f{"a"'),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, 'f{"a":1}'),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}, "fx"),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "Hi"}]}, "hmHi"),
        ({"content": [{"type": "thinking", "thinking": "hm"}, "x", {"text": 3}]}, "hm"),
        ({"content": 3, "refusal": {}, "tool_calls": [None, {"function": "f"}], "function_call": []}, ""),
    ],
)
def test_all_that_is_delivered_is_text_that_was_written(delta, text):
    assert read_stream(chunk(delta))[0].text == text
    seen = Seen()
    format.read_answer(json.dumps({"choices": [{"message": delta}]}).encode(), seen)
    assert seen.text == text


def test_text_with_broken_bytes_is_read_with_marks_in_their_place():
    stream = chunk({"content": "a?b"}).replace(b"?", b"\x80")
    seen, _, passed = read_stream(stream)
    assert (seen.text, passed) == ("a\ufffdb", stream)
    format.read_answer(b'{"choices":[{"message":{"content":"\xff"}}]}', seen)
    assert seen.text == "a\ufffdb\ufffd"


def test_events_of_no_known_shape_pass():
    stream = b": keepalive\n\n" + b"data: not json\n\n" + data({"choices": "what"}) + data([1])
    assert read_stream(stream)[2] == stream


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"message": "No more room.", "code": "full"}, ("No more room.", "full")),
        ({"message": "No more room.", "code": 502}, ("No more room.", "502")),
        ("No more room.", ("No more room.", None)),
    ],
)
def test_an_error_in_mid_stream_is_raised(error, told):
    with pytest.raises(StreamError) as failed:
        read_stream(chunk({"content": "a"}) + data({"error": error}))
    assert (failed.value.message, failed.value.code) == told
