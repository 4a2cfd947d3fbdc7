"""
Kill the server again and again under load, then hold every answer against its row and every row against the bill.

A request that was answered, even in part, must have exactly one row; a whole answer's row must carry the tokens that
the upstream billed; a request that reached the upstream must have a row whatever became of it.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.upstream import Script

BROKEN, WHOLE, REFUSED = "broken", "whole", "refused"
MODELS = {
    "openai": ["storm-openai-quick", "storm-openai-slow"],
    "anthropic": ["storm-anthropic-quick", "storm-anthropic-slow"],
}


@dataclass
class Attempt:
    """One request as its client saw it."""

    marker: str
    ending: str  # WHOLE, BROKEN after the status line, or REFUSED with a status
    request_id: str | None = None
    status: int | None = None


@dataclass
class Report:
    """What a storm came to; ``problems`` is empty where nothing was lost."""

    seed: int
    attempts: list[Attempt] = field(default_factory=list)
    unanswered: int = 0
    kills: int = 0
    rows: int = 0
    upstream_calls: int = 0
    outcomes: Counter = field(default_factory=Counter)
    seconds: float = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self):
        endings = Counter(attempt.ending for attempt in self.attempts)
        lines = [
            f"{len(self.attempts)} answers begun ({endings[WHOLE]} whole, {endings[BROKEN]} broken,"
            f" {endings[REFUSED]} refused), {self.unanswered} connections without an answer,"
            f" {self.kills} kills in {self.seconds:.0f} s, seed {self.seed}",
            f"{self.rows} rows for {self.upstream_calls} calls upstream: "
            + ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items())),
            *self.problems[:20],
        ]
        return "\n".join(lines)


def prepare(server, upstream):
    """Give ``server`` the storm's models at ``upstream``, and return a key that opens them."""
    for kind, models in MODELS.items():
        quick, slow = models
        upstream.play(quick, Script(chunks=5, delay=0.005, cache_read_tokens=7))
        upstream.play(slow, Script(chunks=40, delay=0.02, cache_write_tokens=3))
        server.add_provider(upstream.url, *models, kind=kind, name=f"storm {kind}")
    return server.create_api_key("storm")


def run(server, upstream, key, *, total, at_once, kills, seed):
    """Send ``total`` requests, ``at_once`` at a time, with ``kills`` spread over them; the report on all of it."""
    report = Report(seed)
    asyncio.run(Storm(server, key, random.Random(seed), report).rage(total, at_once, kills))
    settle(server, report)
    reconcile(server, upstream, report)
    return report


class Storm:
    def __init__(self, server, key, chance, report):
        self.server, self.key, self.chance, self.report = server, key, chance, report
        self.begun = 0
        self.due_at = 0
        self.due = asyncio.Event()

    async def rage(self, total, at_once, kills):
        began = asyncio.get_running_loop().time()
        numbers = iter(range(total))
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        async with (
            httpx.AsyncClient(base_url=self.server.base_url, timeout=30, limits=limits) as self.client,
            asyncio.TaskGroup() as tasks,
        ):
            # Never in the last stretch: each kill shall find requests to hit.
            moments = sorted(self.chance.sample(range(at_once // 2, max(total - at_once, at_once)), kills))
            tasks.create_task(self.kill_at(moments))
            for _ in range(at_once):
                tasks.create_task(self.caller(numbers))
        self.report.seconds = asyncio.get_running_loop().time() - began

    async def kill_at(self, moments):
        """Kill the web process whenever so many requests have begun, a random moment later."""
        for moment in moments:
            self.due_at = moment
            if self.begun < moment:
                self.due.clear()
            await self.due.wait()
            await asyncio.sleep(self.chance.random() * 0.2)
            self.report.kills += 1
            # Every third time the supervisor goes too, and another server takes the same folder over.
            if self.report.kills % 3 == 0:
                self.server.kill9()
                await asyncio.to_thread(self.server.start)
            else:
                serving = self.server.web_pids()
                doomed = self.chance.sample(serving, self.chance.randint(1, len(serving)))
                await self.until_up_without(self.server.kill9_web(doomed))

    async def until_up_without(self, killed):
        """Wait until others than the killed processes answer."""
        until = asyncio.get_running_loop().time() + 60
        while True:
            alive = self.server.web_pids()
            if alive and not set(alive) & set(killed):
                try:
                    if (await self.client.get("/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
            if asyncio.get_running_loop().time() > until:
                raise RuntimeError(f"The server did not come back:\n{self.server.log[-3000:]}")
            await asyncio.sleep(0.05)

    async def caller(self, numbers):
        for number in numbers:
            attempt = 0
            while not await self.ask(f"{number}.{attempt}", number):
                attempt += 1
                await asyncio.sleep(0.1)

    async def ask(self, marker, number):
        """Send one request; False where no answer began, so that it is to be sent again under another name."""
        dialect = "anthropic" if number % 3 == 2 else "openai"
        # Every fifth crosses the dialects, so that translated answers are under fire too.
        upstream = dialect if number % 5 else ("openai" if dialect == "anthropic" else "anthropic")
        body = {
            "model": MODELS[upstream][number % 2],
            "messages": [{"role": "user", "content": f"Weather the storm, id={marker}"}],
            "max_tokens": 100,
            "stream": number % 4 != 3,
        }
        path = "/v1/messages" if dialect == "anthropic" else "/v1/chat/completions"
        headers = {"authorization": f"Bearer {self.key}", "anthropic-version": "2023-06-01"}
        if dialect == "openai":
            del headers["anthropic-version"]
        self.begun += 1
        if self.begun >= self.due_at:
            self.due.set()
        attempt = None
        try:
            async with self.client.stream("POST", path, json=body, headers=headers) as answer:
                request_id = answer.headers.get("request-id") or answer.headers.get("x-request-id")
                attempt = Attempt(marker, BROKEN, request_id, answer.status_code)
                data = await answer.aread()
        except httpx.HTTPError:
            if attempt is None:
                self.report.unanswered += 1
                return False
            self.report.attempts.append(attempt)
            return True
        end = b"message_stop" if dialect == "anthropic" else b"[DONE]"
        if attempt.status != 200:
            attempt.ending = REFUSED
            self.report.problems.append(f"{marker} got {attempt.status}: {data[:200]!r}")
        elif not body["stream"] or end in data:
            attempt.ending = WHOLE
        self.report.attempts.append(attempt)
        return True


def settle(server, report):
    """Wait until no record is left in a journal: the number of rows stands still."""
    server.settled_usage(len(report.attempts), timeout=30)
    count, same_for = -1, 0
    until = time.monotonic() + 30
    while same_for < 6 and time.monotonic() < until:
        rows = len(server.rows())
        same_for = same_for + 1 if rows == count else 0
        count = rows
        time.sleep(0.25)


def reconcile(server, upstream, report):
    """Hold answers, rows and bills against each other; each difference becomes a line of ``report.problems``."""
    problems = report.problems
    rows = {row["id"]: row for row in server.rows()}
    calls = {call.id: call for call in upstream.calls}
    report.rows, report.upstream_calls = len(rows), len(calls)
    report.outcomes = Counter(row["outcome"] for row in rows.values())
    for attempt in report.attempts:
        row = rows.get(attempt.request_id)
        if row is None:
            problems.append(f"{attempt.marker} was answered ({attempt.ending}) and has no row: {attempt.request_id}")
        elif attempt.ending == WHOLE:
            bills = upstream.ledger[attempt.marker]
            if row["outcome"] != "completed":
                problems.append(f"{attempt.marker} was answered whole and its row says {row['outcome']}")
            if len(bills) != 1 or tokens_of(row) != tokens_billed(bills[0]):
                problems.append(f"{attempt.marker}: the row says {tokens_of(row)}, the upstream billed {bills}")
    twice = [key for key, count in Counter(a.request_id for a in report.attempts).items() if count > 1]
    problems.extend(f"{request_id} was given to two answers" for request_id in twice)
    for row in rows.values():
        call = calls.get(row["upstream_request_id"])
        if row["outcome"] == "completed" and call is None:
            problems.append(f"{row['id']} says completed, of no call that the upstream knows")
        elif row["outcome"] == "completed" and tokens_of(row) != tokens_billed(call.bill):
            problems.append(f"{row['id']} says {tokens_of(row)}, the upstream billed {call.bill}")
    if len(rows) < len(calls):
        problems.append(f"{len(calls)} calls reached the upstream and only {len(rows)} rows are there")
    total = server.usage_total()
    if not total["agree"] or total["rows"] != len(rows):
        problems.append(f"The sums disagree: {total}")


def tokens_of(row):
    return tuple(row[f"{kind}_tokens"] or 0 for kind in ("input", "cache_read", "cache_write", "output"))


def tokens_billed(bill):
    return bill.input_tokens, bill.cache_read_tokens, bill.cache_write_tokens, bill.output_tokens
