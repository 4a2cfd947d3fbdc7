"""What limits cost the requests that they let through: the same server, with every kind of limit and without any."""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field

import uvloop

from bench.chaos.results import Result, say
from bench.chaos.tenant import Workshop
from bench.load import Target, run_round
from bench.throughput import bare_upstream, cpu_seconds, until_routed
from tests.server import Server

MODEL = "m-50-0"
KEY = ("red", "one", "ann")
PLENTY = 10**15
NESTED = dict.fromkeys(("organization", "workspace one", "key red", "member ann"), PLENTY)
MOST = 10**9
FIGURES = {
    "requests_per_minute": MOST,
    "input_tokens_per_minute": 10 * MOST,
    "output_tokens_per_minute": 10 * MOST,
    "concurrent_requests": MOST,
}
RATES = dict.fromkeys(("organization", "workspace one", "key red", f"organization of {MODEL[:2]}*"), FIGURES)
# By what they are called: the spend limits and the rate limits of an organization.
KINDS = {"none": ({}, {}), "spend": (NESTED, {}), "all": (NESTED, RATES)}
LEAST_SHARE = 0.85
MOST_CPU_US = 60
QUIET_SECONDS = 0.3


@dataclass
class Case:
    """A way of calling; by kind of limits, the answers a second and the processor time a request of each round."""

    title: str
    clients: int
    stream: bool
    rates: dict = field(default_factory=lambda: {kind: [] for kind in KINDS})
    cpu_us: dict = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def share(self, kind):
        """The throughput with such limits, of that without, in the same round."""
        return statistics.median(
            limited / free for limited, free in zip(self.rates[kind], self.rates["none"], strict=True)
        )

    def added_us(self, kind):
        return statistics.median(
            limited - free for limited, free in zip(self.cpu_us[kind], self.cpu_us["none"], strict=True)
        )


def run(*, rounds=9, seconds=4) -> Result:
    """Measure each kind of limits in turn, round by round; on one process that has a core for itself."""
    result = Result(
        "Hot path",
        "One gateway process on a core of its own, on SQLite, with one organization without limits, one with hard "
        "limits at 4 nested scopes, and one with these and limits of requests, input tokens, output tokens and "
        f"requests at the same time on organization, workspace, key and a group of models; in turn, {rounds} rounds of "
        f"{seconds:g} s each; medians of the differences within rounds; processor time with all that is written to the "
        "database",
    )
    began = time.monotonic()
    cases = [Case("32 callers, whole answers", 32, False), Case("16 callers, streams of 50 chunks", 16, True)]
    affinity = os.sched_getaffinity(0)
    gateway_core, own_core = min(affinity), max(affinity)
    os.sched_setaffinity(0, {own_core})
    try:
        with (
            tempfile.TemporaryDirectory(prefix="comptoir-chaos-") as folder,
            bare_upstream() as port,
            Server(folder, cores={gateway_core}) as server,
        ):
            _measure(server, f"http://127.0.0.1:{port}/v1", cases, rounds, seconds, result)
    finally:
        os.sched_setaffinity(0, affinity)
    result.seconds = time.monotonic() - began
    for case in cases:
        name, share, added = case.title, case.share("all"), case.added_us("spend")
        median = {kind: statistics.median(case.rates[kind]) for kind in KINDS}
        result.figure(
            f"{name}: a second without limits, with 4 nested, with all",
            ", ".join(f"{each:,.0f}" for each in median.values()),
        )
        result.figure(f"{name}: of the throughput, with all", f"{share:.1%}", "85 %", holds=share >= LEAST_SHARE)
        result.figure(f"{name}: CPU a request without limits", f"{statistics.median(case.cpu_us['none']):.0f} µs")
        result.figure(
            f"{name}: CPU added at 4 nested limits", f"{added:.0f} µs", f"at most {MOST_CPU_US} µs",
            holds=added <= MOST_CPU_US,
        )  # fmt: skip
        result.figure(f"{name}: CPU added with all", f"{case.added_us('all'):.0f} µs")
    return result


def _measure(server, upstream, cases, rounds, seconds, result):
    (web,) = server.web_pids()
    keys, answers = {}, 0
    with Workshop(server) as workshop:
        for kind, (limits, rates) in KINDS.items():
            wanted = {
                "name": f"hotpath-{kind}",
                "upstream": upstream,
                "models": [MODEL],
                "price": ("0.1", "1"),
                "keys": [dict(zip(("name", "workspace", "member"), KEY, strict=True))],
                "limits": limits,
                "rates": rates,
            }
            keys[kind] = workshop.ask("make", wanted)["keys"]["red"]["secret"]
            until_routed(server, keys[kind], MODEL)
    for case in cases:
        targets = {kind: Target.of(server.port, key=key, model=MODEL, stream=case.stream) for kind, key in keys.items()}
        for target in targets.values():
            answers += uvloop.run(run_round(target, clients=case.clients, seconds=1)).answers
        for number in range(rounds):
            say(f"hotpath: {case.title}, round {number + 1} of {rounds}")
            kinds = list(KINDS)
            # None of them is always the one that comes after another.
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                before = until_idle(web)
                done = uvloop.run(run_round(targets[kind], clients=case.clients, seconds=seconds))
                case.rates[kind].append(done.rate)
                case.cpu_us[kind].append((until_idle(web) - before) * 1e6 / max(done.answers, 1))
                answers += done.answers
                if done.errors:
                    result.problems.append(f"{case.title}, {kind}: {done.errors} failed, as {done.first_error}")
    counted = server.settled_usage(answers)["rows"]
    result.figure("Rows for answers", f"{counted:,} for {answers:,}", "as many", holds=counted == answers)


def until_idle(pid):
    """Wait until the process has written down what it was asked; the processor time that it has taken by then."""
    until = time.monotonic() + 15
    used = cpu_seconds(pid)
    while time.monotonic() < until:
        time.sleep(QUIET_SECONDS)
        now = cpu_seconds(pid)
        if now - used <= 0.02:
            return now
        used = now
    return used
