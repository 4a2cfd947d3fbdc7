"""One function an endpoint, and the table that finds it."""

import asyncio
import contextlib

import msgspec
import structlog

from gateway import errors, metrics
from gateway.calls import Call
from gateway.errors import GatewayError
from gateway.http import JSON_HEADERS
from gateway.pipeline import complete, prompt_strings
from gateway.routing import models_of, route
from providers import formats
from providers.adapters import ADAPTERS
from providers.adapters.anthropic import COUNT_PATH
from providers.errors import ProviderError
from providers.request_body import InvalidRequest, parse_body
from providers.tokens import count_tokens
from usage.models import Outcome, UsageSource
from usage.records import Closed

log = structlog.get_logger(__name__)

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def chat_completions(http, runtime):
    """POST /v1/chat/completions"""
    await _serve(http, runtime, "chat_completions")


async def messages(http, runtime):
    """POST /v1/messages"""
    await _serve(http, runtime, "messages")


async def count_message_tokens(http, runtime):
    """POST /v1/messages/count_tokens: free, and no request of anybody's."""
    caller = await http.authenticate(runtime)
    headers = http.provider_headers()
    fields = parse_body(await http.body())
    target = await route(formats.messages.read_count_request(fields), caller.organization_id, runtime.keeper)
    if not target.counts_tokens:
        count = await asyncio.to_thread(lambda: count_tokens("\n".join(prompt_strings(fields))))
        await http.json({"input_tokens": count})
        return
    adapter = ADAPTERS["anthropic"]
    body = msgspec.json.encode(fields | {"model": target.encoded_name})
    try:
        response = await adapter.post(runtime.upstream, target, body, stream=False, headers=headers, path=COUNT_PATH)
        with contextlib.closing(response):
            await http.send(200, JSON_HEADERS, await adapter.read(response))
    except ProviderError as error:
        raise errors.from_provider(error, target.provider_name) from None


async def list_models(http, runtime):
    """GET /v1/models"""
    caller = await http.authenticate(runtime)
    await http.json(http.dialect.model_list(list(models_of(caller.organization_id, runtime.keeper.current).values())))


async def get_model(http, runtime):
    """GET /v1/models/{id}"""
    caller = await http.authenticate(runtime)
    name = http.path.removeprefix("/v1/models/")
    target = models_of(caller.organization_id, runtime.keeper.current).get(name)
    if target is None:
        raise errors.unknown_model(name)
    await http.json(http.dialect.model_item(target))


EXACT = {
    "/v1/chat/completions": ("POST", chat_completions),
    "/v1/messages": ("POST", messages),
    "/v1/messages/count_tokens": ("POST", count_message_tokens),
    "/v1/models": ("GET", list_models),
}


def find(method, path):
    """The function that answers ``method`` at ``path``. Raises ``GatewayError`` where there is none."""
    allowed, function = EXACT.get(path) or (("GET", get_model) if path.startswith("/v1/models/") else (None, None))
    if function is None:
        raise errors.unknown_path(method, path)
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise errors.wrong_method(method, path, allowed)
    return function


async def _serve(http, runtime, endpoint):
    """Answer a call for a model's words, and record it whatever becomes of it."""
    caller = await http.authenticate(runtime)
    call = Call(
        dialect=http.dialect,
        endpoint=endpoint,
        caller=caller,
        fields={},
        client=http.text_header(b"user-agent"),
        client_retries=http.retry_count(),
        ulid=http.ulid,
        id=http.request_id,
        received=http.received,
    )
    try:
        call.provider_headers = http.provider_headers()
        call.fields = parse_body(await http.body())
        call.model, call.stream = formats.BY_NAME[endpoint].read_request(call.fields)
        await _answer(http, call, runtime)
    except (InvalidRequest, GatewayError) as error:
        failure = errors.invalid(error) if isinstance(error, InvalidRequest) else error
        if not call.recorded:
            record_refusal(call, failure, runtime)
        raise failure from None


async def _answer(http, call, runtime):
    """Send what ``complete`` yields, while watching for the client to leave."""
    watcher = asyncio.create_task(_watch(http, call, asyncio.current_task()))
    try:
        async with contextlib.aclosing(complete(call, runtime)) as chunks:
            if not call.stream:
                async for body in chunks:
                    await http.send(200, JSON_HEADERS, body, dropped=call.dropped)
                return
            async for chunk in chunks:
                await http.stream(chunk, STREAM_HEADERS, dropped=call.dropped)
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
    metrics.REQUESTS.ended(call.endpoint, closed)
