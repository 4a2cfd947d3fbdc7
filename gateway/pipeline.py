"""The heart: one call to one answer, metered and recorded however it ends."""

import asyncio

import msgspec
import structlog

from gateway import errors, metrics
from gateway.journal import JournalFull
from gateway.metering import Meter
from gateway.routing import route
from providers.adapters import ADAPTERS
from providers.errors import Broken, ProviderError, Rejected, StreamError
from providers.formats import chat_completions as openai
from providers.formats import messages
from providers.request_body import InvalidRequest
from providers.sse import EventSplitter
from providers.translators import anthropic_to_openai, openai_to_anthropic

log = structlog.get_logger(__name__)

BY_NAME = {"openai": openai, "anthropic": messages}
TRANSLATORS = {("anthropic", "openai"): anthropic_to_openai, ("openai", "anthropic"): openai_to_anthropic}


async def complete(call, runtime):
    """
    Yield the bytes of the answer to ``call`` in its caller's dialect.

    Raises ``GatewayError``: before the first bytes where the call is refused or its provider fails, after them where
    the provider's answer breaks off. Hold it in ``contextlib.aclosing``, so that leaving it ends the provider's work.
    """
    target = await route(call.model, call.caller.organization_id, runtime.keeper)
    try:
        exchange = Exchange(call, target)
    except InvalidRequest as error:
        raise errors.invalid(error) from None
    rates = target.rates_at(call.received_at)
    opened = call.opened(target, rates and rates.price_id)
    meter = exchange.meter = Meter(call, rates, exchange.prompt_text, opened.input_estimate)
    try:
        entry = runtime.journal.open(call.ulid, opened)
    except JournalFull as error:
        log.error("journal full", error=str(error))
        raise errors.storage_full() from None
    call.recorded = True
    metrics.REQUESTS.in_flight += 1
    try:
        async for chunk in exchange.run(runtime.upstream, entry):
            if exchange.is_complete:
                # Before its end goes out, so that no caller holds an answer that could still lose its record.
                meter.completed()
                _record(call, meter, entry)
            yield chunk
    except ProviderError as error:
        failure = errors.from_provider(error, target.provider_name)
        meter.failed(failure)
        log.warning("provider failed", request_id=call.id, provider=target.provider_name, detail=failure.detail)
        raise failure from None
    except (asyncio.CancelledError, GeneratorExit):
        meter.cancelled()
        raise
    finally:
        if call.closed is None:
            _record(call, meter, entry)


def _record(call, meter, entry):
    """Close the request's record, once."""
    if call.closed is None:
        if meter.outcome is None:
            meter.failed(errors.internal())
        call.closed = meter.closed()
        entry.close(call.closed)
        metrics.REQUESTS.in_flight -= 1
        metrics.REQUESTS.ended(call.endpoint, call.closed)


class Exchange:
    """One call to one provider: what goes out, and what of the answer goes to the caller."""

    def __init__(self, call, target):
        """Build the provider's request. Raises ``InvalidRequest`` for what cannot be said in its dialect."""
        self.call = call
        self.target = target
        self.adapter = ADAPTERS[target.dialect]
        self.dialect = BY_NAME[target.dialect]
        self.translator = TRANSLATORS.get((call.dialect.NAME, target.dialect))
        self.meter = None
        self.is_complete = False
        # The same request without what some providers refuse.
        self.fallback_body = None
        self.hides_usage = False
        self.shows_usage = call.stream and BY_NAME[call.dialect.NAME].wants_usage(call.fields)
        if self.translator:
            body, call.dropped = self.translator.request(call.fields, target)
            self.body = msgspec.json.encode(body)
            if body.pop("stream_options", None):
                self.fallback_body = msgspec.json.encode(body)
            return
        fields = call.fields
        if call.model != target.upstream_name:
            fields = fields | {"model": target.encoded_name}
        self.body = msgspec.json.encode(fields)
        if call.stream and not self.shows_usage:
            self.hides_usage = True
            self.fallback_body = self.body
            self.body = msgspec.json.encode(openai.asking_for_usage(fields))

    def prompt_text(self):
        """What the prompt says, for counting where the provider does not: the strings of its messages."""
        return "\n".join(prompt_strings(self.call.fields))

    async def run(self, upstream, entry):
        """Yield the caller's bytes; ``is_complete`` is set before the last of them. Raises ``ProviderError``."""
        response = await self._open(upstream)
        try:
            self.meter.upstream_request_id = self.adapter.request_id(response)
            if not self.call.stream:
                body = self._answer(await self.adapter.read(response))
                self.is_complete = True
                yield body
                return
            if response.content_type in {"text/html", "application/json"}:
                raise Broken("The provider's answer is not a stream.", response.content_type)
            async for chunk in self._stream(response, entry):
                yield chunk
        finally:
            # Gives the connection back after a whole answer and closes it after less.
            response.close()

    async def _open(self, upstream):
        self.meter.dispatch()
        send = {"stream": self.call.stream, "headers": self.call.provider_headers}
        try:
            return await self.adapter.post(upstream, self.target, self.body, **send)
        except Rejected as error:
            if self.fallback_body is None or error.status not in {400, 422} or "stream_options" not in error.detail:
                raise
        # A provider that knows no stream_options: its tokens are counted here.
        self.meter.dispatch()
        return await self.adapter.post(upstream, self.target, self.fallback_body, **send)

    def _answer(self, body):
        try:
            answer = self.dialect.read_answer(body, self.meter)
        except ValueError as error:
            raise Broken("The provider's answer is not one of its dialect.", str(error)) from None
        return self.translator.answer(answer, self.meter, self.call.id) if self.translator else body

    async def _stream(self, response, entry):
        splitter = EventSplitter()
        reader = self.dialect.StreamReader(self.meter, hide_usage=self.hides_usage)
        translation = self._translation()
        while received := await self.adapter.next_chunk(response):
            passed, failure = _passed(splitter.feed(received), reader, translation)
            if reader.ended and not failure:
                break
            if passed:
                yield passed
            if failure:
                raise self.adapter.scrubbed(failure, self.target)
            if splitter.is_overfull:
                raise Broken("The provider sent an event without end.")
            if progress := self.meter.progress_due():
                entry.progress(progress)
        else:
            # Without a last word of its own the answer may still be whole.
            passed, failure = _passed(splitter.rest(), reader, translation)
            if failure or not self.dialect.is_complete(reader):
                if passed:
                    yield passed
                raise self.adapter.scrubbed(failure, self.target) or Broken("The provider's answer was cut off.")
        self.is_complete = True
        yield passed + translation.finish() if translation else passed
        await self.adapter.finish(response)

    def _translation(self):
        if self.translator is anthropic_to_openai:
            return anthropic_to_openai.Stream(self.meter, self.call.id)
        if self.translator is openai_to_anthropic:
            return openai_to_anthropic.Stream(self.meter, self.call.id, with_usage=self.shows_usage)
        return None


def _passed(events, reader, translation):
    """The bytes that go to the caller for some events of the provider, and the failure that one of them told of."""
    passed = []
    for event in events:
        try:
            raw, said = reader.saw(event)
        except StreamError as failure:
            return b"".join(passed), failure
        if translation is None:
            passed.append(raw)
        elif said is not None:
            passed.append(translation.feed(said))
        if reader.ended:
            break
    return b"".join(passed), None


def prompt_strings(fields):
    """Every text in the prompt: contents, system prompts and tool descriptions, without keys and types."""
    todo = []
    for name in ("system", "messages", "tools"):
        if name in fields:
            try:
                todo.append(msgspec.json.decode(fields[name]))
            except (msgspec.DecodeError, RecursionError):
                # Valid JSON that Python cannot hold, such as 1e999: as it was written, it is still the prompt.
                todo.append(bytes(fields[name]).decode())
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            # Pictures and other data in base64 are not text.
            todo += [part for name, part in value.items() if name not in {"role", "type", "data", "url", "file_data"}]
