"""What may be spent, as immutable values in memory: the hard limits of each organization."""

import datetime
from dataclasses import dataclass, field
from functools import cached_property

from console.models import ApiKey, User, Workspace
from usage.calendar import Calendar, calendar_of
from usage.ledger import Key
from usage.models import Scope, SpendLimit


@dataclass(frozen=True, slots=True)
class Limit:
    """A hard spend limit; ``name`` is that of what it limits."""

    id: int
    uid: str
    scope: str
    scope_id: int
    period: str
    allows_unpriced: bool
    refuses_all: bool
    name: str


@dataclass(frozen=True)
class Spending:
    """The hard limits of one organization, by scope and id, and the currency and calendar that they are counted in."""

    organization_id: int
    currency: str
    time_zone: str
    limits: dict[tuple[str, int], tuple[Limit, ...]]
    _found: dict = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def calendar(self) -> Calendar:
        return calendar_of(self.time_zone)

    def limits_of(self, caller) -> tuple[Limit, ...]:
        """The limits that count what ``caller`` spends, the widest scope first."""
        who = caller.workspace_id, caller.api_key_id, caller.user_id
        found = self._found.get(who)
        if found is None:
            scopes = (
                (Scope.ORGANIZATION.value, self.organization_id),
                (Scope.WORKSPACE.value, caller.workspace_id),
                (Scope.API_KEY.value, caller.api_key_id),
                (Scope.MEMBER.value, caller.user_id),
            )
            found = self._found[who] = tuple(limit for scope in scopes for limit in self.limits.get(scope, ()))
        return found

    def key(self, limit: Limit, moment: float) -> Key:
        """The interval of ``limit`` in which the Unix time ``moment`` lies."""
        start, end = self.calendar.interval(limit.period, datetime.datetime.fromtimestamp(moment, datetime.UTC))
        return Key(self.organization_id, limit.scope, limit.scope_id, limit.period, start, end)


def load() -> dict[int, Spending]:
    """What each organization with a hard limit may spend, by its id, in a fixed number of queries."""
    rows = list(SpendLimit.objects.filter(is_hard=True).select_related("organization").order_by("pk"))
    names = _names(rows)
    grouped = {}
    for row in rows:
        limit = Limit(
            id=row.pk,
            uid=row.uid,
            scope=row.scope,
            scope_id=row.scope_id,
            period=row.period,
            allows_unpriced=row.allows_unpriced,
            refuses_all=row.amount_nanos + row.raised_nanos == 0,
            name=names.get((row.scope, row.scope_id), ""),
        )
        _organization, limits = grouped.setdefault(row.organization_id, (row.organization, {}))
        limits.setdefault((row.scope, row.scope_id), []).append(limit)
    return {
        pk: Spending(
            organization_id=pk,
            currency=organization.currency,
            time_zone=organization.time_zone,
            limits={scope: tuple(found) for scope, found in limits.items()},
        )
        for pk, (organization, limits) in grouped.items()
    }


def _names(rows):
    """What people call the scopes of limits."""
    names = {(Scope.ORGANIZATION.value, row.organization_id): row.organization.name for row in rows}
    for scope, model, column in (
        (Scope.WORKSPACE, Workspace, "name"),
        (Scope.API_KEY, ApiKey, "name"),
        (Scope.MEMBER, User, "email"),
    ):
        ids = [row.scope_id for row in rows if row.scope == scope]
        if ids:
            found = model.objects.filter(pk__in=ids).values_list("pk", column)
            names |= {(scope.value, pk): name for pk, name in found}
    return names
