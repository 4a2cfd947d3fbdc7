"""What a translator does takes time in proportion to how much there is to translate, however it is cut up."""

import gc
import time

import pytest

from providers import translators
from providers.conversation import ArgumentsPiece, RefusalPiece, StopPiece, TextPiece, ThinkingPiece, ToolCallPiece
from providers.formats.chat_completions import Choice, Chunk, Delta
from tests.providers.exchange import Seen, raw, reply_for, target

WORD = "x" * 1000
TIMES = 8


class Meter(Seen):
    class call:
        sequence = 0


def write(dialect, piece, count):
    writer = translators.BY_NAME[dialect].AnswerWriter(reply_for(Meter(), {"include_reasoning": True}))
    writer.feed([ToolCallPiece(0, "call_1", "f")] if isinstance(piece, ArgumentsPiece) else [])
    for _ in range(count):
        writer.feed([piece])
    assert writer.finish()


def repeat_one_side(count):
    fields = raw({"model": "public", "input": [{"role": "user", "content": "a"}] * count})
    conversation = translators.BY_NAME["responses"].read_request(fields)
    body = translators.BY_NAME["chat_completions"].write_request(conversation, target())
    assert len(body["messages"]) == 1


def seconds(function, *arguments):
    # How long the collector takes depends on all else that there is.
    gc.disable()
    try:
        began = time.process_time()
        function(*arguments)
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize("dialect", ["responses", "messages", "chat_completions"])
@pytest.mark.parametrize(
    "piece",
    [TextPiece(WORD), RefusalPiece(WORD), ThinkingPiece(WORD), ArgumentsPiece(0, WORD)],
    ids=lambda piece: type(piece).__name__,
)
def test_a_long_answer_takes_no_longer_by_the_word_than_a_short_one(dialect, piece):
    short = min(seconds(write, dialect, piece, 1_000) for _ in range(3))

    assert seconds(write, dialect, piece, 1_000 * TIMES) < short * TIMES * 4


def test_many_turns_of_one_side_take_no_longer_by_the_turn_than_a_few():
    few = min(seconds(repeat_one_side, 5_000) for _ in range(3))

    assert seconds(repeat_one_side, 5_000 * TIMES) < few * TIMES * 4


@pytest.mark.parametrize("dialect", ["responses", "messages", "chat_completions"])
@pytest.mark.parametrize("kind", [TextPiece, ThinkingPiece, ArgumentsPiece])
def test_a_whole_answer_of_many_pieces_takes_no_longer_by_the_piece_than_one_of_few(dialect, kind):
    piece = ArgumentsPiece(0, WORD) if kind is ArgumentsPiece else kind(WORD)

    def write(count):
        begun = [ToolCallPiece(0, "call_1", "f")] if kind is ArgumentsPiece else []
        reply = reply_for(Meter(), {"thinking": {"type": "enabled", "budget_tokens": 1024}, "include_reasoning": True})
        assert translators.BY_NAME[dialect].write_answer([*begun, *[piece] * count, StopPiece("end")], reply)

    few = min(seconds(write, 500) for _ in range(3))
    assert seconds(write, 500 * TIMES) < few * TIMES * 4


def read_calls(count, index, id):
    reader = translators.BY_NAME["chat_completions"].AnswerReader()
    for number in range(count):
        call = {"index": index(number), "id": id(number), "function": {"name": "f", "arguments": "{"}}
        more = {"index": index(number), "id": id(number), "function": {"arguments": "}"}}
        for said in (call, more):
            (piece, *_) = reader.feed(Chunk(choices=[Choice(index=0, delta=Delta(tool_calls=[said]))]))
            assert piece.index == number


@pytest.mark.parametrize(
    ("index", "id"),
    [
        (lambda number: number, lambda number: f"call_{number}"),
        (lambda number: None, lambda number: f"call_{number}"),
        (lambda number: 0, lambda number: f"call_{number}"),
        (lambda number: {"at": number}, lambda number: None),
    ],
    ids=["each its index", "no index", "one index for all", "an object for an index"],
)
def test_many_calls_of_tools_take_no_longer_by_the_call_than_a_few(index, id):
    few = min(seconds(read_calls, 500, index, id) for _ in range(3))

    assert seconds(read_calls, 500 * TIMES, index, id) < few * TIMES * 4
