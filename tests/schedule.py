"""
How the whole suite is shared out among worker processes.

Files of one line share a worker, because they share what is slow to start; every other file goes by itself. What takes
long comes first, so that no worker is left with it at the end, and what computes stands beside what waits.
"""

from xdist.scheduler import LoadScopeScheduling

TOGETHER = [
    ["tests/browser/test_every_page.py"],
    ["tests/browser/", "tests/sdk/test_local_model.py"],
    ["tests/sockets/test_upstream_failures.py"],
    ["tests/database/"],
    ["tests/faults/test_database_outages.py"],
    ["tests/start/test_up.py"],
    ["tests/sockets/"],
    ["tests/faults/"],
    ["tests/sdk/test_older_majors.py"],
    ["tests/test_bench.py"],
    ["tests/start/test_install.py"],
    ["tests/playground/test_streaming.py", "tests/playground/test_snippets_run.py", "tests/sdk/"],
]


def place(nodeid):
    """Where a test stands: the number of its line, and the name of what shares a worker with it."""
    for number, paths in enumerate(TOGETHER):
        if nodeid.startswith(tuple(paths)):
            return number, paths[0]
    return len(TOGETHER), nodeid.partition("::")[0]


class Scheduler(LoadScopeScheduling):
    """Gives each worker that has nothing left the next group, in the order in which tests were collected."""

    def __init__(self, config, log=None):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid):
        return place(nodeid)[1]
