"""
One gateway process pinned to one core, with keys, counting and the journal on, between a caller and a bare upstream.

Caller and upstream share another core. Gateway and upstream are measured in turn, round by round, so that a busy
machine slows both alike: the ratios are what counts, and the processor time a request.
"""

import asyncio
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.load import Target, run_round
from tests.server import ROOT, Server

REPORT = ROOT / "docs" / "benchmarks.md"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """A way of calling, and what the gateway must reach in it."""

    title: str
    clients: int
    stream: bool = False
    dialect: str = "openai"
    upstream: str = "openai"
    least_ratio: float | None = None
    most_added_ms: float | None = None
    direct: list = field(default_factory=list, compare=False)
    gateway: list = field(default_factory=list, compare=False)
    cpu_us: list = field(default_factory=list, compare=False)

    def ratio(self):
        return rate(self.gateway) / rate(self.direct)

    def added_ms(self):
        return p50(self.gateway) - p50(self.direct)

    def failures(self):
        """What was not reached, a line each."""
        if errors := sum(r.errors for r in self.gateway + self.direct):
            first = next(r.first_error for r in self.gateway + self.direct if r.first_error)
            yield f"{self.title}: {errors} requests failed, the first with {first}"
        if self.least_ratio and self.ratio() < self.least_ratio:
            yield f"{self.title}: the ratio {self.ratio():.3f} is below {self.least_ratio}"
        if self.most_added_ms and self.added_ms() > self.most_added_ms:
            yield f"{self.title}: {self.added_ms():.2f} ms are added, more than {self.most_added_ms}"


CASES = [
    Case("32 callers, whole answers", 32, least_ratio=0.03),
    Case("16 callers, streams of 50 chunks", 16, stream=True, least_ratio=0.22),
    Case("1 caller, whole answers", 1, most_added_ms=0.6),
    Case("32 callers, whole messages", 32, dialect="anthropic", upstream="anthropic"),
    Case("16 callers, translated streams", 16, stream=True, dialect="anthropic", upstream="openai"),
]
MOST_MEMORY_MB = 130


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=3, help="of one round (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (default 5)")
    parser.add_argument("--record", action="store_true", help=f"write the table to {REPORT.relative_to(ROOT)}")


def run(options):
    """Measure every case; 1 where a target was missed."""
    cores = sorted(os.sched_getaffinity(0))
    gateway_core, own_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {own_core})
    with tempfile.TemporaryDirectory(prefix="comptoir-bench-") as folder, bare_upstream() as upstream_port:
        server = Server(folder, cores={gateway_core}, environment={"PYTHONDONTWRITEBYTECODE": ""})
        with server:
            key = server.create_api_key("bench")
            upstream = f"http://127.0.0.1:{upstream_port}"
            server.add_provider(f"{upstream}/v1", "m-50-0")
            server.add_provider(f"{upstream}/v1", "claude-m-50-0", kind="anthropic")
            (web,) = server.web_pids()
            until_routed(server, key, "m-50-0", "claude-m-50-0")
            answers = uvloop.run(measure(server.port, upstream_port, key, web, options))
            memory = memory_mb(web)
            counted = server.settled_usage(answers)["rows"]
    text = report(memory=memory, answers=answers, counted=counted, cores=len(cores), options=options)
    print(text)
    if options.record:
        REPORT.write_text(PREFACE + text)
        print(f"Written to {REPORT.relative_to(ROOT)}.")
    failures = [failure for case in CASES for failure in case.failures()]
    if memory[1] > MOST_MEMORY_MB:
        failures.append(f"The process took {memory[1]:.0f} MB, more than {MOST_MEMORY_MB}")
    if counted != answers:
        failures.append(f"{answers} answers, but {counted} rows")
    for failure in failures:
        print(f"Missed: {failure}.")
    return 1 if failures else 0


async def measure(gateway_port, upstream_port, key, web, options):
    """Run every case in turn with the bare upstream; the number of answers that the gateway gave."""
    answers = 0
    for case in CASES:
        model = "claude-m-50-0" if case.upstream == "anthropic" else "m-50-0"
        gateway = Target.of(gateway_port, key=key, model=model, stream=case.stream, dialect=case.dialect)
        direct = Target.of(upstream_port, key="none", model=model, stream=case.stream, dialect=case.upstream)
        answers += (await run_round(gateway, clients=case.clients, seconds=1)).answers
        await run_round(direct, clients=case.clients, seconds=0.5)
        for number in range(options.rounds):
            progress(f"{case.title}: round {number + 1} of {options.rounds}")
            case.direct.append(await run_round(direct, clients=case.clients, seconds=options.seconds))
            before = cpu_seconds(web)
            done = await run_round(gateway, clients=case.clients, seconds=options.seconds)
            case.cpu_us.append((cpu_seconds(web) - before) * 1e6 / max(1, done.answers))
            case.gateway.append(done)
            answers += done.answers
            await asyncio.sleep(0.2)
    progress("")
    return answers


@contextlib.contextmanager
def bare_upstream():
    """The port of a running ``bench.upstream``."""
    command = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def until_routed(server, key, *models):
    """Wait until the running gateway has read the new key and models."""
    import httpx

    until = time.monotonic() + 10
    headers = {"authorization": f"Bearer {key}"}
    while True:
        answer = httpx.get(f"{server.base_url}/v1/models", headers=headers)
        if answer.status_code == 200 and set(models) <= {model["id"] for model in answer.json()["data"]}:
            return
        if time.monotonic() > until:
            raise RuntimeError(f"The gateway does not know the new models: {answer.status_code} {answer.text}")
        time.sleep(0.1)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid):
    """Resident memory now and at its highest."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))


def rate(rounds):
    return statistics.median(r.rate for r in rounds)


def p50(rounds, share=0.5):
    return statistics.median(r.quantile(share) for r in rounds)


def progress(line):
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


# The report --------------------------------------------------------------------------------------------------------

PREFACE = """\
# Benchmarks

`./comptoir bench --record` wrote this page. One gateway process is pinned to one core, with keys, counting and the
journal on; the caller and a mock upstream that does no work share another. The bare upstream is measured in the same
run, round by round in turn, because absolute figures drift with the machine: the ratio and the processor time a
request are what to compare. Rates are answers a second, medians of the rounds, with the slowest and fastest round.

"""


def report(*, memory, answers, counted, cores, options):
    """The table and the facts around it, as Markdown."""
    head = ["", "upstream /s", "gateway /s", "slowest–fastest", "ratio", "p50", "p99", "added p50", "CPU a request"]
    rows = []
    for case in CASES:
        rates = [r.rate for r in case.gateway]
        wanted = f" (≥ {case.least_ratio})" if case.least_ratio else ""
        at_most = f" (≤ {case.most_added_ms} ms)" if case.most_added_ms else ""
        rows.append(
            [
                case.title,
                f"{rate(case.direct):,.0f}",
                f"{rate(case.gateway):,.0f}",
                f"{min(rates):,.0f}–{max(rates):,.0f}",
                f"{case.ratio():.3f}{wanted}",
                f"{p50(case.gateway):.2f} ms",
                f"{p50(case.gateway, 0.99):.2f} ms",
                f"{case.added_ms():.2f} ms{at_most}",
                f"{statistics.median(case.cpu_us):,.0f} µs",
            ]
        )
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        first, *others = (
            f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return "\n".join(
        [
            line(head),
            rule,
            *(line(row) for row in rows),
            "",
            f"Memory of the gateway process: {memory[0]:.0f} MB after the run, {memory[1]:.0f} MB at its highest"
            f" (≤ {MOST_MEMORY_MB} MB).",
            f"Counted: {counted:,} rows for {answers:,} answers.",
            f"{options.rounds} rounds of {options.seconds:g} s each; {time.strftime('%Y-%m-%d')}, {cpu_name()},"
            f" {cores} cores, {python}.",
            "",
        ]
    )


def cpu_name():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()
