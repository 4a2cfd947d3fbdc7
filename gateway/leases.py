"""
What this process may spend without asking: slices of every limited interval, drawn from the ledger ahead of need.

A request reserves the most it can cost in memory, in every interval that it counts in, or waits for the ledger. The
event loop alone reads and writes accounts; a thread of its own speaks with the database.
"""

import asyncio
import contextlib
import itertools
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from django.db import Error, connection

from gateway import metrics
from usage import ledger
from usage.ledger import LEASE_SECONDS, Ahead, Key, Want

log = structlog.get_logger(__name__)

# A process that could not say that it lives stops spending so long before it is taken for lost.
SPENDABLE_SECONDS = LEASE_SECONDS - 60
RENEW_SECONDS = 60.0
HOUSE_SECONDS = 5.0
# How often others are listened to that ask for what lies idle here.
RECALL_SECONDS = 0.5
# What is drawn ahead lasts for so long, or for so many of the largest requests.
AHEAD_SECONDS = 450
# More is drawn where only this part of it is left, which lasts five minutes as long as no more is spent than before.
KEPT_SHARE = 0.75
RISE_SECONDS, FALL_SECONDS = 5.0, 60.0
AHEAD_REQUESTS = 10
# An interval that nobody has spent in for so long needs nothing ahead; the next one is drawn so long before it begins.
IDLE_SECONDS = 600.0
MOST_WAITING = 200
FORGET_SECONDS = 3600.0
RETURN_TIMEOUT = 5.0
# While the ledger has nothing, it is asked again so often: until nobody can give back, or a request has waited enough.
AGAIN_SECONDS = 0.06
LEAST_PAUSE = 0.01
SETTLING_SECONDS = 0.15
LONGEST_WAIT = 2.0
# A ledger that takes long to answer is waited for; of one that is away no more is expected.
PATIENCE = 10.0
PATIENCE_WHILE_AWAY = 2.5
# A clock that goes on while the machine sleeps, where there is one.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now():
    return time.clock_gettime(_CLOCK)


class Exhausted(Exception):
    """A limit has not enough left for a request, whoever gives back what they do not need."""

    def __init__(self, key: Key, grant, room):
        """``room`` is the most that one request could have now in all of its intervals."""
        super().__init__(key)
        self.key = key
        self.grant = grant
        self.room = room


class Unavailable(Exception):
    """The ledger does not answer, and what was drawn ahead is used up."""


class Account:
    """
    What this process holds of one interval: ``granted - released - held - spent`` is ``free``.

    ``held`` is reserved by requests under way, ``spent`` what of it its requests have cost, settled or not.
    ``due`` is what must go back, as the limit was lowered since it was drawn, and ``until`` when it will be.
    """

    __slots__ = (
        "burn", "calendar", "due", "end", "free", "granted", "held", "is_tight", "key", "largest", "lease_id", "low",
        "noted_at", "noted_spent", "released", "spent", "start", "until", "used_at",
    )  # fmt: skip

    def __init__(self, key: Key, calendar):
        self.key = key
        self.calendar = calendar
        self.start, self.end = key.start.timestamp(), key.end.timestamp()
        self.lease_id = 0
        self.granted = self.released = self.held = self.spent = self.free = 0
        # The largest reservation so far, and nanos a second; both decide how much is drawn ahead.
        self.largest = self.due = 0
        self.until = float("inf")
        self.burn = 0.0
        self.low = 0
        self.is_tight = False
        self.used_at = self.noted_at = _now()
        self.noted_spent = 0

    def reckon(self):
        self.free = self.granted - self.released - self.held - self.spent - self.due

    def take(self, grant):
        """Know what the ledger says of the lease."""
        self.lease_id, self.granted, self.released = grant.lease_id, grant.granted, grant.released
        self.is_tight = grant.is_tight
        self.until = grant.raised_until.timestamp() if grant.raised_until else float("inf")
        self.due = 0
        self.reckon()
        if grant.amount is not None and grant.free < 0:
            self.due = max(min(self.free, -grant.free), 0)
            self.reckon()
        self.low = 0 if grant.is_tight else self.free // 2

    def target(self):
        """How much to hold ahead; nothing where nobody has spent for a while."""
        if _now() - self.used_at > IDLE_SECONDS:
            return 0
        return int(self.burn * AHEAD_SECONDS) + 2 * self.held + AHEAD_REQUESTS * self.largest

    @property
    def runs_low(self):
        """Whether to ask for more before somebody must wait for it."""
        return not self.is_tight and self.free < self.target() * KEPT_SHARE

    def following(self) -> Key:
        """The next interval of the same scope."""
        start, end = self.calendar.interval(self.key.period, self.key.end)
        return self.key._replace(start=start, end=end)

    def note_burn(self, now):
        """Follow how fast it is spent: up within seconds, as an outage may come next, and down within minutes."""
        elapsed = now - self.noted_at
        if elapsed >= 1.0:
            rate = (self.spent - self.noted_spent) / elapsed
            weight = min(elapsed / (RISE_SECONDS if rate > self.burn else FALL_SECONDS), 1.0)
            self.burn += (max(rate, 0.0) - self.burn) * weight
            self.noted_at, self.noted_spent = now, self.spent


@dataclass(slots=True, eq=False)
class Reservation:
    """What one request holds: as many nanos in each of its accounts."""

    accounts: tuple[Account, ...]
    nanos: int

    @property
    def lease_ids(self):
        return tuple([account.lease_id for account in self.accounts])


@dataclass(slots=True, eq=False)
class Waiter:
    """A request for which there was not enough at hand."""

    accounts: tuple[Account, ...]
    nanos: int
    answer: asyncio.Future
    since: float = field(default_factory=time.monotonic)
    # When the ledger said first that there is not enough, and how often it did.
    short_at: float = 0.0
    looks: int = 0


class Leases:
    """The accounts of this process, and the task that keeps them filled."""

    def __init__(self, uid):
        self.uid = uid
        self.accounts: dict[tuple, Account] = {}
        self.waiting: list[Waiter] = []
        self._executor = ThreadPoolExecutor(1, "ledger")
        self._wake = asyncio.Event()
        self._task = self._recaller = None
        self._returning: set[Account] = set()
        # Of these the ledger did not say what it has done, and what was drawn ahead of these runs out.
        self._unsure: set[Account] = set()
        self._low: set[Account] = set()
        self._looked_at = float("-inf")
        self._recall = asyncio.Event()
        self._renewed_at = float("-inf")
        self._is_registered = self._has_drawn = False
        # Exchanges in a row without an answer, and since when one is under way.
        self._failures = 0
        self._asked_at = None

    @property
    def failing(self):
        """Whether the ledger did not answer when it was asked last, or does not now."""
        return self._failures > 0 or self._is_away

    @property
    def _is_away(self):
        """Whether the ledger failed more than once in a row, or has said nothing for as long as one waits for it."""
        return self._failures > 1 or (self._asked_at is not None and time.monotonic() - self._asked_at > PATIENCE)

    # Requests -----------------------------------------------------------------------------------------------------

    def account(self, key: Key, calendar) -> Account:
        """The account of an interval of ``calendar``."""
        found = self.accounts.get(key)
        if found is None:
            found = self.accounts[key] = Account(key, calendar)
        return found

    def reserve(self, accounts, nanos) -> Reservation | None:
        """Hold ``nanos`` in all of ``accounts``, if they are at hand."""
        now, wall = _now(), time.time()
        if now - self._renewed_at > SPENDABLE_SECONDS:
            return None
        for account in accounts:
            if account.free < nanos or account.until <= wall or not account.lease_id:
                return None
        for account in accounts:
            account.free -= nanos
            account.held += nanos
            account.used_at = now
            if nanos > account.largest:
                account.largest = nanos
            if account.free < account.low:
                # What is ahead runs out in a while: ask for more meanwhile.
                account.low = 0
                self._low.add(account)
                self._wake.set()
        return Reservation(accounts, nanos)

    async def reserve_or_wait(self, accounts, nanos) -> Reservation:
        """
        Hold ``nanos`` in all of ``accounts``, with what the ledger has where they are not at hand.

        Accounts whose limit is gone are left out. Raises ``Exhausted`` where a limit has not enough, ``Unavailable``
        where the ledger does not answer in time.
        """
        reservation = self.reserve(accounts, nanos)
        if reservation is not None:
            return reservation
        waiter = Waiter(accounts, nanos, asyncio.get_running_loop().create_future())
        self.waiting.append(waiter)
        self._wake.set()
        try:
            async with asyncio.timeout(PATIENCE_WHILE_AWAY if self._is_away else PATIENCE):
                return await waiter.answer
        except TimeoutError:
            self._take_back(waiter)
            raise Unavailable from None
        except asyncio.CancelledError:
            self._take_back(waiter)
            raise
        finally:
            self.waiting.remove(waiter)

    def _take_back(self, waiter):
        """Let go of what was granted in the moment in which nobody wanted it any more."""
        answer = waiter.answer
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self.settle(answer.result(), 0)

    def settle(self, reservation: Reservation, cost: int):
        """Let go of what a request held; it has cost ``cost`` nanos."""
        nanos = reservation.nanos
        # What was not held cannot be taken from what is: the ledger alone counts it.
        used = min(cost, nanos)
        unused = nanos - used
        for account in reservation.accounts:
            account.held -= nanos
            account.spent += used
            account.free += unused
            if cost > nanos:
                # The limit may be passed: nothing more is given out here before the ledger was asked.
                account.is_tight = True
            if account.is_tight:
                # Somebody elsewhere may wait for it.
                self._returning.add(account)
                self._wake.set()
        if self.waiting:
            self._wake.set()
        reservation.accounts = ()

    # Life ---------------------------------------------------------------------------------------------------------

    def start(self, *, is_limited=False):
        """Begin; where there are limits at all, the way to the ledger is made before a request needs it."""
        self._task = asyncio.create_task(self._run(is_limited))
        self._recaller = asyncio.create_task(self._listen())

    async def stop(self):
        """Stop asking; what is held is returned once every row is in the database, by ``close``."""
        for task in (self._task, self._recaller):
            task.cancel()
        await asyncio.gather(self._task, self._recaller, return_exceptions=True)

    def close(self, *, is_settled) -> bool:
        """
        Return everything, where ``is_settled`` says that every request has ended and is in the database.

        Whether nothing is held any more; else it is returned when the journal has been taken over.
        """
        is_returned = not self._has_drawn
        if is_settled and self._has_drawn:
            try:
                self._executor.submit(ledger.close_process, self.uid).result(timeout=RETURN_TIMEOUT)
                is_returned = True
            except (Error, TimeoutError) as error:
                log.warning("leases not returned", error=str(error).strip())
        self._executor.submit(lambda: connection.close())  # this thread has another connection
        self._executor.shutdown(wait=False)
        return is_returned

    def recall(self):
        """Look at once whether others ask for what lies idle here."""
        self._recall.set()

    async def _run(self, is_limited):
        if is_limited:
            # Else the first who wait would wait for the connection, too.
            now = _now()
            try:
                await self._in_thread(self._enter)
                self._renewed_at = now
            except Exception:
                # As below; who comes first tries again.
                log.exception("ledger not reached")
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), AGAIN_SECONDS if self.waiting else HOUSE_SECONDS)
            self._wake.clear()
            try:
                await self._round()
            except Exception:
                # The edge of this task: were it to end here, every limited request would wait in vain.
                log.exception("round failed")
            if self.waiting:
                await asyncio.sleep(LEAST_PAUSE)

    async def _listen(self):
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._recall.wait(), RECALL_SECONDS)
            self._recall.clear()
            if not self.accounts:
                continue
            try:
                asked = set(await self._in_thread(ledger.recalled, self.uid))
            except Error:
                continue
            if not asked:
                continue
            for account in self.accounts.values():
                if account.lease_id in asked:
                    account.is_tight = True
                    self._returning.add(account)
                    self._wake.set()

    async def _in_thread(self, function, *arguments):
        def call():
            try:
                return function(*arguments)
            except Error:
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def _round(self):
        """One exchange with the ledger: return, renew, draw; then answer who waits."""
        now = _now()
        self._keep_house(now)
        waiting = self._first_waiting()
        returns = self._returns(waiting)
        if now - self._renewed_at > SPENDABLE_SECONDS:
            # Taken for lost, maybe: somebody may have released what it held.
            self._unsure |= {account for account in self.accounts.values() if account.lease_id}
        ahead = self._ahead(waiting)
        renews = self._renewed_at < now - RENEW_SECONDS and bool(self.accounts)
        if not ahead and not returns and not renews:
            return
        wants = [Want(tuple(account.key for account in waiter.accounts), waiter.nanos) for waiter in waiting]
        self._asked_at = time.monotonic()
        try:
            short, grants = await self._in_thread(self._exchange, returns, wants, ahead, renews)
        except Error as error:
            self._unsure |= {account for account in self.accounts.values() if account.lease_id in returns}
            self._unsure |= {self.accounts[key] for key in ahead}
            self._failed(error)
            return
        finally:
            self._asked_at = None
        if self._failures:
            log.info("ledger answers again")
            self._failures = 0
        if renews:
            self._renewed_at = now
        for key, grant in grants.items():
            account = self.accounts[key]
            self._unsure.discard(account)
            if grant.lease_id:
                account.take(grant)
        for waiter, key in zip(waiting, short, strict=True):
            if not waiter.answer.done():
                self._answer(waiter, key, grants)
        wanted = {account for waiter in self.waiting for account in waiter.accounts}
        for key in grants:
            # Drawn for somebody who has left meanwhile, or too much since the limit was lowered.
            account = self.accounts[key]
            if account.due or (account.is_tight and account.free > 0 and account not in wanted):
                self._returning.add(account)
                self._wake.set()

    def _first_waiting(self):
        """Those whom this round is for: of every organization some, so that none waits for another's."""
        queues = {}
        for waiter in self.waiting:
            if not waiter.answer.done():
                queues.setdefault(waiter.accounts[0].key.organization_id, []).append(waiter)
        turns = itertools.zip_longest(*queues.values())
        return list(itertools.islice((waiter for turn in turns for waiter in turn if waiter), MOST_WAITING))

    def _returns(self, waiting):
        """
        What goes back, by lease. Where somebody here waits for it, it stays, unless it is short.

        A remainder that is too small for who waits here, or of use only beside what another interval lacks, may be just
        what a request at another process needs: what can be had from it here is drawn again in the same exchange.
        """
        wanted = {account for waiter in waiting for account in waiter.accounts}
        returns = {}
        for account in self._returning | {account for account in wanted if account.is_tight and account.free > 0}:
            if account.lease_id and (account.is_tight or account not in wanted):
                idle = max(account.free, 0) + account.due
                # Gone from here before it is there, so that it is never in both places.
                account.released += idle
                account.due = 0
                account.reckon()
                returns[account.lease_id] = idle
        self._returning.clear()
        return returns

    def _ahead(self, waiting):
        """The intervals to ask about: where somebody waits, and where what was drawn ahead runs out."""
        asked = {}
        for waiter in waiting:
            for account in waiter.accounts:
                account.largest = max(account.largest, waiter.nanos)
                asked[account] = None
        asked |= dict.fromkeys(self._unsure)
        for account in self._low:
            if account.runs_low:
                asked[account] = None
            elif not account.is_tight and not account.low:
                account.low = account.free // 2
        self._low.clear()
        return {account.key: Ahead(account.free, account.target(), account.largest) for account in asked}

    def _exchange(self, returns, wants, ahead, renews):
        """In the thread of the database."""
        if not self._is_registered:
            self._enter()
        elif renews:
            ledger.renew(self.uid)
            ledger.mark_orphans()
        if returns:
            ledger.give_back(returns)
        if not ahead:
            return [], {}
        self._has_drawn = True
        return ledger.draw(self.uid, wants, ahead)

    def _enter(self):
        """In the thread of the database, too: make its connection, and tell the ledger of this process."""
        ledger.register(uid=self.uid, host=socket.gethostname(), pid=os.getpid())
        self._is_registered = True

    def _failed(self, error):
        """
        The ledger did not answer: what it did is not known, and its next answer says it.

        Once may be a lock that was held for long or a connection that broke; who waits then, waits for another try.
        """
        if not self._failures:
            log.error("ledger does not answer; what was drawn ahead goes on", error=str(error).strip())
        self._failures += 1
        metrics.LEDGER_FAILURES.inc()
        for waiter in self.waiting:
            waited = time.monotonic() - waiter.since
            if self._is_away and waited > LONGEST_WAIT / 2 and not waiter.answer.done():
                waiter.answer.set_exception(Unavailable())

    def _answer(self, waiter, key, grants):
        """Give one who waits what was granted; refuse where the interval of ``key`` is short and stays so."""
        limited = tuple(account for account in waiter.accounts if grants[account.key].amount is not None)
        reservation = self.reserve(limited, waiter.nanos)
        if reservation is not None:
            waiter.answer.set_result(reservation)
        elif key is not None:
            waiter.looks += 1
            waiter.short_at = waiter.short_at or time.monotonic()
            if self._is_final(grants[key], waiter):
                room = min(grants[account.key].free + max(account.free, 0) for account in limited)
                waiter.answer.set_exception(Exhausted(key, grants[key], room))
        # Else another request was quicker: once more.

    def _is_final(self, grant, waiter):
        """Whether nobody will give back enough for the one who waits."""
        waited = time.monotonic() - waiter.short_at
        if waiter.nanos > grant.amount - grant.settled or waited >= LONGEST_WAIT:
            return True
        # What others hold belongs to requests under way; one that ends now is seen at the second look.
        return not grant.others or (not grant.others_idle and waiter.looks > 1 and waited >= SETTLING_SECONDS)

    def _keep_house(self, now):
        """Follow how fast each account is spent, return what nobody uses, and forget what is long over."""
        if now - self._looked_at < 1.0:
            return
        self._looked_at, wall = now, time.time()
        for key, account in list(self.accounts.items()):
            account.note_burn(now)
            if wall >= account.end or now - account.used_at > IDLE_SECONDS:
                account.low = 0
                if account.free > 0 and account.lease_id:
                    self._returning.add(account)
                elif wall >= account.end + FORGET_SECONDS and not account.held:
                    del self.accounts[key]
                    self._unsure.discard(account)
                    self._low.discard(account)
                continue
            if account.runs_low:
                self._low.add(account)
            if account.end - wall < IDLE_SECONDS and (following := account.following()) not in self.accounts:
                # Those who come in the first moment of the next interval need not wait either.
                heir = self.account(following, account.calendar)
                heir.largest, heir.burn, heir.used_at = account.largest, account.burn, account.used_at
                self._low.add(heir)
