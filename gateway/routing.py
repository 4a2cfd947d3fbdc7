"""A model's name to whom to ask, in which order, and whether to go on to the next."""

import asyncio
import math
import random

from django.utils.translation import gettext_noop

from gateway import errors
from providers.errors import OwnAccount, Rejected, Unreachable

_ = gettext_noop
# From the request's arrival to the last moment at which another attempt may begin.
DEADLINE_SECONDS = 600.0
# Retries are at most a tenth of the requests, so that a provider in trouble is not buried; a few are free.
RETRY_SHARE = 0.1
MOST_SAVED_RETRIES = 20.0
# A caller is kept waiting for so long at most; what a provider asks beyond that is for the caller to wait.
LONGEST_PAUSE = 5.0
# The formats that can stand in for each other.
CONVERSATIONS = {"chat_completions", "completions", "messages", "responses"}
# What a model that cannot be asked in a format lacks.
ABILITIES = {None: _("text generation"), "embeddings": _("embeddings"), "moderations": _("moderation")}
# Another attempt at the same target may help with these; the rest needs another target.
PASSING_STATUSES = {408, 409, 429, 500, 502, 503, 504, 529}
# The caller's own mistakes: every target would say the same.
FINAL_STATUSES = {400, 413, 415, 422}


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
        self.target, *self._later = targets
        self._router = router
        self.retried = False
        self.format_name = router.format_for(call.format.NAME, self.target)

    async def goes_on(self, error):
        """
        Whether another attempt follows after ``error``, a ``ProviderError`` before the caller's first byte.

        Waits where waiting is part of it. What the caller got wrong is not tried again, nor what ran out of time at
        the same provider: it may have done the work. All within the deadline and the budget for retries.
        """
        if self._lacks_endpoint(error):
            self.format_name = self.target.main_format
            return True
        status = error.status if isinstance(error, Rejected) and not isinstance(error, OwnAccount) else None
        if status in FINAL_STATUSES:
            return False
        same = not self._later and not self.retried
        pause = 0.0
        if same:
            if not (isinstance(error, Unreachable) or status in PASSING_STATUSES):
                return False
            asked = error.retry_after if isinstance(error, Rejected) else None
            if status == 429 and asked is None:
                return False
            pause = random.uniform(0.1, 0.4) if asked is None else asked  # noqa: S311 - jitter
        elif not self._later:
            return False
        if pause > LONGEST_PAUSE or self.call.elapsed() + pause > DEADLINE_SECONDS or not self._router.spend_retry():
            return False
        if pause:
            await asyncio.sleep(pause)
        self.retried = True
        if self._later:
            self.target = self._later.pop(0)
        self.format_name = self._router.format_for(self.call.format.NAME, self.target)
        return True

    def _lacks_endpoint(self, error):
        """Whether the provider seems to know nothing of the format in which it was asked, though of its main one."""
        return (
            isinstance(error, Rejected)
            and error.status in {404, 405, 501}
            and self.format_name != self.target.main_format
            and self.format_name in CONVERSATIONS
        )

    def failed(self, error):
        """The current attempt failed with ``error``."""
        self._router.failed(self.target, error)


class Router:
    """What one process knows of targets beside the snapshot: which rest, what they lack, how many retries are left."""

    def __init__(self, keeper, health, alerts):
        self.keeper = keeper
        self.health = health
        self.alerts = alerts
        self._retries = MOST_SAVED_RETRIES / 2
        self._lacking = set()

    async def plan(self, call):
        """The plan of a call; raises ``GatewayError`` where nobody could be asked."""
        route = await find_route(call.model, call.caller.organization_id, self.keeper)
        targets = route.targets
        if len(targets) > 1:
            targets = self.health.ordered(_drawn(route) if route.weights else targets)
        usable = [target for target in targets if target.is_usable and self.offers(target, call.format.NAME)]
        if not usable:
            if not any(self.offers(target, call.format.NAME) for target in targets):
                raise errors.unable_model(call.model, ABILITIES.get(call.format.NAME, ABILITIES[None]))
            raise errors.unusable_provider(targets[0].provider_name)
        self._retries = min(self._retries + RETRY_SHARE, MOST_SAVED_RETRIES)
        return Plan(call, usable, self)

    def offers(self, target, format_name):
        """Whether ``target`` can be asked in ``format_name``, or in one that stands in for it."""
        if format_name in CONVERSATIONS:
            return not target.capabilities or "chat" in target.capabilities or format_name in target.capabilities
        return format_name in target.endpoints and (not target.capabilities or format_name in target.capabilities)

    def format_for(self, format_name, target):
        """The format in which ``target`` is asked: the caller's own wherever it has it."""
        if format_name in target.endpoints and (target.provider_id, format_name) not in self._lacking:
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
            self._lacking.add((target.provider_id, plan.call.format.NAME))
        self.health.succeeded(target)
        self.alerts.succeeded(target)

    def failed(self, target, error):
        """Note that ``target`` failed with ``error``."""
        self.health.failed(target, error)
        self.alerts.failed(target, error)


def _drawn(route):
    """The targets of a weighted route in an order drawn by their weights."""
    keys = [
        (math.log(random.random() or 1e-300) / weight if weight else -math.inf, index)  # noqa: S311 - a lot, no secret
        for index, weight in enumerate(route.weights)
    ]
    return [route.targets[index] for _, index in sorted(keys, reverse=True)]
