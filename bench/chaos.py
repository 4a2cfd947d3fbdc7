"""Two thousand requests, fifty at a time, and thirty kills of the server: the storm of the tests at its full size."""

import tempfile

from tests.faults import storm
from tests.server import Server
from tests.upstream import Upstream


def add_arguments(parser):
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)


def run(options):
    """Raise the storm and print what it came to; 1 where anything was lost."""
    with (
        tempfile.TemporaryDirectory(prefix="comptoir-chaos-") as folder,
        Upstream() as upstream,
        Server(folder) as server,
    ):
        key = storm.prepare(server, upstream)
        size = {"total": options.requests, "at_once": options.at_once, "kills": options.kills}
        report = storm.run(server, upstream, key, seed=options.seed, **size)
    print(report)
    return 1 if report.problems else 0
