"""Several processes, on one host and on two: a revoked key is refused by all, and a restart fails nobody."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api import ANTHROPIC, OPENAI, Api
from tests.playground.test_streaming import Person, request_id_in
from tests.server import ROOT, Server
from tests.upstream import Script

DRAIN_SECONDS = 2
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Revokes keys as the console does, one for each line, and says so after the commit.
REVOKER = """
import sys, django
django.setup()
from console import services
from console.models import User, Workspace
actor, workspace = User.objects.first(), Workspace.objects.get(slug="default")
keys = []
for number in range(int(sys.argv[1])):
    key, secret = services.create_api_key(workspace=workspace, created_by=actor, name=f"{sys.argv[2]} {number}")
    keys.append(key)
    print(secret, flush=True)
for line in sys.stdin:
    services.revoke_api_key(api_key=keys[int(line)], actor=actor)
    print(line, end="", flush=True)
"""


@pytest.fixture(scope="module")
def installation(postgres):
    """What every host of one installation shares: the database and the secrets."""
    return {
        "DATABASE_URL": postgres.create_database("many_processes"),
        **{name: secrets.token_hex(32) for name in ("SECRET_KEY", "API_KEY_PEPPER", "CREDENTIAL_KEYS")},
    }


@pytest.fixture(scope="module")
def first_host(installation, running_upstream, tmp_path_factory):
    """A host of two processes; its key is ``api_key``."""
    arguments = ["--workers", "2", "--drain", str(DRAIN_SECONDS)]
    with Server(tmp_path_factory.mktemp("first"), environment=installation, arguments=arguments) as server:
        server.api_key = server.create_api_key("test")
        server.add_provider(running_upstream.url, "quick", "slow", "late", "endless", kind="openai")
        yield server


@pytest.fixture
def host(first_host, upstream):
    upstream.play("quick", Script(chunks=3, delay=0.002))
    upstream.play("slow", Script(chunks=10, delay=0.1))
    upstream.play("late", Script(first_byte_delay=60))
    upstream.play("endless", Script(chunks=300, delay=0.1))
    return first_host


# Under load --------------------------------------------------------------------------------------------------------


class Load:
    """Callers that ask one question after the other, each on a connection of its own that it keeps."""

    def __init__(self, server, *, callers, models):
        self.server, self.models = server, models
        self.answers, self.failures = [], []
        self.count = callers
        self.ending = asyncio.Event()

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(self.call(number)) for number in range(self.count)]
        return self

    async def __aexit__(self, *_):
        self.ending.set()
        await asyncio.gather(*self.tasks)

    async def call(self, number):
        dialect = (OPENAI, ANTHROPIC)[number % 2]
        headers = dialect.headers | {"authorization": f"Bearer {self.server.api_key}"}
        async with httpx.AsyncClient(base_url=self.server.base_url, headers=headers, timeout=20) as client:
            while not self.ending.is_set():
                number += 1
                body = dialect.body(self.models[number % len(self.models)], "Hello", stream=number % 3 > 0)
                try:
                    answer = await client.post(dialect.path, json=body)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code != 200 or (body["stream"] and not dialect.is_ended(answer.content)):
                    self.failures.append(f"{answer.status_code}: {answer.text[-200:]}")
                self.answers.append(answer.headers[dialect.request_id_header])
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connection_to_each_process(server):
    """
    Two kept connections to each of the two processes.

    A scrape speaks for one process, which says when it began.
    """
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for _ in range(60):
            # Without TLS there is nothing to verify, and to prepare for it takes longer than all else.
            transport = httpx.AsyncHTTPTransport(verify=False, limits=httpx.Limits(max_connections=1))
            client = httpx.AsyncClient(base_url=server.base_url, timeout=20, transport=transport)
            scrape = (await client.get("/metrics")).text
            assert "comptoir_announcements_connected 1.0" in scrape
            (began,) = [line for line in scrape.splitlines() if line.startswith("process_start_time_seconds ")]
            process = found.setdefault(began, [])
            # Kept open, so that the next one does not go to the same process again because that has nothing to do.
            stack.push_async_callback(client.aclose)
            if len(process) < 2:
                process.append(client)
            if len(found) == 2 and all(len(clients) == 2 for clients in found.values()):
                break
        else:
            pytest.fail(f"No connections to both processes: {found}")
        yield [client for clients in found.values() for client in clients]


class Revocations:
    """Revokes keys, and watches on every connection for how long each of them goes on."""

    def __init__(self, server, count):
        self.process = subprocess.Popen(
            [sys.executable, "-c", REVOKER, str(count), secrets.token_hex(4)],
            cwd=ROOT,
            env=server.environment | {"DJANGO_SETTINGS_MODULE": "config.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.secrets = [self.process.stdout.readline().strip() for _ in range(count)]
        self.revoked_at = {}
        self.accepted_until = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    async def round(self, clients, numbers):
        """Revoke these keys while every connection goes on asking with all of them."""
        accepted = asyncio.Barrier(len(clients) + 1)
        watchers = [asyncio.create_task(self.watch(client, numbers, accepted)) for client in clients]
        await accepted.wait()
        await asyncio.to_thread(self.revoke, numbers)
        await asyncio.gather(*watchers)

    def revoke(self, numbers):
        for number in numbers:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
            assert int(self.process.stdout.readline()) == number
            self.revoked_at[number] = time.monotonic()

    async def watch(self, client, numbers, accepted):
        for number in numbers:
            assert await self.ask(client, number) == 200
        await accepted.wait()
        pending = set(numbers)
        until = time.monotonic() + 15
        while pending and time.monotonic() < until:
            for number in sorted(pending):
                if await self.ask(client, number) == 401:
                    pending.remove(number)
            await asyncio.sleep(0.01)
        assert not pending

    async def ask(self, client, number):
        asked_at = time.monotonic()
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {self.secrets[number]}"})
        if answer.status_code == 200:
            self.accepted_until[number] = max(asked_at, self.accepted_until.get(number, 0))
        return answer.status_code

    def seconds(self):
        """How long after its revocation each key was still accepted, least first."""
        return sorted(max(self.accepted_until[n] - at, 0) for n, at in self.revoked_at.items())


@pytest.mark.anyio
@pytest.mark.parametrize(("rounds", "share"), [(4, 0.9), pytest.param(1000, 0.99, marks=SLOW)])
async def test_a_revoked_key_is_refused_by_every_process_within_a_second(host, rounds, share):
    with Revocations(host, rounds * 10) as revocations:
        async with connection_to_each_process(host) as clients, Load(host, callers=4, models=["quick"]) as load:
            for number in range(rounds):
                await revocations.round(clients, range(number * 10, number * 10 + 10))
    seconds = revocations.seconds()
    most, worst = seconds[int(len(seconds) * share)], seconds[-1]
    print(
        f"{len(seconds)} keys, {len(load.answers)} answers beside: {share:.0%} within {most * 1000:.0f} ms, "
        f"worst {worst * 1000:.0f} ms"
    )
    assert load.failures == [] and len(load.answers) > rounds
    assert most <= 1
    assert worst <= 3


async def replaced(server, before, seconds=40):
    """Wait until as many other processes than ``before`` serve."""
    async with asyncio.timeout(seconds):
        while True:
            now = await asyncio.to_thread(server.web_pids)
            if len(now) == 2 and not set(now) & set(before):
                return
            await asyncio.sleep(0.1)


@pytest.mark.anyio
async def test_replacing_every_process_under_load_fails_no_request(host):
    async with Load(host, callers=16, models=["quick", "slow"]) as load:
        await asyncio.sleep(0.3)
        at_first = host.web_pids()
        host.process.send_signal(signal.SIGHUP)
        await replaced(host, at_first)
        # One that is told to end by somebody else is replaced too.
        told = host.web_pids()[:1]
        os.kill(told[0], signal.SIGTERM)
        await replaced(host, told)
        await asyncio.sleep(0.3)
    assert load.failures == [] and len(load.answers) > 100
    rows, until = {}, time.monotonic() + 15
    while not rows.keys() >= set(load.answers) and time.monotonic() < until:
        await asyncio.sleep(0.2)
        rows = {row["id"]: row["outcome"] for row in host.rows()}
    assert {rows.get(request_id) for request_id in load.answers} == {"completed"}


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
def test_what_outlasts_the_drain_is_told_so_and_recorded(host, upstream, dialect):
    api, person = Api(host, host.api_key, dialect), Person(host.base_url)
    with api.streaming("endless") as answer, ThreadPoolExecutor() as threads:
        late = threads.submit(api.ask, "late")
        read = threads.submit(person.read_on, "endless", message="For how long?")
        pieces = answer.iter_bytes()
        received = next(pieces)
        until = time.monotonic() + 10
        while len(upstream.calls) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        began = time.monotonic()
        for pid in host.web_pids():
            os.kill(pid, signal.SIGHUP)
        received += b"".join(pieces)
    assert DRAIN_SECONDS - 0.5 < time.monotonic() - began < DRAIN_SECONDS + 5
    told = dialect.events_of(received)[-1]
    assert not dialect.is_ended(received)
    assert "restarted before this answer was complete" in told["error"]["message"]
    row = api.row(answer)
    assert row["outcome"] == "interrupted"
    assert row["output_tokens"] >= 10
    # Of what had not begun to be answered the client's library knows that it may try again.
    refused = late.result()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "restarted before this answer was complete" in dialect.error_of(refused.json())[2]
    assert api.row(refused)["outcome"] == "interrupted"
    host.wait_until_ready()
    assert api.ask("quick").status_code == 200
    api.close()
    # Nor did the person at the playground leave.
    turn = read.result()
    kept = person.detail(turn, enough=lambda found: not found["waits"])["message"]
    assert "Interrupted on this server." in kept
    assert "token token token" in kept
    row = host.row(request_id_in(kept))
    assert (row["outcome"], row["source"]) == ("interrupted", "playground")


def settled(host):
    """The two processes that are there once what another test ended or replaced is done with."""
    before, since = None, 0.0
    until = time.monotonic() + 40
    while len(before or ()) != 2 or time.monotonic() - since < 2:
        assert time.monotonic() < until
        if before != (now := host.web_pids()):
            before, since = now, time.monotonic()
        time.sleep(0.1)
    return before


def test_a_replacement_that_cannot_start_replaces_nobody(host, postgres):
    before = settled(host)
    position = len(host.log)
    api = Api(host, host.api_key)
    postgres.halt()
    try:
        host.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 30
        while "those that are left go on" not in host.log[position:]:
            assert api.ask("quick").status_code == 200 and time.monotonic() < until
            time.sleep(0.1)
    finally:
        postgres.resume()
    assert host.web_pids() == before
    assert api.ask("quick").status_code == 200
    api.close()


@pytest.fixture
def month_limit(host):
    host.manage("set_spend_limit", "--organization", "--amount", "1000", "--period", "month")
    yield
    host.manage("set_spend_limit", "--organization", "--remove", "--period", "month")


def test_what_killed_processes_held_of_a_limit_comes_back(host, month_limit):
    def ledger():
        """Of the month's limit: settled, held, and by each process that still holds something of it."""
        (month,) = host.query("SELECT * FROM usage_ledgerperiod WHERE scope = 'organization' AND period = 'month'")
        leases = host.query("SELECT * FROM usage_spendlease WHERE ledger_period_id = ? AND state = 'open'", month["id"])
        return month["settled_nanos"], month["leased_nanos"], {lease["process_id"] for lease in leases}

    api = Api(host, host.api_key)
    until = time.monotonic() + 60
    while not (held_by := ledger()[2] if host.query("SELECT 1 FROM usage_spendlease") else set()):
        assert api.ask("quick", max_tokens=64).status_code == 200 and time.monotonic() < until
    with contextlib.ExitStack() as stack:
        # They die in the middle of answers.
        answers = [stack.enter_context(Api(host, host.api_key).streaming("endless", max_tokens=400)) for _ in range(4)]
        # Generators that nobody holds would be closed, and the streams with them.
        pieces = [answer.iter_raw() for answer in answers]
        for piece in pieces:
            next(piece)
        host.kill9_web()
    host.wait_until_ready()
    while (now := ledger())[2] & held_by or now[1]:
        assert time.monotonic() < until, now
        time.sleep(0.2)
    rows = [api.row(answer) for answer in answers]
    assert {row["outcome"] for row in rows} == {"interrupted"} and all(row["cost_nanos"] > 0 for row in rows)
    (spent,) = host.query("SELECT SUM(cost_nanos) AS nanos FROM usage_requestlog")
    assert now[0] == spent["nanos"]
    assert host.usage_total()["agree"]
    assert api.ask("quick", max_tokens=64).status_code == 200
    api.close()


def test_two_hosts_serve_the_same_keys_and_refuse_the_same(host, installation, tmp_path):
    with Server(tmp_path / "second", environment=installation) as second:
        key = host.create_api_key("for both")
        here, there = Api(host, key), Api(second, key)
        answers = [api.ask("quick") for api in (here, there)]
        assert [answer.status_code for answer in answers] == [200, 200]
        # Each wrote a journal of its own, and both into one database.
        assert {here.row(answer)["outcome"] for answer in answers} == {"completed"}
        journals = [{path.name for path in (server.folder / "journal").iterdir()} for server in (host, second)]
        assert all(journals) and not journals[0] & journals[1]
        with Revocations(second, 1) as revocations:
            key = revocations.secrets[0]
            assert [Api(server, key).ask("quick").status_code for server in (host, second)] == [200, 200]
            revocations.revoke([0])
        until = time.monotonic() + 20
        while [Api(server, key).ask("quick").status_code for server in (host, second)] != [401, 401]:
            assert time.monotonic() < until
            time.sleep(0.1)
