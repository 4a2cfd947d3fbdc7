"""Embeddings: what is asked, and vectors that are the same numbers however they are written."""

import base64
import json
import math
import struct
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.formats import completions, embeddings
from providers.request_body import InvalidRequest, parse_body
from providers.tokens import TokenUsage, count_tokens


class Meter:
    response_model = None
    reported = None

    def saw_usage(self, usage):
        self.reported = usage

    def saw_text(self, text):
        raise AssertionError("vectors are no text")


def fields_of(**body):
    return parse_body(json.dumps(body).encode())


def base64_of(vector):
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def vector_of(text):
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def answer_of(*vectors, **fields):
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json.dumps({"object": "list", "model": "m", "data": data, "usage": usage} | fields).encode()


@pytest.mark.parametrize(
    "asked",
    ["Hello", " ", ["a", "b"], ["[", "]"], [1, 2, 3], [[1, 2], [3]], ["x"] * 2048, [[1]] * 2048, [7] * 5000],
)
def test_an_input_of_the_four_shapes_is_taken(asked):
    assert embeddings.read_request(fields_of(model="m", input=asked)) == ("m", False)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "input: must not be empty"),
        ([], "input: must not be empty"),
        (["a", ""], "input[1]: must not be empty"),
        ([[1], [], [2]], "input[1]: must not be empty"),
        (["x"] * 2049, "input: must hold 2048 entries at most, not 2049"),
        ([[1]] * 2049, "input: must hold 2048 entries at most, not 2049"),
        (None, "input: field required"),
        *[
            (wrong, "input: must be a string, a list of strings, a list of token ids or a list of such lists")
            for wrong in (
                1,
                True,
                {},
                {"text": "a"},
                ["a", 1],
                [1, "a"],
                [1.5],
                [-1],
                [[1], 2],
                [2, [1]],
                [[[1]]],
                [["a"]],
                [None],
            )
        ],
    ],
)
def test_any_other_input_is_refused_by_name(asked, said):
    with pytest.raises(InvalidRequest) as raised:
        embeddings.read_request(fields_of(model="m", input=asked))
    assert str(raised.value) == said
    assert raised.value.param == "input"


@pytest.mark.parametrize("entry", ["a", '"', "\\", '\\"', [1]])
def test_far_too_many_entries_are_refused_unread(entry, monkeypatch):
    for reader in ("_TEXTS", "_id_lists"):
        monkeypatch.setattr(embeddings, reader, None)

    with pytest.raises(InvalidRequest, match="must hold 2048 entries at most"):
        embeddings.read_request(fields_of(model="m", input=[entry] * 10_000))


def test_quotes_within_a_text_are_not_taken_for_entries():
    assert embeddings.read_request(fields_of(model="m", input=['""' * 5_000, '\\"' * 5_000])) == ("m", False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": 1}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "many"}, "dimensions"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
    ],
)
def test_a_field_out_of_its_range_is_refused_by_name(fields, param):
    with pytest.raises(InvalidRequest) as raised:
        embeddings.read_request(fields_of(**{"model": "m", "input": "x"} | fields))
    assert raised.value.param == param


def test_what_else_is_asked_is_the_providers_to_judge():
    assert embeddings.read_request(fields_of(model="m", input="x", task="query", encoding_format=None, dimensions=8))


def test_an_answers_tokens_are_all_input():
    meter = Meter()
    embeddings.read_answer(answer_of([0.1]), meter)
    assert meter.reported == TokenUsage(input_tokens=3, output_tokens=0)
    assert meter.response_model == "m"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        {"prompt_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": "many"},
        {"prompt_tokens": -4},
    ],
)
def test_a_prompt_that_nobody_counted_is_left_to_be_counted_here(usage):
    meter = Meter()
    embeddings.read_answer(answer_of([0.1], usage=usage), meter)
    assert meter.reported is None


def test_a_total_alone_is_a_count_too():
    meter = Meter()
    embeddings.read_answer(answer_of([0.1], usage={"total_tokens": 9}), meter)
    assert meter.reported.input_tokens == 9


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":{}}', b'{"data":[1]}', b'{"error":{"message":"x"}}'])
def test_what_holds_no_vectors_is_no_answer(body):
    with pytest.raises(ValueError):
        embeddings.read_answer(body, Meter())


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("Hello there", count_tokens("Hello there")),
        (["Hello", "there"], count_tokens("Hello") + count_tokens("there")),
        ([1, 2, 3], 3),
        ([[1, 2], [3]], 3),
    ],
)
def test_a_prompt_is_counted_and_a_token_id_is_one(asked, count):
    assert embeddings.count_prompt(fields_of(input=asked)) == count


# Vectors ---------------------------------------------------------------------------------------------------------

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.lists(FLOATS, min_size=1, max_size=6), min_size=1, max_size=4))
def test_both_ways_of_writing_give_the_same_vector(vectors):
    as_floats, as_base64 = answer_of(*vectors), answer_of(*[base64_of(vector) for vector in vectors])
    wants_base64, wants_floats = fields_of(encoding_format="base64"), fields_of(encoding_format="float")
    for body in (as_floats, as_base64):
        given_base64 = json.loads(embeddings.as_asked(wants_base64, body))["data"]
        given_floats = json.loads(embeddings.as_asked(wants_floats, body))["data"]
        assert [vector_of(entry["embedding"]) for entry in given_base64] == vectors
        assert [entry["embedding"] for entry in given_floats] == vectors


def test_a_number_that_32_bits_do_not_hold_is_the_nearest_that_they_do():
    (entry,) = json.loads(embeddings.as_asked(fields_of(encoding_format="base64"), answer_of([0.1])))["data"]
    assert vector_of(entry["embedding"]) == [struct.unpack("<f", struct.pack("<f", 0.1))[0]]


def test_a_caller_that_does_not_say_gets_floats():
    (entry,) = json.loads(embeddings.as_asked(fields_of(), answer_of(base64_of([0.5, -2.0]))))["data"]
    assert entry == {"object": "embedding", "index": 0, "embedding": [0.5, -2.0]}


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ("float", b'{"data" : [ {"embedding":[0.10,1e-3],"index":0} ], "more": 1.0}'),
        ("base64", b'{"data" : [ {"embedding":"zczMPQ==","index":0} ], "more": 1.0}'),
        ("base64", b'{"data":[]}'),
        ("base64", b'{"data":[{"index":0}]}'),
    ],
)
def test_an_answer_that_is_as_asked_passes_byte_for_byte(asked, body):
    assert embeddings.as_asked(fields_of(encoding_format=asked), body) == body


def test_the_rest_of_a_converted_answer_stays():
    body = answer_of([0.5], later={"a": 1.5})
    sent = json.loads(embeddings.as_asked(fields_of(encoding_format="base64"), body))
    expected = json.loads(body)
    expected["data"][0]["embedding"] = base64_of([0.5])
    assert sent == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[{"embedding":"not base64"}]}',
        b'{"data":[{"embedding":"AAA="}]}',
        b'{"data":[{"embedding":"\\ud800"}]}',
        b"{}",
        b"",
    ],
)
def test_what_is_no_vector_passes_as_it_came(body):
    assert embeddings.as_asked(fields_of(encoding_format="float"), body) == body


@pytest.mark.parametrize("vector", [["a"], [None], [1e999], [[1.0]]])
def test_what_is_no_list_of_numbers_passes_as_it_came(vector):
    body = answer_of(vector)
    assert embeddings.as_asked(fields_of(encoding_format="base64"), body) == body


def test_a_large_answer_is_converted_quickly():
    body = msgspec.json.encode({"data": [{"embedding": [math.sin(i) for i in range(1536)]} for _ in range(100)]})
    began = time.process_time()
    sent = embeddings.as_asked(fields_of(encoding_format="base64"), body)
    assert time.process_time() - began < 0.5
    assert len(sent) < len(body)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"prompt": "Hello there", "suffix": "Hello"}, count_tokens("Hello there") + count_tokens("Hello")),
        ({"prompt": ["Hello", "there"]}, 2),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3]]}, 3),
        ({"prompt": None}, 0),
    ],
)
def test_the_prompt_of_a_completion_is_counted_the_same_way(asked, count):
    assert completions.count_prompt(fields_of(**asked)) == count


def test_a_list_of_millions_is_refused_about_as_fast_as_its_body_is_parsed():
    body = b'{"model":"m","input":["a",' + b"1," * 2_000_000 + b"1]}"
    fields = parse_body(body)

    def read():
        with pytest.raises(InvalidRequest):
            embeddings.read_request(fields)

    assert seconds(read) < seconds(parse_body, body) * 10


def seconds(function, *arguments):
    """The processor's time for the quickest of three calls."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        function(*arguments)
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize(
    "raw", [b"[" + b"1," * 500_000 + b"1]", b"[[" + b"1," * 500_000 + b"1]]"], ids=["ids", "lists"]
)
def test_token_ids_are_not_decoded(raw):
    fields = parse_body(b'{"model":"m","input":' + raw + b"}")
    tracemalloc.start()
    try:
        embeddings.read_request(fields)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A list of so many numbers takes four times the bytes that they are written with, besides copies of those.
    assert peak < len(raw) * 4
