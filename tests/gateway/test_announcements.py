"""What one process announces is heard by the others at once, on PostgreSQL; elsewhere they look for themselves."""

import asyncio
import contextlib

import pytest
from django.db import connection, transaction

from console import services
from console.announcements import LEDGER, REVISION, announce
from gateway import announcements, snapshot
from gateway.announcements import Listener
from gateway.snapshot import SnapshotKeeper
from tests.factories import make_api_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.anyio]

on_postgresql = pytest.mark.skipif("connection.vendor != 'postgresql'", reason="nothing else passes it on")


async def in_thread(function, *arguments):
    """Call what uses the database, on a connection of its own."""

    def call():
        try:
            return function(*arguments)
        finally:
            connection.close()

    return await asyncio.to_thread(call)


async def until(true, seconds=5):
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def listening(**hearers):
    """A listener that is connected."""
    listener = Listener(hearers)
    listener.start()
    await until(lambda: listener.is_connected)
    yield listener
    await listener.stop()


def transaction_that(ends):
    """Announce something in a transaction, which is then committed or not."""
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        announce(LEDGER)
        announce(LEDGER)
        if ends == "rolls back":
            raise ZeroDivisionError


@on_postgresql
async def test_an_announcement_is_heard_once_when_its_transaction_commits(db):
    heard = []
    async with listening(ledger=lambda: heard.append(LEDGER), revision=lambda: heard.append(REVISION)):
        # Whoever has just connected may have missed something.
        assert sorted(heard) == [LEDGER, REVISION]
        heard.clear()
        await in_thread(transaction_that, "rolls back")
        await in_thread(transaction_that, "commits")
        await in_thread(announce, REVISION)
        await until(lambda: REVISION in heard)
        assert heard == [LEDGER, REVISION]


@on_postgresql
async def test_a_listener_that_was_cut_off_comes_back_and_looks(db, monkeypatch):
    monkeypatch.setattr(announcements, "RECONNECT_SECONDS", 0.05)
    heard = []

    def cut():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN comptoir'")
            assert cursor.fetchall() == [(True,)]

    async with listening(revision=lambda: heard.append(REVISION)) as listener:
        heard.clear()
        await in_thread(cut)
        await until(lambda: heard and listener.is_connected)
        heard.clear()
        await in_thread(announce, REVISION)
        await until(lambda: heard == [REVISION])


@pytest.mark.parametrize("poll", [pytest.param(60, marks=on_postgresql), 0.1], ids=["announced", "looked for"])
async def test_a_revoked_key_is_gone_from_the_snapshot_within_a_second(workspace, alice, monkeypatch, poll):
    monkeypatch.setattr(snapshot, "POLL_INTERVAL", poll)
    key = await in_thread(make_api_key, workspace)
    keeper = SnapshotKeeper()
    # Without announcements where they are not what is looked at.
    listener = Listener({REVISION: keeper.announced} if poll == 60 else {})
    await keeper.start()
    listener.start()
    await asyncio.sleep(0.2)
    assert bytes(key.digest) in keeper.current.keys
    await in_thread(lambda: services.revoke_api_key(api_key=key, actor=alice))
    await until(lambda: bytes(key.digest) not in keeper.current.keys, seconds=1)
    await listener.stop()
    await keeper.stop()
