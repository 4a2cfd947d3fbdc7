"""A large request is translated beside the event loop, so that nobody else waits for it."""

import threading
from types import SimpleNamespace

import anyio
import pytest

from gateway import pipeline, serving
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


class Stopped(Exception):
    pass


@pytest.mark.anyio
@pytest.mark.parametrize(("size", "looks_deep", "beside"), [
    (pipeline.LARGE_REQUEST + 1, True, True),
    (pipeline.LARGE_REQUEST, True, False),
    (pipeline.LARGE_REQUEST + 1, False, False),
])  # fmt: skip
async def test_only_a_flavour_that_looks_deep_reads_a_large_request_beside_the_loop(size, looks_deep, beside):
    threads = []

    class Http:
        flavour = SimpleNamespace(name="odd", looks_deep=looks_deep, headers=lambda call: [])
        ulid, request_id, received = b"", "req_1", 0.0
        header = text_header = retry_count = lambda self, *_: None

        def provider_headers(self):
            return {}

        async def authenticate(self, runtime):
            return None

        async def body(self):
            return b'{"model":"m"}'.ljust(size)

    def read(format_name, fields):
        threads.append(threading.current_thread())
        raise Stopped

    Http.flavour.read = read
    with anyio.fail_after(20), pytest.raises(Stopped):
        await serving.serve(Http(), None, format=chat_completions)
    assert (threads[0] is not threading.current_thread()) is beside
