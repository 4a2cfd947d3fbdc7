"""What holds of bodies and errors whatever their dialect."""

import json

import pytest

from providers.formats import chat_completions as openai
from providers.formats import messages as anthropic
from providers.request_body import InvalidRequest, parse_body
from tests.providers.exchange import Seen

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


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


# Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [openai, anthropic])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error":1}', b'{"choices":3,"content":3}'])
def test_an_answer_of_another_shape_is_none(dialect, body):
    with pytest.raises(ValueError, match=r".+"):
        dialect.read_answer(body, Seen())
