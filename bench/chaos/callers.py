"""Callers that keep books of their own: what they asked, what it can cost, how it ended, and when."""

import bisect
import contextlib
import itertools
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from bench.chaos.world import FRAME_TOKENS, MOST_TOKENS, NANOS, PRICE, decimal

WHOLE, BROKEN, REFUSED, UNANSWERED = "whole", "broken", "refused", "unanswered"
USAGE = re.compile(rb'"prompt_tokens":\s*(\d+).*?"completion_tokens":\s*(\d+)')


@dataclass(eq=False, slots=True)
class Attempt:
    """One request as its caller saw it; times by the monotonic clock, amounts in nanos."""

    marker: str
    key: str
    most: int
    began: float
    ended: float = 0.0
    first: float = 0.0
    ending: str = UNANSWERED
    status: int = 0
    request_id: str | None = None
    code: str | None = None
    retry_after: float | None = None
    should_retry: str | None = None
    cost: int = 0
    error: str = ""

    @property
    def seconds(self):
        return self.ended - self.began


def false_refusals(attempts, tenant):
    """
    Attempts that a spend limit refused although there was room: what was spent, open holds and the most that it could
    cost stayed within every limit at every moment from when it was sent until it was refused.

    A request that was let in counts with the most that it can cost from the moment in which it was sent until its
    caller had its end: at no moment is less open than this book says. Those that were refused count nothing.
    """
    books = {}
    for scope in tenant.limits:
        changes = []
        for attempt in attempts:
            if attempt.status == 200 and scope in tenant.scopes_of(attempt.key):
                changes.append((attempt.began, attempt.most))
                # Of what broke off nobody outside knows the cost: it goes on counting with the most.
                if attempt.ending == WHOLE:
                    changes.append((attempt.ended, attempt.cost - attempt.most))
        changes.sort()
        books[scope] = [moment for moment, _ in changes], list(itertools.accumulate(nanos for _, nanos in changes))

    def most_taken(scope, attempt):
        moments, totals = books[scope]
        first = max(bisect.bisect_left(moments, attempt.began) - 1, 0)
        return max(totals[first : bisect.bisect_right(moments, attempt.ended)], default=0)

    return [
        attempt
        for attempt in attempts
        if attempt.code == "insufficient_quota"
        and all(
            most_taken(scope, attempt) + attempt.most <= tenant.limits[scope]
            for scope in tenant.scopes_of(attempt.key)
            if scope in tenant.limits
        )
    ]


@dataclass
class Load:
    """What callers of one scenario have seen."""

    attempts: list[Attempt] = field(default_factory=list)
    in_flight: int = 0
    admitted_last: float = 0.0
    seconds: float = 0.0

    def endings(self):
        return Counter(attempt.ending for attempt in self.attempts)

    def codes(self):
        return Counter(f"{a.status} {a.code}" for a in self.attempts if a.ending == REFUSED)

    def answered(self):
        """What the reconciler wants to know of answers that came whole."""
        return [(a.request_id, a.marker) for a in self.attempts if a.ending == WHOLE]

    def begun(self):
        """The ids of all requests whose answers have begun."""
        return [a.request_id for a in self.attempts if a.status == 200]

    def p99(self, attempts=None):
        """The time to the first byte that 99 % of the answers stayed within, in milliseconds."""
        took = sorted(a.first - a.began for a in (self.attempts if attempts is None else attempts) if a.first)
        return took[min(len(took) - 1, int(len(took) * 0.99))] * 1000 if took else float("nan")


class Callers:
    """Callers of one tenant over real connections."""

    def __init__(self, world, tenant, *, seed, port=None):
        self.tenant = tenant
        self.base = f"http://127.0.0.1:{port or world.server.port}"
        self.chance = random.Random(seed)
        self.load = Load()
        self.numbers = iter(range(10**9))
        self.prefix = f"{tenant.name}.{seed}"

    @contextlib.asynccontextmanager
    async def session(self, at_once):
        connector = aiohttp.TCPConnector(limit=at_once + 16, force_close=False)
        timeout = aiohttp.ClientTimeout(total=120, sock_connect=20)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self.http:
            yield self

    async def ask(self, key, model, *, stream=True, tokens=MOST_TOKENS, seen=None) -> Attempt:
        """Send one request and read its answer to the end."""
        marker = f"{self.prefix}.{next(self.numbers)}"
        messages = json.dumps([{"role": "user", "content": f"Weather the storm, id={marker}"}])
        body = (
            f'{{"model": "{model}", "messages": {messages}, "max_tokens": {tokens}, "stream": {str(stream).lower()}'
            + (', "stream_options": {"include_usage": true}' if stream else "")
            + "}"
        )
        most = int((len(messages) + FRAME_TOKENS) * NANOS * decimal(PRICE[0])) + tokens * NANOS * int(PRICE[1])
        attempt = Attempt(marker, key, most, time.monotonic())
        self.load.attempts.append(attempt)
        headers = {"authorization": f"Bearer {self.tenant.secret(key)}", "content-type": "application/json"}
        try:
            async with self.http.post(f"{self.base}/v1/chat/completions", data=body, headers=headers) as answer:
                attempt.first = time.monotonic()
                attempt.status = answer.status
                attempt.request_id = answer.headers.get("x-request-id")
                attempt.ending = BROKEN
                if answer.status == 200:
                    self.load.in_flight += 1
                    self.load.admitted_last = attempt.first
                    try:
                        await self._read(answer, attempt, stream, seen)
                    finally:
                        self.load.in_flight -= 1
                else:
                    data = await answer.read()
                    attempt.ending = REFUSED
                    attempt.should_retry = answer.headers.get("x-should-retry")
                    if (after := answer.headers.get("retry-after")) is not None:
                        attempt.retry_after = float(after)
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        attempt.code = json.loads(data)["error"]["code"]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            attempt.error = repr(error)
        finally:
            attempt.ended = time.monotonic()
        return attempt

    async def _read(self, answer, attempt, stream, seen):
        tail = b""
        async for part in answer.content.iter_any():
            tail = (tail + part)[-2000:]
            if seen is not None:
                seen(len(part))
        if not stream or b"[DONE]" in tail:
            attempt.ending = WHOLE
            if found := USAGE.findall(tail):
                prompt, completion = map(int, found[-1])
                attempt.cost = cost_of(prompt, completion)


def cost_of(input_tokens, output_tokens):
    """What a request costs at the scenarios' prices, in nanos."""
    return int(input_tokens * NANOS * decimal(PRICE[0])) + output_tokens * NANOS * int(PRICE[1])
