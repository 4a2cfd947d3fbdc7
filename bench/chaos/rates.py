"""Rate limits of many processes while Valkey is there, flushed every few seconds, or away."""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bench.chaos.callers import WHOLE, Callers
from bench.chaos.results import Result, say
from tests.reconcile import moment

MODELS = ("m-2-5",)


def run(world, *, seed, seconds=300, limit=600, every=5.0, clients=24, polite=True) -> Result:
    """
    Ask for more than the limit lets through: for a third of ``seconds`` with Valkey, while polite callers of another
    organization wait as long as they are told; all of them with one that loses everything every few seconds; and half
    of them while it is away for half of the time.
    """
    result = Result(
        "Rate limits",
        f"{limit} requests a minute for one organization, {world.workers} processes, {clients} callers that ask for "
        f"more; with Valkey for {seconds / 3:.0f} s, flushed every {every:g} s for {seconds:.0f} s, and refused, "
        f"black-holed or frozen every other {every:g} s for {seconds / 2:.0f} s; under a hard spend limit",
        seeds=[seed],
    )
    began = time.monotonic()
    harms = {"With Valkey": None, "Flushed": world.valkey.flush, "Away and back": None}
    for (name, harm), share in zip(harms.items(), (1 / 3, 1, 1 / 2), strict=True):
        say(f"rates: {name}")
        tenant = world.tenant(
            "rates", [("red", "one", "ann")], models=MODELS, limits={"organization": 10**15}, rates=rates_of(limit)
        )
        callers = Callers(world, tenant, seed=seed)
        is_exact = name == "With Valkey"
        with ThreadPoolExecutor(1) as beside:
            others = None
            if polite and is_exact:
                others = beside.submit(_be_polite, world, result, seed, seconds * share, limit, clients)
            with Every(every, harm) if harm else Every() if is_exact else Outages(world, every, seed):
                asyncio.run(demand(callers, seconds * share, clients))
            if others:
                others.result()
        world.until_drained(tenant, rows=len(callers.load.attempts))
        _judge(world, result, name, tenant, callers.load, limit, exact=is_exact)
        accounts = world.reconcile(tenant, answered=callers.load.answered(), begun=callers.load.begun())
        result.problems += accounts.problems
        result.figure(
            f"{name}: ledger, leases, rows, rollups and bill",
            "agree to the nano" if not accounts.problems else f"{len(accounts.problems)} differences",
            "agree",
            holds=not accounts.problems,
        )
    result.problems += world.reconcile().problems
    result.seconds = time.monotonic() - began
    return result


def rates_of(limit):
    return {"organization": {"requests_per_minute": limit}}


def _be_polite(world, result, seed, seconds, limit, clients):
    # A place is kept for a key: of many callers with the same one, any may come for it.
    keys = [(f"caller {number}", "one", "ann") for number in range(clients)]
    tenant = world.tenant("rates", keys, models=MODELS, rates=rates_of(limit))
    callers = Callers(world, tenant, seed=seed)
    asyncio.run(politely(callers, seconds, clients))
    world.until_drained(tenant, rows=len(callers.load.attempts))
    retries = [attempt for attempt in callers.load.attempts if attempt.error == "retry"]
    first = sum(attempt.ending == WHOLE for attempt in retries)
    share = first / len(retries) if retries else 1.0
    result.figure(
        "Let in at the first try after retry-after", f"{share:.1%} of {len(retries):,}", "99 %", holds=share >= 0.99
    )


def _judge(world, result, name, tenant, load, limit, *, exact):
    failed = [a for a in load.attempts if a.ending != WHOLE and a.status != 429]
    result.figure(f"{name}: failed otherwise than by the limit", len(failed), "0", holds=not failed)
    result.problems += [f"{name}: {a.marker} {a.status} {a.code} {a.error}" for a in failed[:5]]
    rows = world.server.query(
        "SELECT started_at FROM usage_requestlog WHERE organization_id = ? AND outcome <> 'refused' ORDER BY 1",
        tenant.organization,
    )
    times = [moment(row["started_at"]).timestamp() for row in rows]
    most, span = busiest(times)
    # Who is on the way while Valkey goes or comes is known to one process alone.
    allowed = int(limit + limit * span / 60) + (1 if exact else world.workers)
    result.figure(
        f"{name}: let in within the busiest {span:.0f} s", f"{most:,}", f"{allowed:,}: the limit and one burst",
        holds=most <= allowed,
    )  # fmt: skip
    duration = times[-1] - times[0] if times else 0
    fair = limit + limit * duration / 60
    share = len(times) / fair if fair else 1.0
    result.figure(f"{name}: of what the limit lets through", f"{share:.0%}", "50 to 100 %" if not exact else "")
    wrong = [a for a in load.attempts if a.status == 429 and a.retry_after is None]
    result.figure(f"{name}: refused without saying when to come back", len(wrong), "0", holds=not wrong)


def busiest(times):
    """How many there were in the busiest sixty seconds, or in all where that is shorter; and how long that was."""
    span = min(60.0, times[-1] - times[0]) if times else 0.0
    most, first = 0, 0
    for last, moment_ in enumerate(times):
        while times[first] < moment_ - span:
            first += 1
        most = max(most, last - first + 1)
    return most, span


async def demand(callers, seconds, clients):
    """Ask again and again, however often one is refused."""
    until = time.monotonic() + seconds

    async def caller():
        while time.monotonic() < until:
            attempt = await callers.ask("red", MODELS[0])
            if attempt.status == 429:
                await asyncio.sleep(callers.chance.uniform(0.05, 0.4))

    async with callers.session(clients):
        await asyncio.gather(*(caller() for _ in range(clients)))


async def politely(callers, seconds, clients):
    """Use the burst up, then ask; who is refused waits as long as they are told to and asks once more."""
    until = time.monotonic() + seconds

    async def caller(key):
        while time.monotonic() < until:
            attempt = await callers.ask(key, MODELS[0])
            while attempt.status == 429 and attempt.retry_after is not None:
                await asyncio.sleep(attempt.retry_after)
                attempt = await callers.ask(key, MODELS[0])
                attempt.error = "retry"

    async with callers.session(clients):
        await asyncio.gather(*(caller(f"caller {number}") for number in range(clients)))


class Every:
    """Does harm every so many seconds, while it is entered; none by default."""

    def __init__(self, seconds=1.0, harm=None):
        self.seconds, self.harm = seconds, harm
        self._ended = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(30)

    def _run(self):
        while not self._ended.wait(self.seconds):
            if self.harm:
                self.harm()


class Outages(Every):
    """Valkey is refused, black-holed or frozen for half of the time."""

    def __init__(self, world, seconds, seed):
        chance = random.Random(seed)

        def harm():
            fault = chance.choice(("refused", "black_holed", "frozen"))
            with getattr(world.valkey_proxy, fault):
                self._ended.wait(seconds)

        super().__init__(seconds, harm)
