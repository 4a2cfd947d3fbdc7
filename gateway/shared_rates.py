"""
Limits by the minute that many processes share: one script on Redis or Valkey, asked for many requests at a time.

One exchange is under way at a time, so what this process says of itself is in order, and none takes longer than
``PATIENCE``: a server that is gone or slow is not asked by requests again before it has answered a beat, and requests
are admitted from this process's share meanwhile. Each side knows which places the other keeps, so that whoever was told
when to come finds theirs when the server is lost or back.
"""

import asyncio
import contextlib
import itertools
import time

import msgspec
import structlog

from gateway import metrics
from gateway.buckets import HORIZON, SCRIPT

log = structlog.get_logger(__name__)

PATIENCE = 0.25
# After that, what has come while this process itself was held up is still read.
LAST_LOOK = 0.02
# For the first exchange, with which the connection is made and the script brought; no request waits for it.
FIRST_PATIENCE = 1.0
BEAT_SECONDS = 0.5
SOON_SECONDS = 0.1
# What is owed is told with the next request that takes from the same, or after so long.
TELL_SECONDS = 0.2
MOST_AT_ONCE = 200


class _Batch:
    """One exchange: every bucket and counter once, and the requests that take from them."""

    def __init__(self, shared, asks, *, is_beat):
        self._shared = shared
        self._is_beat = is_beat
        self._now = time.monotonic()
        self._numbers = {}
        self._counters = {}
        self.quotas, self.debts, self.gauges = [], [], []
        self._told, self._held, self._asks = [], [], []
        self._places = []
        for ask in asks:
            limits = ask.limits
            quotas = [self._number(quota) for quota in limits.quotas]
            self._asks.append((limits.who, quotas, [self._counter(gauge) for gauge in limits.gauges], ask.amounts))
        quotas, gauges = shared.news(is_beat)
        for quota in quotas:
            self._number(quota)
        for gauge in gauges:
            self._counter(gauge)
        self.has_news = bool(self.quotas or self.gauges or is_beat)

    def _number(self, quota):
        number = self._numbers.get(quota)
        if number is None:
            self.quotas.append(quota)
            number = self._numbers[quota] = len(self.quotas)
            debt = self._shared.debt(quota)
            self.debts.append(debt)
            known = (False, False, False)
            if quota.seen_at is not None:
                known = quota.seen_level, quota.seen_at, self._now - quota.noted_at
            self._told.append((quota.figure, debt, quota.is_elastic, *known, self._promised(quota)))
        return number

    def _promised(self, quota):
        """The places that were kept alone, of which the server is yet to know."""
        # By the time that the server hears of it; nobody is to find that they have come too early.
        heard = self._now + self._shared.patience
        places = [place for place in quota.places if not place.is_shared]
        for place in places:
            place.number = place.number or next(self._shared.places)
        self._places += places
        return [(place.who, place.due - heard, place.amount, place.number) for place in places]

    def _counter(self, gauge):
        number = self._counters.get(gauge)
        if number is None:
            self.gauges.append(gauge)
            number = self._counters[gauge] = len(self.gauges)
            self._shared.said(gauge)
            self._held.append((gauge.figure, gauge.held))
        return number

    def command(self):
        """Number of keys, keys and arguments of the script."""
        keys = [thing.key for thing in (*self.quotas, *self.gauges)]
        held = self._held
        if self._is_beat:
            keys.append("processes")
            held = [*held, (2**53, 1)]
        told = msgspec.msgpack.encode((self._told, held, self._asks))
        return len(keys), *(self._shared.prefix + key for key in keys), "", self._shared.uid, told

    def heard(self):
        """Know that the server keeps the places that it was told of; others were kept while it was asked."""
        for place in self._places:
            place.is_shared = True

    def undo(self):
        """Owe again what the server may not have heard; what it was to give back it may have given, so not twice."""
        for quota, debt in zip(self.quotas, self.debts, strict=True):
            quota.owed += max(debt, 0.0)


class Unavailable(Exception):
    """The server did not answer in time."""


class Ask:
    """A request that waits for the server's word: ``(wait, index, busy)``, all of them zero where it may go on."""

    __slots__ = ("amounts", "answer", "limits")

    def __init__(self, limits, amounts):
        self.limits = limits
        self.amounts = amounts
        self.answer = asyncio.get_running_loop().create_future()


def _remember(ask, wait, now):
    """Know of the place that the server keeps for a request, or keeps no more: it may be lost before they come."""
    limits = ask.limits
    for quota, amount in zip(limits.quotas, ask.amounts, strict=True):
        if quota.places:
            quota.forget(now)
            if place := quota.place_of(limits.who, amount, now):
                quota.use(place, amount)
        if 0 < wait <= HORIZON:
            quota.keep(limits.who, now + wait, amount, since=now + wait - 1, is_shared=True)


@contextlib.asynccontextmanager
async def _patience(seconds):
    """Raise ``TimeoutError`` after ``seconds``, unless what was waited for has come by then and is yet to be read."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as timeout:
        timer = loop.call_later(seconds, lambda: timeout.reschedule(loop.time() + LAST_LOOK))
        try:
            yield
        finally:
            timer.cancel()


class SharedRates:
    """The exchange with the server. ``is_up`` says whether requests may ask it, ``processes`` how many there are."""

    def __init__(self, url, uid, prefix, *, patience=PATIENCE):
        # Here, as it takes seven megabytes that only who has such a server needs.
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import NoScriptError, RedisError

        # uvloop raises the last where the server's end was closed in the middle of a command.
        self._failures = RedisError, OSError, RuntimeError
        self._no_script = NoScriptError
        self._pool = ConnectionPool.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None, max_connections=4
        )
        self.uid = uid
        self.prefix = prefix
        self.patience = patience
        # By these the server knows a place that it is told of again, as its answer came too late.
        self.places = itertools.count(1)
        self._asks: list[Ask] = []
        self._quotas, self._gauges = set(), set()
        self._sha = None
        self._connection = None
        self._wake = asyncio.Event()
        self._task = self._timer = None
        self._beat_at = 0.0
        self.is_up = False
        self.processes = 0
        # Each loss of the server has a number: what was known before it is a process's share after it.
        self.losses = 0
        # Asked at each beat for what is in use: ``(quotas, gauges)``.
        self.in_use = lambda: ((), ())

    async def start(self):
        """Ask once, so that the first requests find it up; a server that is not there is asked again."""
        await self._exchange([], is_beat=True, patience=FIRST_PATIENCE)
        self._task = asyncio.create_task(self._run())

    async def stop(self):
        """Tell what is owed, and that this process holds nothing any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._timer:
            self._timer.cancel()
        if self.is_up:
            await self._exchange([], is_beat=False, patience=self.patience)
        await self._hang_up()
        await self._pool.disconnect()

    async def ask(self, limits, amounts):
        """Take ``amounts`` for a request. Raises ``Unavailable``."""
        ask = Ask(limits, amounts)
        self._asks.append(ask)
        self._wake.set()
        try:
            return await ask.answer
        except asyncio.CancelledError:
            answer = ask.answer
            if answer.done() and not answer.cancelled() and answer.exception() is None and not any(answer.result()[1:]):
                # It may go on, and has left in that moment.
                limits.withdraw(amounts)
            raise

    def owe(self, quota, amount):
        """Take ``amount`` more from a quota, or give it back where it is below zero."""
        quota.owed += amount
        self._tell_soon(self._quotas, quota)

    def released(self, gauge):
        """Say that this process holds fewer requests."""
        self._tell_soon(self._gauges, gauge)

    def _tell_soon(self, dirty, thing):
        dirty.add(thing)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)

    def _tell(self):
        self._timer = None
        self._wake.set()

    # The exchange ---------------------------------------------------------------------------------------------------

    async def _run(self):
        while True:
            pause = self._beat_at + BEAT_SECONDS - time.monotonic()
            if pause > 0 and not self._asks:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            self._wake.clear()
            asks, self._asks = self._asks[:MOST_AT_ONCE], self._asks[MOST_AT_ONCE:]
            is_beat = time.monotonic() >= self._beat_at + BEAT_SECONDS
            if not self.is_up and not is_beat:
                self._fail(asks)
                continue
            if asks or is_beat or self._timer is None:
                try:
                    await self._exchange(asks, is_beat=is_beat, patience=self.patience)
                except Exception as error:
                    # The edge of this task: were it to end here, every request would wait for its answer for ever.
                    log.exception("exchange of rates failed")
                    self._lose(error)
                    self._fail(asks)
                    await self._hang_up()

    async def _exchange(self, asks, *, is_beat, patience):
        """Ask the server everything at once; whatever goes wrong, it is down until the next beat."""
        began = time.monotonic()
        batch = _Batch(self, asks, is_beat=is_beat)
        if not batch.has_news:
            return
        if is_beat:
            self._beat_at = began
        try:
            async with _patience(patience):
                reply = await self._send(batch.command())
        except (*self._failures, TimeoutError) as error:
            self._lose(error)
            self._fail(asks)
            batch.undo()
            await self._hang_up()
            return
        except asyncio.CancelledError:
            self._fail(asks)
            raise
        at, levels, totals, answers = msgspec.msgpack.decode(reply)
        for quota, (level, free) in zip(batch.quotas, levels, strict=True):
            quota.seen_level, quota.seen_free, quota.seen_at, quota.noted_at = level, free, at, began
        if is_beat:
            self.processes = totals[-1]
        for ask, (wait, index, busy) in zip(asks, answers, strict=True):
            works = not index and not busy
            if not busy:
                _remember(ask, wait, began)
            if works:
                for gauge in ask.limits.gauges:
                    gauge.held += 1
            if not ask.answer.done():
                ask.answer.set_result((wait, index, busy))
            elif works:
                ask.limits.withdraw(ask.amounts)
        batch.heard()
        if not self.is_up:
            if self.losses:
                log.info("rate limits shared again")
            self.is_up = True
            metrics.RATES_SHARED.set(1)

    def news(self, is_beat):
        """What to say although no request says it: what is owed, what is held; at a beat of everything in use."""
        if self._timer is not None and not is_beat:
            return (), ()
        quotas, gauges = self._quotas, self._gauges
        self._quotas, self._gauges = set(), set()
        if is_beat:
            used_quotas, used_gauges = self.in_use()
            quotas.update(used_quotas)
            gauges.update(used_gauges)
        return quotas, gauges

    def debt(self, quota):
        """What a quota owes, which is said now. After a loss no more than this process's share lacks."""
        self._quotas.discard(quota)
        if quota.owed > 0 and not self.is_up and quota.loss == self.losses:
            # The server's bucket filled up meanwhile, too.
            quota.refill(time.monotonic())
            quota.owed = min(quota.owed, max(quota.capacity - quota.level, 0.0))
        owed, quota.owed = quota.owed, 0.0
        return owed

    def said(self, gauge):
        """How many requests are held is said now."""
        self._gauges.discard(gauge)

    async def _send(self, command):
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._pool.get_connection()
        if self._sha is None:
            await connection.send_command("SCRIPT", "LOAD", SCRIPT, check_health=False)
            self._sha = await connection.read_response()
        await connection.send_command("EVALSHA", self._sha, *command, check_health=False)
        try:
            return await connection.read_response(disconnect_on_error=True)
        except self._no_script:
            # A server that has begun anew.
            self._sha = None
            return await self._send(command)

    def _lose(self, error):
        if self.is_up or not self.losses:
            log.warning(
                "rate limits not shared; each process admits its share", error=str(error).strip() or repr(error)
            )
            self.losses += 1
        if self.is_up:
            # It may just have been busy.
            self._beat_at = time.monotonic() + SOON_SECONDS - BEAT_SECONDS
        self.is_up = False
        metrics.RATES_SHARED.set(0)

    def _fail(self, asks):
        for ask in asks:
            if not ask.answer.done():
                ask.answer.set_exception(Unavailable())

    async def _hang_up(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*self._failures):
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
