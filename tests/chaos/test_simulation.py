"""
Ledger, leases, journal and drainer under any order of deaths, outages, slow links, sleeping machines and wrong clocks.

``COMPTOIR_SLOW_TESTS=1`` tries a hundred times as many histories.
"""

import os
import shutil
import tempfile
from pathlib import Path

from django.db import transaction
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.simulation import World
from tests.factories import make_api_key, make_model, make_price, make_provider, make_workspace
from usage.spend_limits import set_spend_limit

SLOW = bool(os.environ.get("COMPTOIR_SLOW_TESTS"))
# How long a stream lasts at most, in seconds of the simulation.
LONGEST = 20 if SLOW else 5
EXAMPLES = 3_000 if SLOW else 20


class Stage:
    """One world in a transaction and a folder that are thrown away."""

    def __init__(self, *, seed, amounts):
        self.atomic = transaction.atomic()
        self.atomic.__enter__()
        self.folder = Path(tempfile.mkdtemp(prefix="comptoir-simulation-", dir="/dev/shm" if SHM else None))
        workspace = make_workspace()
        keys = [make_api_key(workspace) for _ in range(2)]
        price = make_price(make_model(make_provider(workspace.organization)), input="0", output="1")
        scopes = [
            ("organization", workspace.organization_id, "month"),
            ("workspace", workspace.pk, "day"),
            ("api_key", keys[0].pk, "day"),
            ("api_key", keys[0].pk, "month"),
            ("api_key", keys[1].pk, "week"),
        ]
        self.limits = [
            set_spend_limit(
                organization=workspace.organization,
                scope=scope,
                scope_id=scope_id,
                period=period,
                amount_nanos=amount * 1_000,
            )
            for (scope, scope_id, period), amount in zip(scopes, amounts, strict=True)
        ]
        self.keys = keys
        self.world = World(self.folder, workspace, keys, price, seed=seed, limits=scopes)

    def end(self):
        self.world.close()
        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)


SHM = os.path.isdir("/dev/shm")
number = st.integers(0, 10)
tokens = st.integers(1, 60)


class Gateways(RuleBasedStateMachine):
    """What may happen to gateways, in any order."""

    stage = None

    @initialize(seed=st.integers(0, 2**16), count=st.integers(1, 3), scale=st.sampled_from([1, 4, 20]))
    def begin(self, seed, count, scale):
        amounts = [1000 // scale, 800 // scale, 300 // scale, 500 // scale, 600 // scale]
        self.stage = Stage(seed=seed, amounts=amounts)
        self.world = self.stage.world
        for _ in range(count):
            self.world.start_process()

    def one(self, processes, number):
        return processes[number % len(processes)]

    def open_requests(self):
        return [r for p in self.world.awake for r in p.requests if r.state == "open"]

    @precondition(lambda self: self.world.awake)
    @rule(process=number, key=st.integers(0, 1), tokens=tokens, count=st.integers(1, 4))
    def requests_come(self, process, key, tokens, count):
        for place in range(count):
            self.world.request(self.one(self.world.awake, process + place), self.stage.keys[key], tokens)

    @precondition(lambda self: self.open_requests())
    @rule(request=number, share=st.integers(0, 100), count=st.integers(1, 4))
    def answers_end(self, request, share, count):
        for place in range(min(count, len(self.open_requests()))):
            ended = self.one(self.open_requests(), request + place)
            self.world.finish(ended, ended.nanos // 1_000 * share // 100)

    @precondition(lambda self: self.open_requests())
    @rule(request=number, share=st.integers(0, 100))
    def a_stream_goes_on(self, request, share):
        request = self.one(self.open_requests(), request)
        self.world.progress(request, request.nanos // 1_000 * share // 100)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.7, 3]))
    def time_passes(self, seconds):
        self.world.run(seconds)

    @rule(seconds=st.sampled_from([70, 700, 1_000, 90_000]))
    def the_machine_sleeps(self, seconds):
        self.world.jump(seconds)

    @precondition(lambda self: self.world.awake)
    @rule(process=number)
    def records_are_drained(self, process):
        self.one(self.world.awake, process).drain()

    @precondition(lambda self: len(self.world.living) < 3)
    @rule()
    def a_process_starts(self):
        self.world.start_process()

    @precondition(lambda self: self.world.living)
    @rule(process=number)
    def a_process_is_killed(self, process):
        self.one(self.world.living, process).kill()

    @precondition(lambda self: self.world.awake)
    @rule(process=number)
    def a_process_is_told_to_end(self, process):
        process = self.one(self.world.awake, process)
        process.link = "good"
        for request in process.requests:
            if request.state == "open":
                self.world.finish(request, request.nanos // 2_000)
        self.world.run(3)
        if not any(request.state == "open" for request in process.requests):
            process.stop()

    @precondition(lambda self: self.world.living)
    @rule(process=number, link=st.sampled_from(["good", "down", "deaf", "flaky"]))
    def a_link_changes(self, process, link):
        self.one(self.world.living, process).link = link

    @precondition(lambda self: self.world.living)
    @rule(process=number, latency=st.sampled_from([0.0, 0.05, 1.5]))
    def a_link_slows_down(self, process, latency):
        self.one(self.world.living, process).latency = latency

    @precondition(lambda self: self.world.awake)
    @rule(process=number)
    def a_process_freezes(self, process):
        self.one(self.world.awake, process).is_frozen = True

    @precondition(lambda self: len(self.world.awake) < len(self.world.living))
    @rule()
    def all_thaw(self):
        for process in self.world.living:
            process.is_frozen = False
            for step in process.held_back:
                process.context.copy().run(step)
            process.held_back.clear()
        self.world.run(0)

    @precondition(lambda self: self.world.living)
    @rule(process=number, seconds=st.sampled_from([-3600, -300, 0, 300, 3600]))
    def a_clock_is_wrong(self, process, seconds):
        self.one(self.world.living, process).clock_error = seconds

    @rule(limit=st.integers(0, 4), tokens=st.integers(10, 1_000))
    def a_limit_changes(self, limit, tokens):
        self.world.set_amount(self.stage.limits[limit], tokens)

    @invariant()
    def what_is_spent_was_held_and_what_is_held_is_there(self):
        if self.stage is not None:
            self.world.check()

    def teardown(self):
        if self.stage is not None:
            for state in {request.state for request in self.world.requests}:
                event(f"a request was {state}")
            try:
                self.world.settle_down()
            finally:
                self.stage.end()


def test_no_history_passes_a_limit_or_loses_a_record(db):
    run_state_machine_as_test(
        Gateways,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@settings(max_examples=max(EXAMPLES // 10, 1), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**16), processes=st.integers(1, 4))
def test_nothing_is_refused_that_could_pass_and_nearly_all_can_be_spent(db, seed, processes):
    stage = Stage(seed=seed, amounts=[2_000, 1_800, 1_000, 1_200, 1_400])
    try:
        endless_demand(stage, processes)
    finally:
        stage.end()


def endless_demand(stage, processes):
    """Ask at every process for as long as something is answered."""
    world, chance = stage.world, stage.world.chance
    for _ in range(processes):
        world.start_process()
    ends, quiet = [], 0
    while quiet < 8:
        for _ in range(chance.randint(1, 4)):
            request = world.request(chance.choice(world.living), chance.choice(stage.keys), chance.randint(10, 25))
            ends.append((world.seconds + chance.uniform(0.5, LONGEST), request))
        world.run(chance.uniform(0.05, 0.5))
        quiet = quiet + 1 if all(r.state not in {"open", "waiting"} for _, r in ends) else 0
        for due, request in sorted(ends, key=lambda end: end[0]):
            if due <= world.seconds and request.state == "open":
                world.finish(request, request.nanos // 1_000 * chance.randint(30, 100) // 100)
        ends = [(due, r) for due, r in ends if r.state in {"open", "waiting"}]
        if chance.random() < 0.2:
            chance.choice(world.living).drain()
        for request, _ in world.refused:
            assert any(
                world.most_taken(key, request.came_at - 0.001) + request.nanos > limit.amount_nanos
                for key in request.keys
                for limit in stage.limits
                if (limit.scope, limit.scope_id, limit.period) == (key.scope, key.scope_id, key.period)
            ), f"Request {request.number} was refused, and there was room"
        world.refused.clear()
    world.check()
    shares = [
        world.taken(key) / limit.amount_nanos
        for api_key in stage.keys
        for key in world.keys_at(api_key, world.now())
        for limit in stage.limits
        if (limit.scope, limit.scope_id, limit.period) == (key.scope, key.scope_id, key.period)
    ]
    assert max(shares) >= 0.99
    world.settle_down()
