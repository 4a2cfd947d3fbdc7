"""What a translator does takes time in proportion to how much there is to translate, however it is cut up."""

import gc
import time

import pytest

from providers import translators
from providers.conversation import ArgumentsPiece, RefusalPiece, TextPiece, ThinkingPiece, ToolCallPiece
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
