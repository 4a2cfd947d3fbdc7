"""Keys are revoked while their holders go on asking every process: for how long is any of them still accepted?"""

import asyncio
import time

from bench.chaos.callers import WHOLE, Callers
from bench.chaos.results import Result, say
from bench.chaos.world import each_process

MODELS = ("m-3-5",)
CONNECTIONS = 2
PAUSE = 0.02
THREADS = 4
PATIENCE = 30


def run(world, *, seed, keys=10_000, live=500, together=10, clients=8) -> Result:
    """
    Revoke so many keys, each by itself and ``together`` at about the same time, of ``live`` that there are at a time.

    Meanwhile other callers ask as well, and none of them may notice.
    """
    result = Result(
        "Revocations",
        f"{keys:,} keys of {world.workers} processes, each revoked in a transaction of its own, {THREADS} at a time, "
        f"while requests with it come on connections to every process and {clients} others ask for answers",
        seeds=[seed],
    )
    began = time.monotonic()
    tenant = world.tenant("revocations", [("red", "one", "ann")], models=MODELS, limits={"organization": 10**15})
    callers = Callers(world, tenant, seed=seed)
    trials, delays, asked = asyncio.run(play(world, tenant, callers, keys, live, together, clients))
    load = callers.load
    world.until_drained(tenant, rows=len(load.attempts))
    accounts = world.reconcile(answered=load.answered(), begun=load.begun())
    result.seconds = time.monotonic() - began
    result.problems += accounts.problems
    failed = [attempt for attempt in load.attempts if attempt.ending != WHOLE]
    result.problems += [f"{a.marker}: {a.status} {a.code} {a.ending} {a.error}" for a in failed[:5]]
    delays.sort()
    p50, p99 = (delays[min(int(len(delays) * share), len(delays) - 1)] for share in (0.5, 0.99))
    result.figure("Keys revoked", f"{trials:,}")
    result.figure("Questions with keys that were revoked or about to be", f"{asked:,}")
    result.figure("Until every process had refused it, median", f"{p50 * 1000:.0f} ms")
    result.figure("… in 99 % of cases", f"{p99 * 1000:.0f} ms", "at most 1 s", holds=p99 <= 1)
    result.figure("… at most", f"{delays[-1] * 1000:.0f} ms", "at most 1 s", holds=delays[-1] <= 1)
    result.figure(
        "Other callers' requests that failed", f"{len(failed)} of {len(load.attempts):,}", "0", holds=not failed
    )
    return result


async def play(world, tenant, callers, keys, live, together, clients):
    """How many keys there were, how long after its revocation each was last refused for the first time, and asked."""
    ended = asyncio.Event()
    delays, asked = [], 0

    async def other():
        while not ended.is_set():
            await callers.ask("red", MODELS[0])
            await asyncio.sleep(0.05)

    async with callers.session(clients), each_process(world.server, world.workers, CONNECTIONS) as connections:
        others = [asyncio.create_task(other()) for _ in range(clients)]
        done = 0
        while done < keys:
            count = min(live, keys - done)
            wanted = {"organization": tenant.organization, "count": count, "name": f"revoked {done}"}
            made = await asyncio.to_thread(world.workshop.ask, "make_keys", wanted)
            # Every process has seen it then.
            await asyncio.sleep(1)
            for first in range(0, count, together):
                some = made[first : first + together]
                found, questions = await revoke(world, connections, some)
                delays += found
                asked += questions
            done += count
            say(f"revocations: {done:,} of {keys:,}, worst {max(delays) * 1000:.0f} ms")
        ended.set()
        await asyncio.gather(*others)
    return done, delays, asked


async def revoke(world, connections, keys):
    """Revoke these keys while every process is asked with all of them; for each, until when the last one took it."""
    watches = [Watch(held, keys) for held in connections.values()]
    tasks = [asyncio.create_task(watch.run()) for watch in watches]
    await asyncio.gather(*(watch.accepted.wait() for watch in watches))
    wanted = {"keys": [pk for pk, _ in keys], "threads": THREADS}
    revoked = {pk: done for pk, _, done in await asyncio.to_thread(world.workshop.ask, "revoke", wanted)}
    await asyncio.gather(*tasks)
    await asyncio.gather(*(watch.look_again() for watch in watches))
    delays = [max(max(watch.refused[pk] for watch in watches) - done, 0.0) for pk, done in revoked.items()]
    return delays, sum(watch.asked for watch in watches)


class Watch:
    """Asks one process with each of some keys, until it has refused them all."""

    def __init__(self, connections, keys):
        self.connections, self.keys = connections, keys
        self.accepted = asyncio.Event()
        self.refused = {}
        self.asked = 0

    async def run(self):
        for share, http in self._shares():
            for _, secret in share:
                if (status := await self._ask(http, secret)) != 200:
                    raise RuntimeError(f"A key that nobody had revoked was answered with {status}.")
        self.accepted.set()
        await asyncio.gather(*(self._until_refused(http, share) for share, http in self._shares()))

    async def look_again(self):
        """What was refused once stays so."""
        for share, http in self._shares():
            for _, secret in share:
                if (status := await self._ask(http, secret)) != 401:
                    raise RuntimeError(f"A key that had been refused was answered with {status}.")

    def _shares(self):
        count = len(self.connections)
        return [(self.keys[number::count], http) for number, http in enumerate(self.connections)]

    async def _until_refused(self, http, keys):
        pending = dict(keys)
        until = time.monotonic() + PATIENCE
        while pending:
            for pk, secret in list(pending.items()):
                if await self._ask(http, secret) == 401:
                    # By when it is known to be refused: a little later than it began to be.
                    self.refused[pk] = time.monotonic()
                    del pending[pk]
            if time.monotonic() > until:
                raise RuntimeError(f"{len(pending)} keys are still accepted {PATIENCE} s after they were revoked.")
            await asyncio.sleep(PAUSE)

    async def _ask(self, http, secret):
        self.asked += 1
        async with http.get("/v1/models", headers={"authorization": f"Bearer {secret}"}) as answer:
            await answer.read()
            return answer.status
