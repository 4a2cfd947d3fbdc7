"""Streams that are cut at random bytes, by the caller or by the provider: counts stay close to the bill."""

import asyncio
import statistics
import time

from bench.chaos.callers import Callers
from bench.chaos.results import Result
from bench.chaos.world import PRICE, decimal
from tests.tcp_proxy import TcpProxy

MODELS = ("m-40-40", "m-120-20")
# A chunk of the scripted upstream is some 180 bytes in this dialect.
BYTES = (200, 22_000)


def run(world, *, seed, streams=1_000, clients=32) -> Result:
    """Cut half of the streams between caller and gateway, half between gateway and provider."""
    result = Result(
        "Cut streams",
        f"{streams:,} streams cut at random bytes, half by the caller, half by the provider",
        seeds=[seed],
    )
    began = time.monotonic()
    plenty = 10**15
    with TcpProxy(world.server.port, seed=seed) as near, TcpProxy(world.upstream.port, seed=seed + 1) as far:
        limits = {"organization": plenty, "key red": plenty}
        keys = [("red", "one", "ann")]
        by_caller = world.tenant("cut-by-caller", keys, models=MODELS, limits=limits)
        by_provider = world.tenant(
            "cut-by-provider", keys, models=MODELS, limits=limits, upstream=f"http://127.0.0.1:{far.port}/v1"
        )
        near.cut_between(*BYTES)
        far.cut_between(*BYTES)
        for tenant, port in ((by_caller, near.port), (by_provider, world.server.port)):
            callers = Callers(world, tenant, seed=seed, port=port)
            asyncio.run(send(callers, streams // 2, clients))
            world.until_drained(tenant, rows=len(callers.load.attempts))
            _compare(world, result, tenant, callers.load)
        result.figure("Connections cut", f"{near.cut + far.cut:,}")
    accounts = world.reconcile()
    result.problems += accounts.problems
    result.seconds = time.monotonic() - began
    return result


async def send(callers, streams, clients):
    numbers = iter(range(streams))

    async def caller():
        for number in numbers:
            await callers.ask("red", MODELS[number % 2], tokens=400)

    async with callers.session(clients):
        await asyncio.gather(*(caller() for _ in range(clients)))


def _compare(world, result, tenant, load):
    """Hold the rows against the upstream's books, call by call."""
    entries = {entry.call_id: entry for entry in world.upstream.books}
    rows = world.server.query("SELECT * FROM usage_requestlog WHERE organization_id = ?", tenant.organization)
    off, compared, cut, within, in_all = [], 0, 0, 0, [0, 0]
    for row in rows:
        entry = entries.get(row["upstream_request_id"])
        if entry is None:
            continue
        compared += 1
        cut += row["outcome"] != "completed"
        billed, counted = entry.bill.output_tokens, row["output_tokens"] or 0
        off.append(abs(counted - billed))
        within += off[-1] <= max(1, billed * 0.02)
        in_all = [in_all[0] + counted, in_all[1] + billed]
        if off[-1] > max(1, billed * 0.02) and row["outcome"] == "completed":
            result.problems.append(f"{row['id']} is complete and counts {counted}, billed were {billed}")
        if row["cost_nanos"] > _hold_of(row):
            result.problems.append(f"{row['id']} costs more than it held")
        if counted and not row["cost_nanos"]:
            result.problems.append(f"{row['id']} has {counted} tokens and costs nothing")
    name = tenant.name.rsplit("-", 1)[0].replace("cut-", "Cut ").replace("-", " ")
    median = statistics.median(off) if off else float("nan")
    reached = sum(attempt.request_id is not None for attempt in load.attempts)
    result.figure(f"{name}: rows", f"{len(rows):,}, of them {cut:,} cut, for {len(load.attempts):,} streams")
    result.problems += [] if len(rows) >= reached else [f"{name}: {reached} were begun, and there are {len(rows)} rows"]
    result.figure(f"{name}: tokens off the bill, median", f"{median:g}", "at most 1 chunk", holds=median <= 1)
    result.figure(f"{name}: within one chunk or 2 % of the bill", f"{within / max(compared, 1):.1%} of {compared:,}")
    share = in_all[0] / max(in_all[1], 1) - 1
    result.figure(
        f"{name}: tokens of all",
        f"{in_all[0]:,} counted, {in_all[1]:,} billed: {share:+.2%}",
        "within 2 %",
        holds=abs(share) <= 0.02,
    )
    result.figure(f"{name}: most tokens off the bill", max(off, default=0))


def _hold_of(row):
    return int(2_000 * 1_000 * decimal(PRICE[0])) + 400 * 1_000 * int(PRICE[1])
