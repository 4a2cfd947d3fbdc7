import time

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from gateway.drainer import Drainer
from gateway.journal import Journal, forget
from tests.books import ledger_differences
from tests.factories import make_api_key
from tests.gateway.records import closed, opened
from usage import ledger, records
from usage.calendar import calendar_of
from usage.models import GatewayProcess, LedgerPeriod, RequestLog, SpendLease, UsageRollup
from usage.rollups import disagreements

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def drainer(journal):
    drainer = Drainer(journal, keep_hours=24)
    yield drainer
    drainer.stop()


def eventually(true, seconds=10):
    """Wait until ``true()`` is."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_is_closed_becomes_a_row_with_its_rollups(workspace, journal, drainer):
    key = make_api_key(workspace)
    for number in range(25):
        ulid, first = opened(workspace, api_key_id=key.pk)
        entry = journal.open(ulid, first)
        if number < 20:
            entry.close(closed())
    drainer.start()
    eventually(lambda: RequestLog.objects.count() == 20)
    assert disagreements() == []
    key.refresh_from_db()
    assert key.last_used_at is not None


def test_a_dead_process_file_is_drained_once(workspace, journal, drainer):
    dead = Journal(journal.folder)
    for _ in range(4):
        ulid, first = opened(workspace)
        dead.open(ulid, first).close(closed())
    ulid, first = opened(workspace)
    dead.open(ulid, first)
    dead.close()
    drainer.start()
    eventually(lambda: RequestLog.objects.count() == 5)
    assert RequestLog.objects.get(pk=first.id).outcome == "interrupted"
    eventually(lambda: len(list(journal.folder.glob("*.drained"))) == 1)
    assert UsageRollup.objects.filter(width="day", outcome="completed").get().requests == 4


def test_records_wait_until_the_database_takes_them(workspace, journal, drainer):
    table = RequestLog._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    try:
        for _ in range(10):
            ulid, first = opened(workspace)
            journal.open(ulid, first).close(closed())
        drainer.start()
        eventually(lambda: drainer.failing_since is not None)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")
    eventually(lambda: RequestLog.objects.count() == 10)
    assert drainer.failing_since is None
    assert disagreements() == []


def test_a_record_that_no_database_takes_does_not_stop_the_others(workspace, journal, drainer):
    ids = []
    for tokens in (1, 2**64 - 1, 3):
        ulid, first = opened(workspace)
        journal.open(ulid, first).close(closed(output_tokens=tokens))
        ids.append(first.id)
    drainer.start()
    eventually(lambda: RequestLog.objects.count() == 2)
    assert not RequestLog.objects.filter(pk=ids[1]).exists()
    assert disagreements() == []


def rows_after_a_restart(folder):
    """How many rows there are once another process has taken the journal in ``folder`` over."""
    journal = Journal(folder)
    drainer = Drainer(journal, keep_hours=24)
    drainer.start()
    eventually(lambda: not [path for path in folder.glob("*.journal") if path != journal.segments[0].path])
    drainer.stop()
    journal.close()
    return RequestLog.objects.count()


def test_a_process_that_ends_while_the_database_is_away_leaves_its_records(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.journal.SEGMENT_BYTES", 64 * 1024)
    journal = Journal(tmp_path / "journal")
    drainer = Drainer(journal, keep_hours=24)
    for _ in range(400):
        ulid, first = opened(workspace)
        journal.open(ulid, first).close(closed())
    assert len(journal.segments) > 1
    # The file of a process that died before does not get in the way.
    dead = Journal(journal.folder)
    ulid, first = opened(workspace)
    dead.open(ulid, first).close(closed())
    dead.close()

    def away(records):
        raise OperationalError("away")

    with monkeypatch.context() as context:
        context.setattr("usage.records.write_batch", away)
        drainer.start()
        eventually(lambda: drainer.failing_since is not None)
        drainer.stop()
        journal.close()
    assert RequestLog.objects.count() == 0
    assert rows_after_a_restart(journal.folder) == 401


def test_after_a_clean_stop_nothing_is_left_to_take_over(workspace, journal, drainer):
    drainer.start()
    for _ in range(3):
        ulid, first = opened(workspace)
        journal.open(ulid, first).close(closed())
    drainer.stop()
    assert RequestLog.objects.count() == 3
    assert not list(journal.folder.glob("*.journal"))
    assert len(list(journal.folder.glob("*.drained"))) == 1


def test_a_request_that_is_open_at_the_stop_is_left_to_the_next_process(workspace, journal, drainer):
    drainer.start()
    ulid, first = opened(workspace)
    journal.open(ulid, first)
    drainer.stop()
    assert RequestLog.objects.count() == 0
    journal.close()
    assert rows_after_a_restart(journal.folder) == 1
    assert RequestLog.objects.get().outcome == "interrupted"


def test_a_journal_that_was_closed_first_keeps_its_files(workspace, journal):
    segment = journal.segments[0]
    journal.close()
    journal.release(segment)
    assert segment.path.exists()


def test_a_round_that_fails_for_whatever_reason_is_tried_again(workspace, journal, drainer, monkeypatch):
    real, failures = records.write_batch, iter([RuntimeError("a fault of ours"), ValueError("another")])

    def failing(batch):
        for failure in failures:
            raise failure
        return real(batch)

    monkeypatch.setattr("usage.records.write_batch", failing)
    for _ in range(30):
        ulid, first = opened(workspace)
        journal.open(ulid, first).close(closed())
    drainer.start()
    eventually(lambda: RequestLog.objects.count() == 30)


# What dead processes held ----------------------------------------------------------------------------------------


def lease_of(journal, organization, nanos=1_000_000):
    """What the journal's process holds of this month."""
    ledger.register(uid=journal.uid, host="here", pid=1)
    start, end = calendar_of(organization.time_zone).interval("month", timezone.now())
    month, _made = LedgerPeriod.objects.get_or_create(
        organization=organization, scope="organization", scope_id=organization.pk, period="month", start=start, end=end
    )
    LedgerPeriod.objects.filter(pk=month.pk).update(leased_nanos=month.leased_nanos + nanos)
    return SpendLease.objects.create(
        ledger_period=month, process_id=journal.uid, granted_nanos=nanos, remaining_nanos=nanos
    )


def process_files(folder):
    return {path.stem for path in folder.glob("*.process")}


def test_what_a_dead_process_held_returns_once_its_rows_are_in(workspace, journal, drainer, monkeypatch):
    dead, living = Journal(journal.folder), Journal(journal.folder)
    held, kept = lease_of(dead, workspace.organization), lease_of(living, workspace.organization, 7)
    ulid, first = opened(workspace, leases=(held.pk,))
    dead.open(ulid, first).close(closed(cost_nanos=300_000))
    assert process_files(journal.folder) == {journal.uid, dead.uid, living.uid}
    dead.close()
    refuse = True
    write_batch, returned_before = records.write_batch, []

    def refusing(batch):
        held.refresh_from_db()
        returned_before.append(held.state != SpendLease.State.OPEN)
        if refuse:
            raise OperationalError("away")
        return write_batch(batch)

    monkeypatch.setattr("usage.records.write_batch", refusing)
    drainer.start()
    eventually(lambda: drainer.failing_since is not None)
    assert process_files(journal.folder) == {journal.uid, dead.uid, living.uid}
    refuse = False
    eventually(lambda: process_files(journal.folder) == {journal.uid, living.uid})
    assert not any(returned_before)
    held.refresh_from_db()
    month = LedgerPeriod.objects.get(pk=held.ledger_period_id)
    assert (held.state, held.settled_nanos, held.released_nanos, held.remaining_nanos) == (
        SpendLease.State.CLOSED,
        300_000,
        700_000,
        0,
    )
    # What the living one holds is all that is left.
    assert (month.settled_nanos, month.leased_nanos) == (300_000, 7)
    assert ledger_differences() == []
    ended = dict(GatewayProcess.objects.values_list("uid", "ended_at"))
    assert ended[dead.uid] is not None and ended[living.uid] is None
    kept.refresh_from_db()
    assert kept.state == SpendLease.State.OPEN
    living.close()


def test_a_ledger_that_does_not_answer_is_told_later(workspace, journal, drainer, monkeypatch):
    monkeypatch.setattr("gateway.drainer.TAKE_OVER_INTERVAL", 0)
    dead = Journal(journal.folder)
    held = lease_of(dead, workspace.organization)
    dead.close()
    close_process, failures = ledger.close_process, iter([OperationalError("away"), OperationalError("still away")])

    def failing(uid, **options):
        for failure in failures:
            raise failure
        close_process(uid, **options)

    monkeypatch.setattr("usage.ledger.close_process", failing)
    drainer.start()
    eventually(lambda: process_files(journal.folder) == {journal.uid})
    held.refresh_from_db()
    assert (held.state, held.remaining_nanos) == (SpendLease.State.CLOSED, 0)


def test_several_drainers_take_a_dead_process_over_exactly_once(workspace, journal, monkeypatch):
    monkeypatch.setattr("gateway.journal.SEGMENT_BYTES", 64 * 1024)
    dead = Journal(journal.folder)
    held = lease_of(dead, workspace.organization, 10_000)
    for _ in range(400):
        ulid, first = opened(workspace, leases=(held.pk,))
        dead.open(ulid, first).close(closed(cost_nanos=20))
    assert len(dead.segments) > 1
    dead.close()
    drainers = [Drainer(journal, keep_hours=24) for _ in range(4)]
    # They share what is their own: it is empty.
    for drainer in drainers:
        drainer._drain_own = lambda last=False: True
        drainer.start()
    eventually(lambda: process_files(journal.folder) == {journal.uid})
    for drainer in drainers:
        drainer.stop()
    held.refresh_from_db()
    assert RequestLog.objects.count() == 400
    assert (held.settled_nanos, held.released_nanos, held.remaining_nanos) == (8_000, 2_000, 0)
    assert ledger_differences() == []


def test_a_process_that_returned_everything_itself_leaves_no_trace(journal, drainer):
    drainer.start()
    assert not journal.is_drained
    drainer.stop()
    assert journal.is_drained
    journal.close(is_returned=True)
    assert process_files(journal.folder) == set()


def test_a_process_that_returned_everything_but_has_an_open_request_is_taken_over(workspace, journal, drainer):
    drainer.start()
    journal.open(*opened(workspace))
    drainer.stop()
    assert not journal.is_drained
    journal.close(is_returned=True)
    assert process_files(journal.folder) == {journal.uid}
    assert rows_after_a_restart(journal.folder) == 1


def test_a_file_without_a_process_is_drained_too(workspace, journal, drainer):
    dead = Journal(journal.folder)
    ulid, first = opened(workspace)
    dead.open(ulid, first).close(closed())
    dead.close()
    forget(journal.folder, dead.uid)
    drainer.start()
    eventually(lambda: RequestLog.objects.filter(pk=first.id).exists())
