"""Moderations: what is asked, and what of the answer is counted."""

import contextlib
import json
import time

import pytest

from providers.formats import moderations
from providers.request_body import InvalidRequest, parse_body
from providers.tokens import TokenUsage, count_tokens

TEXT = {"type": "text", "text": "Hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Meter:
    response_model = None
    reported = None

    def saw_usage(self, usage):
        self.reported = usage


def fields_of(**body):
    return parse_body(json.dumps(body).encode())


@pytest.mark.parametrize(
    "asked", ["Hello", "", ["a", ""], [TEXT], [TEXT, IMAGE], [IMAGE], ["ab"] * 2048, [TEXT] * 2048]
)
def test_text_texts_and_parts_are_taken(asked):
    assert moderations.read_request(fields_of(model="m", input=asked)) == ("m", False)


def test_a_model_may_be_left_out():
    assert moderations.read_request(fields_of(input="x"))[0] == "omni-moderation-latest"
    assert moderations.read_request(fields_of(model=None, input="x"))[0] == "omni-moderation-latest"
    with pytest.raises(InvalidRequest):
        moderations.read_request(fields_of(model="", input="x"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "input: field required"),
        ([], "input: must not be empty"),
        (["a"] * 2049, "input: must hold 2048 entries at most"),
        ([TEXT] * 2049, "input: must hold 2048 entries at most"),
        ([{"type": "audio", "text": "x"}], "input[0].type: must be text or image_url, not “audio”"),
        ([TEXT, {"type": "text"}], "input[1].text: field required"),
        ([{"type": "image_url"}], "input[0].image_url: field required"),
        *[
            (wrong, "input: must be a string, a list of strings or a list of text and image_url parts")
            for wrong in (1, {}, ["a", TEXT], [1], [["a"]], [None], [{"text": "x"}], [{"type": "text", "text": 1}])
        ],
    ],
)
def test_any_other_input_is_refused_by_name(asked, said):
    with pytest.raises(InvalidRequest) as raised:
        moderations.read_request(fields_of(model="m", input=asked))
    assert str(raised.value) == said
    assert raised.value.param == "input"


def test_an_answer_has_no_usage_and_so_is_counted_here():
    meter = Meter()
    moderations.read_answer(b'{"id":"modr-1","model":"omni","results":[{"flagged":false}]}', meter)
    assert (meter.response_model, meter.reported) == ("omni", None)
    assert moderations.count_prompt(fields_of(input="Hello there")) == count_tokens("Hello there")
    assert moderations.count_prompt(fields_of(input=["Hello", "", "there"])) == 2
    assert moderations.count_prompt(fields_of(input=[TEXT, IMAGE])) == 1


def test_usage_that_a_provider_tells_is_read():
    meter = Meter()
    moderations.read_answer(b'{"results":[],"usage":{"prompt_tokens":7,"total_tokens":7}}', meter)
    assert meter.reported == TokenUsage(input_tokens=7, output_tokens=0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"results":{}}', b'{"error":{"message":"x"}}'])
def test_what_holds_no_results_is_no_answer(body):
    with pytest.raises(ValueError):
        moderations.read_answer(body, Meter())


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b'"",' * 2_000_000 + b'""]',
        b"[" + b'{"type":"text","text":"a"},' * 300_000 + b'"a"]',
    ],
    ids=lambda raw: raw[:8].decode(),
)
def test_a_list_of_millions_is_read_no_slower_than_its_body(raw):
    body = b'{"model":"m","input":' + raw + b"}"
    fields = parse_body(body)

    def read():
        with contextlib.suppress(InvalidRequest):
            moderations.read_request(fields)

    assert seconds(read) < seconds(parse_body, body) * 4


def seconds(function, *arguments):
    """The processor's time for the quickest of three calls."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        function(*arguments)
        taken.append(time.process_time() - began)
    return min(taken)
