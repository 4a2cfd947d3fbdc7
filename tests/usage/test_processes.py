"""How long it is told which processes there were, and what they drew."""

import datetime

import pytest
from django.utils import timezone

from tests.gateway.records import closed, opened
from usage import processes
from usage.calendar import calendar_of
from usage.models import GatewayProcess, LedgerPeriod, SpendLease
from usage.processes import TOLD, delete_old
from usage.records import Record, write_batch
from usage.tasks import delete_old_leases

pytestmark = pytest.mark.django_db


def process(uid, seen_at, ended_at=None):
    return GatewayProcess.objects.create(uid=uid, host="host", pid=1, seen_at=seen_at, ended_at=ended_at)


def lease(workspace, uid, moment, remaining=0, state="closed"):
    """What a process drew of the workspace's day of ``moment``."""
    start, end = calendar_of(workspace.organization.time_zone).interval("day", moment)
    day = {"organization": workspace.organization, "scope": "workspace", "scope_id": workspace.pk, "period": "day"}
    book, _made = LedgerPeriod.objects.get_or_create(**day, start=start, defaults={"end": end})
    LedgerPeriod.objects.filter(pk=book.pk).update(leased_nanos=remaining)
    sums = {"granted_nanos": 10, "released_nanos": 10 - remaining, "remaining_nanos": remaining}
    return SpendLease.objects.create(ledger_period=book, process_id=uid, state=state, **sums)


def test_what_was_drawn_long_ago_is_forgotten_and_who_drew_it_too(workspace, monkeypatch):
    monkeypatch.setattr(processes, "BATCH", 2)
    now = timezone.now()
    old = now - TOLD - datetime.timedelta(days=2)
    for number in range(5):
        lease(workspace, process(f"dead-{number}", old, old).pk, old)
    process("never-said-that-it-ended", old)
    lives = process("lives", now)
    # One that still runs has not returned its lease of a day long past, in which nothing is left.
    lease(workspace, lives.pk, old, state="open")
    late = lease(workspace, lives.pk, now - TOLD + datetime.timedelta(days=2), state="open")
    lost = lease(workspace, process("lost", old).pk, old, remaining=7, state="orphaned")
    process("ended-lately", now, now)

    assert delete_old() == (6, 6)

    assert set(SpendLease.objects.all()) == {late, lost}
    assert set(GatewayProcess.objects.values_list("pk", flat=True)) == {"lives", "lost", "ended-lately"}
    assert LedgerPeriod.objects.get(pk=lost.ledger_period_id).leased_nanos == 7
    delete_old_leases()
    assert SpendLease.objects.count() == 2


def test_a_row_that_arrives_after_its_lease_was_forgotten_is_settled(workspace):
    old = timezone.now() - TOLD - datetime.timedelta(days=2)
    drawn = lease(workspace, process("dead", old, old).pk, old)
    delete_old()
    moment = int(old.timestamp() * 1_000_000)
    row = opened(workspace, started_us=moment, leases=[drawn.pk])[1]
    write_batch([Record(row, closed(cost_nanos=500))])
    book = LedgerPeriod.objects.get(pk=drawn.ledger_period_id)
    assert (book.settled_nanos, book.leased_nanos) == (500, 0)
