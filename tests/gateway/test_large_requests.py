"""A large request is translated beside the event loop, so that nobody else waits for it."""

import threading

import anyio
import pytest

from gateway import pipeline
from gateway.calls import Call
from providers.formats import chat_completions


class Plan:
    format_name = "messages"


@pytest.mark.anyio
@pytest.mark.parametrize(("size", "format_name", "beside"), [
    (pipeline.LARGE_REQUEST + 1, "messages", True),
    (pipeline.LARGE_REQUEST, "messages", False),
    (pipeline.LARGE_REQUEST + 1, "chat_completions", False),
])  # fmt: skip
async def test_only_the_translation_of_a_large_request_leaves_the_loop(monkeypatch, size, format_name, beside):
    threads = []
    monkeypatch.setattr(pipeline, "Exchange", lambda *_: threads.append(threading.current_thread()))
    plan = Plan()
    plan.format_name = format_name
    call = Call(format=chat_completions, caller=None, fields={}, size=size)
    with anyio.fail_after(5):
        await pipeline._attempt(call, plan, None)
    assert (threads[0] is not threading.current_thread()) is beside
