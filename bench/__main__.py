"""``./comptoir bench``: measure, print a table, and with ``--record`` write it to docs/benchmarks.md."""

import argparse
import signal
import sys

from bench import chaos, throughput


def main():
    parser = argparse.ArgumentParser(prog="comptoir bench", description=__doc__)
    kinds = parser.add_subparsers(dest="kind")
    speed = kinds.add_parser("speed", help="the gateway against the bare upstream (the default)")
    throughput.add_arguments(speed)
    kills = kinds.add_parser("chaos", help="kill the server under load and compare every row with the bill")
    chaos.add_arguments(kills)
    given = sys.argv[1:]
    if not given or given[0] not in {"speed", "chaos", "-h", "--help"}:
        given = ["speed", *given]
    options = parser.parse_args(given)
    # Told to end, it ends as one that is interrupted: with the servers that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit({"speed": throughput.run, "chaos": chaos.run}[options.kind](options))


main()
