import time

import pytest
from django.db import OperationalError, connection

from gateway.drainer import Drainer
from gateway.journal import Journal
from tests.factories import make_api_key
from tests.gateway.records import closed, opened
from usage import records
from usage.models import RequestLog, UsageRollup
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
