"""The meter of one request: tokens, first token, latency and outcome, as the answer passes."""

import re
import time

import msgspec
import structlog

from gateway import metrics
from gateway.bounds import BEYOND_BYTES_TOKENS
from gateway.errors import GatewayError
from gateway.plausibility import UNDOUBTED, Plausible
from providers.tokens import TokenUsage, count_of, count_tokens
from usage.costs import cost_of
from usage.models import Outcome, UsageSource
from usage.records import LENGTHS, Closed, Progress

log = structlog.get_logger(__name__)

PROGRESS_SECONDS = 0.25
# Of a text that nobody counted yet; the mark it goes into is an estimate by name.
BYTES_PER_TOKEN = 4
# A prompt of some 400 kB is counted in four milliseconds, in which the process does nothing else.
MOST_COUNTED_TOKENS = 100_000
# Prose has four or five characters a token, and hardly any text sixteen: a report below that is looked into.
MOST_CHARACTERS_PER_TOKEN = 16
NOTHING = TokenUsage()
# As much of the names that callers make up as a row holds.
MOST_DROPPED = LENGTHS["dropped"]
# Formats whose prompt is read at once: none is longer than what the model can read.
ONE_PROMPT = {"chat_completions", "messages", "responses"}
# Where pictures and sound stand in a prompt; their bytes say nothing of their tokens.
_MEDIA = re.compile(rb'"(?:data|url|file_data|image_url)"\s*:\s*"[^"]*+"')
# How providers call the counts without which there is no report.
INPUT_COUNTS = {"prompt_tokens", "input_tokens"}
OUTPUT_COUNTS = {"completion_tokens", "output_tokens", "reasoning_tokens"}


class Meter:
    """
    Sees an answer pass and says in the end what it was.

    Dialects tell it through ``saw_text``, ``saw_usage``, ``response_model`` and ``stop_reason``; ``said`` is the last
    usage object as the provider wrote it.
    """

    # What is not known yet.
    dispatched = outcome = status = first = _prompt = None
    error: GatewayError | None = None
    attempts = 0
    has_marked_text = False
    reported: TokenUsage | None = None
    said = _plausible = None
    response_model = stop_reason = upstream_request_id = first_token = None

    def __init__(self, call, count_prompt, input_estimate=0):
        self.call = call
        self._count_prompt = count_prompt
        self.input_estimate = self._bytes_estimate = input_estimate
        self.marked = call.received

    @property
    def requested_model(self):
        return self.call.model

    def dispatch(self):
        """The provider is being called, once more."""
        self.attempts += 1
        if self.dispatched is None:
            self.dispatched = time.perf_counter()

    def ask(self, target, rates):
        """Begin an attempt at ``target``: nothing of one before it has reached the caller, and none counts."""
        self.target, self.rates = target, rates
        self.text: list[str] = []
        self.written = 0
        self.input_estimate = self._readable(self.input_estimate)
        if self.first is None:
            self.first = target
        else:
            self.reported = self.said = self._plausible = None
            self.response_model = self.stop_reason = self.upstream_request_id = self.first_token = None

    @property
    def fallback(self):
        """The target of the current attempt, where it is not the first that was asked."""
        return None if self.target is self.first else self.target

    def saw_text(self, text):
        # A whole answer has no first token: it comes at once.
        if self.first_token is None and self.call.stream:
            self.first_token = time.perf_counter()
        self.text.append(text)
        self.written += len(text)

    def saw_usage(self, usage: TokenUsage | None):
        """Cumulative: what comes later replaces what came before, counter by counter."""
        if usage is not None:
            self.reported = usage if self.reported is None else self.reported.updated(usage)

    def completed(self):
        self.outcome, self.status = Outcome.COMPLETED, 200

    def failed(self, error: GatewayError):
        self.outcome, self.status, self.error = error.outcome, error.status, error

    def cancelled(self):
        """Cut off from outside: by the client that left, or because this process ends."""
        self.outcome = Outcome.CLIENT_CANCELLED if self.call.client_gone else Outcome.INTERRUPTED
        self.status = 499 if self.call.client_gone else None

    def progress_due(self) -> Progress | None:
        """A progress mark, at the first text and then where the last one is older than ``PROGRESS_SECONDS``."""
        if (self.written and not self.has_marked_text) or time.perf_counter() - self.marked >= PROGRESS_SECONDS:
            self.has_marked_text = bool(self.written)
            return self.progress()
        return None

    def progress(self) -> Progress:
        """A mark of how far the request has come."""
        now = self.marked = time.perf_counter()
        known, fallback = self._believed(), self.fallback
        return Progress(
            elapsed_ms=_milliseconds(now - self.call.received),
            input_tokens=self.input_estimate if known.input_tokens is None else known.input_tokens,
            output_tokens=known.output_tokens or (self.written and self.written // BYTES_PER_TOKEN + 1),
            time_to_first_token_ms=self._first_token_ms(),
            cache_read_tokens=known.cache_read_tokens,
            cache_write_tokens=known.cache_write_tokens,
            cache_write_1h_tokens=known.cache_write_1h_tokens,
            **(self._answered_by(fallback) if fallback else {}),
        )

    @property
    def is_free(self):
        """Whether nobody charges for this: a moderation, unless its model has a price."""
        return self.rates is None and getattr(self.call.format, "IS_FREE_UNLESS_PRICED", False)

    def own_prompt(self) -> tuple[int, str]:
        """The tokens of the prompt as this system sees them, once, and how that is known; no more than can be read."""
        if self._prompt is None:
            tokens, source = self._estimate_of_text(), UsageSource.ESTIMATED
            if tokens <= MOST_COUNTED_TOKENS:
                tokens, source = self._count_prompt(self.call), UsageSource.COUNTED
            self._prompt = tokens, source
        tokens, source = self._prompt
        return self._readable(tokens), source

    def _estimate_of_text(self):
        """About how many tokens the text of the prompt has: pictures and sound in it are looked for in a long one."""
        if self._bytes_estimate <= MOST_COUNTED_TOKENS:
            return self._bytes_estimate
        fields = self.call.fields
        raws = [bytes(fields[name]) for name in self.call.format.PROMPT_FIELDS if name in fields]
        return sum(len(_MEDIA.sub(b"", raw)) for raw in raws) // BYTES_PER_TOKEN

    def _readable(self, tokens):
        """``tokens`` of a prompt as far as the model can read them at once: some servers cut it off in silence."""
        window = self.target.context_window
        return tokens if window is None or self.call.format.NAME not in ONE_PROMPT else min(tokens, window)

    def count_output(self):
        """The tokens of the text that passed, counted here."""
        return count_tokens("".join(self.text))

    def _believed(self):
        """What was reported, without the counts that cannot be right."""
        reported = self.reported
        if reported is None:
            return NOTHING
        if (reported.output_tokens or 0) <= self.written + UNDOUBTED:
            read = (reported.input_tokens or 0) + reported.cached_input
            if read <= BEYOND_BYTES_TOKENS and read <= self.input_estimate * BYTES_PER_TOKEN + UNDOUBTED:
                return reported
        if self._plausible is None:
            self._plausible = Plausible(self.call, self.target)
        return self._plausible.believed(reported, self.written)

    def usage(self) -> tuple[TokenUsage, str]:
        """
        What the request used, and how that is known.

        Text that was delivered is never free: where the provider did not say what it was, or what cannot be right, it
        is counted here.
        """
        reported = self._believed()
        if not self.dispatched or (self.outcome == Outcome.UPSTREAM_ERROR and not self.text and not self.reported):
            # Never sent, or answered with an error: nothing was used.
            return TokenUsage(), UsageSource.NONE
        output, source = reported.output_tokens, UsageSource.REPORTED
        if self.outcome != Outcome.COMPLETED:
            # Cut off: what the provider had said so far may be less than it wrote. Without a word of the answer the
            # count of the prompt is all there is, and the provider may see it otherwise.
            source = UsageSource.COUNTED if self.text or output else UsageSource.ESTIMATED
            output = max(output or 0, self.count_output())
        elif output is None or output * MOST_CHARACTERS_PER_TOKEN < self.written:
            counted = self.count_output()
            if not output or counted > output * 2:
                output, source = counted, UsageSource.COUNTED
        # There is no prompt of no tokens: a count of zero is none.
        known_input = reported.input_tokens
        if not known_input and not reported.total_input:
            known_input = None
        if known_input is None:
            prompt, how = self.own_prompt()
            # What came from the cache or went there is a part of the prompt, and known.
            known_input = max(prompt - reported.cached_input, 0)
            source = how if source == UsageSource.REPORTED or how == UsageSource.ESTIMATED else source
        thoughts = reported.reasoning_tokens
        if known_input != reported.input_tokens or output != reported.output_tokens or (thoughts or 0) > output:
            thoughts = thoughts and min(thoughts, output)
            reported = msgspec.structs.replace(
                reported, input_tokens=known_input, output_tokens=output, reasoning_tokens=thoughts
            )
        return reported, source

    def told(self) -> TokenUsage:
        """What the caller of an answer that has come whole is told it used: the same that is recorded."""
        self.completed()
        return self.usage()[0]

    def closed(self) -> Closed:
        """The second half of the request's record."""
        now = time.perf_counter()
        usage, source = self.usage()
        if source != UsageSource.REPORTED and self.said is not None:
            self._tell_of_doubts(usage)
        error, fallback = self.error, self.fallback
        return Closed(
            outcome=str(self.outcome),
            status=self.status,
            duration_ms=_milliseconds(now - self.call.received),
            usage_source=str(source),
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            # What was not used costs nothing, whether or not it has a price.
            cost_nanos=0 if source == UsageSource.NONE or self.is_free else cost_of(usage, self.rates),
            time_to_first_token_ms=self._first_token_ms(),
            overhead_us=self.dispatched and int((self.dispatched - self.call.received) * 1_000_000),
            attempts=self.attempts,
            response_model=self.response_model,
            stop_reason=self.stop_reason,
            error_code=error and error.code,
            error_message=error and error.message,
            upstream_request_id=self.upstream_request_id,
            dropped=", ".join(self.call.dropped)[:MOST_DROPPED] or None,
            **(self._answered_by(fallback) if fallback else {}),
        )

    def _tell_of_doubts(self, usage):
        """Log and count what the provider said and was not believed, where there is any such thing."""
        doubted = self._doubted(usage)
        for side in {"output" if name in OUTPUT_COUNTS else "input" for name in doubted}:
            metrics.DISBELIEVED.labels(side).inc()
        if doubted:
            log.warning(
                "usage not believed",
                request_id=self.call.id,
                provider=self.target.provider_name,
                model=self.target.upstream_name,
                said=doubted,
                believed={"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
            )

    def _doubted(self, usage):
        reported = msgspec.structs.asdict(self.reported or NOTHING)
        believed = msgspec.structs.asdict(self._believed())
        if self.outcome == Outcome.COMPLETED and reported["output_tokens"]:
            # Nor is it believed that a text was fewer tokens than it can have been.
            believed["output_tokens"] = usage.output_tokens
        doubted = {name: count for name, count in reported.items() if count != believed[name]}
        said = self.said if isinstance(self.said, dict) else {}
        for name in INPUT_COUNTS | OUTPUT_COUNTS:
            value = said.get(name)
            if value is not None and count_of(value) is None:
                is_number = isinstance(value, int | float) and abs(value) < 10**20
                doubted[name] = value if is_number else type(value).__name__
        return doubted

    def _answered_by(self, fallback):
        """What the record says of the target that answers, where it is not the first."""
        return {
            "provider_id": fallback.provider_id,
            "provider_model_id": fallback.provider_model_id,
            "price_id": self.rates and self.rates.price_id,
            "upstream_model": fallback.upstream_name,
            "exchange_rate": self.rates and self.rates.exchange,
        }

    def _first_token_ms(self):
        return None if self.first_token is None else _milliseconds(self.first_token - self.call.received)


def _milliseconds(seconds):
    return max(int(seconds * 1000 + 0.5), 0)
