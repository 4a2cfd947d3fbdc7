"""What the pages of limits read: which apply to a scope, how they stand, and what another amount would do."""

import datetime
from dataclasses import dataclass
from itertools import pairwise

from django.db.models import Case, Count, Min, Q, Sum, When
from django.utils import timezone

from console.models import ApiKey, Member, User, Workspace
from providers import exchange_rates
from providers.formats import chat_completions, completions, messages, moderations, responses
from usage.calendar import calendar_of, first_instant
from usage.models import LedgerPeriod, LimitIncrease, Scope, SpendLease, SpendLimit, SpendPeriod

# A forecast takes the mean of so many full days, or of all there were since the scope was first used.
PACE_DAYS = 7
# What a limit by the day is tried against.
PAST_DAYS = 30
WARN, DANGER = 0.8, 0.95
SCOPES = {scope.value: place for place, scope in enumerate(Scope)}
PERIODS = {period.value: place for place, period in enumerate(SpendPeriod)}
LATEST_WISHES = 5
WISH_DAYS = 7
MOST_LEASES = 100
# What a model does whose answers can get longer or shorter.
WRITING = {form.NAME for form in (chat_completions, completions, messages, responses)}


@dataclass(frozen=True)
class Subject:
    """Whose spending is meant, with its name; ``workspace`` is the one that a workspace is or a key belongs to."""

    scope: str
    scope_id: int
    name: str
    uid: str
    workspace: Workspace | None = None
    email: str = ""

    @classmethod
    def of(cls, thing):
        """That of an organization, a workspace, an API key or a user."""
        if isinstance(thing, Workspace):
            return cls(Scope.WORKSPACE.value, thing.pk, thing.name, thing.uid, thing)
        if isinstance(thing, ApiKey):
            return cls(Scope.API_KEY.value, thing.pk, thing.name, thing.uid, thing.workspace)
        if isinstance(thing, User):
            return cls(Scope.MEMBER.value, thing.pk, str(thing), thing.uid, email=thing.email)
        return cls(Scope.ORGANIZATION.value, thing.pk, thing.name, thing.uid)

    @property
    def key(self):
        return self.scope, self.scope_id

    @property
    def target(self):
        """How addresses and forms name it."""
        return f"{self.scope}:{self.uid}"


@dataclass(frozen=True)
class Forecast:
    """
    How an interval ends at the recent pace: ``fills`` at an instant, ``lasts`` with a total, or no such thing.

    The other kinds: ``full`` already, ``idle`` since nothing was spent lately, ``new`` since there is no full day yet.
    """

    kind: str
    at: datetime.datetime | None = None
    total: int = 0


@dataclass
class Standing:
    """A limit in the interval that runs: what was settled, what is held, what is left; amounts in nanos."""

    limit: SpendLimit
    subject: Subject
    start: datetime.datetime
    end: datetime.datetime
    amount: int
    settled: int
    held: int
    forecast: Forecast
    binds: bool = False

    @property
    def left(self):
        """Below zero where more was spent than the limit is now."""
        return self.amount - self.settled - self.held

    @property
    def share(self):
        return (self.settled + self.held) / self.amount if self.amount else 1.0

    @property
    def tone(self):
        return "danger" if self.share >= DANGER else "warn" if self.share >= WARN else ""

    @property
    def settled_percent(self):
        """The width of a part of the meter, for its attribute."""
        return f"{self._part(self.settled):.2f}%"

    @property
    def held_percent(self):
        whole = self._part(self.settled + self.held)
        return f"{max(whole - self._part(self.settled), 0.0):.2f}%"

    def _part(self, nanos):
        return min(max(nanos / self.amount, 0.0), 1.0) * 100 if self.amount else 100.0

    @property
    def granted(self):
        """What was granted on top and still holds."""
        return self.amount - self.limit.amount_nanos

    @property
    def last_day(self):
        """An instant of the last day of the interval."""
        return self.end - datetime.timedelta(microseconds=1)


# Which limits --------------------------------------------------------------------------------------------------------


def applying(organization, subjects):
    """The limits of those subjects, in one query: the organization's first, days before months."""
    found = Q(pk__in=[])
    for subject in subjects:
        found |= Q(scope=subject.scope, scope_id=subject.scope_id)
    return _sorted(organization, found)


def beneath_organization(organization, member):
    """The limits of its workspaces and of its members; of those a developer sees their own."""
    return _sorted(organization, Q(scope=Scope.WORKSPACE) | _members_seen_by(member))


def beneath_workspace(workspace, member):
    """The limits of its keys and of the organization's members; of those a developer sees their own."""
    keys = Q(scope=Scope.API_KEY, scope_id__in=ApiKey.objects.filter(workspace=workspace, revoked_at=None).values("pk"))
    return _sorted(workspace.organization, keys | _members_seen_by(member))


def _members_seen_by(member):
    if member.may(Member.Role.ADMIN):
        # Of those alone who are still members: the others' spending has ended.
        users = Member.objects.filter(organization=member.organization_id).values("user_id")
        return Q(scope=Scope.MEMBER, scope_id__in=users)
    return Q(scope=Scope.MEMBER, scope_id=member.user_id)


def _sorted(organization, condition):
    limits = SpendLimit.objects.filter(condition, organization=organization).select_related("changed_by")
    return sorted(limits, key=lambda limit: (SCOPES[limit.scope], limit.scope_id, PERIODS[limit.period]))


def subjects_of(organization, limits, known=()):
    """``{(scope, id): Subject}`` of the limits, in a query each for workspaces, keys and members not ``known``."""
    subjects = {subject.key: subject for subject in (Subject.of(organization), *known)}
    wanted = {}
    for limit in limits:
        if (limit.scope, limit.scope_id) not in subjects:
            wanted.setdefault(limit.scope, set()).add(limit.scope_id)
    found = []
    if ids := wanted.get(Scope.WORKSPACE):
        found += Workspace.objects.filter(pk__in=ids, organization=organization)
    if ids := wanted.get(Scope.API_KEY):
        found += ApiKey.objects.filter(pk__in=ids, workspace__organization=organization).select_related("workspace")
    if ids := wanted.get(Scope.MEMBER):
        found += User.objects.filter(pk__in=ids)
    return subjects | {subject.key: subject for subject in map(Subject.of, found)}


# How they stand ------------------------------------------------------------------------------------------------------


def standings(organization, limits, subjects, now=None):
    """Each limit in its present interval; two queries for all of them. A limit of nothing that is left is left out."""
    now = now or timezone.now()
    limits = [limit for limit in limits if (limit.scope, limit.scope_id) in subjects]
    calendar = calendar_of(organization.time_zone)
    bounds = {period: calendar.interval(period, now) for period in PERIODS}
    today, _tomorrow = bounds[SpendPeriod.DAY.value]
    since = first_instant(now.astimezone(calendar.zone).date() - datetime.timedelta(days=PACE_DAYS), calendar.zone)
    keys = {(limit.scope, limit.scope_id) for limit in limits}
    books, recent = _books(organization, keys, bounds, since, today)
    firsts = _firsts(organization, keys)
    found = []
    for limit in limits:
        key = (limit.scope, limit.scope_id)
        start, end = bounds[limit.period]
        settled, held = books.get((*key, limit.period), (0, 0))
        # Below zero while a process has yet to draw what its requests cost beyond what was reserved for them.
        held = max(held, 0)
        begin = max(since, firsts.get(key, today))
        rate = recent.get(key, 0) / (today - begin).total_seconds() if begin < today else None
        forecast = forecast_of(limit, settled, rate, now, end)
        found.append(Standing(limit, subjects[key], start, end, limit.amount_at(now), settled, held, forecast))
    return found


def mark_what_binds(found):
    """Of the hard limits, mark the one with the least left: the first that a request meets."""
    hard = [standing for standing in found if standing.limit.is_hard]
    if hard:
        min(hard, key=lambda standing: standing.left).binds = True


def _books(organization, keys, bounds, since, today):
    """``{(scope, id, period): (settled, held)}`` of now, and ``{(scope, id): settled}`` of the recent full days."""
    running = Q(pk__in=[])
    for period, (start, _end) in bounds.items():
        running |= Q(period=period, start=start)
    rows = _ledger(organization, keys).filter(running | Q(period=SpendPeriod.DAY, start__gte=since, start__lt=today))
    books, recent = {}, {}
    columns = ("scope", "scope_id", "period", "start", "settled_nanos", "leased_nanos")
    for scope, scope_id, period, start, settled, held in rows.values_list(*columns):
        if start == bounds[period][0]:
            books[scope, scope_id, period] = settled, held
        else:
            recent[scope, scope_id] = recent.get((scope, scope_id), 0) + settled
    return books, recent


def _firsts(organization, keys):
    """The first instant of the day on which each scope was first used."""
    rows = _ledger(organization, keys).filter(period=SpendPeriod.DAY)
    found = rows.order_by().values_list("scope", "scope_id").annotate(first=Min("start"))
    return {(scope, scope_id): first for scope, scope_id, first in found}


def _ledger(organization, keys):
    scopes = Q(pk__in=[])
    for scope in {scope for scope, _id in keys}:
        scopes |= Q(scope=scope, scope_id__in=[scope_id for other, scope_id in keys if other == scope])
    return LedgerPeriod.objects.filter(scopes, organization=organization)


def forecast_of(limit, settled, rate, now, end) -> Forecast:
    """How the interval ends where ``rate`` nanos a second are spent; ``None`` where nobody can say yet."""
    if settled >= limit.amount_at(now):
        return Forecast("full")
    if rate is None:
        return Forecast("new")
    if not rate:
        return Forecast("idle")
    # What was granted on top may end within the interval.
    steps = {now, end} | ({limit.raised_until} if limit.raised_until and now < limit.raised_until < end else set())
    for begin, until in pairwise(sorted(steps)):
        left = limit.amount_at(begin) - settled - rate * (begin - now).total_seconds()
        at = begin + datetime.timedelta(seconds=max(left, 0) / rate) if left < rate * 10**9 else until
        if at < until:
            return Forecast("fills", at=at)
    return Forecast("lasts", total=settled + round(rate * (end - now).total_seconds()))


# What another amount would do ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """What a limit would have met: reached on ``over`` of ``days`` days, on ``first`` for the first time."""

    start: datetime.datetime
    last_day: datetime.datetime
    days: int
    over: int
    first: datetime.datetime | None
    spent: int


def past_of(limit, now=None) -> Past:
    """The last whole month or week, or the last thirty days for a limit by the day, under that limit; one query."""
    calendar = calendar_of(limit.organization.time_zone)
    start, _end = calendar.interval(limit.period, now or timezone.now())
    if limit.period == SpendPeriod.DAY:
        first = start.astimezone(calendar.zone).date() - datetime.timedelta(days=PAST_DAYS)
        begin, end = first_instant(first, calendar.zone), start
    else:
        begin, end = calendar.interval(limit.period, start - datetime.timedelta(microseconds=1))
    rows = LedgerPeriod.objects.filter(
        organization=limit.organization,
        scope=limit.scope,
        scope_id=limit.scope_id,
        period=SpendPeriod.DAY,
        start__gte=begin,
        start__lt=end,
    )
    spent = dict(rows.values_list("start", "settled_nanos"))
    over, total, day = [], 0, begin
    days = 0
    while day < end:
        days += 1
        total += spent.get(day, 0)
        so_far = spent.get(day, 0) if limit.period == SpendPeriod.DAY else total
        if so_far > limit.amount_nanos:
            over.append(day)
        day = calendar.interval(SpendPeriod.DAY.value, day)[1]
    last_day = end - datetime.timedelta(microseconds=1)
    return Past(begin, last_day, days, len(over), over[0] if over else None, total)


@dataclass(frozen=True)
class Stopped:
    """
    Names of models that a hard limit refuses: without a price, or with one in a currency without an exchange rate.

    Those of ``unbounded`` have a cost, but are refused to requests that do not say how long the answer may get.
    """

    unpriced: list[str]
    without_rate: list[str]
    unbounded: list[str]


def stopped_models(organization) -> Stopped:
    """The models that answer, as far as a hard limit refuses them."""
    answering = exchange_rates.priced_in(organization).filter(
        disabled_at=None, provider__disabled_at=None, provider__removed_at=None
    )
    rows = list(answering.order_by("public_name"))
    costed = exchange_rates.costed(organization, {row.price_currency for row in rows})
    found = Stopped([], [], [])
    for row in rows:
        # What a model can do is not always known.
        does = {*row.capabilities} or WRITING
        if row.price_currency in costed:
            if does & WRITING and not (row.max_output_tokens or row.context_window):
                found.unbounded.append(row.public_name)
        elif does != {moderations.NAME}:
            # Moderations are free unless they have a price.
            (found.without_rate if row.price_currency else found.unpriced).append(row.public_name)
    return found


# The ledger ----------------------------------------------------------------------------------------------------------


def intervals_of(limit):
    """The intervals of a limit's scope, newest first, with what processes drew of each and what became of it."""
    rows = LedgerPeriod.objects.filter(
        organization=limit.organization_id, scope=limit.scope, scope_id=limit.scope_id, period=limit.period
    )
    orphaned = Q(leases__state=SpendLease.State.ORPHANED)
    return rows.annotate(
        reserved_nanos=Sum("leases__granted_nanos", default=0),
        released_nanos=Sum("leases__released_nanos", default=0),
        orphaned_nanos=Sum("leases__remaining_nanos", filter=orphaned, default=0),
        lease_count=Count("leases"),
    ).order_by("-start")


def leases_of(interval):
    """What processes hold or held of an interval: what is still held first, then the latest."""
    is_closed = Case(When(state=SpendLease.State.CLOSED, then=1), default=0)
    leases = interval.leases.select_related("process")
    return list(leases.order_by(is_closed, "-changed_at", "-pk")[:MOST_LEASES])


# Wishes --------------------------------------------------------------------------------------------------------------


def wishes(organization, member):
    """Who asked for more: all of them for those who manage, else one's own; those that wait first."""
    found = LimitIncrease.objects.filter(spend_limit__organization=organization)
    if not member.may(Member.Role.ADMIN):
        found = found.filter(requested_by=member.user_id)
    waits = Case(When(state=LimitIncrease.State.PENDING, then=0), default=1)
    people = ("spend_limit", "requested_by", "decided_by")
    return found.select_related(*people).order_by(waits, "-requested_at", "-pk")


def fresh_wishes(organization, member, now=None):
    """The wishes that a page of limits shows: what waits for the reader, and what became of their own lately."""
    since = (now or timezone.now()) - datetime.timedelta(days=WISH_DAYS)
    pending = Q(state=LimitIncrease.State.PENDING)
    own = Q(requested_by=member.user_id, requested_at__gte=since)
    return list(wishes(organization, member).filter(pending | own)[:LATEST_WISHES])


def waiting_wishes(member):
    """How many wishes wait for an answer of those who manage; the sidebar's count."""
    pending = LimitIncrease.State.PENDING
    return LimitIncrease.objects.filter(spend_limit__organization=member.organization_id, state=pending).count()


def administrators(organization):
    """Who answers wishes, owners first."""
    manage = [Member.Role.OWNER, Member.Role.ADMIN]
    members = Member.objects.filter(organization=organization, role__in=manage, user__is_active=True)
    return [member.user for member in members.select_related("user").order_by("-role", "pk")]
