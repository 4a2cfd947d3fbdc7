"""The database is refused, black-holed or frozen while known keys go on, and Valkey is away or empty."""

import asyncio
import time

from bench.chaos.callers import WHOLE, Callers
from bench.chaos.results import Result, say

MODELS = ("m-3-5",)
KINDS = ("refused", "black_holed", "frozen")


def run(world, *, seed, seconds=300, rate=100, kinds=KINDS) -> Result:
    """Ask ``rate`` times a second before, during and after each kind of outage, each of which lasts ``seconds``."""
    result = Result(
        "Database away",
        f"{rate} requests a second through {world.workers} processes, under hard limits at 4 nested scopes, while the "
        f"way to the database is {', '.join(kind.replace('_', '-') for kind in kinds)}, {seconds:g} s each",
        seeds=[seed],
    )
    began = time.monotonic()
    for kind in kinds:
        say(f"outage: {kind}")
        _one(world, result, kind, seed, seconds, rate)
    accounts = world.reconcile()
    result.problems += accounts.problems
    result.seconds = time.monotonic() - began
    return result


def _one(world, result, kind, seed, seconds, rate):
    plenty = 10**15
    limits = dict.fromkeys(("organization", "workspace one", "key red", "member ann"), plenty)
    tenant = world.tenant("outage", [("red", "one", "ann")], models=MODELS, limits=limits)
    callers = Callers(world, tenant, seed=seed)
    before = min(max(seconds / 3, 4), 20)
    times = asyncio.run(steadily(world, callers, kind, before, seconds, rate))
    attempts = callers.load.attempts
    world.until_drained(tenant, rows=len(attempts), timeout=90)
    drained = time.monotonic() - times["ended"]
    calm = [a for a in attempts if times["warm"] <= a.began < times["began"]]
    during = [a for a in attempts if times["began"] <= a.began < times["ended"]]
    failed = [a for a in during if a.ending != WHOLE]
    at_first, then = callers.load.p99(calm), callers.load.p99(during)
    added = then - at_first
    rows = world.count_rows(tenant)
    name = kind.replace("_", "-").capitalize()
    result.figure(f"{name}: requests failed", f"{len(failed)} of {len(during):,}", "0", holds=not failed)
    result.figure(
        f"{name}: p99 to the first byte, added",
        f"{added:.0f} ms, from {at_first:.0f} to {then:.0f} ms",
        "at most 25 ms",
        holds=added <= 25 or seconds < 60,
    )
    result.figure(f"{name}: drained after", f"{drained:.1f} s", "60 s", holds=drained <= 60)
    result.figure(
        f"{name}: rows for answers", f"{rows:,} for {len(attempts):,}", "as many", holds=rows == len(attempts)
    )
    for attempt in failed[:5]:
        result.problems.append(f"{kind}: {attempt.marker} {attempt.status} {attempt.code} {attempt.error}")
    for attempt in attempts:
        if attempt.ending != WHOLE and attempt not in failed:
            result.problems.append(f"{kind}, before or after: {attempt.marker} {attempt.status} {attempt.code}")


async def steadily(world, callers, kind, before, seconds, rate):
    """Ask at an even pace, whatever becomes of earlier requests; the moments at which things began and ended."""
    times, asked = {}, set()
    async with callers.session(400):
        started = time.monotonic()
        ticks = 0

        async def ask_until(moment):
            nonlocal ticks
            while (now := time.monotonic()) < moment:
                due = started + ticks / rate
                if due > now:
                    await asyncio.sleep(min(due - now, moment - now))
                    continue
                ticks += 1
                task = asyncio.create_task(callers.ask("red", MODELS[0], stream=ticks % 2 == 0))
                asked.add(task)
                task.add_done_callback(asked.discard)

        # The first moments draw leases and open connections.
        times["warm"] = started + min(before / 2, 5)
        await ask_until(started + before)
        outage = getattr(world.database, kind)
        times["began"] = time.monotonic()
        await asyncio.to_thread(outage.__enter__)
        try:
            await ask_until(times["began"] + seconds)
        finally:
            times["ended"] = time.monotonic()
            await asyncio.to_thread(outage.__exit__, None, None, None)
        await ask_until(times["ended"] + 2)
        while asked:
            await asyncio.wait(set(asked))
    return times
