"""The journal's disk is full: what cannot be recorded is not asked, the answer says so, and it mends by itself."""

import asyncio
import contextlib
import os
import subprocess
import time

from bench.chaos.callers import WHOLE, Callers
from bench.chaos.results import Result
from bench.chaos.world import World

MODELS = ("m-2-5",)
# Each process keeps a file of 4 MB: so many megabytes hold theirs, and no further one.
MEGABYTES = 14
# A refusal is recorded too, with the name that was asked for.
LONG_NAME = "no-such-model-" * 13


@contextlib.contextmanager
def small_disk(folder):
    """A file system of its own for the journal; needs to be root."""
    journal = folder / "journal"
    journal.mkdir(mode=0o700)
    options = f"size={MEGABYTES}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "comptoir-chaos", str(journal)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(journal)], check=False)


def is_possible():
    """Whether a file system can be mounted here."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def run(*, seed, seconds=60, clients=16, workers=2) -> Result:
    """Fill the disk, ask while it is full, make room and ask again; on a world of its own."""
    result = Result(
        "Disk full",
        f"The journal of {workers} processes on a file system of {MEGABYTES} MB that fills up under {clients} callers",
        seeds=[seed],
    )  # fmt: skip
    began = time.monotonic()
    with World(workers=workers, valkey=False, seed=seed, prepare=small_disk) as world:
        _play(world, result, seed, seconds, clients)
    result.seconds = time.monotonic() - began
    return result


def _play(world, result, seed, seconds, clients):
    tenant = world.tenant("disk", [("red", "one", "ann")], models=MODELS, limits={"organization": 10**15})
    callers = Callers(world, tenant, seed=seed)
    filler = world.folder / "journal" / "filler"

    async def phases():
        async with callers.session(clients):
            await ask(callers, clients, 2)
            # The database is away too, so that no file of the journal is given back meanwhile.
            await asyncio.to_thread(world.database.refuse)
            await asyncio.to_thread(fill, filler)
            full = time.monotonic()
            refused = 0
            until = time.monotonic() + seconds
            while time.monotonic() < until and refused < clients * 4:
                await ask(callers, clients, 1, LONG_NAME)
                refused += sum(a.status == 503 for a in await ask(callers, clients, 0.5))
            filler.unlink()
            mended = time.monotonic()
            await asyncio.to_thread(world.database.pass_on)
            while time.monotonic() < mended + 30 and any(a.status != 200 for a in await ask(callers, clients, 0.3)):
                pass
            return full, mended, time.monotonic() - mended

    full, mended, recovered = asyncio.run(phases())
    world.until_drained(tenant)
    world.stop()
    load = callers.load
    during = [a for a in load.attempts if full <= a.began < mended and a.status not in {400, 404}]
    refused = [a for a in during if a.ending != WHOLE]
    unclear = [a for a in refused if a.status != 503 or a.code != "storage_full" or a.retry_after is None]
    accounts = world.reconcile(answered=load.answered(), is_stopped=True)
    markers = {entry.marker for entry in world.upstream.books}
    unlogged = sum(attempt.marker in markers for attempt in refused)
    result.problems += accounts.problems
    result.problems += [f"{a.marker}: {a.status} {a.code} {a.ending} {a.error}" for a in unclear[:5]]
    result.figure(
        "Requests while it was full", f"{len(during):,}, of them {len(refused):,} refused", holds=bool(refused)
    )
    result.figure("Calls upstream without a record", unlogged, "0", holds=not unlogged)
    result.figure("Refused otherwise than with 503 storage_full", len(unclear), "0", holds=not unclear)
    result.figure("Answered again after there was room", f"{recovered:.1f} s", "by itself", holds=recovered < 30)
    result.figure("Rows for answers", f"{accounts.outcomes['completed']:,} for {len(load.answered()):,}", "as many",
                  holds=accounts.outcomes["completed"] == len(load.answered()))  # fmt: skip


def fill(path):
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(65_536))


async def ask(callers, clients, seconds, model=MODELS[0]):
    """So many callers for so long; what they got."""
    until = time.monotonic() + seconds
    found = []

    async def caller():
        while True:
            found.append(await callers.ask("red", model))
            if found[-1].status == 503:
                await asyncio.sleep(0.2)
            if time.monotonic() >= until:
                break

    await asyncio.gather(*(caller() for _ in range(clients)))
    return found
