"""
Everything that can go wrong, on purpose, and what it came to.

``./comptoir bench chaos`` plays the long scenarios one after the other, prints their figures, and with ``--write`` puts
them into docs/reliability.md. Each scenario has an organization of its own; the same seed makes the same choices.
"""

import datetime
import os
import platform
import sys

from bench.chaos import cuts, disk, kills, outage, overshoot, rates
from bench.chaos.page import PAGE, write
from bench.chaos.world import World

ORDER = ("overshoot", "rates", "outage", "cuts", "kills", "disk")


def add_arguments(parser):
    parser.add_argument("--seconds", type=float, default=300, help="of each outage and of each rate limit (300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=20, help="how many of overshoot (20)")
    parser.add_argument("--workers", type=int, default=4, help="gateway processes (4)")
    parser.add_argument("--clients", type=int, default=256, help="at a time against the limits (256)")
    parser.add_argument("--pace", type=float, default=1.0, help="of streams of 0.5 to 20 s: 0.1 is ten times as fast")
    parser.add_argument("--requests", type=int, default=200_000, help="under kills (200,000)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--streams", type=int, default=1_000, help="that are cut (1,000)")
    parser.add_argument("--only", choices=ORDER, action="append", help="may be repeated; all of them without it")
    parser.add_argument("--write", action="store_true", help=f"write the figures to {PAGE.name} in docs")


def run(options):
    """Play what was chosen; 1 where something did not hold."""
    chosen = [name for name in ORDER if name in (options.only or ORDER)]
    results = []

    def note(result):
        print(result, flush=True)
        results.append(result)
        if options.write:
            write([result], machine(), datetime.datetime.now(datetime.UTC).date(), sys.argv[1:])

    if set(chosen) - {"disk"}:
        with World(workers=options.workers, worker="kills" in chosen, seed=options.seed) as world:
            for name in chosen:
                if name != "disk":
                    note(play(world, name, options))
    if "disk" in chosen:
        if disk.is_possible():
            note(disk.run(seed=options.seed))
        else:
            print("disk: not played, as no file system can be mounted here.", file=sys.stderr)
    return 1 if any(result.problems for result in results) else 0


def play(world, name, options):
    """One scenario at the size that was asked for. Kills ends the server, so it comes last."""
    seed = options.seed
    if name == "overshoot":
        seeds = range(seed, seed + options.seeds)
        return overshoot.run(world, seeds=seeds, clients=options.clients, pace=options.pace)
    if name == "rates":
        return rates.run(world, seed=seed, seconds=options.seconds)
    if name == "outage":
        return outage.run(world, seed=seed, seconds=options.seconds)
    if name == "cuts":
        return cuts.run(world, seed=seed, streams=options.streams)
    return kills.run(world, seed=seed, requests=options.requests, kills=options.kills)


def machine():
    """The machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}"
