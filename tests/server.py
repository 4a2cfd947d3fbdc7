"""The real server on a free port with a data folder of its own, as ``./comptoir up`` starts it."""

import contextlib
import fcntl
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg

from tests.management import ROOT, Management

OWNER_EMAIL, OWNER_PASSWORD = "owner@example.org", "correct horse battery staple"
READY = re.compile(r"Comptoir is ready at (https?://\S+)")
# What would make a server under test depend on the machine it runs on.
OWN_VARIABLES = re.compile(
    r"^(COMPTOIR_|DATABASE_URL|REDIS_URL|CELERY_|SECRET_KEY|API_KEY_PEPPER|DJANGO_|PYTEST_|SSL_CERT_)"
)


class Prepared:
    """
    A data folder that ``manage.py prepare`` has made once, for installations to begin with.

    Nothing was ever started in it: what a first start shows and does, one in a copy of it shows and does as well, only
    that the tables are there and the static files are collected.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def copy_to(self, folder, environment, *, with_data):
        """Copy the database, its secrets and the static files, or these alone."""
        with open(f"{self.folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.folder / "static.stamp").exists():
                subprocess.run(
                    [sys.executable, "manage.py", "prepare", "--verbosity", "0"],
                    cwd=ROOT,
                    env=environment | {"COMPTOIR_DATA": str(self.folder)},
                    check=True,
                    timeout=100,
                )
        for part in self.folder.iterdir():
            if with_data or part.name.startswith("static"):
                shutil.copytree(part, folder / part.name) if part.is_dir() else shutil.copy2(part, folder)


class Server:
    """
    One installation: a data folder, and the processes that ``start`` brings up in it.

    It outlives its processes: after ``kill9`` or ``stop``, ``start`` serves the same data on the same port.

    Where there is something ``prepared`` it begins with that. An ``empty`` one has a first start of its own, as one
    needs whose environment says what the first start shall make.
    """

    command = (sys.executable, "-m", "config.up")
    prepared = None

    def __init__(
        self, folder, *, local_model=False, worker=False, environment=None, arguments=(), cores=None, empty=False
    ):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log_path = self.folder / "server.log"
        self.arguments = [
            "--port",
            str(self.port),
            "--data",
            str(self.folder),
            *([] if local_model else ["--no-model"]),
            *([] if worker else ["--no-worker"]),
            *arguments,
        ]
        self.usual = {k: v for k, v in os.environ.items() if not OWN_VARIABLES.match(k)} | {
            "COMPTOIR_DATA": str(self.folder),
            "COMPTOIR_OWNER_EMAIL": OWNER_EMAIL,
            "COMPTOIR_OWNER_PASSWORD": OWNER_PASSWORD,
            "COMPTOIR_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment = self.usual | (environment or {})
        self.cores = cores
        self.begins_empty = empty
        self.process = self.management = None

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self):
        """All that its processes have printed since the folder was made."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # Life ------------------------------------------------------------------------------------------------------

    def start(self, timeout=90):
        """Start every process and wait for the line that says it is ready."""
        if self.prepared and not self.begins_empty and not (self.folder / "prepare.lock").exists():
            self.prepared.copy_to(self.folder, self.usual, with_data="DATABASE_URL" not in self.environment)
        began = time.monotonic()
        log = open(self.log_path, "ab")  # noqa: SIM115
        position = log.tell()
        self.process = subprocess.Popen(
            [*self.command, *self.arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, self.cores)) if self.cores else None,
        )
        log.close()
        try:
            while not READY.search(self.log_path.read_text(errors="replace")[position:]):
                if self.process.poll() is not None or time.monotonic() - began > timeout:
                    raise RuntimeError(f"The server did not start:\n{self.log[-4000:]}")
                time.sleep(0.02)
            self.wait_until_ready(timeout)
        except BaseException:
            # Nobody else ends what has not started, also where the whole run is interrupted.
            self.kill9()
            raise
        self.started_in = time.monotonic() - began
        return self

    def wait_until_ready(self, timeout=30):
        """Wait until the port answers ``/readyz``, as after a kill that the supervisor makes good."""
        until = time.monotonic() + timeout
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.base_url}/readyz", timeout=2).status_code == 200:
                    return
            if time.monotonic() > until:
                raise RuntimeError(f"The server is not ready:\n{self.log[-4000:]}")
            time.sleep(0.05)

    def stop(self, timeout=20):
        """Ask it to end, as Ctrl-C does, and wait."""
        self.end_management()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise

    def kill9(self):
        """End every process of it at once, unasked, and return when none is left."""
        self.end_management()
        if not self.process:
            return
        self.process.kill()
        while kill_session(self.process.pid, self.folder):
            pass
        self.process.wait(10)

    def kill9_web(self, pids=None):
        """
        End these processes that serve HTTP at once, by default all of them; returns them.

        The supervisor starts others in their place.
        """
        pids = pids or self.web_pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def restart(self):
        self.stop()
        return self.start()

    def web_pids(self):
        """The supervisor's children that serve HTTP, oldest first."""
        return [pid for pid in descendants(self.process.pid) if b"config.serve" in command_of(pid)]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill9() if sys.exc_info()[0] else self.stop()

    # Management ------------------------------------------------------------------------------------------------

    def manage(self, *arguments, environment=None):
        """The standard output of a management command in this server's folder."""
        if self.management is None or self.management.environment != self.environment:
            self.end_management()
            self.management = Management(self.environment)
        status, output, errors = self.management.run(arguments, environment or {}, timeout=60)
        if status:
            raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{output}{errors}")
        return output.strip()

    def end_management(self):
        if self.management is not None:
            self.management.close()
            self.management = None

    def create_api_key(self, name="test", *arguments, workspace="default"):
        return self.manage("create_api_key", "--workspace", workspace, "--name", name, *arguments)

    def add_provider(self, upstream_url, *models, kind="openai", name=None, credential="sk-upstream", price=(3, 15)):
        """A provider of this name with models that clients ask for by the names that it is asked for."""
        prices = ["--input-per-mtok", str(price[0]), "--output-per-mtok", str(price[1])] if price else []
        return self.manage(
            "add_provider",
            *("--kind", kind, "--name", name or f"scripted {kind}", "--base-url", upstream_url),
            *("--credential-env", "TEST_CREDENTIAL", "--allow-private"),
            *(part for model in models for part in ("--model", model)),
            *prices,
            environment={"TEST_CREDENTIAL": credential},
        )

    def usage_total(self, *arguments):
        """What was counted: rows, outcomes, tokens and money, as ``usage_total --json`` prints them."""
        return json.loads(self.manage("usage_total", "--json", *arguments))

    def settled_usage(self, rows, *arguments, timeout=30):
        """``usage_total`` once it counts ``rows`` rows: records reach the database a moment after the answer."""
        until = time.monotonic() + timeout
        while True:
            total = self.usage_total(*arguments)
            if total["rows"] >= rows or time.monotonic() > until:
                return total
            time.sleep(0.2)

    def query(self, sql, *values):
        """The rows of a query as dictionaries; ``?`` stands for a value."""
        if url := self.environment.get("DATABASE_URL"):
            with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
                return connection.execute(sql.replace("?", "%s"), values).fetchall()
        with contextlib.closing(sqlite3.connect(f"file:{self.sqlite_path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    @property
    def sqlite_path(self):
        return self.folder / "comptoir.sqlite3"

    def rows(self, timeout=10, at_least=0, **wanted):
        """The request rows that have these values, oldest first, waiting until there are ``at_least`` so many."""
        where = " AND ".join(f"{column} = ?" for column in wanted) or "1 = 1"
        until = time.monotonic() + timeout
        while True:
            rows = self.query(f"SELECT * FROM usage_requestlog WHERE {where} ORDER BY id", *wanted.values())
            if len(rows) >= at_least or time.monotonic() > until:
                return rows
            time.sleep(0.05)

    def row(self, request_id, timeout=10):
        """The one row of a request, as soon as it is there."""
        rows = self.rows(timeout=timeout, at_least=1, id=request_id)
        assert len(rows) == 1, f"{len(rows)} rows of {request_id}"
        return rows[0]


def free_port():
    """
    A port of 127.0.0.1 that nothing listens on, and that keeps so until its server is there or there again.

    It lies below those that the system itself gives to sockets, of which other processes ask for many meanwhile.
    """
    # Hypothesis seeds the plain generator, with the same number in every process.
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def closed_port():
    """A port of 127.0.0.1 that refuses every connection, as nobody else can take it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def descendants(pid):
    """Every living descendant of a process, parents first."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(pid, []))
    for child in found:
        found.extend(children.get(child, []))
    return found


def kill_session(leader, folder, timeout=20):
    """
    Kill every process in the session of the server in ``folder``, and wait until it has let go of all that it held.

    Whether there were any: what they started in that moment is still to be killed.
    """
    with contextlib.ExitStack() as opened:
        doomed = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3]) != leader:
                    continue
                # The number may be somebody else's by now.
                if f"COMPTOIR_DATA={folder}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    process = os.pidfd_open(int(entry.name))
                    opened.callback(os.close, process)
                    doomed.append(process)
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        for process in doomed:
            if not select.select([process], [], [], timeout)[0]:
                raise RuntimeError(f"A process of the server in {folder} does not end.")
    return bool(doomed)


def command_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
