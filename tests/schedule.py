"""
How the whole suite is shared out among worker processes.

Files of one line share a worker, because they share what is slow to start; every other file goes by itself. What takes
long comes first, so that no worker is left with it at the end, and what computes stands beside what waits.
"""

from xdist.scheduler import LoadScopeScheduling

TOGETHER = [
    ["tests/conformance/"],
    ["tests/database/"],
    ["tests/browser/test_every_page.py"],
    ["tests/sockets/test_upstream_failures.py"],
    ["tests/browser/", "tests/sdk/test_local_model.py"],
    ["tests/chaos/"],
    ["tests/faults/test_many_processes.py"],
    ["tests/faults/test_database_outages.py"],
    ["tests/start/test_up.py"],
]
# Of the rest, what starts servers comes before what does not.
EARLIER = (
    "tests/sdk/",
    "tests/sockets/",
    "tests/faults/",
    "tests/start/",
    "tests/test_bench.py",
    "tests/playground/",
)


def place(nodeid):
    """Where a test stands: a number that orders it, and the name of what shares a worker with it."""
    for number, paths in enumerate(TOGETHER):
        if nodeid.startswith(tuple(paths)):
            return number, paths[0]
    return len(TOGETHER) + (not nodeid.startswith(EARLIER)), nodeid.partition("::")[0]


class Scheduler(LoadScopeScheduling):
    """Gives each worker that has nothing left the next group, in the order in which tests were collected."""

    def __init__(self, config, log=None):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid):
        return place(nodeid)[1]
