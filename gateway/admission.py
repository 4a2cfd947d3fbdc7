"""
Whether a request may begin. The most that it can cost is held in every interval that a hard limit counts, before any
provider is asked, and settled to what it did cost when it has ended.
"""

import re

import msgspec
import structlog
from django.utils.translation import gettext_noop

from gateway import errors, metrics
from gateway.leases import Exhausted, Leases, Unavailable
from gateway.rates import RateLimiter, estimates
from providers.request_body import InvalidRequest
from usage.costs import most_of

log = structlog.get_logger(__name__)
_ = gettext_noop

# What an answer is worth that was cut to what can be afforded.
LEAST_TOKENS = 16
# What says by its bytes nothing of its tokens: media, and tools of the provider's that fetch more on their own.
_BEYOND_BYTES = re.compile(
    rb'"type"\s*:\s*"(?:image|image_url|input_image|document|file|input_file|input_audio|video_url|container_upload'
    rb"|web_search|web_fetch|code_execution|code_interpreter|file_search|computer|mcp)"
)
# Of a model whose context window is not known.
BEYOND_BYTES_TOKENS = 200_000
# What a provider's own frame around a conversation comes to, and what it says to the model of tools.
FRAME_TOKENS = 20
TOOLS_TOKENS = 1_000


class Admission:
    """Counts requests by the minute, and holds what they may cost in the leases of this process."""

    def __init__(self, keeper, leases: Leases, refused=lambda key: None, rates: RateLimiter | None = None):
        """``refused`` is told of each interval of the ledger that has too little left for a request."""
        self.keeper = keeper
        self.leases = leases
        self.rates = rates
        self._refused = refused
        # The account of each limit's current interval.
        self._accounts = {}

    async def admit(self, call, plan):
        """
        Let ``call`` begin: its ``reservation`` is then what it holds, ``None`` where no hard limit counts it, and its
        ``ticket`` what it takes of limits by the minute.

        Raises ``GatewayError`` where a limit has not enough, where the cost cannot be known, or where the ledger does
        not answer and nothing is at hand; ``InvalidRequest`` where nothing says how long the answer may get.
        """
        if self.rates is None or (limits := self.rates.limits_of(call)) is None:
            await self._reserve(call, plan)
            return
        asked = call, limits, *estimates(call, limits)
        call.ticket = await self.rates.admit(*asked) if self.rates.is_shared else self.rates.admit_now(*asked)
        try:
            await self._reserve(call, plan)
        except BaseException:
            call.ticket.withdraw()
            raise

    async def _reserve(self, call, plan):
        spending = self.keeper.current.spending.get(call.caller.organization_id)
        if spending is None or not (limits := spending.limits_of(call.caller)):
            return
        bounds = [_Bounds(call, target, limits) for target in plan.targets]
        nanos = max(bound.cost() for bound in bounds)
        if not nanos and not any(limit.refuses_all for limit in limits):
            # What is free passes however much was spent.
            return
        accounts = self._accounts_of(limits, spending, call.received_at)
        call.reservation = self.leases.reserve(accounts, nanos)
        if call.reservation is None:
            await self._wait(call, accounts, nanos, bounds, limits, spending)

    def settle(self, call, cost: int | None):
        """
        Let go of what ``call`` holds, once; it has cost ``cost`` nanos, ``None`` for what has no price.

        Its record says what it used of limits by the minute; without one it never began.
        """
        if call.ticket is not None:
            if call.closed is None:
                call.ticket.withdraw()
            else:
                call.ticket.settle(call.closed)
        reservation, call.reservation = call.reservation, None
        if reservation is None:
            return
        cost = cost or 0
        if cost > reservation.nanos:
            metrics.OVERRUNS.inc()
            log.warning("cost more than could be known", request_id=call.id, nanos=cost, held=reservation.nanos)
        self.leases.settle(reservation, cost)

    async def _wait(self, call, accounts, nanos, bounds, limits, spending):
        """Hold what is not at hand, or a part that can be afforded where the caller takes that."""
        try:
            call.reservation = await self.leases.reserve_or_wait(accounts, nanos)
        except Exhausted as error:
            tokens = _affordable(bounds, self.leases.left_of(error)) if call.takes_less else None
            if tokens is None:
                self._refused(error.key)
                limit = next(limit for limit in limits if spending.key(limit, call.received_at) == error.key)
                raise errors.spend_limit_reached(limit, spending, error.key, error.grant, nanos) from None
            call.takes_less = False
            for bound in bounds:
                bound.lower(tokens)
            await self._wait(call, accounts, max(bound.cost() for bound in bounds), bounds, limits, spending)
            _lower(call, tokens)
        except Unavailable:
            raise errors.ledger_unavailable() from None

    def _accounts_of(self, limits, spending, moment):
        found = []
        for limit in limits:
            if limit.refuses_all:
                self._refused(spending.key(limit, moment))
                raise errors.nothing_allowed(limit)
            account = self._accounts.get(limit.id)
            if account is None or not account.start <= moment < account.end:
                account = self.leases.account(spending.key(limit, moment), spending.calendar)
                self._accounts[limit.id] = account
            found.append(account)
        return tuple(found)


class _Bounds:
    """The most that a call can use at one target, as far as its provider keeps to what it is told."""

    __slots__ = ("choices", "input", "output", "rates")

    def __init__(self, call, target, limits):
        self.rates = target.rates_at(call.received_at)
        self.input = self.output = self.choices = 0
        if self.rates is None:
            is_free = getattr(call.format, "IS_FREE_UNLESS_PRICED", False)
            if not is_free and not all(limit.allows_unpriced for limit in limits):
                raise errors.unpriced_model(call.model)
            return
        self.input = _most_input(call, target.context_window)
        if names := getattr(call.format, "MAX_TOKENS_FIELDS", ()):
            self.choices = max(_integer(call.fields, "n") or 1, _integer(call.fields, "best_of") or 1)
            self.output = _most_output(call, names, target)

    def cost(self):
        return most_of(self.rates, self.input, self.output * self.choices) if self.rates else 0

    def lower(self, tokens):
        self.output = min(self.output, tokens)


def _most_input(call, window):
    """The most tokens that the prompt can be: no tokenizer makes more of a text than it has bytes."""
    fields = call.fields
    raws = [bytes(fields[name]) for name in call.format.PROMPT_FIELDS if name in fields]
    size = sum(map(len, raws)) + FRAME_TOKENS + (TOOLS_TOKENS if "tools" in fields else 0)
    if window is not None and size >= window:
        return window
    if any(_BEYOND_BYTES.search(raw) for raw in raws):
        return window or size + BEYOND_BYTES_TOKENS
    return size


def _most_output(call, names, target):
    """The most tokens that one answer can have: as the caller says, or as many as the model can write."""
    asked = next((found for name in names if (found := _integer(call.fields, name)) is not None), None)
    most = target.max_output_tokens or target.context_window
    if asked is None:
        if most is None:
            raise InvalidRequest(
                _("%(field)s is needed: a spend limit applies, and nothing else says how long the answer may get."),
                names[0],
                field=names[0],
            )
        return most
    return min(asked, most) if most else asked


def _integer(fields, name):
    """A field that is a positive integer, else ``None``: whether it may be something else is for others to say."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=int)
    except msgspec.DecodeError:
        return None
    return value if value > 0 else None


def _affordable(bounds, nanos):
    """The most output tokens of an answer that costs at most ``nanos`` wherever it comes from; ``None`` for too few."""
    least, most = 0, max(bound.output for bound in bounds)
    while least < most:
        middle = (least + most + 1) // 2
        if all(
            not bound.rates or most_of(bound.rates, bound.input, min(middle, bound.output) * bound.choices) <= nanos
            for bound in bounds
        ):
            least = middle
        else:
            most = middle - 1
    return least if least >= LEAST_TOKENS else None


def _lower(call, tokens):
    """Ask for an answer of at most ``tokens``, and say so to the caller."""
    names = call.format.MAX_TOKENS_FIELDS
    name = next((name for name in names if name in call.fields), names[0])
    call.fields = call.fields | {name: msgspec.Raw(b"%d" % tokens)}
    call.limit_headers.append((b"x-comptoir-max-tokens", b"%d" % tokens))
