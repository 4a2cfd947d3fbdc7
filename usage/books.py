"""
Whether the accounts agree: request rows, their rollups, the ledger of what scopes spent, and the leases on it.

The rows are the truth that the others are held against. They are summed inside the database, a day at a time, and all
four are read from one state of it, while requests go on.
"""

import datetime
from collections import Counter, defaultdict
from typing import NamedTuple

from django.db import models
from django.db.models import Count, F, Func, Min, Sum

from console.models import ApiKey, Organization, User, Workspace
from usage.ledger import PERIODS, calendars_of
from usage.models import LedgerPeriod, RequestLog, Scope, SpendLease, UsageRollup
from usage.rollups import day_start, one_state
from usage.ulid import least_id_at, moment_of

KINDS = ("input", "cache_read", "cache_write", "output")
SUMS = (*(f"{kind}_tokens" for kind in KINDS), "cache_write_1h_tokens", "cost_nanos")
MEASURES = ("requests", *SUMS)
QUARTER = 900
MOST_DIFFERENCES = 100


class Asked(NamedTuple):
    """Whose books are meant: all of the server's, an organization's, a workspace's, or those of some keys."""

    organization_id: int | None = None
    workspace_id: int | None = None
    api_key_ids: tuple[int, ...] | None = None

    def of(self, rows):
        """Rows, or rollups, that are meant."""
        for name, value in (("organization_id", self.organization_id), ("workspace_id", self.workspace_id)):
            rows = rows if value is None else rows.filter(**{name: value})
        return rows if self.api_key_ids is None else rows.filter(api_key_id__in=self.api_key_ids)

    def scopes(self):
        """The scopes whose whole spending is meant: of a workspace not its members, who spend elsewhere too."""
        if self.api_key_ids is not None:
            return {(Scope.API_KEY.value, pk) for pk in self.api_key_ids}
        if self.workspace_id is not None:
            keys = ApiKey.objects.filter(workspace=self.workspace_id).values_list("pk", flat=True)
            return {(Scope.WORKSPACE.value, self.workspace_id), *((Scope.API_KEY.value, pk) for pk in keys)}
        return None

    def total_scope(self):
        """The ledger's widest scope of what is meant: its intervals sum up to all that was spent."""
        intervals = LedgerPeriod.objects.filter(period="month")
        if self.api_key_ids is not None:
            return intervals.filter(scope=Scope.API_KEY, scope_id__in=self.api_key_ids)
        if self.workspace_id is not None:
            return intervals.filter(scope=Scope.WORKSPACE, scope_id=self.workspace_id)
        intervals = intervals.filter(scope=Scope.ORGANIZATION)
        return intervals if self.organization_id is None else intervals.filter(organization=self.organization_id)


class Difference(NamedTuple):
    """
    Where an account is not what the rows, or of ``leases`` what the ledger says.

    ``interval`` is ``hour``, ``day``, ``week`` or ``month`` of ``start``; ``measure`` what is counted.
    """

    account: str
    organization: str
    scope: str
    name: str
    interval: str
    start: datetime.datetime
    measure: str
    expected: int
    found: int

    def as_dict(self):
        return self._asdict() | {"start": self.start.isoformat().replace("+00:00", "Z")}


class _Quarter(Func):
    """How many quarters of an hour an instant lies after 1970: every zone's days begin on one."""

    output_field = models.BigIntegerField()

    def as_sqlite(self, compiler, connection, **context):
        return self.as_sql(compiler, connection, template="(unixepoch(%(expressions)s) / 900)", **context)

    def as_postgresql(self, compiler, connection, **context):
        template = "FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / 900)::bigint"
        return self.as_sql(compiler, connection, template=template, **context)


def total(asked=None, on_day=lambda done, days: None) -> dict:
    """
    What was used by each account, whether all agree, and where they do not: the object that ``usage_total`` prints.

    ``on_day`` is told how far the pass over the rows has come.
    """
    asked = asked or Asked()
    with one_state():
        sums = _sums_of_rows(asked, on_day)
        rollups = _sums_of_rollups(asked)
        scopes = asked.scopes()
        ledger_nanos = asked.total_scope().aggregate(sum=Sum("settled_nanos"))["sum"] or 0
        differences = [*_differing_intervals(asked, scopes, sums), *_differing_rollups(sums, rollups)]
        _name(differences)
    totals, outcomes = Counter(), Counter()
    for key, amounts in sums.items():
        totals.update(dict(zip(MEASURES, amounts, strict=True)))
        outcomes[key[5]] += amounts[0]
    of_rollups = Counter()
    for key, amounts in rollups.items():
        if key[0] == UsageRollup.Width.DAY:
            of_rollups.update(dict(zip(MEASURES, amounts, strict=True)))
    tokens = {kind: totals[f"{kind}_tokens"] for kind in KINDS}
    tokens["cache_write"] += totals["cache_write_1h_tokens"]
    cost = {"rows": totals["cost_nanos"], "rollups": of_rollups["cost_nanos"], "ledger": ledger_nanos}
    return {
        "rows": totals["requests"],
        "outcomes": dict(outcomes),
        "tokens": tokens,
        "cost_nanos": cost,
        "agree": not differences and len(set(cost.values())) == 1,
        "differences": [difference.as_dict() for difference in differences[:MOST_DIFFERENCES]],
        "difference_count": len(differences),
    }


# The rows --------------------------------------------------------------------------------------------------------


def _sums_of_rows(asked, on_day):
    """``{(quarter, organization, workspace, key, user, outcome): amounts}`` of the rows, 0 for no key and no user."""
    rows = asked.of(RequestLog.objects.order_by())
    # By the ends of the index, which a database finds at once.
    ends = [
        asked.of(RequestLog.objects).order_by(order).values_list("pk", flat=True).first() for order in ("pk", "-pk")
    ]
    if ends[0] is None:
        return {}
    first, last = (moment_of(pk).date() for pk in ends)
    days = (last - first).days + 1
    sums = {}
    for number in range(days):
        on_day(number, days)
        part = rows
        # The first and the last part are open, whatever their ids say of the time.
        if number:
            part = part.filter(pk__gte=least_id_at(_midnight(first, number)))
        if number < days - 1:
            part = part.filter(pk__lt=least_id_at(_midnight(first, number + 1)))
        grouped = (
            part.annotate(quarter=_Quarter(F("started_at")))
            .values_list("quarter", "organization_id", "workspace_id", "api_key_id", "user_id", "outcome")
            .annotate(Count("pk"), *(Sum(name, default=0) for name in SUMS))
        )
        for quarter, organization, workspace, key, user, outcome, *amounts in grouped.iterator():
            _add(sums, (quarter, organization, workspace, key or 0, user or 0, outcome), amounts)
    on_day(days, days)
    return sums


def _midnight(first, days):
    return datetime.datetime.combine(first + datetime.timedelta(days=days), datetime.time(), datetime.UTC)


def _add(sums, key, amounts):
    known = sums.get(key)
    sums[key] = amounts if known is None else [a + b for a, b in zip(known, amounts, strict=True)]


# The others ------------------------------------------------------------------------------------------------------


def _sums_of_rollups(asked):
    """``{(width, start, organization, workspace, key, user, outcome): amounts}``."""
    grouped = (
        asked.of(UsageRollup.objects.order_by())
        .values_list("width", "start", "organization_id", "workspace_id", "api_key_id", "user_id", "outcome")
        .annotate(Sum("requests"), *(Sum(name) for name in SUMS))
    )
    return {tuple(row[:7]): list(row[7:]) for row in grouped.iterator()}


def _differing_rollups(sums, rollups):
    expected, zones = {}, {}
    calendars = calendars_of({key[1] for key in sums})
    for (quarter, organization, *rest), amounts in sums.items():
        moment = datetime.datetime.fromtimestamp(quarter * QUARTER, datetime.UTC)
        zone = zones.setdefault(organization, calendars[organization].zone)
        _add(expected, (UsageRollup.Width.HOUR.value, moment.replace(minute=0), organization, *rest), amounts)
        _add(expected, (UsageRollup.Width.DAY.value, day_start(moment, zone), organization, *rest), amounts)
    nothing = [0] * len(MEASURES)
    for key in sorted(expected.keys() | rollups.keys()):
        due, found = expected.get(key, nothing), rollups.get(key, nothing)
        width, start, organization, workspace, api_key, user, _outcome = key
        scope, scope_id = (
            (Scope.API_KEY.value, api_key)
            if api_key
            else (Scope.MEMBER.value, user)
            if user
            else (Scope.WORKSPACE.value, workspace)
        )
        for measure, wanted, stands in zip(MEASURES, due, found, strict=True):
            if wanted != stands:
                yield Difference("rollups", organization, scope, scope_id, width, start, measure, wanted, stands)


def _differing_intervals(asked, scopes, sums):
    """Where the ledger is not what the rows cost, or does not hold what its leases do."""
    expected = defaultdict(int)
    calendars = calendars_of({key[1] for key in sums})
    for (quarter, organization, workspace, api_key, user, _outcome), amounts in sums.items():
        cost = amounts[-1]
        if not cost:
            continue
        moment = datetime.datetime.fromtimestamp(quarter * QUARTER, datetime.UTC)
        counted = [(Scope.ORGANIZATION.value, organization), (Scope.WORKSPACE.value, workspace)]
        counted += [(Scope.API_KEY.value, api_key)] if api_key else []
        counted += [(Scope.MEMBER.value, user)] if user else []
        for scope in counted:
            if scopes is None or scope in scopes:
                for period in PERIODS:
                    start, _end = calendars[organization].interval(period, moment)
                    expected[organization, *scope, period, start] += cost
    intervals = LedgerPeriod.objects.order_by("pk")
    if asked.organization_id is not None:
        intervals = intervals.filter(organization=asked.organization_id)
    if scopes is not None:
        ids = defaultdict(set)
        for scope, scope_id in scopes:
            ids[scope].add(scope_id)
        wanted = models.Q()
        for scope, of_scope in ids.items():
            wanted |= models.Q(scope=scope, scope_id__in=of_scope)
        intervals = intervals.filter(wanted) if ids else intervals.none()
    held = (
        SpendLease.objects.order_by()
        .values("ledger_period")
        .annotate(
            held=Sum("remaining_nanos"),
            least=Min("remaining_nanos"),
            sums=Sum(F("granted_nanos") - F("settled_nanos") - F("released_nanos")),
        )
    )
    leases = {row["ledger_period"]: (row["held"], row["sums"], row["least"]) for row in held}
    for interval in intervals.iterator():
        key = (interval.organization_id, interval.scope, interval.scope_id, interval.period, interval.start)
        due = expected.pop(key, 0)
        place = (interval.organization_id, interval.scope, interval.scope_id, interval.period, interval.start)
        if interval.settled_nanos != due:
            yield Difference("ledger", *place, "cost_nanos", due, interval.settled_nanos)
        remaining, of_sums, least = leases.get(interval.pk, (0, 0, 0))
        if interval.leased_nanos != remaining:
            yield Difference("leases", *place, "held_nanos", interval.leased_nanos, remaining)
        if remaining != of_sums:
            yield Difference("leases", *place, "remaining_nanos", of_sums, remaining)
        if least < 0:
            yield Difference("leases", *place, "remaining_nanos", 0, least)
    for key, due in expected.items():
        yield Difference("ledger", *key, "cost_nanos", due, 0)


def _name(differences):
    """Put names in the place of ids, of those that are told."""
    told = differences[:MOST_DIFFERENCES]
    names = {
        Scope.ORGANIZATION.value: dict(_names(Organization, {each.organization for each in told}, "slug")),
        Scope.WORKSPACE.value: dict(_names(Workspace, _ids(told, Scope.WORKSPACE), "slug")),
        Scope.API_KEY.value: dict(_names(ApiKey, _ids(told, Scope.API_KEY), "name")),
        Scope.MEMBER.value: dict(_names(User, _ids(told, Scope.MEMBER), "email")),
    }
    for place, each in enumerate(told):
        organization = names[Scope.ORGANIZATION.value].get(each.organization, str(each.organization))
        name = names[each.scope].get(each.name, str(each.name))
        differences[place] = each._replace(organization=organization, name=name)


def _ids(differences, scope):
    return {each.name for each in differences if each.scope == scope}


def _names(model, ids, field):
    return model.objects.filter(pk__in=ids).values_list("pk", field) if ids else ()


def in_words(difference: dict) -> str:
    """One line for a person at a terminal."""
    start = datetime.datetime.fromisoformat(difference["start"])
    money = difference["measure"].endswith("nanos")
    expected, found = (
        f"{amount / 10**9:.9f}" if money else str(amount) for amount in (difference["expected"], difference["found"])
    )
    against = "the ledger says" if difference["measure"] == "held_nanos" else "it should be"
    return (
        f"{difference['account']}: {difference['scope'].replace('_', ' ')} {difference['name']}, "
        f"{difference['interval']} from {start:%Y-%m-%d %H:%M} UTC, {difference['measure']}: "
        f"{found} stands there, {against} {expected}"
    )
