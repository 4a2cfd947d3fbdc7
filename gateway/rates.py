"""
Whether a request may begin by what was asked in the last minute, and what the caller is told of it.

Every limit of organization, workspace and key that is for the model must have room. Requests count when they begin;
tokens are set aside by an estimate and put right when the request has ended. In one process all of that is memory. Many
share it through Redis or Valkey; without it, each admits its share.
"""

import asyncio
import math
import os
import socket
import time

import msgspec
import structlog
from django.conf import settings
from django.db import Error, connection
from django.utils.translation import gettext, gettext_noop

from console.api_keys import digest
from gateway import metrics
from gateway.buckets import Bucket, take
from gateway.errors import NO_RETRY, GatewayError
from gateway.shared_rates import PATIENCE, SharedRates, Unavailable
from providers.dialects import anthropic
from providers.request_body import Term
from usage import processes
from usage.models import Scope
from usage.rate_limits import Rule

log = structlog.get_logger(__name__)
_ = gettext_noop

REQUESTS, INPUT, OUTPUT = "requests", "input", "output"
SCOPES = (Scope.ORGANIZATION.value, Scope.WORKSPACE.value, Scope.API_KEY.value)
SCOPE_NAMES = {
    Scope.ORGANIZATION.value: _("organization"),
    Scope.WORKSPACE.value: _("workspace"),
    Scope.API_KEY.value: _("API key"),
}
EVERY_MODEL = _("every model")
# What an answer is taken to have before any has ended, and how fast longer ones are forgotten.
FIRST_OUTPUT = 256
FORGETTING = 0.1
MOST_REMEMBERED = 20_000
# How often processes without Redis look how many they are; at first more often, as they start together.
COUNT_SECONDS = 20.0
EARLY_COUNT_SECONDS = 2.0
EARLY_COUNTS = 10


class Quota(Bucket):
    """
    One figure of one rule. As a bucket it is what this process admits from alone: all of it, or its share.

    ``seen_…`` is what the server said last, ``owed`` what it must still be told, ``loss`` the server's loss for which
    this process took its share.
    """

    __slots__ = (
        "figure", "key", "kind", "loss", "noted_at", "owed", "rule", "seen_at", "seen_free", "seen_level", "users",
    )  # fmt: skip

    def __init__(self, rule: Rule, kind, figure, share):
        now = time.monotonic()
        super().__init__(figure, now, is_elastic=kind != REQUESTS)
        self.rule = rule
        self.kind = kind
        self.figure = figure
        self.key = f"{rule.id}:{kind}"
        self.owed = self.noted_at = self.seen_level = self.seen_free = 0.0
        self.seen_at = None
        self.loss = 0
        self.users = 0
        self.share_among(share, now)

    def share_among(self, share, now):
        """
        Admit one ``share``-th of the figure here, and have as much of that left as there was of all.

        Where that is less than one request, one may pass at a time, as often as the share says.
        """
        self.refill(now)
        part = self.level / self.capacity if self.capacity > 0 else 1.0
        self.capacity = self.figure / share
        self.rate = self.capacity / 60.0
        self.level = part * self.capacity
        if self.kind == REQUESTS and self.figure:
            self.capacity = max(self.capacity, 1.0)
        self.places.clear()

    def change(self, figure, share, now):
        """Let another figure hold; what was used stays used."""
        self.figure = figure
        self.resize(figure / share, now)
        if self.kind == REQUESTS and figure:
            self.capacity = max(self.capacity, 1.0)

    def begin_alone(self, loss, share, now):
        """Take this process's share of what was left when the server was lost; whom it has told to come may come."""
        self.loss = loss
        self.forget(now)
        self.at = now
        if self.seen_at is not None:
            known = min(self.seen_level + (now - self.noted_at) * self.figure / 60.0, self.figure) - self.owed
            self.level = min(known / share, self.capacity)

    def left(self, now, is_shared):
        """``(free, level)`` as of ``now``: of the whole where it is shared, else of what this process may admit."""
        if is_shared and self.seen_at is None:
            # Nobody has asked for it yet.
            return self.figure - self.owed, self.figure - self.owed
        if is_shared:
            filled = max(now - self.noted_at, 0.0) * self.figure / 60.0
            free = min(self.seen_free + filled, self.figure) - self.owed
            return free, min(self.seen_level + filled, self.figure) - self.owed
        self.refill(now)
        return self.free(now), self.level


class Gauge:
    """Requests at the same time under one rule: ``held`` by this process. ``seconds`` is how long they last lately."""

    __slots__ = ("figure", "held", "key", "rule", "seconds", "share")

    def __init__(self, rule: Rule, share):
        self.rule = rule
        self.figure = rule.concurrent
        self.key = f"{rule.id}:concurrent"
        self.held = 0
        self.seconds = 1.0
        self.share_among(share)

    def share_among(self, share):
        self.share = max(self.figure // share, min(self.figure, 1))


class Limits:
    """
    Everything that holds for one caller and model: quotas, requests first and output last, and gauges.

    ``who`` is whose place is kept after a refusal.
    """

    __slots__ = (
        "_limiter", "counts_input", "counts_output", "gauges", "input_from", "output_from", "plain", "quotas", "usual",
        "who", "writes",
    )  # fmt: skip

    def __init__(self, quotas, gauges, who, writes, limiter):
        order = (REQUESTS, INPUT, OUTPUT)
        self.quotas = tuple(sorted(quotas, key=lambda quota: order.index(quota.kind)))
        self.gauges = tuple(gauges)
        kinds = [quota.kind for quota in self.quotas]
        self.input_from = kinds.count(REQUESTS)
        self.output_from = self.input_from + kinds.count(INPUT)
        self.counts_input, self.counts_output = INPUT in kinds, OUTPUT in kinds
        self.plain = [1.0] * len(kinds) if self.input_from == len(kinds) else None
        # The most tokens of input and of output that every quota takes as they are.
        self.usual = tuple(
            min([math.floor(min(quota.figure, quota.capacity)) for quota in found], default=math.inf)
            for found in (self.quotas[self.input_from : self.output_from], self.quotas[self.output_from :])
        )
        if not all(quota.figure for quota in self.quotas):
            self.usual = -1, -1
        self.who = who
        self.writes = writes
        self._limiter = limiter

    def withdraw(self, amounts):
        """Undo an admission that the server granted to somebody who had left."""
        self._limiter.give_back(self.quotas, amounts)
        self._limiter.release(self)


class Ticket:
    """An admitted request. ``settle`` it when it has ended, or ``withdraw`` it where it never began."""

    __slots__ = ("_amounts", "_began", "_is_open", "_limiter", "limits")

    def __init__(self, limiter, limits, amounts):
        self._limiter = limiter
        self.limits = limits
        self._amounts = amounts
        self._began = time.monotonic()
        self._is_open = True
        if limiter.shared is not None:
            for quota in limits.quotas:
                quota.users += 1

    def settle(self, usage=None):
        """
        End the request: put right what was set aside of tokens, and count it no more among those at the same time.

        ``usage`` has the counters of ``TokenUsage``; nothing was used without it. What was read from a cache is not
        counted. A second time does nothing.
        """
        if not self._is_open:
            return
        limits = self._close()
        used_input = used_output = 0
        if usage is not None:
            used_input = (
                (usage.input_tokens or 0) + (usage.cache_write_tokens or 0) + (usage.cache_write_1h_tokens or 0)
            )
            used_output = usage.output_tokens or 0
            if used_output:
                self._limiter.learn(limits.writes, used_output)
        if limits.plain is None:
            start, end = limits.input_from, limits.output_from
            amounts, quotas = self._amounts, limits.quotas
            self._limiter.give_back(quotas[start:end], amounts[start:end], used_input)
            self._limiter.give_back(quotas[end:], amounts[end:], used_output)
        seconds = time.monotonic() - self._began
        for gauge in limits.gauges:
            gauge.seconds += (seconds - gauge.seconds) * FORGETTING

    def withdraw(self):
        """Undo the admission of a request that was refused for another reason: it counts nowhere."""
        if self._is_open:
            self._limiter.give_back(self._close().quotas, self._amounts)

    def _close(self):
        self._is_open = False
        if self._limiter.shared is not None:
            for quota in self.limits.quotas:
                quota.users -= 1
        self._limiter.release(self.limits)
        return self.limits

    def headers(self, dialect):
        """What an answer says of the limits in force, as the caller's dialect does."""
        return self._limiter.headers(self.limits, dialect)


class RateLimiter:
    """
    The limits of this process. ``limits_of`` a call is ``None`` where nothing limits it; then there is nothing to do.

    ``is_shared`` says that ``admit`` must be awaited; ``admit_now`` then admits from this process's share alone.
    """

    def __init__(self, keeper, uid, *, redis_url=None, least_processes=1, patience=PATIENCE):
        self.keeper = keeper
        self.uid = uid
        self.shared = None
        self._redis_url = redis_url
        self._patience = patience
        self._least = least_processes
        self.processes = least_processes
        self._rules = None
        self._plans = {}
        self._quotas: dict[str, Quota] = {}
        self._gauges: dict[str, Gauge] = {}
        self._written = {}
        self._counter = None

    async def start(self):
        if self._redis_url:
            prefix = f"comptoir:{digest('rates', settings.API_KEY_PEPPER).hex()[:12]}:"
            self.shared = SharedRates(self._redis_url, self.uid, prefix, patience=self._patience)
            self.shared.in_use = self._in_use
            await self.shared.start()
        self._counter = asyncio.create_task(self._count())

    async def stop(self):
        self._counter.cancel()
        await asyncio.gather(self._counter, return_exceptions=True)
        if self.shared is not None:
            await self.shared.stop()

    @property
    def is_shared(self):
        return self.shared is not None and self.shared.is_up

    # Which limits ---------------------------------------------------------------------------------------------------

    def limits_of(self, call) -> Limits | None:
        """What limits ``call``; the model goes by the name that was asked for and by that of its first target."""
        rules = self.keeper.current.rates
        if rules is not self._rules:
            self._adopt(rules)
        if not rules:
            return None
        caller, target = call.caller, call.plan and call.plan.targets[0]
        public_name = target.public_name if target else call.model
        key = (caller.api_key_id or -(caller.user_id or 0), caller.workspace_id, call.model, public_name)
        try:
            return self._plans[key]
        except KeyError:
            limits = self._plans[key] = self._limits(rules, caller, {call.model, public_name}, key)
            return limits

    def _limits(self, rules, caller, names, key):
        quotas, gauges = [], []
        for scope, scope_id in zip(
            SCOPES, (caller.organization_id, caller.workspace_id, caller.api_key_id), strict=True
        ):
            for rule in rules.get((scope, scope_id), ()):
                if rule.covers(names):
                    found = self._figures(rule)
                    quotas += found[0]
                    gauges += found[1]
        who = f"{key[0]}.{caller.workspace_id}"
        return Limits(quotas, gauges, who, key, self) if quotas or gauges else None

    def _figures(self, rule):
        """The quotas and the gauge of a rule; the same for everybody whom it limits."""
        quotas = []
        figures = ((REQUESTS, rule.requests), (INPUT, rule.input_tokens), (OUTPUT, rule.output_tokens))
        for kind, figure in figures:
            if figure is not None:
                quota = self._quotas.get(f"{rule.id}:{kind}")
                if quota is None:
                    quota = Quota(rule, kind, figure, self.processes)
                    self._quotas[quota.key] = quota
                quotas.append(quota)
        if rule.concurrent is None:
            return quotas, ()
        gauge = self._gauges.get(rule.id)
        if gauge is None:
            gauge = self._gauges[rule.id] = Gauge(rule, self.processes)
        return quotas, (gauge,)

    def _adopt(self, rules):
        """Have other limits hold; what was used up of one that stays is used up still."""
        self._rules, self._plans = rules, {}
        known = {rule.id: rule for found in rules.values() for rule in found}
        figures = {REQUESTS: "requests", INPUT: "input_tokens", OUTPUT: "output_tokens"}
        now = time.monotonic()
        for key, quota in list(self._quotas.items()):
            rule = known.get(quota.rule.id)
            figure = rule and getattr(rule, figures[quota.kind])
            if figure is None:
                del self._quotas[key]
                continue
            quota.rule = rule
            if figure != quota.figure:
                quota.change(figure, self.processes, now)
        for key, gauge in list(self._gauges.items()):
            rule = known.get(key)
            if rule is None or rule.concurrent is None:
                del self._gauges[key]
            else:
                gauge.rule, gauge.figure = rule, rule.concurrent
                gauge.share_among(self.processes)

    # Admission ------------------------------------------------------------------------------------------------------

    def admit_now(self, call, limits, input_estimate, output_estimate=None) -> Ticket:
        """
        Let ``call`` begin by what this process may admit alone. Raises ``GatewayError``.

        ``input_estimate`` is about how many tokens it asks with, ``output_estimate`` how many its answer has at most,
        where somebody knows; less is set aside where recent answers were shorter.
        """
        now = time.monotonic()
        shared = self.shared
        if shared is not None:
            self._go_alone(limits, now)
        for gauge in limits.gauges:
            if gauge.held >= gauge.share:
                raise self._busy(call, limits, gauge)
        quotas = limits.quotas
        amounts = limits.plain or self._amounts(call, limits, input_estimate, output_estimate, is_shared=False)
        for quota, amount in zip(quotas, amounts, strict=True):
            level = quota.level + (now - quota.at) * quota.rate
            quota.at = now
            if level > quota.capacity:
                level = quota.capacity
            if level < amount or quota.places:
                quota.level = level
                self._take_closely(call, limits, amounts, quota, now)
                break
            quota.level = level - amount
        for gauge in limits.gauges:
            gauge.held += 1
        if shared is not None:
            for quota, amount in zip(quotas, amounts, strict=True):
                shared.owe(quota, amount)
        return Ticket(self, limits, amounts)

    def _take_closely(self, call, limits, amounts, stopped_at, now):
        """Take ``amounts`` where a quota has not enough or keeps places; those before it gave already."""
        for quota, amount in zip(limits.quotas, amounts, strict=True):
            if quota is stopped_at:
                break
            quota.level += amount
        if refused := take(limits.quotas, amounts, limits.who, now):
            raise self._refusal(call, limits, limits.quotas[refused[1]], refused[0])

    async def admit(self, call, limits, input_estimate, output_estimate=None) -> Ticket:
        """Let ``call`` begin by what all processes have admitted; as ``admit_now`` where that cannot be known."""
        if not self.is_shared:
            return self.admit_now(call, limits, input_estimate, output_estimate)
        amounts = limits.plain or self._amounts(call, limits, input_estimate, output_estimate, is_shared=True)
        try:
            wait, index, busy = await self.shared.ask(limits, amounts)
        except Unavailable:
            return self.admit_now(call, limits, input_estimate, output_estimate)
        if busy:
            raise self._busy(call, limits, limits.gauges[busy - 1])
        if index:
            raise self._refusal(call, limits, limits.quotas[index - 1], wait if wait >= 0 else math.inf)
        return Ticket(self, limits, amounts)

    def _amounts(self, call, limits, input_estimate, output_estimate, *, is_shared):
        quotas = limits.quotas
        written = self._written.get(limits.writes, FIRST_OUTPUT)
        expected = written if output_estimate is None else min(written, output_estimate)
        most_input, most_output = limits.usual
        if (input_estimate or 0) <= most_input and expected <= most_output:
            inputs, outputs = limits.output_from - limits.input_from, len(quotas) - limits.output_from
            return [1.0] * limits.input_from + [input_estimate] * inputs + [expected] * outputs
        for quota in quotas:
            if not quota.figure:
                # Zero lets nothing through, however little a request may need of it.
                raise self._refusal(call, limits, quota, math.inf)
        amounts = [1.0] * limits.input_from
        for quota in quotas[limits.input_from : limits.output_from]:
            if input_estimate > quota.figure and not _holds_media(call):
                raise self._too_large(call, limits, quota, input_estimate)
            amounts.append(float(min(input_estimate, quota.figure if is_shared else quota.capacity)))
        for quota in quotas[limits.output_from :]:
            amounts.append(float(min(expected, quota.figure if is_shared else quota.capacity)))
        return amounts

    def _go_alone(self, limits, now):
        """Have the quotas stand at this process's share of what was left when the server was lost."""
        loss = self.shared.losses
        if self.shared.processes > self.processes:
            # More have come since they were last counted.
            self._share_among(self.shared.processes)
        for quota in limits.quotas:
            if quota.loss != loss:
                quota.begin_alone(loss, self.processes, now)

    # After it -------------------------------------------------------------------------------------------------------

    def give_back(self, quotas, amounts, used=0):
        """Give back what was taken from ``quotas`` beyond what was ``used``; where that is more, take it besides."""
        shared = self.shared
        if shared is None:
            for quota, amount in zip(quotas, amounts, strict=True):
                if amount < used:
                    quota.give(amount - used, time.monotonic())
                else:
                    # The same, whether it fills up before or after.
                    level = quota.level + amount - used
                    quota.level = level if level < quota.capacity else quota.capacity
            return
        for quota, amount in zip(quotas, amounts, strict=True):
            if amount != used:
                shared.owe(quota, used - amount)
                if not shared.is_up:
                    quota.give(amount - used, time.monotonic())

    def release(self, limits):
        """Hold one request less."""
        for gauge in limits.gauges:
            gauge.held -= 1
        if self.shared is not None:
            for gauge in limits.gauges:
                self.shared.released(gauge)

    def learn(self, writes, tokens):
        """Remember how long answers are: at once where they are longer, slowly where they are shorter."""
        known = self._written.get(writes)
        if known is None and len(self._written) >= MOST_REMEMBERED:
            self._written.clear()
        self._written[writes] = tokens if known is None or tokens > known else known + (tokens - known) * FORGETTING

    # What is said ---------------------------------------------------------------------------------------------------

    def headers(self, limits, dialect):
        """The headers of ``dialect`` for the most restrictive limits in force."""
        found = _Standing(limits, self.is_shared)
        return found.for_anthropic() if dialect is anthropic else found.for_openai()

    def _refusal(self, call, limits, quota, wait):
        """The refusal for want of ``quota``; ``wait`` is in seconds."""
        values = _told(quota.rule) | {"allowed": quota.figure}
        if wait == math.inf:
            return self._refused(call, limits, quota.kind, NEVER[quota.kind], values, [NO_RETRY])
        values["seconds"] = int(wait)
        return self._refused(call, limits, quota.kind, LATER[quota.kind], values, [(b"retry-after", b"%d" % wait)])

    def _too_large(self, call, limits, quota, size):
        values = _told(quota.rule) | {"allowed": quota.figure, "size": size}
        return self._refused(call, limits, INPUT, TOO_LARGE, values, [NO_RETRY])

    def _busy(self, call, limits, gauge):
        values = _told(gauge.rule) | {"allowed": gauge.figure}
        if not gauge.figure:
            return self._refused(call, limits, REQUESTS, NEVER["concurrent"], values, [NO_RETRY])
        # When one ends is not known; how long they take lately is.
        seconds = min(max(math.ceil(gauge.seconds / gauge.figure), 1), 60)
        headers = [(b"retry-after", b"%d" % seconds)]
        return self._refused(call, limits, REQUESTS, LATER["concurrent"], values | {"seconds": seconds}, headers)

    def _refused(self, call, limits, kind, template, values, headers):
        metrics.RATE_REFUSALS.labels(kind).inc()
        return GatewayError(
            429,
            "rate_limit_exceeded",
            template,
            values=values,
            headers=[*headers, *self.headers(limits, call.format.DIALECT)],
            openai_type="requests" if kind == REQUESTS else "tokens",
        )

    # How many processes ---------------------------------------------------------------------------------------------

    def _in_use(self):
        now = time.monotonic()
        for quota in self._quotas.values():
            quota.forget(now)
        return (
            [quota for quota in self._quotas.values() if quota.users or quota.places],
            [gauge for gauge in self._gauges.values() if gauge.held],
        )

    def _share_among(self, count):
        """Let this process admit one ``count``-th of everything, where it admits alone."""
        count = max(count, self._least)
        if count != self.processes:
            self.processes, self._plans = count, {}
            now = time.monotonic()
            for quota in self._quotas.values():
                quota.share_among(count, now)
            for gauge in self._gauges.values():
                gauge.share_among(count)

    async def _count(self):
        looks = 0
        while True:
            if self.is_shared:
                self._share_among(self.shared.processes)
            elif self.keeper.current.rates:
                looks += 1
                try:
                    self._share_among(await asyncio.to_thread(self._count_in_database))
                except Error as error:
                    log.warning("processes not counted", error=str(error).strip())
            is_early = self.is_shared or looks < EARLY_COUNTS
            await asyncio.sleep(EARLY_COUNT_SECONDS if is_early else COUNT_SECONDS)

    def _count_in_database(self):
        try:
            return processes.count_living(uid=self.uid, host=socket.gethostname(), pid=os.getpid())
        finally:
            connection.close()


LATER = {
    REQUESTS: _(
        "Rate limit of requests a minute reached (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s. "
        "Try again in %(seconds)s s."
    ),
    INPUT: _(
        "Rate limit of input tokens a minute reached (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s. "
        "Try again in %(seconds)s s."
    ),
    OUTPUT: _(
        "Rate limit of output tokens a minute reached (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s. "
        "Try again in %(seconds)s s."
    ),
    "concurrent": _(
        "Rate limit of requests at the same time reached (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s. "
        "Try again in %(seconds)s s."
    ),
}
NEVER = {
    REQUESTS: _("Rate limit of requests a minute (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s."),
    INPUT: _("Rate limit of input tokens a minute (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s."),
    OUTPUT: _("Rate limit of output tokens a minute (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s."),
    "concurrent": _(
        "Rate limit of requests at the same time (%(scope)s “%(name)s”): at most %(allowed)s for %(models)s."
    ),
}
TOO_LARGE = _(
    "This request has about %(size)s input tokens, more than its rate limit (%(scope)s “%(name)s”) ever allows at "
    "once: %(allowed)s a minute for %(models)s."
)
QUOTED = _("“%(name)s”")


class Quoted(str):
    """A name that stands in the quotation marks of the language of the moment."""

    __slots__ = ()

    def __str__(self):
        return gettext(QUOTED) % {"name": super().__str__()}


def _told(rule):
    models = Quoted(rule.label) if rule.label else Term(EVERY_MODEL)
    return {"scope": Term(SCOPE_NAMES[rule.scope]), "name": rule.name, "models": models}


def _holds_media(call):
    """Whether something in the prompt has more bytes than four a token: it cannot be told how large it is."""
    fields = call.fields
    return any(b"base64" in bytes(fields[name]) for name in call.format.PROMPT_FIELDS if name in fields)


def estimates(call, limits):
    """About how many tokens a call asks with, four bytes a token, and how many it lets its answer have, if it says."""
    size = call.estimate_input() if limits.counts_input else None
    return size, _most_output(call) if limits.counts_output else None


def _most_output(call):
    for name in getattr(call.format, "MAX_TOKENS_FIELDS", ()):
        if name in call.fields:
            try:
                return max(msgspec.json.decode(call.fields[name], type=int), 0)
            except msgspec.DecodeError:
                continue
    return None


class _Standing:
    """How the most restrictive limits stand: ``(limit, remaining, seconds until full)`` for each kind."""

    __slots__ = ("input", "now", "output", "requests", "tokens")

    def __init__(self, limits, is_shared):
        self.now = time.monotonic()
        quotas = limits.quotas
        self.requests = self._least(quotas[: limits.input_from], is_shared)
        self.input = self._least(quotas[limits.input_from : limits.output_from], is_shared)
        self.output = self._least(quotas[limits.output_from :], is_shared)
        self.tokens = self._tokens()

    def _least(self, quotas, is_shared):
        now, least, least_free = self.now, None, math.inf
        for quota in quotas:
            if is_shared or quota.places:
                free = quota.left(now, is_shared)[0]
            else:
                # As ``left`` says it, without the call: an answer passes a dozen of them.
                free = quota.level + (now - quota.at) * quota.rate
                if free > quota.capacity:
                    free = quota.capacity
            if free < least_free:
                least, least_free = quota, free
        if least is None:
            return None
        figure, remaining = least.figure, max(math.floor(least_free + 1e-6), 0)
        missing = max((figure if is_shared else least.capacity) - least.left(now, is_shared)[1], 0.0)
        rate = figure / 60.0 if is_shared else least.rate
        return figure, min(remaining, figure), missing / rate if rate else 60.0, least.rule.scope

    def _tokens(self):
        """The limit on tokens: what is left of both kinds, or of one alone where a workspace or key holds it down."""
        if self.input is None or self.output is None:
            return self.input or self.output
        if self.input[3] == self.output[3] == SCOPES[0]:
            limit, remaining, seconds, scope = self.input
            return limit + self.output[0], remaining + self.output[1], max(seconds, self.output[2]), scope
        narrowed = [found for found in (self.input, self.output) if found[3] != SCOPES[0]]
        return min(narrowed, key=lambda found: found[1])

    def for_anthropic(self):
        headers = []
        wall = time.time()
        kinds = ((b"requests", self.requests), (b"tokens", self.tokens))
        kinds += ((b"input-tokens", self.input), (b"output-tokens", self.output))
        for name, found in kinds:
            if found is not None:
                limit, remaining, seconds, _scope = found
                if name != b"requests":
                    remaining = min(int(remaining / 1000 + 0.5) * 1000, limit)
                reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(wall + seconds)))
                start = b"anthropic-ratelimit-" + name
                headers.append((start + b"-limit", b"%d" % limit))
                headers.append((start + b"-remaining", b"%d" % remaining))
                headers.append((start + b"-reset", reset.encode()))
        return headers

    def for_openai(self):
        headers = []
        for name, found in ((b"requests", self.requests), (b"tokens", self.tokens)):
            if found is not None:
                limit, remaining, seconds, _scope = found
                headers.append((b"x-ratelimit-limit-" + name, b"%d" % limit))
                headers.append((b"x-ratelimit-remaining-" + name, b"%d" % remaining))
                headers.append((b"x-ratelimit-reset-" + name, duration(seconds).encode()))
        return headers


def duration(seconds):
    """A span as the OpenAI dialect writes it: 12ms, 1s, 8.64s, 6m0s."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
