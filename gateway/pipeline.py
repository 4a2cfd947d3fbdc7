"""The heart: one call to one answer, metered and recorded however it ends."""

import asyncio
import functools

import msgspec
import structlog
from django.utils.translation import gettext_noop

from gateway import errors, metrics
from gateway.journal import JournalFull
from gateway.metering import Meter
from providers import formats, translators
from providers.adapters import ADAPTERS
from providers.conversation import Reply
from providers.errors import Broken, ProviderError, Rejected, StreamError
from providers.formats.usage_chunk import with_usage
from providers.presets import PRESETS
from providers.request_body import InvalidRequest
from providers.sse import EventSplitter
from providers.tokens import count_tokens

log = structlog.get_logger(__name__)
_ = gettext_noop

LARGE_ANSWER = 100_000
# Translating so many bytes takes some five milliseconds, in which the process does nothing else.
LARGE_REQUEST = 250_000
# So much of a stream without a word in it is held back while another target could still answer in its place.
MOST_HELD = 64 * 1024
# What in a prompt is none: pictures and other data in base64 among it.
NO_TEXT = {"role", "type", "data", "url", "image_url", "file_data"}


async def complete(call, runtime):
    """
    Yield the bytes of the answer to ``call`` in its caller's format.

    Raises ``GatewayError``: before the first bytes where the call is refused or its provider fails, after them where
    the provider's answer breaks off; ``InvalidRequest`` for what the caller got wrong. Hold it in
    ``contextlib.aclosing``, so that leaving it ends the provider's work.
    """
    plan = call.plan = await runtime.router.plan(call)
    meter = Meter(call, count_prompt, call.estimate_input())
    await runtime.admission.admit(call, plan)
    try:
        exchange = await _exchange(call, plan, meter)
        entry = _opened(call, meter, runtime)
    except BaseException:
        runtime.admission.settle(call, 0)
        raise
    first = None
    try:
        exchange, first = await _begun(exchange, entry, runtime)
        if exchange.is_complete:
            # Before its end goes out, so that no caller holds an answer that could still lose its record.
            meter.completed()
            _record(call, meter, entry, runtime)
        yield first
        if not exchange.is_complete:
            async for chunk in exchange.rest(entry):
                if exchange.is_complete:
                    meter.completed()
                    _record(call, meter, entry, runtime)
                yield chunk
            await exchange.finish()
    except ProviderError as error:
        if first is not None:
            plan.failed(error)
        failure = errors.from_provider(error, plan.target.provider_name)
        meter.failed(failure)
        log.warning("provider failed", request_id=call.id, provider=plan.target.provider_name, detail=failure.detail)
        raise failure from None
    except (asyncio.CancelledError, GeneratorExit):
        meter.cancelled()
        raise
    finally:
        exchange.close()
        if call.closed is None:
            _record(call, meter, entry, runtime)


async def _exchange(call, plan, meter):
    """
    An ``Exchange`` with the first target, from the plan's current one on, that can be told what ``call`` says.

    Raises ``InvalidRequest`` where none can.
    """
    while True:
        try:
            exchange = await _attempt(call, plan, meter)
        except InvalidRequest:
            if not plan.skip():
                raise
        else:
            meter.ask(plan.target, plan.target.rates_at(call.received_at))
            return exchange


async def _attempt(call, plan, meter):
    """The ``Exchange`` of the plan's current attempt; what takes long to translate holds nobody up."""
    if plan.format_name != call.format.NAME and call.size > LARGE_REQUEST:
        return await asyncio.to_thread(Exchange, call, plan, meter)
    return Exchange(call, plan, meter)


def _opened(call, meter, runtime):
    """The journal's entry of a request that is about to go out. Raises ``GatewayError`` where there is no room."""
    opened = call.opened(meter.target, meter.rates, meter.input_estimate)
    try:
        entry = runtime.journal.open(call.ulid, opened)
    except JournalFull as error:
        log.error("journal full", error=str(error))
        raise errors.storage_full() from None
    call.recorded = True
    metrics.REQUESTS.in_flight += 1
    return entry


async def _begun(exchange, entry, runtime):
    """
    The exchange whose provider has begun to answer, with the first bytes for the caller.

    That is ``exchange`` or, as long as providers fail and the plan goes on, one after it. Raises ``ProviderError``.
    """
    plan = exchange.plan
    while True:
        try:
            beginning = exchange.begin(runtime.upstream)
            first = await (plan.in_time(beginning) if plan.retried else beginning)
        except ProviderError as error:
            exchange = await _another(exchange, entry, error)
        except BaseException:
            exchange.close()
            raise
        else:
            runtime.router.succeeded(plan)
            return exchange, first


async def _another(failed, entry, error):
    """The exchange to try after one that ``failed`` with ``error``; raises ``error`` where there is none."""
    call, plan, meter = failed.call, failed.plan, failed.meter
    failed.close()
    plan.failed(error)
    if await plan.goes_on(error):
        try:
            exchange = await _exchange(call, plan, meter)
        except InvalidRequest:
            # What could be said to the one cannot be said to the others.
            plan.target = failed.target
        else:
            provider = plan.target.provider_name
            log.info("trying again", request_id=call.id, provider=provider, after=error.detail or error.message)
            if meter.fallback:
                # So that whose answer it is stands in the record even if this process dies under it.
                entry.progress(meter.progress())
            return exchange
    raise error


def _record(call, meter, entry, runtime):
    """Close the request's record, once."""
    if call.closed is None:
        if meter.outcome is None:
            meter.failed(errors.internal())
        call.closed = meter.closed()
        entry.close(call.closed)
        runtime.admission.settle(call, call.closed.cost_nanos)
        metrics.REQUESTS.in_flight -= 1
        metrics.REQUESTS.ended(call.format.NAME, call.closed)


class Exchange:
    """
    One attempt at one call: what goes out to a provider, and what of its answer goes to the caller.

    Where the provider is asked in the caller's own format, bytes pass as they are; else a translator stands between.
    """

    is_complete = False
    response = None
    # The same request without what some providers refuse.
    fallback_body = None
    hides_usage = owes_usage = False
    _failure = _splitter = _reader = _reader_class = _from = _to = _last = None

    def __init__(self, call, plan, meter):
        """Build the provider's request. Raises ``InvalidRequest`` for what cannot be said in its format."""
        self.call = call
        self.plan = plan
        self.target = target = plan.target
        self.meter = meter
        self.adapter = ADAPTERS[target.adapter]
        self.format = call.format if plan.format_name == call.format.NAME else formats.BY_NAME[plan.format_name]
        self.dresses = call.flavour.rewrites(call.format.NAME, target)
        self._holds = plan.has_others
        if self.format is call.format:
            call.dropped = []
            self._pass_on()
        else:
            self._translate()

    def _pass_on(self):
        call, target = self.call, self.target
        fields = call.fields
        if target.model_field != "model":
            fields = {name: raw for name, raw in fields.items() if name != "model"}
            fields[target.model_field] = target.encoded_name
        elif call.model != target.upstream_name:
            fields = fields | {"model": target.encoded_name}
        if target.renames and target.renames.keys() & fields.keys():
            fields = {target.renames.get(name, name): raw for name, raw in fields.items()}
        if target.drops and (refused := target.drops & fields.keys()):
            fields = {name: raw for name, raw in fields.items() if name not in refused}
            call.dropped = sorted(refused)
        bare = fields
        if "stream_options" in fields:
            bare = {name: raw for name, raw in fields.items() if name != "stream_options"}
            if not target.takes_stream_options:
                fields = bare
        self.body = msgspec.json.encode(fields)
        if not call.stream or not hasattr(self.format, "asking_for_usage"):
            return
        self.owes_usage = self.format.wants_usage(call.fields)
        self.hides_usage = not self.owes_usage
        if PRESETS[target.kind].repeats_usage and self.format is formats.chat_completions:
            self._reader_class = formats.chat_completions.RepeatedUsageReader
        if target.takes_stream_options:
            self.fallback_body = self.body if bare is fields else msgspec.json.encode(bare)
            if self.hides_usage:
                self.body = msgspec.json.encode(self.format.asking_for_usage(fields))

    def _translate(self):
        call, target = self.call, self.target
        ours, theirs = translators.BY_NAME[call.format.NAME], translators.BY_NAME[self.format.NAME]
        conversation = ours.read_request(call.fields, call.rules)
        body = translators.request_for(target, self.format.NAME, conversation)
        call.dropped = conversation.dropped()
        self.body = msgspec.json.encode(body)
        if body.pop("stream_options", None):
            self.fallback_body = msgspec.json.encode(body)
        self._reply = Reply(
            request_id=call.id,
            created=int(call.received_at),
            meter=self.meter,
            fields=call.fields,
            with_usage=call.stream and call.format.wants_usage(call.fields),
            conversation=conversation,
        )
        self._from, self._to = theirs, ours

    async def begin(self, upstream):
        """
        Ask, and return the first bytes for the caller: the whole of an answer that is not streamed.

        While another target could answer, a stream's first word is waited for. ``is_complete`` says that there is no
        more. Raises ``ProviderError``; nothing has gone to the caller then.
        """
        self.response = await self._open(upstream)
        self.meter.upstream_request_id = self.adapter.request_id(self.response)
        self.call.answer_headers = self.call.flavour.headers(self.call, self.target, self.response.headers)
        if not self.call.stream:
            body = self._answer(await self.adapter.read(self.response))
            if as_asked := getattr(self.format, "as_asked", None):
                # Vectors by the thousand take a while, in which other answers go on.
                convert = functools.partial(as_asked, self.call.fields, body)
                body = await asyncio.to_thread(convert) if len(body) > LARGE_ANSWER else convert()
            self.is_complete = True
            return body
        if self.response.content_type in {"text/html", "application/json"}:
            raise Broken(_("The provider's answer is not a stream."), self.response.content_type)
        self._splitter = EventSplitter()
        self._reader = (self._reader_class or self.format.StreamReader)(self.meter, hide_usage=self.hides_usage)
        if self._from:
            self._pieces, self._writer = self._from.AnswerReader(), self._to.AnswerWriter(self._reply)
        held = b""
        while True:
            held += await self._next()
            has_begun = not self._holds or self.meter.first_token is not None or len(held) > MOST_HELD
            if self.is_complete or (held and has_begun):
                return held
            if self._failure:
                raise self._failure

    async def rest(self, entry):
        """Yield what follows; ``is_complete`` is set before the last of it. Raises ``ProviderError``."""
        while not self.is_complete:
            if self._failure:
                raise self._failure
            if (passed := await self._next()) or self.is_complete:
                yield passed
            if progress := self.meter.progress_due():
                entry.progress(progress)

    async def finish(self):
        """Take what stands after the provider's last word, so that its connection can be used again."""
        await self.adapter.finish(self.response)

    def close(self):
        """Give the connection back after a whole answer, and close it after less."""
        if self.response is not None:
            self.response.close()
            self.response = None

    async def _open(self, upstream):
        send = {"stream": self.call.stream, "headers": self.call.provider_headers if self._from is None else None}
        self.meter.dispatch()
        try:
            return await self.adapter.post(upstream, self.target, self.format.NAME, self.body, **send)
        except Rejected as error:
            if self.fallback_body is None or error.status not in {400, 422} or "stream_options" not in error.detail:
                raise
        # A provider that knows no stream_options: its tokens are counted here.
        self.meter.dispatch()
        return await self.adapter.post(upstream, self.target, self.format.NAME, self.fallback_body, **send)

    def _answer(self, body):
        try:
            said = self.format.read_answer(body, self.meter)
        except StreamError as failure:
            raise self.adapter.scrubbed(failure, self.target) from None
        except ValueError as error:
            raise Broken(_("The provider's answer is not one of its dialect."), str(error)) from None
        if self._from:
            body = self._to.write_answer(self._from.read_answer(said), self._reply)
        if self.dresses:
            body = self.call.flavour.answer(self.call.format.NAME, body, self.call, self.target, self.response.headers)
        return body

    async def _next(self):
        """The caller's bytes for the provider's next; sets ``is_complete`` or the failure to raise after them."""
        received = await self.adapter.next_chunk(self.response)
        passed, failure = self._passed(self._splitter.feed(received) if received else self._splitter.rest())
        if failure:
            self._failure = self.adapter.scrubbed(failure, self.target)
        elif self._reader.ended or (not received and self.format.is_complete(self._reader)):
            # Without a last word of its own the answer may still be whole.
            if self._from:
                passed += self._writer.feed(self._pieces.finish()) + self._writer.finish()
            elif self.owes_usage and self._last:
                passed = self._with_usage(passed)
            self.is_complete = True
        elif not received:
            self._failure = Broken(_("The provider's answer was cut off."))
        elif self._splitter.is_overfull:
            self._failure = Broken(_("The provider sent an event without end."))
        if passed and self.dresses:
            passed = self.call.flavour.events(
                self.call.format.NAME, passed, self.call, self.target, self.response.headers
            )
        return passed

    def _with_usage(self, passed):
        """The end of a stream with the usage in it that its caller asked for and has not had."""
        if self._reader.held_back:
            return with_usage(passed, self._reader.held_back)
        if self.meter.reported is None:
            self.meter.completed()
            return with_usage(passed, self._last, self.meter.usage()[0])
        return passed

    def _passed(self, events):
        """The bytes that go to the caller for some events of the provider, and the failure that one of them told of."""
        passed = []
        for event in events:
            try:
                raw, said = self._reader.saw(event)
            except StreamError as failure:
                return b"".join(passed), failure
            if self._from is None:
                passed.append(raw)
                if self.owes_usage and said is not None:
                    self._last = event.data
            elif said is not None and (pieces := self._pieces.feed(said)):
                passed.append(self._writer.feed(pieces))
            if self._reader.ended:
                break
        return b"".join(passed), None


def count_prompt(call):
    """The tokens of the prompt, counted here."""
    if count := getattr(call.format, "count_prompt", None):
        return count(call.fields)
    return count_tokens("\n".join(prompt_strings(call)))


def prompt_strings(call):
    """Every text in the prompt: contents, system prompts and tool descriptions, without keys and types."""
    todo = []
    for name in call.format.PROMPT_FIELDS:
        if name in call.fields:
            try:
                todo.append(msgspec.json.decode(call.fields[name]))
            except (msgspec.DecodeError, RecursionError):
                # Valid JSON that Python cannot hold, such as 1e999: as it was written, it is still the prompt.
                todo.append(bytes(call.fields[name]).decode())
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += [part for name, part in value.items() if name not in NO_TEXT]
