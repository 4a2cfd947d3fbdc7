"""
Everything that can go wrong, on purpose, and what it came to.

``./comptoir bench chaos`` plays the long scenarios one after the other, prints their figures, and with ``--write`` puts
them into docs/reliability.md. Each scenario has servers and data of its own, so that several may be played beside each
other by several commands, those that judge times apart; the same seed makes the same choices.
"""

import datetime
import os
import platform
import sys

from bench.chaos import cuts, disk, hotpath, kills, outage, overshoot, rates, restarts, revocations
from bench.chaos.page import PAGE, write
from bench.chaos.world import World


def add_arguments(parser):
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="may be repeated; all of them without it")
    parser.add_argument("--write", action="store_true", help=f"write the figures to {PAGE.name} in docs")
    parser.add_argument("--scale", type=float, default=1.0, help="all sizes times this: 0.01 to try (1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4, help="gateway processes (4)")
    parser.add_argument("--seeds", type=int, default=20, help="how many of overshoot (20)")
    parser.add_argument("--at-once", type=int, default=2, help="how many of them at the same time (2)")
    parser.add_argument("--clients", type=int, default=256, help="at a time against each of the limits (256)")
    parser.add_argument("--pace", type=float, default=1.0, help="of streams of 0.5 to 20 s: 0.1 is ten times as fast")
    parser.add_argument("--requests", type=int, default=200_000, help="under kills (200,000)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300, help="of each outage (300)")
    parser.add_argument("--streams", type=int, default=1_000, help="that are cut (1,000)")
    parser.add_argument("--keys", type=int, default=10_000, help="that are revoked (10,000)")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9, help="of each kind of limits (9)")


def run(options):
    """Play what was chosen; 1 where something did not hold."""
    has_failed = False
    for name in SCENARIOS:
        if name not in (options.only or SCENARIOS):
            continue
        if name == "disk" and not disk.is_possible():
            print("disk: not played, as no file system can be mounted here.", file=sys.stderr)
            continue
        result = SCENARIOS[name](options)
        print(result, flush=True)
        has_failed = has_failed or bool(result.problems)
        if options.write:
            write([result], machine(), datetime.datetime.now(datetime.UTC).date(), sys.argv[1:])
    return 1 if has_failed else 0


def play_overshoot(options):
    seeds = range(options.seed, options.seed + sized(options.seeds, options))
    with World(workers=options.workers, seed=options.seed) as world:
        return overshoot.run(
            world, seeds=seeds, clients=options.clients, pace=options.pace, at_once=options.at_once, ends=True
        )


def play_kills(options):
    requests, count = sized(options.requests, options), sized(options.kills, options)
    with World(workers=options.workers, worker=True, seed=options.seed) as world:
        return kills.run(world, seed=options.seed, requests=requests, kills=count)


def play_outage(options):
    with World(workers=options.workers, seed=options.seed) as world:
        return outage.run(world, seed=options.seed, seconds=options.seconds * options.scale)


def play_rates(options):
    with World(workers=options.workers, seed=options.seed) as world:
        return rates.run(world, seed=options.seed, seconds=options.seconds * options.scale)


def play_cuts(options):
    with World(workers=options.workers, seed=options.seed) as world:
        return cuts.run(world, seed=options.seed, streams=sized(options.streams, options))


def play_disk(options):
    return disk.run(seed=options.seed)


def play_revocations(options):
    with World(workers=options.workers, seed=options.seed) as world:
        return revocations.run(world, seed=options.seed, keys=sized(options.keys, options))


def play_restarts(options):
    with World(workers=options.workers, worker=True, seed=options.seed) as world:
        return restarts.run(world, seed=options.seed, restarts=sized(options.restarts, options))


def play_hotpath(options):
    return hotpath.run(rounds=sized(options.rounds, options))


SCENARIOS = {
    "overshoot": play_overshoot,
    "kills": play_kills,
    "outage": play_outage,
    "rates": play_rates,
    "cuts": play_cuts,
    "disk": play_disk,
    "hotpath": play_hotpath,
    "revocations": play_revocations,
    "restarts": play_restarts,
}


def sized(count, options):
    return max(round(count * options.scale), 1)


def machine():
    """The machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}"
