"""
Limits by the minute that many processes share: one script on Redis or Valkey, asked for many requests at a time.

One exchange is under way at a time, so what this process says of itself is in order. Nobody waits for longer than
``PATIENCE``: a server that is gone or slow is not asked by requests again before it has answered a beat, and requests
are admitted from this process's share meanwhile.
"""

import asyncio
import contextlib
import time

import structlog
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway import metrics
from gateway.buckets import SCRIPT

log = structlog.get_logger(__name__)

PATIENCE = 0.05
# For the first exchange, with which the connection is made and the script brought; no request waits for it.
FIRST_PATIENCE = 1.0
BEAT_SECONDS = 0.5
# What is owed is told with the next request that takes from the same, or after so long.
TELL_SECONDS = 0.2
MOST_AT_ONCE = 100


class Unavailable(Exception):
    """The server did not answer in time."""


class Ask:
    """A request that waits for the server's word: ``(wait, index, busy)``, all of them zero where it may go on."""

    __slots__ = ("amounts", "answer", "limits", "since")

    def __init__(self, limits, amounts):
        self.limits = limits
        self.amounts = amounts
        self.answer = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()


class SharedRates:
    """
    The exchange with the server. ``is_up`` says whether requests may ask it, ``processes`` how many there are.

    ``clock`` is the time that the server is to go by; its own without one.
    """

    def __init__(self, url, uid, prefix, *, patience=PATIENCE, clock=None):
        self._pool = ConnectionPool.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None, max_connections=4
        )
        self._uid = uid
        self._prefix = prefix
        self._patience = patience
        self._clock = clock
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
            await self._exchange([], is_beat=False, patience=self._patience)
        await self._hang_up()
        await self._pool.disconnect()

    async def ask(self, limits, amounts):
        """Take ``amounts`` for a request. Raises ``Unavailable``."""
        ask = Ask(limits, amounts)
        self._asks.append(ask)
        self._wake.set()
        return await ask.answer

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
                await self._exchange(asks, is_beat=is_beat, patience=self._patience)

    async def _exchange(self, asks, *, is_beat, patience):
        """Ask the server everything at once; whatever goes wrong, it is down until the next beat."""
        began = time.monotonic()
        said_gauges, owed, commands = set(), {}, []
        for ask in asks:
            limits = ask.limits
            commands.append(self._command(limits.quotas, ask.amounts, limits.gauges, limits.who, said_gauges, owed))
        # What the requests did not say already.
        told = self._told(is_beat)
        if told[0] or told[1] or is_beat:
            commands.append(self._command(told[0], None, told[1], "", said_gauges, owed, is_beat=is_beat))
        if is_beat:
            self._beat_at = began
        try:
            waited = began - min((ask.since for ask in asks), default=began)
            async with asyncio.timeout(max(patience - waited, 0.005)):
                replies = await self._send(commands)
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            self._fail(asks)
            for quota, amount in owed.items():
                quota.owed += amount
            await self._hang_up()
            return
        except asyncio.CancelledError:
            self._fail(asks)
            raise
        if len(replies) > len(asks):
            self._note(told[0], told[1], replies.pop(), began, is_beat=is_beat)
        for ask, reply in zip(asks, replies, strict=True):
            self._note(ask.limits.quotas, ask.limits.gauges, reply, began)
            works, wait, index, busy = reply[:4]
            if works:
                for gauge in ask.limits.gauges:
                    gauge.held += 1
            if not ask.answer.done():
                ask.answer.set_result((wait, index, busy))
            elif works:
                ask.limits.withdraw(ask.amounts)
        if not self.is_up:
            if self.losses:
                log.info("rate limits shared again")
            self.is_up = True
            metrics.RATES_SHARED.set(1)

    def _told(self, is_beat):
        """What to say without being asked: what is owed, what is held; at a beat of everything in use."""
        if self._timer is not None and not is_beat:
            return (), ()
        quotas, gauges = self._quotas, self._gauges
        self._quotas, self._gauges = set(), set()
        if is_beat:
            used_quotas, used_gauges = self.in_use()
            quotas.update(used_quotas)
            gauges.update(used_gauges)
        return list(quotas), list(gauges)

    def _command(self, quotas, amounts, gauges, who, said_gauges, owed, *, is_beat=False):
        now = time.monotonic()
        clock = "" if self._clock is None else repr(self._clock())
        keys = [self._prefix + quota.key for quota in quotas]
        arguments = [clock, who, self._uid, len(quotas), 0 if amounts is None else 1]
        for number, quota in enumerate(quotas):
            owes = 0.0
            if quota.owed:
                self._reckon(quota)
                owes, quota.owed = quota.owed, 0.0
                owed[quota] = owed.get(quota, 0.0) + owes
                self._quotas.discard(quota)
            seen = ("", "", "") if quota.seen_at is None else (quota.seen_level, quota.seen_at, now - quota.noted_at)
            amount = 0.0 if amounts is None else amounts[number]
            arguments += (quota.figure, amount, owes, 1 if quota.is_elastic else 0, *seen)
        for gauge in gauges:
            keys.append(self._prefix + gauge.key)
            # Within one exchange the server counts on from the first word.
            arguments += (gauge.figure, -1 if gauge in said_gauges else gauge.held)
            said_gauges.add(gauge)
            self._gauges.discard(gauge)
        if is_beat:
            keys.append(self._prefix + "processes")
            arguments += (2**53, 1)
        return [len(keys), *keys, *arguments]

    def _reckon(self, quota):
        """After a loss, owe no more than the process's share lacks: the server's bucket filled up meanwhile, too."""
        if quota.loss and quota.loss == self.losses and quota.owed > 0 and not self.is_up:
            quota.refill(time.monotonic())
            quota.owed = min(quota.owed, max(quota.capacity - quota.level, 0.0))

    async def _send(self, commands):
        if not commands:
            return []
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._pool.get_connection()
        if self._sha is None:
            await connection.send_command("SCRIPT", "LOAD", SCRIPT)
            self._sha = await connection.read_response()
        packed = connection.pack_commands([("EVALSHA", self._sha, *command) for command in commands])
        await connection.send_packed_command(packed, check_health=False)
        replies, error = [], None
        for _command in commands:
            try:
                replies.append(await connection.read_response(disconnect_on_error=True))
            except NoScriptError as refused:
                error = refused
        if error is not None:
            # A server that has begun anew does not know the script; it knew it of none of them.
            self._sha = None
            return await self._send(commands)
        return replies

    def _note(self, quotas, gauges, reply, noted_at, *, is_beat=False):
        at = float(reply[4])
        position = 5
        for quota in quotas:
            quota.seen_level, quota.seen_free = float(reply[position]), float(reply[position + 1])
            quota.seen_at, quota.noted_at = at, noted_at
            position += 2
        position += len(gauges)
        if is_beat:
            self.processes = int(reply[position])

    def _lose(self, error):
        if self.is_up or not self.losses:
            log.warning(
                "rate limits not shared; each process admits its share", error=str(error).strip() or repr(error)
            )
            self.losses += 1
        self.is_up = False
        metrics.RATES_SHARED.set(0)

    def _fail(self, asks):
        for ask in asks:
            if not ask.answer.done():
                ask.answer.set_exception(Unavailable())

    async def _hang_up(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
                await self._pool.release(connection)
