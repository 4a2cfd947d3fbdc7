"""A closed loop of callers on keep-alive connections: each asks again as soon as its answer has ended."""

import asyncio
import json
import time
from dataclasses import dataclass, field

import httptools

now = time.perf_counter


@dataclass(frozen=True)
class Target:
    """Where a request goes, and its bytes."""

    port: int
    request: bytes
    stream: bool

    @classmethod
    def of(cls, port, *, key, model, stream, dialect="openai"):
        """The same question in either dialect, with a system prompt and usage asked for."""
        body = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "Say hello."}]}
        if dialect == "openai":
            path = "/v1/chat/completions"
            body["messages"].insert(0, {"role": "system", "content": "You are a helpful assistant."})
            headers = [f"Authorization: Bearer {key}"]
            if stream:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
        else:
            path = "/v1/messages"
            body["system"] = "You are a helpful assistant."
            headers = [f"x-api-key: {key}", "anthropic-version: 2023-06-01"]
            if stream:
                body["stream"] = True
        raw = json.dumps(body).encode()
        head = [
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Content-Type: application/json",
            f"Content-Length: {len(raw)}",
            "Accept: */*",
            "User-Agent: comptoir-bench",
            *headers,
        ]
        return cls(port, "\r\n".join([*head, "", ""]).encode() + raw, stream)


@dataclass
class Round:
    """What one round of calls came to; times in seconds."""

    seconds: float
    took: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)
    answers: int = 0  # all good ones, those after the bell included: each must have been counted
    errors: int = 0
    first_error: str = ""

    @property
    def rate(self):
        return len(self.took) / self.seconds

    def quantile(self, share):
        """The latency that ``share`` of the answers stayed within, in milliseconds."""
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else float("nan")


class Caller(asyncio.Protocol):
    """One connection and its closed loop."""

    def __init__(self, loop, target, round_, until, ended):
        self.loop, self.target, self.round, self.until, self.ended = loop, target, round_, until, ended

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        self.parser = httptools.HttpResponseParser(self)
        self.first, self.tail = None, b""
        self.began = now()
        self.transport.write(self.target.request)

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(repr(error))

    def on_body(self, body):
        if self.first is None:
            self.first = now()
        self.tail = body if len(body) > 100 else self.tail[-100:] + body

    def on_message_complete(self):
        moment = now()
        good = self.parser.get_status_code() == 200
        if good and self.target.stream:
            good = b"[DONE]" in self.tail or b"message_stop" in self.tail
        if good:
            self.round.answers += 1
            if moment <= self.until:
                self.round.took.append(moment - self.began)
                self.round.first_event.append(self.first - self.began)
        else:
            self.note(f"{self.parser.get_status_code()} {self.tail[:300]!r}")
        if moment >= self.until:
            self.end()
        elif self.parser.should_keep_alive():
            self.loop.call_soon(self.ask)
        else:
            self.fail("The server closed the connection.")

    def connection_lost(self, error):
        if not self.ended.done():
            self.fail(f"The connection was lost: {error!r}")

    def note(self, why):
        self.round.errors += 1
        self.round.first_error = self.round.first_error or why

    def fail(self, why):
        self.note(why)
        self.end()

    def end(self):
        if not self.ended.done():
            self.ended.set_result(None)
        self.transport.close()


async def run_round(target, *, clients, seconds):
    """Let ``clients`` call ``target`` for ``seconds``; a caller that fails stops, and the error is told."""
    loop = asyncio.get_running_loop()
    round_ = Round(seconds)
    until = now() + seconds
    ends = [loop.create_future() for _ in range(clients)]
    for ended in ends:
        await loop.create_connection(
            lambda ended=ended: Caller(loop, target, round_, until, ended), "127.0.0.1", target.port
        )
    _, unfinished = await asyncio.wait(ends, timeout=seconds + 15)
    if unfinished:
        round_.errors += len(unfinished)
        round_.first_error = round_.first_error or "No answer within 15 s."
    return round_
