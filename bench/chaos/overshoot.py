"""Endless demand against hard limits at four nested scopes: how far they are used, and whether one is ever passed."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import psycopg

from bench.chaos.callers import WHOLE, Callers, false_refusals
from bench.chaos.results import Result, say
from bench.chaos.world import MOST_TOKENS, NANOS, PACES, PRICE, Tenant

# Worst cases that each scope allows: nested, so that each of them is what binds for somebody in the end.
SCALE = {"organization": 720, "workspace one": 460, "member ann": 265, "key red": 110}
KEYS = [
    ("red", "one", "ann"),
    ("blue", "one", "ann"),
    ("green", "one", "ben"),
    ("white", "two", "ben"),
]
WORST = MOST_TOKENS * NANOS * int(PRICE[1])
QUIET_SECONDS = 6.0


def run(world, *, seeds, clients=256, pace=1.0, timeout=600, scale=1.0, at_once=1, ends=False) -> Result:
    """
    Play one tenant a seed, so many at once; streams last from 0.5 to 20 s, times ``pace``, limits are ``scale`` times
    as large. ``ends`` says that the server is stopped after it, and that nothing may be held then.
    """
    beside = f", {at_once} seeds beside each other" if at_once > 1 else ""
    result = Result(
        "Overshoot",
        f"Hard limits at 4 nested scopes, {world.workers} processes, {clients} clients at a time for each seed{beside}"
        f", streams of {0.5 * pace:g} to {20 * pace:g} s, until every one of them is refused",
        seeds=list(seeds),
    )
    began = time.monotonic()
    found = Found()
    with ThreadPoolExecutor(at_once) as threads:
        played = [threads.submit(play, world, seed, clients, pace, timeout, scale) for seed in seeds]
        for future in as_completed(played):
            judge(world, result, found, *future.result())
            say(f"overshoot: {len(found.over)} of {len(played)} seeds")
    reserved = world.reserved()
    accounts = finish(world, ends)
    result.seconds = time.monotonic() - began
    result.problems += accounts.problems
    over, looks = max(found.over), f"{found.looks:,}"
    result.figure("Requests", f"{found.attempts:,}, of them {found.admitted:,} let in")
    result.figure(f"Overshoot, at any of {looks} looks", f"{over} nanos", "0", holds=over <= 0)
    least = min(found.shares)
    result.figure("Least share used of what stops a key", f"{least:.2%}", "97 %", holds=least >= 0.97)
    result.figure("Limits that were used up", f"{found.full} of {len(SCALE) * len(result.seeds)}")
    result.figure("Refused although there was room", found.false, "0", holds=not found.false)
    result.figure("Asked to come back, as the ledger took too long", found.busy)
    result.figure("Left reserved when all had ended", f"{reserved:.0f} nanos", "0", holds=not reserved)
    if ends:
        held = accounts.held
        result.figure("Left held when the server had ended", f"{held} nanos", "0", holds=not held)
    result.figure(
        "Ledger, leases, rows, rollups and bill",
        "agree to the nano" if not accounts.problems else f"{len(accounts.problems)} differences",
        "agree",
        holds=not accounts.problems,
    )
    return result


@dataclass
class Found:
    """What all seeds came to so far."""

    over: list = field(default_factory=list)
    shares: list = field(default_factory=list)
    attempts: int = 0
    admitted: int = 0
    false: int = 0
    full: int = 0
    looks: int = 0
    busy: int = 0


def judge(world, result, found, seed, tenant, load, watched):
    """Hold what one seed's callers have seen against all books."""
    found.attempts += len(load.attempts)
    found.admitted += sum(attempt.status == 200 for attempt in load.attempts)
    refused_falsely = false_refusals(load.attempts, tenant)
    found.false += len(refused_falsely)
    result.problems += [
        f"Seed {seed}: {a.marker} was refused after {a.seconds:.2f} s, and there was room" for a in refused_falsely
    ]
    result.problems += [
        f"Seed {seed}: {a.marker} ended {a.ending} with {a.status} {a.code} {a.error}"
        for a in load.attempts
        if a.ending != WHOLE and a.code not in {"insufficient_quota", "limits_unavailable"}
    ]
    found.busy += sum(attempt.code == "limits_unavailable" for attempt in load.attempts)
    accounts = world.reconcile(tenant, answered=load.answered())
    result.problems += [f"Seed {seed}: {problem}" for problem in accounts.problems]
    found.over.append(max(accounts.over, watched.over))
    found.looks += watched.looks
    used = {scope: accounts.used.get(tuple(tenant.scopes[scope]), 0.0) for scope in tenant.limits}
    # What stops a key in the end is the fullest of its limits.
    found.shares += [max(used.get(scope, 0.0) for scope in tenant.scopes_of(key)) for key in tenant.keys]
    found.full += sum(share >= 0.97 for share in used.values())


def finish(world, ends):
    """Hold all books against each other once more, with the server stopped where this is its end."""
    if ends:
        world.stop()
    return world.reconcile(is_stopped=ends)


def play(world, seed, clients, pace, timeout, scale):
    """One tenant from its first request to its last nano."""
    models = [slower(model, pace) for model in PACES]
    limits = {scope: int(count * scale) * (WORST + WORST // 8) for scope, count in SCALE.items()}
    tenant = world.tenant("overshoot", KEYS, models=models, limits=limits)
    callers = Callers(world, tenant, seed=seed)
    with Watch(world, tenant) as watched:
        asyncio.run(demand(callers, models, clients, timeout))
        world.until_drained(tenant, rows=len(callers.load.attempts))
    return seed, tenant, callers.load, watched


def slower(model, pace):
    _, chunks, milliseconds = model.split("-")
    return f"m-{chunks}-{max(round(int(milliseconds) * pace), 1)}"


async def demand(callers, models, clients, seconds):
    """Ask for as long as anybody is answered, and a little longer."""
    load = callers.load
    began = load.admitted_last = time.monotonic()

    def goes_on():
        now = time.monotonic()
        return (load.in_flight or now - load.admitted_last < QUIET_SECONDS) and now - began < seconds

    async def caller(number):
        await asyncio.sleep(callers.chance.random() * 0.3)
        while goes_on():
            key = KEYS[callers.chance.randrange(len(KEYS))][0]
            attempt = await callers.ask(key, callers.chance.choice(models), stream=callers.chance.random() < 0.8)
            if attempt.status != 200:
                await asyncio.sleep(callers.chance.uniform(0.1, 0.6))

    async with callers.session(clients):
        await asyncio.gather(*(caller(number) for number in range(clients)))


class Watch:
    """Reads the ledger all the time: the most that any limit of a tenant was passed by, with what is held."""

    QUESTION = """
        SELECT COALESCE(MAX(period.settled_nanos + period.leased_nanos - spend_limit.amount_nanos), 0)
        FROM usage_ledgerperiod period JOIN usage_spendlimit spend_limit
        USING (organization_id, scope, scope_id, period) WHERE organization_id = %s
    """

    def __init__(self, world, tenant: Tenant):
        self.world, self.tenant = world, tenant
        self.over = 0
        self.looks = 0
        self._ended = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(10)

    def _run(self):
        with psycopg.connect(self.world.server.direct, autocommit=True) as connection:
            while not self._ended.wait(0.05):
                (over,) = connection.execute(self.QUESTION, [self.tenant.organization]).fetchone()
                self.over = max(self.over, int(over))
                self.looks += 1
