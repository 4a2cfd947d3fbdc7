"""
A few gateway processes in one, on a clock and a network that do as they are told.

``usage.ledger``, ``gateway.leases``, ``gateway.journal``, ``gateway.drainer`` and ``usage.records`` are as they are.
Only what surrounds them is made here: time, the way to the database, the threads, and the death of a process.
Everything happens in one thread, so that the same choices lead to the same history.
"""

import asyncio
import contextlib
import contextvars
import datetime
import functools
import itertools
import random
import selectors
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace

from django.db import OperationalError

import gateway.drainer
import gateway.journal
import gateway.leases
import usage.ledger
from gateway.drainer import Drainer
from gateway.journal import Journal
from gateway.leases import Exhausted, Leases, Unavailable
from tests.books import ledger_differences
from tests.gateway.records import closed, opened
from usage import ledger, records
from usage.calendar import calendar_of
from usage.ledger import Key
from usage.models import GatewayProcess, LedgerPeriod, RequestLog, SpendLease, SpendLimit
from usage.records import Progress
from usage.ulid import new_ulid

TOKEN = 1_000  # nanos: the models' output is priced at 1 for a million tokens
CURRENT = contextvars.ContextVar("process", default=None)


@dataclass(eq=False)
class Request:
    """One request as the world knows it: ``nanos`` is the most that it can cost, ``cost`` what it did cost."""

    number: int
    process: "Process"
    keys: tuple[Key, ...]
    nanos: int
    came_at: float
    started_us: int
    state: str = "waiting"
    cost: int | None = None
    reservation: object = None
    entry: object = None
    task: asyncio.Task | None = None
    id: str = ""
    api_key_id: int | None = None


@dataclass(eq=False)
class Process:
    """One gateway process: its leases, journal and drainer, and how it is doing."""

    name: str
    world: "World"
    journal: Journal = None
    leases: Leases = None
    drainer: Drainer = None
    context: contextvars.Context = None
    link: str = "good"  # or "down": nothing arrives, "deaf": what it asks is done and no answer arrives, "flaky"
    latency: float = 0.0
    clock_error: float = 0.0
    is_frozen: bool = False
    is_dead: bool = False
    requests: list[Request] = field(default_factory=list)
    held_back: list = field(default_factory=list)

    def boot(self):
        self.journal = Journal(self.world.folder)
        self.leases = Leases(self.journal.uid)
        self.leases._executor.shutdown()
        self.leases._executor = Executor(self)
        self.drainer = Drainer(self.journal, 24)
        # A drainer that would wait for a database comes back another time instead.
        self.drainer._stop = SimpleNamespace(wait=lambda seconds: True)
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)
        self.run(self._start)

    async def _start(self):
        self.leases.start()

    def run(self, function, *arguments):
        """Run a coroutine function as this process."""
        task = self.world.loop.create_task(function(*arguments), context=self.context)
        return self.world.loop.run_until_complete(task)

    def drain(self, *, last=False):
        self.context.run(self.drainer._attempt, last=last)

    def kill(self):
        """End it as SIGKILL does: nothing more is run, written or returned; its locks are free."""
        self.is_dead = True
        for request in self.requests:
            if request.state == "waiting":
                request.state = "lost"
            if request.state == "open":
                request.state = "killed"
            if request.task is not None:
                request.task.cancel()
        self.leases._task.cancel()
        self.leases._recaller.cancel()
        self.world.run(0)
        self.journal.close()

    def stop(self):
        """End it as ``gateway.runtime`` does when it is told to."""
        self.latency = 0.0
        self.run(self.leases.stop)
        self.drain(last=True)
        self.context.run(self._let_go)
        self.is_dead = True

    def _let_go(self):
        self.journal.close(is_returned=self.leases.close(is_settled=self.journal.is_drained))


class Executor:
    """The thread that speaks with the database: whatever takes long there takes virtual time here."""

    def __init__(self, process):
        self.process = process

    def submit(self, function, *arguments):
        call = functools.partial(function, *arguments)
        process, answer = self.process, Future()
        loop, latency = process.world.loop, process.latency
        if not latency and not process.is_frozen:
            self._run(call, answer)
        elif process.world.chance.random() < 0.5:
            # The way there is the slow one.
            loop.call_later(latency, lambda: self._deliver(lambda: self._run(call, answer)))
        else:
            done = Future()
            self._run(call, done)
            loop.call_later(latency, lambda: self._deliver(lambda: self._copy(done, answer)))
        return answer

    def shutdown(self, wait=True):
        pass

    def _deliver(self, step):
        process = self.process
        if process.is_dead:
            return
        if process.is_frozen:
            process.held_back.append(step)
        else:
            process.context.copy().run(step)

    def _run(self, call, answer):
        loop = asyncio.events._get_running_loop()
        # To Django's connections this is a thread without a loop, and all of them have the same one.
        asyncio.events._set_running_loop(None)
        try:
            result = call()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)
        finally:
            asyncio.events._set_running_loop(loop)

    def _copy(self, done, answer):
        if answer.cancelled():
            return
        if error := done.exception():
            answer.set_exception(error)
        else:
            answer.set_result(done.result())


class Link:
    """A module of the database's side, over the link of the process that calls."""

    def __init__(self, module, world):
        self._module, self._world = module, world

    def __getattr__(self, name):
        found = getattr(self._module, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*arguments, **named):
            process = CURRENT.get()
            link = process.link
            if link == "flaky":
                link = self._world.chance.choice(("good", "down", "deaf"))
            if link == "down":
                raise OperationalError("The link is down.")
            result = found(*arguments, **named)
            if name == "register":
                # Its default is the real clock's time.
                GatewayProcess.objects.filter(pk=named["uid"]).update(seen_at=self._world.now(process))
            if link == "deaf":
                raise OperationalError("The answer is lost.")
            return result

        return call


class Clock:
    """What these modules know as ``time``."""

    def __init__(self, world):
        self._world = world

    def monotonic(self):
        return self._world.seconds

    perf_counter = monotonic

    def clock_gettime(self, _clock):
        return self._world.seconds

    def time(self):
        return self._world.now(CURRENT.get()).timestamp()


class Loop(asyncio.SelectorEventLoop):
    """An event loop on which waiting takes no time."""

    def __init__(self, world):
        self._world = world
        super().__init__(Selector(world))

    def time(self):
        return self._world.seconds


class Selector(selectors.DefaultSelector):
    def __init__(self, world):
        super().__init__()
        self._world = world

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            self._world.seconds += timeout
        return ready


class World:
    """Processes, limits and requests, and what is true of them whatever happens."""

    def __init__(self, folder, workspace, api_keys, price, *, seed, limits):
        """``limits``: triples of scope, id and period, with the amount in tokens."""
        self.folder, self.workspace, self.api_keys, self.price = folder, workspace, api_keys, price
        self.chance = random.Random(seed)
        self.seconds = 1_000_000.0
        self.started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self.seconds)
        self.calendar = calendar_of(workspace.organization.time_zone)
        self.limits = limits
        self.loop = Loop(self)
        self.processes: list[Process] = []
        self.requests: list[Request] = []
        self.ceilings = {}
        self.totals, self.history = {}, {}
        self.refused = []
        self._numbers = itertools.count(1)
        self._patches = contextlib.ExitStack()
        self._patch()

    def _patch(self):
        clock = Clock(self)
        waiter = gateway.leases.Waiter
        self._set(gateway.leases, "time", clock)
        self._set(gateway.leases, "Waiter", lambda *parts: waiter(*parts, since=self.seconds))
        self._set(gateway.leases, "ledger", Link(ledger, self))
        self._set(gateway.leases, "connection", SimpleNamespace(close=lambda: None))
        self._set(gateway.drainer, "time", clock)
        self._set(gateway.drainer, "ledger", Link(ledger, self))
        self._set(gateway.drainer, "records", Link(records, self))
        self._set(gateway.drainer, "connection", SimpleNamespace(close=lambda: None))
        quiet = SimpleNamespace(info=_nothing, warning=_nothing, error=_nothing, exception=_failed)
        self._set(gateway.leases, "log", quiet)
        self._set(gateway.drainer, "log", quiet)
        self._set(gateway.journal, "SEGMENT_BYTES", 64 * 1024)
        self._set(usage.ledger, "timezone", SimpleNamespace(now=lambda: self.now(CURRENT.get())))

    def _set(self, owner, name, value):
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._patches.callback(setattr, owner, name, before)

    def close(self):
        """Leave nothing of it behind."""
        for process in self.living:
            process.kill()
        self.loop.close()
        self._patches.close()

    # Time --------------------------------------------------------------------------------------------------------

    def now(self, process=None):
        """The time of day, as this process's clock has it."""
        error = process.clock_error if process else 0.0
        return self.started + datetime.timedelta(seconds=self.seconds + error)

    def run(self, seconds):
        """Let everybody go on for a while."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def jump(self, seconds):
        """As if the machine had slept."""
        self.seconds += seconds
        self.run(0.5)

    # What happens ------------------------------------------------------------------------------------------------

    @property
    def living(self):
        return [process for process in self.processes if not process.is_dead]

    @property
    def awake(self):
        return [process for process in self.living if not process.is_frozen]

    def start_process(self):
        process = Process(f"process {len(self.processes) + 1}", self)
        process.boot()
        self.processes.append(process)
        return process

    def keys_at(self, api_key, moment):
        """The limited intervals that a request of ``api_key`` counts in."""
        ids = {
            "organization": self.workspace.organization_id,
            "workspace": self.workspace.pk,
            "api_key": api_key.pk,
            "member": api_key.created_by_id,
        }
        return tuple(
            Key(self.workspace.organization_id, scope, scope_id, period, *self.calendar.interval(period, moment))
            for scope, scope_id, period in self.limits
            if ids[scope] == scope_id
        )

    def request(self, process, api_key, tokens):
        """Let a request come in at a process."""
        moment = self.now(process)
        request = Request(
            next(self._numbers), process, self.keys_at(api_key, moment), tokens * TOKEN, self.seconds,
            int(moment.timestamp() * 1_000_000), api_key_id=api_key.pk,
        )  # fmt: skip
        self.requests.append(request)
        process.requests.append(request)
        request.task = self.loop.create_task(self._serve(request), context=process.context.copy())
        self.run(0)
        return request

    async def _serve(self, request):
        process = request.process
        leases = process.leases
        accounts = tuple(leases.account(key, self.calendar) for key in request.keys)
        try:
            request.reservation = leases.reserve(accounts, request.nanos) or await leases.reserve_or_wait(
                accounts, request.nanos
            )
        except Exhausted as error:
            request.state = "refused"
            self.refused.append((request, error.key))
            return
        except Unavailable:
            request.state = "unavailable"
            return
        assert {account.key for account in request.reservation.accounts} == set(request.keys)
        ulid, first = opened(
            self.workspace, ulid=new_ulid(), started_us=request.started_us, api_key_id=request.api_key_id,
            user_id=next(key.created_by_id for key in self.api_keys if key.pk == request.api_key_id),
            price_id=self.price.pk, input_estimate=0, leases=request.reservation.lease_ids,
            held_nanos=request.reservation.nanos,
        )  # fmt: skip
        request.id = first.id
        request.entry = process.journal.open(ulid, first)
        request.state = "open"
        self._take(request, request.nanos)

    def progress(self, request, tokens):
        request.entry.progress(Progress(10, 0, tokens, 5))

    def finish(self, request, tokens):
        """Let the answer end; it has cost so many tokens."""
        self._take(request, tokens * TOKEN - request.nanos)
        request.cost = tokens * TOKEN
        request.entry.close(closed(input_tokens=0, output_tokens=tokens, cost_nanos=request.cost))
        request.process.leases.settle(request.reservation, request.cost)
        request.state = "ended"

    def set_amount(self, limit, tokens):
        SpendLimit.objects.filter(pk=limit.pk).update(amount_nanos=tokens * TOKEN)

    # What is true ------------------------------------------------------------------------------------------------

    def taken(self, key):
        """What requests have spent of an interval and hold of it, as the world knows it."""
        return self.totals.get(key, 0)

    def _take(self, request, nanos):
        for key in request.keys:
            self.totals[key] = self.totals.get(key, 0) + nanos
            self.history.setdefault(key, []).append((self.seconds, self.totals[key]))

    def most_taken(self, key, since):
        """The most that was taken of an interval at any moment since then."""
        most = 0
        for moment, taken in reversed(self.history.get(key, [])):
            most = max(most, taken)
            if moment < since:
                break
        return most

    def check(self):
        """What must hold at every moment."""
        limits = {(limit.scope, limit.scope_id, limit.period): limit.amount_nanos for limit in SpendLimit.objects.all()}
        self._know_the_dead()
        held = {}
        for lease in SpendLease.objects.all():
            assert lease.remaining_nanos == lease.granted_nanos - lease.settled_nanos - lease.released_nanos
            assert lease.remaining_nanos >= 0, f"{lease} has spent {-lease.remaining_nanos} more than it was granted"
            held[lease.ledger_period_id] = held.get(lease.ledger_period_id, 0) + lease.remaining_nanos
        for interval in LedgerPeriod.objects.all():
            assert interval.leased_nanos == held.get(interval.pk, 0), interval
            amount = limits.get((interval.scope, interval.scope_id, interval.period))
            if amount is None:
                continue
            total = interval.settled_nanos + interval.leased_nanos
            # One that was lowered below what is taken already comes down as that is spent or returned.
            ceiling = max(amount, min(self.ceilings.get(interval.pk, amount), total))
            assert total <= ceiling, f"{interval}: {total} is over {ceiling}"
            self.ceilings[interval.pk] = ceiling if total > amount else amount
            key = Key(
                interval.organization_id, interval.scope, interval.scope_id, interval.period, interval.start,
                interval.end,
            )  # fmt: skip
            taken = self.taken(key)
            assert taken <= total, f"{interval}: requests take {taken}, and the ledger knows of {total}"
        assert ledger_differences() == []

    def _know_the_dead(self):
        """What a request has cost whose process died stands in its row, once somebody has found its journal."""
        killed = {request.id: request for request in self.requests if request.state == "killed"}
        if killed:
            for row in RequestLog.objects.filter(pk__in=killed):
                request = killed[row.pk]
                assert (row.cost_nanos or 0) <= request.nanos
                request.cost, request.state = row.cost_nanos or 0, "ended"
                self._take(request, request.cost - request.nanos)

    def settle_down(self):
        """Mend everything and end everything; then nothing is held, and every request has its one row."""
        for process in self.living:
            process.link, process.latency, process.is_frozen = "good", 0.0, False
            for step in process.held_back:
                process.context.copy().run(step)
            process.held_back.clear()
        self.run(3)
        for process in self.living:
            for request in process.requests:
                if request.state == "open":
                    self.finish(request, request.nanos // TOKEN // 2)
            self.run(0.1)
            process.stop()
        self.seconds += gateway.drainer.TAKE_OVER_INTERVAL + 1
        last = self.start_process()
        last.drain()
        last.stop()
        self.check()
        assert not any(request.state in {"waiting", "open", "killed"} for request in self.requests)
        admitted = [request for request in self.requests if request.state == "ended"]
        costs = dict(RequestLog.objects.values_list("pk", "cost_nanos"))
        assert {request.id: request.cost for request in admitted} == {pk: cost or 0 for pk, cost in costs.items()}
        assert [lease for lease in SpendLease.objects.all() if lease.remaining_nanos] == []
        assert not list(self.folder.glob("*.journal")) + list(self.folder.glob("*.process"))


def _nothing(*arguments, **named):
    pass


def _failed(*arguments, **named):
    """A drainer that says so has met what it should have expected."""
    raise
