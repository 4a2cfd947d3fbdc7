"""A model's name to whom to ask, in which order, and whether to go on to the next."""

import asyncio
import math
import random
import time

from django.utils.translation import gettext_noop

from gateway import errors
from gateway.health import is_callers_mistake
from providers.errors import OwnAccount, Rejected, TimedOut, Unreachable

_ = gettext_noop
# From the request's arrival to the moment by which every attempt after the first must have begun its answer.
DEADLINE_SECONDS = 600.0
# Retries are at most a tenth of the requests, so that a provider in trouble is not buried; a few are free.
RETRY_SHARE = 0.1
FREE_RETRIES = 10.0
MOST_SAVED_RETRIES = 100.0
# A caller is kept waiting for so long at most; what a provider asks beyond that is for the caller to wait.
LONGEST_PAUSE = 5.0
# The formats that can stand in for each other.
CONVERSATIONS = {"chat_completions", "completions", "messages", "responses"}
# What a model that cannot be asked in a format lacks.
ABILITIES = {None: _("text generation"), "embeddings": _("embeddings"), "moderations": _("moderation")}
# Another attempt at the same target may help with these; the rest needs another target.
PASSING_STATUSES = {408, 409, 429, 500, 502, 503, 504, 529}
# A provider that seemed to know nothing of a format is asked in it again after so long: it may have meant something
# else by it, or know the format by then.
LACKING_SECONDS = 600.0
# What a provider says of the whole account, whichever of its models was asked.
ACCOUNT_STATUSES = {401, 402, 429}


def models_of(organization_id, snapshot):
    """Every route of an organization, by the name that clients ask for."""
    return snapshot.routes.get(organization_id, {})


async def find_route(model, organization_id, keeper):
    """The route of a public name; raises ``GatewayError`` where there is none."""
    route = models_of(organization_id, keeper.current).get(model)
    if route is None:
        # It may have been added a moment ago.
        await keeper.refresh()
        route = models_of(organization_id, keeper.current).get(model)
        if route is None:
            raise errors.unknown_model(model)
    return route


class Plan:
    """
    The attempts at one call: the targets to ask, in order, and what a failure means for the next.

    ``target`` and ``format_name`` are the current attempt's.
    """

    __slots__ = ("_later", "_router", "call", "format_name", "retried", "target")

    def __init__(self, call, targets, router):
        self.call = call
        self._later = targets[1:]
        self._router = router
        self.retried = False
        self._ask(targets[0])

    @property
    def targets(self):
        """The targets that may still be asked, the current one first."""
        return [self.target, *self._later]

    def keep(self, targets):
        """Ask none but ``targets``, which are some of the plan's."""
        self._later = targets[1:]
        if targets[0] is not self.target:
            self._ask(targets[0])

    @property
    def has_others(self):
        """Whether another target is left to be asked."""
        return bool(self._later)

    def skip(self):
        """Go on to the next target, as the current one cannot be told the request; whether there is one."""
        if self._later:
            self._ask(self._later.pop(0))
            return True
        return False

    async def goes_on(self, error):
        """
        Whether another attempt follows after ``error``, a ``ProviderError`` before the caller's first byte.

        Waits where waiting is part of it. What the caller got wrong is not tried again, nor what ran out of time at
        the same provider: it may have done the work. All within the deadline and the budget for retries.
        """
        if self._lacks_endpoint(error) and self._router.spend_retry():
            self.format_name = self.target.main_format
            return True
        if is_callers_mistake(error):
            return False
        has_others = bool(self._later)
        if isinstance(error, TimedOut) or (isinstance(error, OwnAccount) and error.status in ACCOUNT_STATUSES):
            provider_id = self.target.provider_id
            self._later = [target for target in self._later if target.provider_id != provider_id]
        pause = 0.0
        if not self._later:
            if has_others or self.retried or not _may_pass(error):
                return False
            asked = error.retry_after if isinstance(error, Rejected) else None
            pause = (asked or 0.1) + random.uniform(0.0, 0.3)  # noqa: S311 - jitter
            if (asked or 0) > LONGEST_PAUSE:
                return False
        if self.call.elapsed() + pause > self._router.deadline or not self._router.spend_retry():
            return False
        if pause:
            await asyncio.sleep(pause)
        self.retried = True
        if self._later:
            self._later = list(self._router.health.ordered(self._later))
            self._ask(self._later.pop(0))
            self._router.health.asked(self.target)
        else:
            self._ask(self.target)
        return True

    async def in_time(self, beginning):
        """What ``beginning``, a later attempt, returns. Raises ``TimedOut`` where the deadline comes first."""
        try:
            async with asyncio.timeout(max(self._router.deadline - self.call.elapsed(), 0.001)):
                return await beginning
        except TimeoutError as error:
            raise TimedOut(_("The provider did not answer in time."), repr(error), timeout="first_byte") from None

    def _ask(self, target):
        self.target = target
        self.format_name = self._router.format_for(self.call.format.NAME, target)

    def _lacks_endpoint(self, error):
        """Whether the provider seems to know nothing of the format in which it was asked, though of its main one."""
        return (
            isinstance(error, Rejected)
            and error.status in {404, 405, 501}
            # What names a field, or what was not found, knows the path.
            and error.param is None
            and not (error.code or "").endswith("_not_found")
            and self.format_name != self.target.main_format
            and self.format_name in CONVERSATIONS
        )

    def failed(self, error):
        """The current attempt failed with ``error``."""
        self._router.failed(self.target, error)


class Router:
    """What one process knows of targets beside the snapshot: which rest, what they lack, how many retries are left."""

    def __init__(self, keeper, health, alerts, *, deadline=DEADLINE_SECONDS):
        self.keeper = keeper
        self.health = health
        self.alerts = alerts
        self.deadline = deadline
        self._retries = FREE_RETRIES
        # The formats that models seemed to know nothing of, and until when that is taken for granted.
        self._lacking = {}

    async def plan(self, call):
        """The plan of a call; raises ``GatewayError`` where nobody could be asked."""
        organization_id = call.caller.organization_id
        route = models_of(organization_id, self.keeper.current).get(call.model)
        if route is None:
            route = await find_route(call.model, organization_id, self.keeper)
        targets = route.targets
        if len(targets) > 1:
            targets = self.health.ordered(_drawn(route) if route.weights else targets)
        usable = [target for target in targets if target.is_usable and self.offers(target, call.format.NAME)]
        if not usable:
            if not any(self.offers(target, call.format.NAME) for target in targets):
                raise errors.unable_model(call.model, ABILITIES.get(call.format.NAME, ABILITIES[None]))
            raise errors.unusable_provider(targets[0].provider_name)
        self._retries = min(self._retries + RETRY_SHARE, MOST_SAVED_RETRIES)
        if len(targets) > 1:
            self.health.asked(usable[0])
        return Plan(call, usable, self)

    def offers(self, target, format_name):
        """Whether ``target`` can be asked in ``format_name``, or in one that stands in for it."""
        if format_name in CONVERSATIONS:
            return not target.capabilities or "chat" in target.capabilities or format_name in target.capabilities
        return format_name in target.endpoints and (not target.capabilities or format_name in target.capabilities)

    def format_for(self, format_name, target):
        """The format in which ``target`` is asked: the caller's own wherever it has it."""
        lacking_until = self._lacking.get(_lack(target, format_name), 0.0) if self._lacking else 0.0
        if format_name in target.endpoints and lacking_until <= time.monotonic():
            return format_name
        return target.main_format

    def spend_retry(self):
        """Take one retry from the budget; whether there was one."""
        if self._retries < 1:
            return False
        self._retries -= 1
        return True

    def succeeded(self, plan):
        """Note that the plan's current attempt has an answer."""
        target = plan.target
        if plan.format_name != plan.call.format.NAME and plan.call.format.NAME in target.endpoints:
            # Asked in its main format because it knew nothing of the other: it need not be tried each time.
            key = _lack(target, plan.call.format.NAME)
            if self._lacking.get(key, 0.0) <= time.monotonic():
                self._lacking[key] = time.monotonic() + LACKING_SECONDS
        self.health.succeeded(target)
        self.alerts.succeeded(target)

    def failed(self, target, error):
        """Note that ``target`` failed with ``error``."""
        self.health.failed(target, error)
        self.alerts.failed(target, error)


def _lack(target, format_name):
    """What a format is remembered by that a target lacks: until its provider is renewed."""
    return target.provider_model_id, target.renewed_at, format_name


def _may_pass(error):
    """Whether the same target may answer a moment later, and cannot have done the work meanwhile."""
    if isinstance(error, Unreachable):
        return error.timeout is None
    if not isinstance(error, Rejected) or isinstance(error, OwnAccount):
        return False
    return error.status in PASSING_STATUSES and (error.status != 429 or error.retry_after is not None)


def _drawn(route):
    """The targets of a weighted route in an order drawn by their weights."""
    keys = [
        (math.log(random.random() or 1e-300) / weight if weight else -math.inf, index)  # noqa: S311 - a lot, no secret
        for index, weight in enumerate(route.weights)
    ]
    return [route.targets[index] for _, index in sorted(keys, reverse=True)]
