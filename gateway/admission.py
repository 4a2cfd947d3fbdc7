"""
Whether a request may begin. The most that it can cost is held in every interval that a hard limit counts, before any
provider is asked, and settled to what it did cost when it has ended.
"""

import structlog

from gateway import errors, metrics
from gateway.bounds import Bound, Size, affordable, lower
from gateway.leases import Exhausted, Leases, Unavailable
from gateway.rates import RateLimiter, estimates

log = structlog.get_logger(__name__)

NO_ACCOUNTS = 0.0, 0.0, ()


class Admission:
    """Counts requests by the minute, and holds what they may cost in the leases of this process."""

    def __init__(self, keeper, leases: Leases, refused=lambda key: None, rates: RateLimiter | None = None):
        """``refused`` is told of each interval of the ledger that has too little left for a request."""
        self.keeper = keeper
        self.leases = leases
        self.rates = rates
        self._refused = refused
        # The accounts of each caller's current intervals, and since and until when these are that, as long as the
        # limits are those.
        self._accounts, self._spending = {}, None

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
        every = self.keeper.current.spending
        spending = every.get(call.caller.organization_id)
        if spending is None or not (limits := spending.limits_of(call.caller)):
            return
        if every is not self._spending:
            self._accounts, self._spending = {}, every
        bounds = self._bounds(call, plan, limits)
        nanos = max([bound.cost() for bound in bounds])
        if not nanos and not any(limit.refuses_all for limit in limits):
            # What is free passes however much was spent.
            return
        accounts = self._accounts_of(call, limits, spending)
        call.reservation = self.leases.reserve(accounts, nanos)
        if call.reservation is None:
            await self._wait(call, accounts, bounds, limits, spending)

    def _bounds(self, call, plan, limits):
        """What the call can cost at each target of its plan; those without a price are left out of it."""
        size = Size(call.format, call.fields)
        bounds = [Bound(call, target, size) for target in plan.targets]
        priced = [bound for bound in bounds if bound.rates]
        if len(priced) == len(bounds) or getattr(call.format, "IS_FREE_UNLESS_PRICED", False):
            return bounds
        if all(limit.allows_unpriced for limit in limits):
            return bounds
        if not priced:
            raise errors.unpriced_model(call.model)
        plan.keep([bound.target for bound in priced])
        return priced

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

    async def _wait(self, call, accounts, bounds, limits, spending, tokens=None):
        """Hold what is not at hand, or a part that can be afforded where the caller takes that."""
        try:
            nanos = max(bound.cost(tokens) for bound in bounds)
            call.reservation = await self.leases.reserve_or_wait(accounts, nanos)
        except Exhausted as error:
            fewer = affordable(bounds, error.room) if call.takes_less and tokens is None else None
            if fewer is None:
                self._refused(error.key)
                limit = next(limit for limit in limits if spending.key(limit, call.received_at) == error.key)
                raise errors.spend_limit_reached(limit, spending, error.key, error.grant, nanos) from None
            await self._wait(call, accounts, bounds, limits, spending, fewer)
        except Unavailable:
            raise errors.ledger_unavailable() from None
        else:
            if tokens is not None:
                lower(call, tokens, bounds[0].target)
                call.limit_headers.append((b"x-comptoir-max-tokens", b"%d" % tokens))

    def _accounts_of(self, call, limits, spending):
        caller, moment = call.caller, call.received_at
        who = caller.workspace_id, caller.api_key_id, caller.user_id
        since, until, accounts = self._accounts.get(who, NO_ACCOUNTS)
        if since <= moment < until:
            return accounts
        for limit in limits:
            if limit.refuses_all:
                self._refused(spending.key(limit, moment))
                raise errors.nothing_allowed(limit)
        accounts = tuple(self.leases.account(spending.key(limit, moment), spending.calendar) for limit in limits)
        since, until = max(account.start for account in accounts), min(account.end for account in accounts)
        self._accounts[who] = since, until, accounts
        return accounts
