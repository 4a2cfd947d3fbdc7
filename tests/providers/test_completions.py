"""Completions of a text: what passes, and what is answered by providers who take conversations."""

import json

import pytest

from providers.conversation import RefusalPiece, StopPiece, Text, TextPiece, ThinkingPiece, Turn
from providers.formats import completions as format
from providers.request_body import InvalidRequest
from providers.sse import EventSplitter
from providers.tokens import TokenUsage
from providers.translators import completions
from tests.providers.exchange import Seen, data, documents, raw, reply_for

PROMPT = {"model": "public", "prompt": "Once upon"}


@pytest.mark.parametrize("prompt", ["Once", "", ["One", "Two"], [1, 2], [[1], [2]]])
def test_every_form_of_a_prompt_passes(prompt):
    assert format.read_request(raw({"model": "m", "prompt": prompt, "stream": True})) == ("m", True)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(change, param):
    with pytest.raises(InvalidRequest) as refused:
        format.read_request(raw(PROMPT | change))
    assert refused.value.param == param


def test_a_stream_passes_and_is_read():
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [], "text_offset": [0]}
    stream = (
        data(
            {"object": "text_completion", "model": "real", "choices": [{"index": 0, "text": "a", "logprobs": logprobs}]}
        )
        + data({"choices": [{"index": 0, "text": " time", "finish_reason": "length"}]})
        + data({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 2}})
        + b"data: [DONE]\n\n"
    )
    seen = Seen()
    reader = format.StreamReader(seen)
    assert b"".join(reader.saw(event)[0] for event in EventSplitter().feed(stream)) == stream
    assert (seen.text, seen.stop_reason, seen.response_model) == ("a time", "length", "real")
    assert seen.reported == TokenUsage(2, output_tokens=2)
    assert format.is_complete(reader)


def test_a_whole_answer_is_read():
    seen = Seen()
    answer = {"choices": [{"text": "a time"}, {"text": "b"}], "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    format.read_answer(json.dumps(answer).encode(), seen)
    assert (seen.text, seen.reported) == ("a timeb", TokenUsage(2, output_tokens=2))


# Translated ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["Once upon", ["Once upon"]])
def test_a_prompt_is_a_turn_of_the_user(prompt):
    conversation = completions.read_request(
        raw(
            {
                "model": "m", "prompt": prompt, "stream": True, "max_tokens": 5, "stop": "END", "temperature": 0.5,
                "n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": 2, "extra": 1,
            }
        )
    )  # fmt: skip
    assert conversation.turns == [Turn("user", [Text("Once upon")], "prompt")]
    assert conversation.stream
    assert conversation.options == {"max_tokens": 5, "stop": ["END"], "temperature": 0.5, "extra": 1}
    assert conversation.dropped() == ["extra", "logprobs", "max_tokens", "stop", "temperature"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ["One", "Two"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": [{}]}, "prompt"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "The end."}, "suffix"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)
def test_what_a_conversation_cannot_give_is_refused(change, param):
    with pytest.raises(InvalidRequest) as refused:
        completions.read_request(raw(PROMPT | change))
    assert refused.value.param == param


PIECES = [ThinkingPiece("hm"), TextPiece("a "), TextPiece("time"), RefusalPiece("."), StopPiece("length")]


def seen(**fields):
    meter = Seen()
    meter.response_model, meter.reported = "real", TokenUsage(3, output_tokens=2)
    return meter


def test_a_whole_answer_has_this_shape():
    answer = json.loads(completions.write_answer(PIECES, reply_for(seen())))
    assert answer.pop("usage")["total_tokens"] == 5
    assert answer == {
        "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "real", "system_fingerprint": None,
        "choices": [{"index": 0, "text": "a time.", "logprobs": None, "finish_reason": "length"}],
    }  # fmt: skip


@pytest.mark.parametrize("with_usage", [True, False])
def test_a_stream_has_these_chunks(with_usage):
    writer = completions.AnswerWriter(reply_for(seen(), with_usage=with_usage))
    chunks = documents(b"".join(writer.feed([piece]) for piece in PIECES) + writer.finish())
    assert chunks.pop() == "[DONE]"
    if with_usage:
        closing = chunks.pop()
        assert (closing["choices"], closing["usage"]["total_tokens"]) == ([], 5)
    assert [(chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ("a ", None), ("time", None), (".", None), ("", "length"),
    ]  # fmt: skip
    assert all(("usage" in chunk) == with_usage for chunk in chunks)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize(
    ("reason", "finish"), [("end", "stop"), ("tools", "stop"), ("pause", "stop"), ("filter", "content_filter")]
)
def test_every_reason_to_stop_has_its_word(reason, finish):
    answer = json.loads(completions.write_answer([StopPiece(reason)], reply_for(seen())))
    assert answer["choices"][0]["finish_reason"] == finish
