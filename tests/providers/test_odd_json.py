"""What a provider wrote is counted although a number in it cannot be read, and goes on as it came."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.formats import chat_completions, completions, embeddings, messages, moderations, responses
from providers.formats.usage_chunk import with_usage
from providers.odd_json import MOST_BYTES, decoded, without_odd_numbers
from providers.sse import EventSplitter
from tests.providers.test_responses import Meter

NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.5E+0400", "1" + "0" * 5000]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
def test_a_number_that_cannot_be_held_is_null_and_a_text_of_it_stays(number):
    document = r'{"a":ODD,"b":[1,ODD , -2.5e3],"c":"\"ODD, \\"}'.replace("ODD", number)
    expected = {"a": None, "b": [1, None, -2500], "c": f'"{number}, \\'}
    assert json.loads(without_odd_numbers(document.encode())) == expected


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_what_can_be_held_stays_as_it_is(value):
    told = without_odd_numbers(json.dumps(value, ensure_ascii=False).encode())
    assert msgspec.json.decode(told) == with_null(value)


def with_null(value):
    if isinstance(value, list):
        return [with_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@pytest.mark.parametrize("broken", [b'{"a":NaN', b'{"a":1e999,}', b"NaN}", b'"', b'"\\', b"\xff", b'{"a":"1e999'])
def test_what_is_no_json_remains_none(broken):
    with pytest.raises(msgspec.DecodeError):
        decoded(msgspec.json.Decoder(), broken)


def test_what_is_long_is_not_looked_through():
    long = b'{"a":NaN,"b":"%s"}' % (b"x" * MOST_BYTES)
    assert without_odd_numbers(long) is long


# In every format ---------------------------------------------------------------------------------------------------


def data(document):
    return b"data: " + document.encode() + b"\n\n"


CHOICE = '{"delta":{"content":"Hello"},"message":{"content":"Hello"},"finish_reason":"stop"}'
ITEM = '{"type":"message","content":[{"type":"output_text","text":"Hello","logprobs":[ODD]}]}'
WHOLE = {
    chat_completions: '{"choices":[' + CHOICE + '],"usage":{"prompt_tokens":ODD,"completion_tokens":1}}',
    completions: '{"choices":[{"text":"Hello","finish_reason":"stop"}],"usage":{"prompt_tokens":ODD}}',
    messages: '{"content":[{"type":"text","text":"Hello"}],"usage":{"input_tokens":ODD,"output_tokens":1}}',
    responses: '{"status":"completed","output":[' + ITEM + '],"usage":{"input_tokens":ODD,"output_tokens":1}}',
}
EVENTS = {
    chat_completions: data(WHOLE[chat_completions]),
    completions: data(WHOLE[completions]),
    messages: data(
        '{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello"},"usage":{"input_tokens":ODD}}'
    ),
    responses: data('{"type":"response.output_text.delta","delta":"Hello","logprobs":[ODD],"error":ODD}')
    + data('{"type":"response.output_item.done","output_index":1,"item":' + ITEM + "}"),
}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
@pytest.mark.parametrize("format", WHOLE, ids=lambda format: format.NAME)
def test_the_text_of_an_answer_is_seen(format, number):
    meter = Meter()
    format.read_answer(WHOLE[format].replace("ODD", number).encode(), meter)
    assert meter.text == "Hello"


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
@pytest.mark.parametrize("format", EVENTS, ids=lambda format: format.NAME)
def test_the_text_of_a_stream_is_seen_and_passes_as_it_came(format, number):
    meter, stream = Meter(), EVENTS[format].replace(b"ODD", number.encode())
    reader = format.StreamReader(meter)
    passed = b"".join(reader.saw(event)[0] for event in EventSplitter().feed(stream))
    assert passed == stream
    assert set(meter.texts) == {"Hello"}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
def test_usage_that_every_chunk_repeats_is_held_back_all_the_same(number):
    meter = Meter()
    reader = chat_completions.RepeatedUsageReader(meter)
    stream = EVENTS[chat_completions].replace(b"ODD", number.encode())
    passed = b"".join(reader.saw(event)[0] for event in EventSplitter().feed(stream))
    assert b"Hello" in passed and b"usage" not in passed
    assert b'"usage":{"prompt_tokens":' in with_usage(b"", reader.held_back)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:12])
def test_what_is_no_text_is_an_answer_all_the_same(number):
    usage = b'"usage":{"prompt_tokens":ODD}}'.replace(b"ODD", number.encode())
    embeddings.read_answer(b'{"data":[{"embedding":[1.5]}],' + usage, Meter())
    moderations.read_answer(b'{"results":[{}],' + usage, Meter())
