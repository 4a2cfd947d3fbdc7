"""Answering one call over HTTP: read it, send what comes, watch for the client to leave, and record a refusal."""

import asyncio
import contextlib

import msgspec

from gateway import errors, metrics
from gateway.calls import Call
from gateway.errors import GatewayError
from gateway.http import JSON_HEADERS
from gateway.pipeline import LARGE_REQUEST, complete
from providers.request_body import InvalidRequest, model_name, parse_body
from usage.models import Outcome, UsageSource
from usage.records import Closed

FALSE = msgspec.Raw(b"false")
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def serve(http, runtime, *, format, prepare=None, through=None):
    """
    Answer a call for a model's words in ``format``, and record it whatever becomes of it.

    ``prepare(call)`` may change the call before it is answered, and refuse it; ``through(call, chunks)`` is an async
    generator that sees every part of the answer on its way out.
    """
    caller = await http.authenticate(runtime)
    call = Call(
        format=format,
        caller=caller,
        fields={},
        client=http.text_header(b"user-agent"),
        client_retries=http.retry_count(),
        flavour=http.flavour,
        ulid=http.ulid,
        id=http.request_id,
        received=http.received,
    )
    http.error_event = lambda error, request_id: format.error_event(error, request_id, call.sequence + 1)
    http.answer_headers = http.flavour.headers(call)
    try:
        call.provider_headers = http.provider_headers()
        call.takes_less = http.header(b"x-comptoir-lower-max-tokens") == b"true"
        call.rules = call.provider_headers.get("anthropic-version")
        body = await http.body()
        call.size = len(body)
        if http.flavour.looks_deep and call.size > LARGE_REQUEST:
            # A flavour that counts tokens takes a while, in which other answers go on.
            call.fields = await asyncio.to_thread(_read, http.flavour, format, body)
        else:
            call.fields = _read(http.flavour, format, body)
        call.model, call.stream = format.read_request(call.fields, call.rules)
        if not caller.stores and "store" in call.fields:
            # No provider is to store it either.
            call.fields = call.fields | {"store": FALSE}
        if prepare is not None:
            await prepare(call)
        await _answer(http, call, runtime, through)
    except (InvalidRequest, GatewayError) as error:
        failure = errors.invalid(error) if isinstance(error, InvalidRequest) else error
        if not call.recorded:
            call.model = call.model or named_model(call.fields)
            record_refusal(call, failure, runtime)
        if call.ticket is not None and not http.has_begun:
            failure.headers += call.ticket.headers(http.dialect)
        raise failure from None


def _read(flavour, format, body):
    return flavour.read(format.NAME, parse_body(body))


async def _answer(http, call, runtime, through):
    """Send what ``complete`` yields, while watching for the client to leave."""
    watcher = asyncio.create_task(_watch(http, call, asyncio.current_task()))
    try:
        async with contextlib.aclosing(complete(call, runtime)) as chunks:
            if through is not None:
                chunks = through(call, chunks)
            async for chunk in chunks:
                if not http.has_begun:
                    http.answer_headers = call.answer_headers + call.limit_headers
                    if call.ticket is not None:
                        http.answer_headers += call.ticket.headers(http.dialect)
                if call.stream:
                    await http.stream(chunk, STREAM_HEADERS, dropped=call.dropped)
                else:
                    await http.send(200, JSON_HEADERS, chunk, dropped=call.dropped)
            if call.stream:
                await http.end_stream()
    except asyncio.CancelledError:
        if not call.client_gone:
            raise
        # The client left: nobody is waiting for the rest of this task, and nobody else cancelled it.
        asyncio.current_task().uncancel()
    finally:
        watcher.cancel()


async def _watch(http, call, task):
    """Cancel ``task`` when the client has gone; without this an answer would be paid for that nobody reads."""
    await http.disconnected()
    call.client_gone = True
    task.cancel()


def named_model(fields):
    """The model that a refused request named, so that its row can be found by it; ``None`` where it named none."""
    try:
        return model_name(fields)
    except InvalidRequest:
        return None


def record_refusal(call, error, runtime):
    """Record a call that was refused although its caller is known."""
    closed = Closed(
        outcome=str(Outcome.REFUSED),
        status=error.status,
        duration_ms=int(call.elapsed() * 1000),
        usage_source=str(UsageSource.NONE),
        cost_nanos=0,
        error_code=error.code,
        error_message=error.message,
    )
    runtime.journal.refuse(call.ulid, call.opened(), closed)
    metrics.REQUESTS.ended(call.format.NAME, closed)
