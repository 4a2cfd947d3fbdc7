"""SIGKILLs of everything while requests run: nothing is lost, nothing is counted twice, and all books agree."""

import asyncio
import random
import threading
import time
from collections import Counter
from concurrent.futures import wait

from bench.chaos.callers import BROKEN, UNANSWERED, WHOLE, Callers
from bench.chaos.results import Result, say

MODELS = ("m-3-10", "m-8-20", "m-10-50")
# Who dies how often, of a hundred times.
VICTIMS = {"gateway": 70, "backend": 8, "postgresql": 7, "valkey": 7, "worker": 4, "server": 4}


def run(world, *, seed, requests=200_000, kills=200, clients=64) -> Result:
    """Send so many requests, with so many kills spread over them; ends the server."""
    result = Result(
        "Kills",
        f"{kills} SIGKILLs over {requests:,} requests, {clients} at a time, {world.workers} processes, hard limits at "
        "4 nested scopes and a rate limit that is counted in Valkey",
        seeds=[seed],
    )
    began, used = time.monotonic(), time.process_time()
    plenty = 10**15
    limits = dict.fromkeys(("organization", "workspace one", "key red", "member ann"), plenty)
    tenant = world.tenant(
        "kills",
        [("red", "one", "ann"), ("blue", "two", "ben")],
        models=MODELS,
        limits=limits,
        # It refuses nobody, but every request asks Valkey.
        rates={"organization": {"requests_per_minute": 10**7}},
    )
    callers = Callers(world, tenant, seed=seed)
    killer = Killer(world, callers, random.Random(seed), kills, requests)
    with killer:
        asyncio.run(send(callers, killer, requests, clients))
    result.problems += killer.mishaps
    killer.mend()
    say(f"kills: all sent after {time.monotonic() - began:.0f} s, with {time.process_time() - used:.0f} s of CPU here")
    world.until_drained(timeout=90)
    world.stop()
    load = callers.load
    say("kills: reconciling")
    accounts = world.reconcile(answered=load.answered(), begun=load.begun(), is_stopped=True)
    result.seconds = time.monotonic() - began
    result.problems += accounts.problems
    endings, total = load.endings(), accounts.outcomes
    lost = sum("has no row" in problem or "are in no row" in problem for problem in accounts.problems)
    doubled = sum("rows: [" in problem or "was given to" in problem for problem in accounts.problems)
    result.figure("Kills", ", ".join(f"{count} {name}" for name, count in sorted(killer.done.items())))
    result.figure("Requests", f"{len(load.attempts):,}")
    result.figure(
        "Answers", f"{endings[WHOLE]:,} whole, {endings[BROKEN]:,} cut, {endings[UNANSWERED]:,} without any answer"
    )
    result.figure(
        "Refused", ", ".join(f"{count} with {code}" for code, count in sorted(load.codes().items())) or "none"
    )
    result.figure("Rows", ", ".join(f"{count:,} {name}" for name, count in sorted(total.items())))
    result.figure("Calls that the upstream has billed", f"{len(world.upstream.books):,}")
    result.figure("Lost", lost, "0", holds=not lost)
    result.figure("Counted twice", doubled, "0", holds=not doubled)
    result.figure(
        "Ledger, leases, rows, rollups and bill",
        "agree to the nano" if not accounts.problems else f"{len(accounts.problems)} differences",
        "agree",
        holds=not accounts.problems,
    )
    result.figure("Held when the server had ended", f"{accounts.held} nanos", "0", holds=not accounts.held)
    return result


async def send(callers, killer, requests, clients):
    """Keep so many callers busy; who gets no answer at all asks again, under another name."""
    numbers = iter(range(requests))

    async def caller():
        for number in numbers:
            while True:
                attempt = await callers.ask(
                    "red" if number % 3 else "blue", MODELS[number % len(MODELS)], stream=number % 4 != 3
                )
                if attempt.ending != UNANSWERED or killer.mishaps:
                    break
                await asyncio.sleep(0.1)

    async with callers.session(clients):
        await asyncio.gather(*(caller() for _ in range(clients)))


class Killer:
    """A thread that kills whenever so many requests have been sent."""

    def __init__(self, world, callers, chance, kills, requests):
        self.world, self.callers, self.chance = world, callers, chance
        # Never in the last stretch: each kill shall find requests to hit.
        span = range(requests // 20, max(requests * 19 // 20, requests // 20 + kills))
        self.moments = sorted(chance.sample(span, kills))
        self.done = Counter()
        self.mishaps = []
        self._ended = threading.Event()
        self._harms = []

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        if error[0]:
            self._ended.set()
        self._thread.join(120)
        self._ended.set()
        self._until_back()

    def _run(self):
        try:
            for moment in self.moments:
                while len(self.callers.load.attempts) < moment and not self._ended.wait(0.02):
                    pass
                if self._ended.wait(self.chance.random() * 0.3):
                    return
                self._kill()
        except Exception as error:
            self.mishaps.append(f"The killer itself failed: {error!r}")

    def _kill(self):
        world, victims = self.world, dict(VICTIMS)
        if not world.wants_valkey:
            del victims["valkey"]
        if not world.wants_worker:
            del victims["worker"]
        (victim,) = self.chance.choices(list(victims), list(victims.values()))
        self.done[victim] += 1
        if sum(self.done.values()) % 10 == 0:
            say(
                f"kills: {sum(self.done.values())} of {len(self.moments)}, {len(self.callers.load.attempts):,} requests"
            )
        if victim == "gateway":
            # Those of one core are slower to start than to kill: never all of them for long.
            until = time.monotonic() + 30
            while len(world.server.web_pids()) < world.workers and time.monotonic() < until:
                time.sleep(0.05)
            pids = world.server.web_pids()
            world.server.kill9_web(self.chance.sample(pids, self.chance.randint(1, max(len(pids) // 2, 1))))
        elif victim == "backend":
            world.kill_backend(self.chance)
        elif victim == "postgresql":
            self._meanwhile(world.crash_postgres, self.chance.uniform(0.1, 2))
        elif victim == "valkey":
            self._meanwhile(world.crash_valkey, self.chance.uniform(0.1, 2))
        elif victim == "worker":
            world.server.kill9_web(world.worker_pids()[:1])
        else:
            # It does not start without its database, and says so.
            self._until_back()
            world.server.kill9()
            # A child that began in that moment has the port until it finds that nobody is there any more.
            time.sleep(2)
            self._start_server()

    def _start_server(self, tries=3):
        while True:
            try:
                self.world.server.start()
                return
            except RuntimeError:
                tries -= 1
                if not tries:
                    raise
                time.sleep(2)

    def _until_back(self):
        wait(self._harms)

    def _meanwhile(self, harm, seconds):
        """One outage after the other: while one lasts, processes go on being killed."""
        self._until_back()
        # What it starts dies with the thread that did: this one lives as long as the world.
        self._harms = [self.world.helper.submit(self._noted, harm, seconds)]

    def _noted(self, harm, seconds):
        try:
            harm(seconds)
        except Exception as error:
            self.mishaps.append(f"{harm.__name__} failed: {error!r}")

    def mend(self):
        """Wait until everybody is back."""
        self.world.until_all_answer()
        self.world.server.wait_until_ready()
