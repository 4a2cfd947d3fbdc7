"""Every process is replaced again and again while requests run: nobody is told of it."""

import asyncio
import signal
import time

from bench.chaos.callers import WHOLE, Callers
from bench.chaos.results import Result, say

MODELS = ("m-3-10", "m-10-50", "m-20-100")


def run(world, *, seed, restarts=10, clients=24) -> Result:
    """Replace all processes so many times, one process after the other, under load."""
    result = Result(
        "Rolling restarts",
        f"{restarts} times SIGHUP to a server of {world.workers} processes under {clients} callers, with streams of "
        "0.03 to 2 s and whole answers, under hard limits at 4 nested scopes",
        seeds=[seed],
    )
    began = time.monotonic()
    plenty = 10**15
    limits = dict.fromkeys(("organization", "workspace one", "key red", "member ann"), plenty)
    tenant = world.tenant("restarts", [("red", "one", "ann")], models=MODELS, limits=limits)
    callers = Callers(world, tenant, seed=seed)
    took = asyncio.run(play(world, callers, restarts, clients))
    load = callers.load
    world.until_drained(tenant, rows=len(load.attempts))
    reserved = world.reserved()
    accounts = world.reconcile(answered=load.answered(), begun=load.begun())
    result.seconds = time.monotonic() - began
    result.problems += accounts.problems
    failed = [attempt for attempt in load.attempts if attempt.ending != WHOLE]
    result.problems += [f"{a.marker}: {a.status} {a.code} {a.ending} {a.error}" for a in failed[:5]]
    rows, answers = world.count_rows(tenant), len(load.attempts)
    result.figure("Processes replaced", f"{len(took) * world.workers}, all of them in {max(took):.1f} s at most")
    result.figure("Requests that failed", f"{len(failed)} of {answers:,}", "0", holds=not failed)
    result.figure("Rows for requests", f"{rows:,} for {answers:,}", "as many", holds=rows == answers)
    result.figure("Left reserved when all had ended", f"{reserved:.0f} nanos", "0", holds=not reserved)
    return result


async def play(world, callers, restarts, clients):
    """Ask while processes are replaced; how long that took each time."""
    ended = asyncio.Event()

    async def caller(number):
        while not ended.is_set():
            number += 1
            await callers.ask("red", MODELS[number % len(MODELS)], stream=number % 4 != 3)

    took = []
    async with callers.session(clients):
        tasks = [asyncio.create_task(caller(number)) for number in range(clients)]
        await asyncio.sleep(1)
        for number in range(restarts):
            took.append(await asyncio.to_thread(replace, world))
            say(f"restarts: {number + 1} of {restarts}, {took[-1]:.1f} s")
        await asyncio.sleep(1)
        ended.set()
        await asyncio.gather(*tasks)
    return took


def replace(world, timeout=180):
    """Have every process replaced; the seconds until none of those from before is left."""
    began = time.monotonic()
    before = set(world.server.web_pids())
    world.server.process.send_signal(signal.SIGHUP)
    while len(now := world.server.web_pids()) != world.workers or before & set(now):
        if time.monotonic() - began > timeout:
            raise RuntimeError(f"Of {before} are left: {before & set(now)}")
        time.sleep(0.1)
    return time.monotonic() - began
