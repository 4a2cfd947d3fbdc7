"""
The ledger: what every scope spent in every period, and what processes hold of it. The only truth about spending.

A hard limit holds because nothing is spent that was not held before: ``settled + leased <= amount`` at every commit.
A process draws a lease, a slice of each scope that a request counts in, gives out of it in memory, and settles what
requests cost with their rows, in one transaction. Every function is safe to run in many processes at once and, but for
``give_back``, to repeat.
"""

import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from console import audit
from console.announcements import LEDGER, announce
from console.models import Organization
from console.revision import bump_revision
from usage.calendar import calendar_of
from usage.models import GatewayProcess, LedgerPeriod, Scope, SpendLease, SpendLimit, SpendPeriod

# A process that has not been seen for so long is taken for lost, with what it holds.
LEASE_SECONDS = 900
# One that is heard of each minute and was not for so long does not answer.
SILENT_SECONDS = 75
# Below so many times the largest reservation a process, nothing is handed out ahead.
TIGHT = 4
# How soon others are asked again to give back what lies idle.
ASK_AGAIN = datetime.timedelta(milliseconds=50)
PERIODS = tuple(period.value for period in SpendPeriod)
# In the order of the ids of a row: organization, workspace, API key, person.
SCOPES = (Scope.ORGANIZATION.value, Scope.WORKSPACE.value, Scope.API_KEY.value, Scope.MEMBER.value)
QUARTER = 900


class Key(NamedTuple):
    """One interval of one scope, as ``LedgerPeriod`` is unique by it; times are aware."""

    organization_id: int
    scope: str
    scope_id: int
    period: str
    start: datetime.datetime
    end: datetime.datetime


class Want(NamedTuple):
    """A request that waits: the intervals that it counts in, and the most that it can cost."""

    keys: tuple[Key, ...]
    nanos: int


class Ahead(NamedTuple):
    """What a process has of an interval at hand, how much it would like to have, and the largest request so far."""

    at_hand: int
    target: int
    largest: int


class Grant(NamedTuple):
    """
    What a process holds of an interval after it asked, and what stands against it.

    ``granted`` and ``released`` are the sums of its lease's whole life. ``amount`` is the limit at that moment, and
    ``None`` where there is no hard one any more; ``settled`` what was spent, ``held`` what leases hold, ``others`` what
    of it is not this process's. ``is_tight`` says that nothing was handed out ahead, and that what is left over must
    come back at once; ``others_idle`` that another process may give some back; ``raised_until`` when
    the limit is lowered again, where a part of it was granted on top.
    """

    lease_id: int
    granted: int
    released: int
    amount: int | None
    settled: int
    held: int
    others: int
    is_tight: bool
    others_idle: bool
    raised_until: datetime.datetime | None = None

    @property
    def free(self):
        """What nobody holds and nobody has spent; below zero where the limit was lowered since."""
        return self.amount - self.settled - self.held


# Settling --------------------------------------------------------------------------------------------------------


def add(rows):
    """
    Settle request rows, given as dicts of columns with their ``leases`` and what was held in each.

    Call it in the transaction that inserted them, with those rows alone. The interval is that of the request's arrival.
    What a request cost beyond what was held is nobody's to give out: it is spent, and what lies idle is asked back.
    """
    spent, leased = {}, {}
    for row in rows:
        cost = row["cost_nanos"]
        if not cost:
            continue
        # By quarters of an hour first: every zone's days begin on one, and there are far fewer of them than rows.
        quarter = int(row["started_at"].timestamp()) // QUARTER
        who = quarter, row["organization_id"], row["workspace_id"], row["api_key_id"], row["user_id"]
        before, is_more = spent.get(who, (0, False))
        for lease_id in row["leases"]:
            leased[lease_id] = leased.get(lease_id, 0) + min(cost, row["held_nanos"])
        spent[who] = before + cost, is_more or (bool(row["leases"]) and cost > row["held_nanos"])
    if not spent:
        return
    sums, passed = _by_interval(spent)
    ids = _ids_of(sums)
    _lock(ids.values())
    _settle_leases(leased)
    for key, cost in sums.items():
        LedgerPeriod.objects.filter(pk=ids[key]).update(settled_nanos=F("settled_nanos") + cost)
    if passed:
        intervals = LedgerPeriod.objects.filter(pk__in=[ids[key] for key in passed], leased_nanos__gt=0)
        intervals.update(recalled_at=timezone.now())
        announce(LEDGER)


def _by_interval(spent):
    """What was spent in each interval of each scope, and in which of them somebody spent more than was held."""
    sums, passed = {}, set()
    calendars = calendars_of({who[1] for who in spent})
    for (quarter, organization_id, *ids), (cost, is_more) in spent.items():
        moment = datetime.datetime.fromtimestamp(quarter * QUARTER, datetime.UTC)
        for period in PERIODS:
            start, end = calendars[organization_id].interval(period, moment)
            for scope, scope_id in zip(SCOPES, (organization_id, *ids), strict=True):
                if scope_id is not None:
                    key = Key(organization_id, scope, scope_id, period, start, end)
                    sums[key] = sums.get(key, 0) + cost
                    if is_more:
                        passed.add(key)
    return sums, passed


def _settle_leases(costs):
    """Take what requests cost out of the leases that it was reserved from. Their intervals are locked."""
    now = timezone.now()
    for lease in SpendLease.objects.filter(pk__in=costs):
        cost = costs[lease.pk]
        if lease.state == SpendLease.State.CLOSED:
            # It came to light after the rest had been released: so much of that was spent after all.
            SpendLease.objects.filter(pk=lease.pk).update(
                settled_nanos=F("settled_nanos") + cost, released_nanos=F("released_nanos") - cost, changed_at=now
            )
            continue
        SpendLease.objects.filter(pk=lease.pk).update(
            settled_nanos=F("settled_nanos") + cost, remaining_nanos=F("remaining_nanos") - cost, changed_at=now
        )
        LedgerPeriod.objects.filter(pk=lease.ledger_period_id).update(leased_nanos=F("leased_nanos") - cost)


def calendars_of(organization_ids):
    """``{id: calendar}`` of organizations."""
    zones = dict(Organization.objects.filter(pk__in=organization_ids).values_list("pk", "time_zone"))
    # A row may outlive its organization; its days are then those of UTC.
    return {pk: calendar_of(zones.get(pk, "UTC")) for pk in organization_ids}


def _ids_of(keys):
    """``{key: id}`` of the intervals, which are made where they are missing."""
    starts = {key.start for key in keys}
    wanted = {key[:5] for key in keys}
    found = _find(wanted, starts)
    if missing := [key for key in keys if key[:5] not in found]:
        LedgerPeriod.objects.bulk_create(
            [LedgerPeriod(**key._asdict()) for key in sorted(missing)],
            ignore_conflicts=True,
        )
        found |= _find({key[:5] for key in missing}, starts)
    return {key: found[key[:5]] for key in keys}


def _find(wanted, starts):
    rows = LedgerPeriod.objects.filter(
        organization_id__in={key[0] for key in wanted},
        scope__in={key[1] for key in wanted},
        scope_id__in={key[2] for key in wanted},
        start__in=starts,
    ).values_list("organization_id", "scope", "scope_id", "period", "start", "pk")
    return {row[:5]: row[5] for row in rows if row[:5] in wanted}


def _lock(ids):
    """
    Hold the intervals until the transaction ends, always in the same order, so that none waits for another in a ring.

    Leases are written only by who holds their interval. On SQLite every transaction excludes the others anyway.
    """
    return {row.pk: row for row in LedgerPeriod.objects.select_for_update().filter(pk__in=list(ids)).order_by("pk")}


# Leases ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def register(*, uid, host, pid):
    """Enter a process that is about to answer calls."""
    GatewayProcess.objects.get_or_create(uid=uid, defaults={"host": host[:200], "pid": pid})


def renew(uid):
    """Say that the process lives, and with it its leases; what was taken for lost is its own again."""
    now = timezone.now()
    GatewayProcess.objects.filter(pk=uid).update(seen_at=now, ended_at=None)
    SpendLease.objects.filter(process=uid, state=SpendLease.State.ORPHANED).update(
        state=SpendLease.State.OPEN, changed_at=now
    )


@transaction.atomic
def draw(uid, wants: list[Want], ahead: dict[Key, Ahead]) -> tuple[list[Key | None], dict[Key, Grant]]:
    """
    Grant the process what those who wait need, each in all its intervals or in none, and something ahead of need.

    Returns for each of ``wants`` the interval that has not enough for it, or ``None``; and how each interval stands.
    Every key of ``wants`` is one of ``ahead``. What is granted commits before anything is reserved from it. Raises
    ``django.db.Error``.
    """
    ids = _ids_of(ahead)
    intervals = _lock(ids.values())
    limits = {
        (limit.organization_id, limit.scope, limit.scope_id, limit.period): limit
        for limit in SpendLimit.objects.filter(
            organization_id__in={key.organization_id for key in ahead},
            scope_id__in={key.scope_id for key in ahead},
            is_hard=True,
        )
    }
    leases = {
        lease.ledger_period_id: lease for lease in SpendLease.objects.filter(process=uid, ledger_period__in=intervals)
    }
    processes, now = _count_living(), timezone.now()
    drawers = {}
    for key, held in ahead.items():
        interval, limit = intervals[ids[key]], limits.get(key[:4])
        lease = leases.get(interval.pk) or SpendLease(ledger_period=interval, process_id=uid, created_at=now)
        drawers[key] = _Drawer(interval, lease, limit, held, now)
    short = [_grant(want, drawers) for want in wants]
    for key in set(short) - {None}:
        drawers[key].recall(uid, now)
    return short, {key: drawer.finish(processes, now) for key, drawer in drawers.items()}


def _count_living():
    since = timezone.now() - datetime.timedelta(seconds=LEASE_SECONDS)
    return max(GatewayProcess.objects.filter(ended_at=None, seen_at__gte=since).count(), 1)


def _grant(want, drawers):
    """Take what a request needs from all its intervals, and nothing where one of them is short: that one's key."""
    for key in want.keys:
        if not drawers[key].has(want.nanos):
            return key
    for key in want.keys:
        drawers[key].take(want.nanos)
    return None


class _Drawer:
    """One interval while a process draws from it; its row is locked."""

    def __init__(self, interval, lease, limit, ahead, now):
        self.interval, self.lease = interval, lease
        self.amount = limit.amount_at(now) if limit else None
        self.raised_until = limit.raised_until if limit and self.amount > limit.amount_nanos else None
        self.at_hand, self.target, self.largest = ahead
        self.free = 0 if limit is None else self.amount - interval.settled_nanos - interval.leased_nanos
        self.granted = 0
        self.others_idle = False
        self.recalled_at = interval.recalled_at

    def has(self, nanos):
        return self.amount is None or nanos <= max(self.at_hand, 0) + self.free

    def take(self, nanos):
        if self.amount is None:
            return
        used = min(nanos, max(self.at_hand, 0))
        self.at_hand -= used
        self.free -= nanos - used
        self.granted += nanos - used

    def recall(self, uid, now):
        """Ask other processes for what lies idle at them, where there is such."""
        leases = SpendLease.objects.filter(ledger_period=self.interval, state=SpendLease.State.OPEN, has_idle=True)
        # A process that says nothing any more gives nothing back: what it held is free when its journal is taken over.
        alive = now - datetime.timedelta(seconds=SILENT_SECONDS)
        others = leases.exclude(process=uid).filter(remaining_nanos__gt=0, process__seen_at__gte=alive)
        self.others_idle = others.exists()
        # Whoever has been asked a moment ago is about to answer: near the end of a limit all ask at once.
        if self.others_idle and (self.recalled_at is None or abs(now - self.recalled_at) > ASK_AGAIN):
            self.recalled_at = now
            announce(LEDGER)

    def finish(self, processes, now):
        """Hand out ahead what can be spared, write what has changed and say how it stands."""
        interval, lease = self.interval, self.lease
        is_tight = self.amount is not None and self.free < TIGHT * processes * self.largest
        spare = 0
        if self.amount is not None and not is_tight:
            # Half of a process's share at most, so that the others find something too.
            spare = max(min(self.target - self.at_hand, self.free // (2 * processes)), 0)
            # Where there is enough to hand out ahead, nobody need give anything back.
            self.recalled_at = None
        if self.granted or spare or (lease.pk is None and self.amount is not None):
            lease.granted_nanos += self.granted + spare
            lease.remaining_nanos += self.granted + spare
            lease.has_idle = lease.has_idle or spare > 0
            lease.state, lease.changed_at = SpendLease.State.OPEN, now
            lease.save()
        held = interval.leased_nanos + self.granted + spare
        if held != interval.leased_nanos or self.recalled_at != interval.recalled_at:
            LedgerPeriod.objects.filter(pk=interval.pk).update(leased_nanos=held, recalled_at=self.recalled_at)
        return Grant(
            lease.pk or 0,
            lease.granted_nanos,
            lease.released_nanos,
            self.amount,
            interval.settled_nanos,
            held,
            held - lease.remaining_nanos,
            is_tight,
            self.others_idle,
            self.raised_until,
        )


@transaction.atomic
def give_back(amounts: dict[int, int]):
    """
    Return nanos that leases hold, by their ids, and that no request counts on; nothing idle is left then.

    Not safe to repeat: where it is not known whether it worked, the next ``draw`` tells the lease's sums.
    """
    period_ids = dict(SpendLease.objects.filter(pk__in=amounts).values_list("pk", "ledger_period_id"))
    _lock(period_ids.values())
    now = timezone.now()
    for lease_id, period_id in sorted(period_ids.items()):
        nanos = amounts[lease_id]
        # What was taken for lost and released is not the process's any more.
        held = SpendLease.objects.filter(pk=lease_id).exclude(state=SpendLease.State.CLOSED)
        if held.update(
            released_nanos=F("released_nanos") + nanos,
            remaining_nanos=F("remaining_nanos") - nanos,
            has_idle=False,
            changed_at=now,
        ):
            LedgerPeriod.objects.filter(pk=period_id).update(leased_nanos=F("leased_nanos") - nanos)


def recalled(uid) -> list[int]:
    """The leases of the process of which another one asked for what lies idle."""
    return list(
        SpendLease.objects.filter(process=uid, has_idle=True, ledger_period__recalled_at__isnull=False).values_list(
            "pk", flat=True
        )
    )


@transaction.atomic
def close_process(uid, *, taken_over_by=""):
    """
    Return all that a process held which will answer no more calls, and whose rows are all in the database.

    ``taken_over_by`` is the process that has drained its journal, where it could not itself.
    """
    leases = SpendLease.objects.filter(process=uid).exclude(state=SpendLease.State.CLOSED)
    _lock(set(leases.values_list("ledger_period_id", flat=True)))
    now = timezone.now()
    for lease in leases.order_by("pk"):
        LedgerPeriod.objects.filter(pk=lease.ledger_period_id).update(
            leased_nanos=F("leased_nanos") - lease.remaining_nanos
        )
        lease.released_nanos += lease.remaining_nanos
        lease.remaining_nanos, lease.has_idle = 0, False
        lease.state, lease.changed_at = SpendLease.State.CLOSED, now
        lease.save()
    GatewayProcess.objects.filter(pk=uid, ended_at=None).update(ended_at=now, taken_over_by=taken_over_by)


def mark_orphans(now=None) -> int:
    """
    Mark what processes hold that are lost; return how many leases.

    It stays counted: nobody knows whether it was spent, until its journal turns up or somebody releases it.
    """
    before = (now or timezone.now()) - datetime.timedelta(seconds=LEASE_SECONDS)
    return (
        SpendLease.objects.filter(state=SpendLease.State.OPEN, process__seen_at__lt=before, process__ended_at=None)
        .exclude(remaining_nanos=0)
        .update(state=SpendLease.State.ORPHANED, has_idle=False, changed_at=now or timezone.now())
    )


@transaction.atomic
def release_orphan(*, lease, actor=None) -> bool:
    """
    Take what a lost process held off its interval; return whether the lease was still orphaned.

    For somebody who knows that the process will not come back. What its journal settles later is counted all the same.
    """
    (interval,) = _lock([lease.ledger_period_id]).values()
    lease = SpendLease.objects.select_related("process").get(pk=lease.pk)
    if lease.state != SpendLease.State.ORPHANED:
        return False
    nanos, now = lease.remaining_nanos, timezone.now()
    SpendLease.objects.filter(pk=lease.pk).update(
        released_nanos=F("released_nanos") + nanos,
        remaining_nanos=0,
        has_idle=False,
        state=SpendLease.State.CLOSED,
        changed_at=now,
    )
    LedgerPeriod.objects.filter(pk=interval.pk).update(leased_nanos=F("leased_nanos") - nanos)
    audit.record(
        organization=interval.organization,
        actor=actor,
        action="spend_lease.released",
        target=interval,
        process=str(lease.process),
        amount_nanos=nanos,
    )
    bump_revision()
    return True
