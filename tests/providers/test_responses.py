"""Responses as a wire format: what is read of requests, answers and streams while they pass."""

import json
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import StreamError
from providers.formats import responses
from providers.request_body import InvalidRequest, parse_body
from providers.sse import EventSplitter
from providers.tokens import TokenUsage

USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 39,
}


class Meter:
    """A meter that keeps what it is told."""

    def __init__(self):
        self.texts, self.reported = [], None
        self.response_model = self.stop_reason = None
        self.call = SimpleNamespace(sequence=-1)

    @property
    def text(self):
        return "".join(self.texts)

    def saw_text(self, text):
        self.texts.append(text)

    def saw_usage(self, usage):
        self.reported = usage if self.reported is None or usage is None else self.reported.updated(usage)


def event(kind, **said):
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | said)}\n\n".encode()


def whole(**fields):
    return {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": []} | fields


STREAM = [
    event("response.created", sequence_number=0, response=whole(status="in_progress")),
    event("response.in_progress", sequence_number=1, response=whole(status="in_progress")),
    event("response.output_item.added", sequence_number=2, output_index=0, item={"type": "reasoning", "id": "rs_1"}),
    event("response.reasoning_summary_text.delta", sequence_number=3, output_index=0, delta="Hm. "),
    event("response.output_item.done", sequence_number=4, output_index=0, item={"type": "reasoning", "id": "rs_1"}),
    event("response.output_text.delta", sequence_number=5, output_index=1, content_index=0, delta="Hé"),
    event("response.output_text.delta", sequence_number=6, output_index=1, content_index=0, delta="llo"),
    event("response.web_search_call.searching", sequence_number=7, output_index=9),
    event("response.audio.delta", sequence_number=8, delta="UklGRg=="),
    event(
        "response.output_item.done",
        sequence_number=9,
        output_index=2,
        item={"type": "function_call", "name": "look", "arguments": '{"a":1}', "call_id": "call_1"},
    ),
    event("response.completed", sequence_number=10, response=whole(usage=USAGE)),
]


def read(chunks):
    """What passes to the caller, the meter and the reader, of a stream in ``chunks``."""
    meter = Meter()
    reader = responses.StreamReader(meter)
    splitter, passed = EventSplitter(), []
    for chunk in chunks:
        passed += [reader.saw(each)[0] for each in splitter.feed(chunk)]
    return b"".join(passed), meter, reader


def test_a_stream_passes_byte_for_byte_and_tells_what_it_was():
    passed, meter, reader = read(STREAM)
    assert passed == b"".join(STREAM)
    assert meter.text == 'Hm. Héllolook{"a":1}'
    assert meter.reported == TokenUsage(15, 10, 5, None, 9, 4)
    assert (meter.response_model, meter.stop_reason, meter.call.sequence) == ("m", "completed", 10)
    assert reader.ended
    assert responses.is_complete(reader)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_stream_split_anywhere_is_the_same_stream(piece, newline):
    raw = b"".join(STREAM).replace(b"\n", newline)
    passed, meter, reader = read(raw[at : at + piece] for at in range(0, len(raw), piece))
    assert passed == b"".join(STREAM)
    assert (meter.text, meter.reported.output_tokens, reader.ended) == ('Hm. Héllolook{"a":1}', 9, True)


def test_a_stream_without_its_last_event_is_not_complete():
    _passed, meter, reader = read(STREAM[:-1])
    assert not responses.is_complete(reader)
    assert meter.text == 'Hm. Héllolook{"a":1}'


def test_the_last_word_of_another_format_does_not_pass():
    passed, _meter, reader = read([*STREAM[:-1], b"data: [DONE]\n\n"])
    assert passed == b"".join(STREAM[:-1])
    assert not reader.ended


def test_an_answer_that_was_cut_short_ends_its_stream_with_the_reason():
    ended = whole(status="incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=USAGE)
    _passed, meter, reader = read([event("response.incomplete", response=ended)])
    assert (meter.stop_reason, reader.ended) == ("max_output_tokens", True)


@pytest.mark.parametrize(
    "failure",
    [
        event("error", code="server_error", message="It broke.", param=None, sequence_number=3),
        event("error", error={"code": "server_error", "message": "It broke."}),
        b'data: {"error": {"code": "server_error", "message": "It broke."}}\n\n',
        event(
            "response.failed", response=whole(status="failed", error={"code": "server_error", "message": "It broke."})
        ),
    ],
)
def test_a_failure_in_the_stream_is_raised(failure):
    with pytest.raises(StreamError, match="It broke") as raised:
        read([*STREAM[:6], failure])
    assert raised.value.code == "server_error"


def test_an_event_that_did_not_pass_leaves_its_number_free():
    meter = Meter()
    reader = responses.StreamReader(meter)
    failure = event("error", message="It broke.", sequence_number=6)
    with pytest.raises(StreamError):
        [reader.saw(each) for each in EventSplitter().feed(b"".join([*STREAM[:6], failure]))]
    assert meter.call.sequence == 5


def test_what_a_failed_response_used_is_told():
    meter = Meter()
    failed = whole(status="failed", error={"message": "No."}, usage=USAGE)
    [ended] = EventSplitter().feed(event("response.failed", response=failed))
    with pytest.raises(StreamError):
        responses.StreamReader(meter).saw(ended)
    assert meter.reported.output_tokens == 9


def test_a_whole_answer_tells_what_it_was():
    meter = Meter()
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm. "}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hé"}, {"type": "refusal", "refusal": "No."}]},
        {"type": "function_call", "name": "look", "arguments": "{}"},
        {"type": "something_new", "content": 3},
    ]
    responses.read_answer(json.dumps(whole(output=output, usage=USAGE)).encode(), meter)
    assert meter.text == "Hm. HéNo.look{}"
    assert (meter.reported.reasoning_tokens, meter.response_model, meter.stop_reason) == (4, "m", "completed")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b"<html>"])
def test_what_is_no_response_is_refused(body):
    with pytest.raises(ValueError):
        responses.read_answer(body, Meter())


def test_a_whole_answer_that_failed_is_a_failure():
    body = json.dumps(whole(status="failed", error={"code": "server_error", "message": "It broke."})).encode()
    with pytest.raises(StreamError, match="It broke"):
        responses.read_answer(body, Meter())


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, None),
        ("many", None),
        ({}, None),
        ({"input_tokens": 5}, TokenUsage(5)),
        ({"input_tokens": -5, "output_tokens": 10**18}, None),
        # The provider has left the cache out already.
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 9}}, TokenUsage(5, 9)),
        ({"input_tokens": 5, "input_tokens_details": None, "output_tokens": True}, TokenUsage(5)),
        (
            {"input_tokens": 9, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 7}},
            TokenUsage(9, output_tokens=3, reasoning_tokens=3),
        ),
        (
            {
                "input_tokens": 20,
                "input_tokens_details": {
                    "cached_tokens": 0,
                    "cache_write_tokens": 12,
                    "cache_write_tokens_details": {"ttl_30m_tokens": 4, "ttl_12h_tokens": 8},
                },
                "output_tokens": 1,
            },
            TokenUsage(8, 0, 4, 8, 1),
        ),
    ],
)  # fmt: skip
def test_usage_is_read_into_disjoint_counts(usage, counts):
    assert responses.read_usage(usage) == counts


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"model": "m", "input": "Hello"}, ("m", False)),
        ({"model": "m", "input": [], "stream": True}, ("m", True)),
        ({"model": "m", "prompt": {"id": "pmpt_1"}, "stream": None}, ("m", False)),
    ],
)
def test_a_request_says_its_model_and_whether_it_streams(body, asked):
    assert responses.read_request(parse_body(json.dumps(body).encode())) == asked


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hello"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": None}, "input"),
        ({"model": "m", "input": {"role": "user"}}, "input"),
        ({"model": "m", "input": 3}, "input"),
        ({"model": "m", "input": "Hello", "stream": "yes"}, "stream"),
    ],
)
def test_a_request_that_lacks_what_each_needs_is_refused(body, param):
    with pytest.raises(InvalidRequest) as raised:
        responses.read_request(parse_body(json.dumps(body).encode()))
    assert raised.value.param == param


def test_what_is_counted_is_what_a_response_would_take():
    assert responses.read_count_request(parse_body(b'{"model":"m"}')) == "m"
    for asked in (5, {}, True):
        with pytest.raises(InvalidRequest, match="input: must be a string or a list of items"):
            responses.read_count_request(parse_body(json.dumps({"model": "m", "input": asked}).encode()))


def test_an_error_in_mid_stream_is_flat_and_numbered():
    error = SimpleNamespace(
        status=502, code="provider_failed", message="It broke.", param=None, openai_type="server_error"
    )
    raw = responses.error_event(error, "req_1", 7)
    assert raw.startswith(b"event: error\n")
    assert json.loads(raw.split(b"data: ")[1]) == {
        "type": "error",
        "code": "provider_failed",
        "message": "It broke.",
        "param": None,
        "sequence_number": 7,
    }


@given(st.data())
def test_a_mutated_stream_never_crashes(data):
    raw = bytearray(b"".join(STREAM))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        _passed, meter, _reader = read([bytes(raw)])
    except StreamError:
        return
    assert all(isinstance(text, str) for text in meter.texts)


@given(st.dictionaries(st.sampled_from(list(responses.StreamEvent.__struct_fields__)), st.sampled_from(
    [None, True, 3, "x", "response.output_text.delta", "response.completed", "response.output_item.done", [], {}, [{}],
     {"type": "function_call"}, {"output": 3}, {"usage": "x", "status": 4}]
)))  # fmt: skip
def test_events_of_any_shape_never_crash(said):
    [parsed] = EventSplitter().feed(b"data: " + msgspec.json.encode(said) + b"\n\n")
    try:
        raw, _said = responses.StreamReader(Meter()).saw(parsed)
    except StreamError:
        return
    assert raw == parsed.raw
