import asyncio
import datetime
import threading
import time

import pytest
from django.db import OperationalError
from django.utils import timezone

from gateway import leases as module
from gateway.leases import Exhausted, Leases, Unavailable
from tests.books import ledger_differences
from tests.gateway.records import closed, opened
from usage import ledger
from usage.calendar import calendar_of
from usage.ledger import Key
from usage.models import GatewayProcess, LedgerPeriod, Scope, SpendLease, SpendLimit
from usage.records import Record, write_batch
from usage.spend_limits import remove_spend_limit, set_spend_limit

pytestmark = pytest.mark.django_db(transaction=True)


def key_of(workspace, scope=Scope.ORGANIZATION):
    scope_id = workspace.organization_id if scope == Scope.ORGANIZATION else workspace.pk
    start, end = calendar_of("UTC").interval("month", timezone.now())
    return Key(workspace.organization_id, scope.value, scope_id, "month", start, end)


def limit(workspace, amount, scope=Scope.ORGANIZATION):
    return set_spend_limit(
        organization=workspace.organization,
        scope=scope,
        scope_id=key_of(workspace, scope).scope_id,
        period="month",
        amount_nanos=amount,
    )


class World:
    """Some processes with leases of their own on one event loop."""

    def __init__(self, *names):
        self.processes = [Leases(name) for name in names]

    async def __aenter__(self):
        for process in self.processes:
            process.start()
        return self.processes

    async def __aexit__(self, *_exc):
        for process in self.processes:
            await process.stop()
            await asyncio.to_thread(process.close, is_settled=True)


def run(coroutine):
    return asyncio.run(coroutine)


def test_what_is_at_hand_is_given_without_a_question(workspace):
    limit(workspace, 100_000)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            assert one.reserve((account,), 100) is None
            first = await one.reserve_or_wait((account,), 100)
            assert (account.held, account.free) == (100, 1_000)
            second = one.reserve((account,), 400)
            assert second is not None
            one.settle(first, 30)
            one.settle(second, 400)
            one.settle(second, 400)
            assert (account.held, account.spent, account.free) == (0, 430, 670)

    run(story())
    book = LedgerPeriod.objects.get(scope="organization", period="month")
    # Its rows never came, so what was spent went back as well.
    assert (book.settled_nanos, book.leased_nanos) == (0, 0)


def test_the_last_nano_is_given_once(workspace):
    limit(workspace, 1_000)

    async def story():
        async with World("one", "two", "three") as processes:
            accounts = [process.account(key_of(workspace), calendar_of("UTC")) for process in processes]

            async def ask(number):
                process, account = processes[number % 3], accounts[number % 3]
                try:
                    return process, await process.reserve_or_wait((account,), 100)
                except Exhausted as error:
                    assert error.grant.amount == 1_000
                    return None

            granted = [found for found in await asyncio.gather(*map(ask, range(40))) if found]
            assert len(granted) == 10
            for process, reservation in granted:
                process.settle(reservation, 10)
            # What came back is there for others within a moment.
            assert await processes[0].reserve_or_wait((accounts[0],), 100)

    run(story())
    assert SpendLease.objects.exclude(state="closed").count() == 0


def test_what_lies_idle_elsewhere_comes_back_before_anybody_is_refused(workspace):
    limit(workspace, 10_000)

    async def story():
        async with World("one", "two") as (one, two):
            first = one.account(key_of(workspace), calendar_of("UTC"))
            one.settle(await one.reserve_or_wait((first,), 100), 0)
            assert first.free > 1_000
            second = two.account(key_of(workspace), calendar_of("UTC"))
            assert await two.reserve_or_wait((second,), 10_000)
            assert first.free == 0

    run(story())


def test_a_request_that_left_while_it_waited_holds_nothing(workspace):
    limit(workspace, 100)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            waiting = [asyncio.create_task(one.reserve_or_wait((account,), 60)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (account.held, one.waiting) == (0, [])
            assert await one.reserve_or_wait((account,), 100)

    run(story())


def test_a_limit_that_is_gone_stops_nobody(workspace):
    row = limit(workspace, 10)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            with pytest.raises(Exhausted):
                await one.reserve_or_wait((account,), 100)
            await asyncio.to_thread(remove_spend_limit, limit=row)
            reservation = await one.reserve_or_wait((account,), 100)
            assert reservation.accounts == ()

    run(story())


def test_a_ledger_that_does_not_answer_leaves_what_is_at_hand(workspace, monkeypatch):
    limit(workspace, 100_000)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            await one.reserve_or_wait((account,), 100)
            there = account.free

            def gone(*_):
                raise OperationalError("gone")

            with monkeypatch.context() as patch:
                patch.setattr(ledger, "draw", gone)
                patch.setattr(module, "LONGEST_WAIT", 0.3)
                assert one.reserve((account,), there)
                with pytest.raises(Unavailable):
                    await one.reserve_or_wait((account,), 1)
            assert one.failing
            assert await one.reserve_or_wait((account,), 1)
            assert not one.failing

    run(story())


def test_a_ledger_that_takes_long_to_answer_refuses_nobody(workspace, monkeypatch):
    limit(workspace, 100_000)
    draw = ledger.draw

    def slow(*arguments):
        time.sleep(0.8)
        return draw(*arguments)

    monkeypatch.setattr(ledger, "draw", slow)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.1)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            assert await one.reserve_or_wait((account,), 100)
            assert not one.failing

    run(story())


def test_one_exchange_that_fails_late_refuses_nobody(workspace, monkeypatch):
    limit(workspace, 100_000)
    draw = ledger.draw

    def locked(*_):
        monkeypatch.setattr(ledger, "draw", draw)
        time.sleep(0.3)
        raise OperationalError("database is locked")

    monkeypatch.setattr(ledger, "draw", locked)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.2)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            assert await one.reserve_or_wait((account,), 100)

    run(story())


def test_a_ledger_that_says_nothing_is_away_after_a_while(workspace, monkeypatch):
    limit(workspace, 100_000)
    draw, ended = ledger.draw, threading.Event()

    def hanging(*arguments):
        ended.wait(10)
        return draw(*arguments)

    monkeypatch.setattr(ledger, "draw", hanging)
    monkeypatch.setattr(module, "PATIENCE", 0.4)
    monkeypatch.setattr(module, "PATIENCE_WHILE_AWAY", 0.05)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            for least, most in ((0.4, 2.0), (0.05, 0.35)):
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await one.reserve_or_wait((account,), 100)
                assert least <= time.monotonic() - began < most
            assert one.failing
            ended.set()
            monkeypatch.setattr(module, "PATIENCE_WHILE_AWAY", 10.0)
            assert await one.reserve_or_wait((account,), 100)
            assert not one.failing

    run(story())


def test_who_waited_long_for_the_first_answer_has_what_lies_idle_elsewhere_yet(workspace, monkeypatch):
    limit(workspace, 10_000)
    draw = ledger.draw

    async def story():
        async with World("one", "two") as (one, two):
            first = one.account(key_of(workspace), calendar_of("UTC"))
            one.settle(await one.reserve_or_wait((first,), 100), 0)
            assert first.free > 1_000
            second = two.account(key_of(workspace), calendar_of("UTC"))

            def slow_at_first(*arguments):
                monkeypatch.setattr(ledger, "draw", draw)
                found = draw(*arguments)
                time.sleep(0.8)
                return found

            monkeypatch.setattr(module, "LONGEST_WAIT", 0.75)
            monkeypatch.setattr(module, "RECALL_SECONDS", 0.01)
            monkeypatch.setattr(ledger, "draw", slow_at_first)
            # The other one looks only after it has answered.
            monkeypatch.setattr(ledger, "recalled", lambda uid: [])
            asking = asyncio.create_task(two.reserve_or_wait((second,), 10_000))
            await asyncio.sleep(0.85)
            monkeypatch.undo()
            one.recall()
            assert await asking

    run(story())


def test_the_way_to_the_ledger_is_made_before_anybody_waits(workspace):
    limit(workspace, 1_000)

    async def story():
        one, two = Leases("one"), Leases("two")
        one.start(is_limited=True)
        two.start()
        until = time.monotonic() + 5
        while not await asyncio.to_thread(GatewayProcess.objects.exists):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        for process in (one, two):
            await process.stop()
            assert await asyncio.to_thread(process.close, is_settled=False)

    run(story())
    # Where nothing limits, nobody needs a connection for it.
    assert [process.uid for process in GatewayProcess.objects.all()] == ["one"]


@pytest.mark.parametrize("error", [OperationalError("away"), OSError("no such host")])
def test_a_start_without_the_ledger_goes_on(workspace, monkeypatch, error):
    limit(workspace, 1_000)

    async def story():
        one, asked = Leases("one"), asyncio.Event()
        loop = asyncio.get_running_loop()

        def register(**_process):
            loop.call_soon_threadsafe(asked.set)
            raise error

        monkeypatch.setattr(ledger, "register", register)
        one.start(is_limited=True)
        await asyncio.wait_for(asked.wait(), 5)
        monkeypatch.undo()
        account = one.account(key_of(workspace), calendar_of("UTC"))
        assert await one.reserve_or_wait((account,), 10)
        await one.stop()
        await asyncio.to_thread(one.close, is_settled=False)

    run(story())


def test_enough_is_held_ahead_for_five_minutes_soon_after_spending_rises(workspace, monkeypatch):
    limit(workspace, 10**12)
    monkeypatch.setattr(module, "HOUSE_SECONDS", 0.2)

    async def story():
        async with World("one") as (one,):
            held = one.account(key_of(workspace), calendar_of("UTC"))
            for seconds, cost in ((1, 1_000), (6, 2_000)):
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    one.settle(await one.reserve_or_wait((held,), cost), cost)
                    await asyncio.sleep(0.02)
            assert held.burn > 50_000
            await asyncio.sleep(0.5)
            assert held.free > 330 * held.burn

    run(story())


def test_a_grant_whose_answer_was_lost_is_found_again(workspace, monkeypatch):
    limit(workspace, 1_000)
    draw = ledger.draw

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))

            def lost(*arguments):
                draw(*arguments)
                monkeypatch.setattr(ledger, "draw", draw)
                raise OperationalError("the connection broke after the commit")

            monkeypatch.setattr(ledger, "draw", lost)
            assert await one.reserve_or_wait((account,), 600)
            assert (account.granted, account.held) == (600, 600)

    run(story())


def test_what_was_spent_is_not_given_again(workspace):
    limit(workspace, 1_000)

    async def story():
        async with World("one", "two") as (one, two):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            reservation = await one.reserve_or_wait((account,), 900)
            record = Record(opened(workspace, leases=reservation.lease_ids)[1], closed(cost_nanos=700))
            one.settle(reservation, 700)
            other = two.account(key_of(workspace), calendar_of("UTC"))
            with pytest.raises(Exhausted):
                await two.reserve_or_wait((other,), 301)
            await asyncio.to_thread(write_batch, [record])
            with pytest.raises(Exhausted):
                await two.reserve_or_wait((other,), 301)
            assert await two.reserve_or_wait((other,), 300)

    run(story())
    assert ledger_differences() == []


def test_a_process_that_could_not_say_that_it_lives_spends_nothing(workspace, monkeypatch):
    limit(workspace, 100_000)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            await one.reserve_or_wait((account,), 100)
            now = module._now()
            monkeypatch.setattr(module, "_now", lambda: now + module.SPENDABLE_SECONDS + 1)
            assert one.reserve((account,), 100) is None

    run(story())


@pytest.mark.parametrize("is_idle", [True, False])
def test_what_was_released_of_a_process_that_comes_back_is_not_spent_again(workspace, monkeypatch, is_idle):
    limit(workspace, 10_000)
    limit(workspace, 10_000, Scope.WORKSPACE)

    def release():
        long_ago = timezone.now() - datetime.timedelta(seconds=2 * ledger.LEASE_SECONDS)
        GatewayProcess.objects.update(seen_at=long_ago)
        assert ledger.mark_orphans() == 1
        assert ledger.release_orphan(lease=SpendLease.objects.get())

    async def story():
        async with World("one") as (one,):
            account, other = (
                one.account(key_of(workspace, scope), calendar_of("UTC"))
                for scope in (Scope.ORGANIZATION, Scope.WORKSPACE)
            )
            await one.reserve_or_wait((account,), 100)
            assert account.free > 0
            await asyncio.to_thread(release)
            now = module._now()
            monkeypatch.setattr(module, "_now", lambda: now + module.SPENDABLE_SECONDS + 1)
            if not is_idle:
                account.used_at = module._now()
            # A request of another scope is enough for the process to be alive again.
            await one.reserve_or_wait((other,), 300)
            book = await asyncio.to_thread(LedgerPeriod.objects.get, scope="organization")
            assert book.leased_nanos == account.granted - account.released >= 0
            await one.reserve_or_wait((account,), 200)
            await asyncio.to_thread(book.refresh_from_db)
            # The first request goes on with nothing reserved for it; what else is at hand stands in the ledger.
            assert account.held == 300
            assert book.leased_nanos == account.granted - account.released >= account.held + account.free

    run(story())
    assert ledger_differences() == []


def test_what_was_drawn_for_one_who_left_goes_back(workspace, monkeypatch):
    limit(workspace, 1_000)
    draw, drawing = ledger.draw, asyncio.Event()

    async def story():
        loop = asyncio.get_running_loop()
        async with World("one", "two") as (one, two):
            account = one.account(key_of(workspace), calendar_of("UTC"))

            def slow(uid, *arguments):
                found = draw(uid, *arguments)
                if uid == "one":
                    loop.call_soon_threadsafe(drawing.set)
                    time.sleep(0.1)
                return found

            monkeypatch.setattr(ledger, "draw", slow)
            task = asyncio.create_task(one.reserve_or_wait((account,), 600))
            await drawing.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            monkeypatch.setattr(ledger, "draw", draw)
            other = two.account(key_of(workspace), calendar_of("UTC"))
            assert await two.reserve_or_wait((other,), 1_000)

    run(story())


def test_what_was_granted_on_top_is_not_spent_after_its_end(workspace):
    row = limit(workspace, 1_000)
    soon = timezone.now() + datetime.timedelta(seconds=0.5)
    SpendLimit.objects.filter(pk=row.pk).update(raised_nanos=99_000, raised_until=soon)

    async def story():
        async with World("one") as (one,):
            account = one.account(key_of(workspace), calendar_of("UTC"))
            assert await one.reserve_or_wait((account,), 900)
            assert account.free > 1_000
            await asyncio.sleep(0.6)
            assert one.reserve((account,), 200) is None
            with pytest.raises(Exhausted) as refused:
                await one.reserve_or_wait((account,), 200)
            assert refused.value.grant.amount == 1_000
            assert await one.reserve_or_wait((account,), 100)

    run(story())


def test_the_room_is_that_of_the_narrowest_limit(workspace):
    limit(workspace, 5_000)
    limit(workspace, 1_000, Scope.WORKSPACE)

    async def story():
        async with World("one") as (one,):
            keys = key_of(workspace), key_of(workspace, Scope.WORKSPACE)
            accounts = tuple(one.account(key, calendar_of("UTC")) for key in keys)
            with pytest.raises(Exhausted) as refused:
                await one.reserve_or_wait(accounts, 9_000)
            assert refused.value.room == 1_000

    run(story())


def test_a_neighbour_does_not_wait_behind_those_who_are_refused(workspace, charlie):
    limit(workspace, 100)
    elsewhere = charlie.last_workspace
    limit(elsewhere, 10**9)

    async def story():
        async with World("one") as (one,):
            full = one.account(key_of(workspace), calendar_of("UTC"))
            roomy = one.account(key_of(elsewhere), calendar_of("UTC"))
            await one.reserve_or_wait((full,), 100)
            crowd = [asyncio.create_task(one.reserve_or_wait((full,), 50)) for _ in range(600)]
            await asyncio.sleep(0)
            began = time.monotonic()
            assert await one.reserve_or_wait((roomy,), 50)
            assert time.monotonic() - began < 1.0
            await asyncio.gather(*crowd, return_exceptions=True)

    run(story())


def test_what_cost_more_than_it_could_gives_nobody_more_to_spend(workspace):
    limit(workspace, 10_000)

    async def story():
        async with World("one", "two") as (one, two):
            mine = one.account(key_of(workspace), calendar_of("UTC"))
            others = two.account(key_of(workspace), calendar_of("UTC"))
            two.settle(await two.reserve_or_wait((others,), 100), 0)
            assert others.free > 100
            reservation = await one.reserve_or_wait((mine,), 100)
            row = opened(workspace, leases=reservation.lease_ids, held_nanos=reservation.nanos)[1]
            one.settle(reservation, 1_000_000)
            await asyncio.to_thread(write_batch, [Record(row, closed(cost_nanos=1_000_000))])
            await asyncio.sleep(1.2)
            assert mine.free <= 0
            assert others.free <= 0
            for process, account in ((one, mine), (two, others)):
                with pytest.raises(Exhausted) as refused:
                    await process.reserve_or_wait((account,), 1)
                assert refused.value.grant.held == 0

    run(story())
    assert ledger_differences() == []
    assert not SpendLease.objects.filter(remaining_nanos__lt=0).exists()


def test_an_interval_that_is_long_over_is_forgotten_even_if_the_ledger_never_answered(workspace):
    limit(workspace, 1_000)

    async def story():
        async with World("one") as (one,):
            moment = timezone.now() - datetime.timedelta(days=62)
            start, end = calendar_of("UTC").interval("month", moment)
            over = one.account(key_of(workspace)._replace(start=start, end=end), calendar_of("UTC"))
            one._unsure.add(over)
            one._low.add(over)
            account = one.account(key_of(workspace), calendar_of("UTC"))
            assert await one.reserve_or_wait((account,), 100)
            assert set(one.accounts.values()) == {account}
            assert not one._unsure

    run(story())
