"""While the database is away, a known key goes on and nothing is lost; afterwards every record is there, once."""

import contextlib
import sqlite3
import threading
import time

import httpx
import pytest

from console.api_keys import new_secret
from tests.api import OPENAI, Api
from tests.upstream import Script


class Caller:
    """Asks one short question after the other, and notes how each went."""

    def __init__(self, api):
        self.api = api
        self.answers = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        number = 0
        while not self.ended.wait(0.02):
            number += 1
            began = time.monotonic()
            try:
                answer = self.api.ask("gpt-test", text=f"Still there? id=outage-{number}", stream=number % 2 == 0)
                self.answers.append((answer.status_code, time.monotonic() - began, self.api.request_id(answer)))
            except httpx.HTTPError as error:
                self.answers.append((repr(error), time.monotonic() - began, None))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(30)


def prepared(server, upstream):
    server.add_provider(upstream.url, "gpt-test")
    api = Api(server, server.create_api_key("known"), OPENAI)
    upstream.play("gpt-test", Script(chunks=4, delay=0.002))
    assert api.ask("gpt-test").status_code == 200
    return api


def go_through(server, upstream, outage, seconds):
    """Call steadily before, during and after ``outage``, a context manager; every call must be answered and counted."""
    api = prepared(server, upstream)
    unknown = Api(server, new_secret(), OPENAI)
    with Caller(api) as caller:
        time.sleep(0.5)
        with outage:
            began = len(caller.answers)
            time.sleep(seconds - 1)
            # A key that cannot be looked up is neither right nor wrong.
            answer = unknown.ask("gpt-test")
            assert (answer.status_code, answer.headers.get("retry-after") is None) in {(503, False), (401, True)}
            assert httpx.get(f"{server.base_url}/healthz", timeout=5).status_code == 200
            time.sleep(1)
            during = caller.answers[began:]
        time.sleep(0.5)
    assert [answer for answer in caller.answers if answer[0] != 200] == []
    assert len(during) > seconds * 2
    # Who waited for the database would wait for seconds.
    slow = sorted(took for _, took, _ in during)
    assert slow[int(len(slow) * 0.95)] < 1
    total = server.settled_usage(len(caller.answers) + 1, timeout=60)
    assert total["rows"] == len(caller.answers) + 1
    assert total["outcomes"] == {"completed": total["rows"]}
    assert total["agree"]
    assert total["tokens"]["output"] == upstream.billed().output_tokens
    assert {row["id"] for row in server.rows()} >= {request_id for _, _, request_id in caller.answers}
    return answer.status_code


@contextlib.contextmanager
def locked(server):
    """Another program holds the SQLite file for writing."""
    connection = sqlite3.connect(server.sqlite_path, timeout=10, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextlib.contextmanager
def frozen(postgres):
    """Connections stay open and nothing answers."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@contextlib.contextmanager
def halted(postgres):
    """Connections are cut and new ones refused."""
    postgres.halt()
    try:
        yield
    finally:
        postgres.resume()


SECONDS = [8, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(240)])]


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_locked_sqlite_file_fails_no_request(server, upstream, seconds):
    go_through(server, upstream, locked(server), seconds)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("outage", [frozen, halted], ids=["frozen", "halted"])
def test_a_postgresql_that_is_away_fails_no_request(postgres_server, postgres, upstream, outage, seconds):
    assert go_through(postgres_server, upstream, outage(postgres), seconds) == 503


def test_a_server_killed_while_the_database_is_away_loses_nothing(postgres_server, postgres, upstream):
    api = prepared(postgres_server, upstream)
    with halted(postgres):
        answers = [api.ask("gpt-test") for _ in range(20)]
        postgres_server.kill9()
    assert {answer.status_code for answer in answers} == {200}
    postgres_server.start()
    total = postgres_server.settled_usage(21)
    assert (total["rows"], total["outcomes"], total["agree"]) == (21, {"completed": 21}, True)
