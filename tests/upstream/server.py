"""The sockets: one event loop in a thread of its own, one protocol object a connection."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import httptools

from tests.upstream.providers import FAMILY, PROVIDERS, Provider, credential_of
from tests.upstream.scripts import Bill, Entry, Playlist, Script, Tariff
from tests.upstream.wire import dumps, embeddings, moderations

# The endpoints that answer in words, and which wire format of a provider that is.
ANSWERS = {
    "chat/completions": "chat",
    "completions": "completions",
    "messages": "messages",
    "responses": "responses",
}
MARKER = re.compile(rb"id=([\w.-]+)")
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass
class Received:
    """One request as it arrived, and how it ended."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    id: str  # what the answer carries as x-request-id and request-id
    began_at: float = field(default_factory=time.monotonic)
    sent_chunks: int = 0
    sent_bytes: int = 0
    finished: bool = False
    is_whole: bool = False  # whether all of the answer was sent, its usage included
    left_at: float | None = None
    bill: Bill | None = None
    provider: Provider = FAMILY
    endpoint: str = ""  # of the family, such as chat/completions, however this provider calls it

    @property
    def json(self):
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def model(self):
        return self.json.get(self.provider.model_field)

    @property
    def marker(self):
        """What stands after ``id=`` in the prompt: the request's name in the ledger."""
        match = MARKER.search(self.body)
        return match[1].decode() if match else None

    @property
    def left_after(self):
        """Seconds from the request until the client hung up early; None where it stayed to the end."""
        return None if self.left_at is None else self.left_at - self.began_at


class Upstream:
    """A scripted provider on a free port of 127.0.0.1; a context manager."""

    connection_class = property(lambda self: Connection)

    provider = FAMILY  # whom it plays under no other's prefix

    def __init__(self, *, port=0, models=("scripted-1",), credential=None, keeps_requests=True):
        self.models = list(models)
        self.keeps_requests = keeps_requests  # False: for hundreds of thousands of them; the books alone are kept
        self.credential = credential  # set: any other one gets a 401
        self.default = Script()
        self.requests: list[Received] = []
        self.ledger: dict[str, list[Bill]] = defaultdict(list)
        self.books: list[Entry] = []
        self.tariff = Tariff()
        self.tariffs: dict[str, Tariff] = {}  # by model, where one differs
        self.received = 0
        self.mistakes: list[Exception] = []  # of the upstream itself: a test that sees one must fail
        self.open_connections: set[Connection] = set()
        self.port = port
        self._playlists: dict[str, Playlist] = {}

    def play(self, model, *scripts):
        """Answer requests for ``model`` with ``scripts`` in turn; the last one stays."""
        self._playlists[model] = Playlist(list(scripts))

    def script_for(self, model):
        if model in self._playlists:
            return self._playlists[model].next()
        return Script.of_model(model) or self.default

    def forget(self):
        """Begin anew: no requests, no bills, no scripts."""
        self.requests.clear()
        self.mistakes.clear()
        self.ledger.clear()
        self.books.clear()
        self.tariff = Tariff()
        self.tariffs.clear()
        self._playlists.clear()
        self.default = Script()
        self.credential = None

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self):
        """What a provider of either kind is given as its base URL."""
        return f"{self.origin}/v1"

    def url_of(self, name):
        """The base URL of the provider ``name``, which is one of ``providers.PROVIDERS``."""
        return f"{self.origin}/{name}{PROVIDERS[name].base}"

    @property
    def calls(self):
        """The requests for an answer: no model lists, no token counts."""
        return [r for r in self.requests if r.endpoint in ANSWERS]

    def billed(self):
        """The sum of all that was billed."""
        return sum((bill for bills in list(self.ledger.values()) for bill in bills), Bill())

    def wait_until(self, condition, *, timeout=5.0, what="the upstream saw it"):
        """Wait for ``condition(self)``, and fail the test where it stays false."""
        until = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > until:
                raise AssertionError(f"Not within {timeout} s: {what}")
            time.sleep(0.005)

    # Life ------------------------------------------------------------------------------------------------------

    def start(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="scripted upstream", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("The scripted upstream did not start.")
        return self

    def stop(self):
        """Close every connection and give the port back; ``start`` again listens on the same one."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._thread.join(10)

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    def _run(self, ready):
        async def main():
            self._loop = asyncio.get_running_loop()
            self._ended = asyncio.Event()
            server = await self._loop.create_server(
                lambda: self.connection_class(self), "127.0.0.1", self.port, backlog=2048, reuse_address=True
            )
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._ended.wait()
            server.close()
            for connection in list(self.open_connections):
                connection.transport.abort()
            await asyncio.sleep(0)

        asyncio.run(main())

    async def _close(self):
        self._ended.set()


class Connection(asyncio.Protocol):
    """One connection: parses requests and plays a script for each, in turn."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.current = None  # the request that is being answered
        self.closed = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.upstream.open_connections.add(self)
        self.parser = httptools.HttpRequestParser(self)

    def connection_lost(self, error):
        self.upstream.open_connections.discard(self)
        if self.current and not self.current.finished:
            self.current.left_at = time.monotonic()
        self.closed.set()

    def data_received(self, data):
        with contextlib.suppress(httptools.HttpParserCallbackError):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.transport.abort()

    def on_message_begin(self):
        self.target, self.headers, self.body = b"", {}, []

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body):
        self.body.append(body)

    def on_message_complete(self):
        path = self.target.decode("latin-1").split("?")[0]
        method = self.parser.get_method().decode()
        self.upstream.received += 1
        name, _, rest = path.removeprefix("/").partition("/")
        provider = PROVIDERS.get(name, self.upstream.provider)
        within = f"/{rest}".removeprefix(provider.base) if name in PROVIDERS else path.removeprefix("/v1")
        endpoint = dict(provider.paths).get(within.removeprefix("/"), within.removeprefix("/"))
        request = Received(
            *(method, path, self.headers, b"".join(self.body), f"upstream-{self.upstream.received}"),
            provider=provider,
            endpoint=endpoint,
        )
        if self.upstream.keeps_requests:
            self.upstream.requests.append(request)
        self.current = request
        self.task = asyncio.get_running_loop().create_task(self._answer(request))

    # Answers ---------------------------------------------------------------------------------------------------

    async def _answer(self, request):
        try:
            await self._play(request)
            request.finished = True
        except Gone:
            pass
        except Broken:
            request.finished = True
            self._reset()
        except Exception as error:
            self.upstream.mistakes.append(error)
            self.transport.abort()
            raise

    async def _play(self, request):
        provider = request.provider
        if not self._is_authorized(request):
            await self._refuse(request, Script(status=401, message="Wrong credential."))
        elif request.endpoint not in provider.offers:
            await self._refuse(request, Script(status=404, message=f"Nothing at {request.path}."))
        elif request.endpoint == "models":
            listed = provider.models(self.upstream.models, "anthropic-version" in request.headers)
            await self._send(Script(body=dumps(listed), headers=provider.headers))
        elif unknown := self._unknown_field(request):
            message = f"Unrecognized request argument supplied: {unknown}"
            await self._refuse(request, Script(status=400, message=message))
        else:
            script = self.upstream.script_for(request.model)
            script = script.but(headers=provider.headers + script.headers) if provider.headers else script
            await self._act(request, script)

    def _is_authorized(self, request):
        if request.provider is self.upstream.provider:
            wanted = self.upstream.credential
            given = request.headers.get("x-api-key") or request.headers.get("authorization")
        else:
            wanted = credential_of(request.path.split("/")[1])
            given = request.headers.get(request.provider.auth)
        return wanted is None or (given or "").removeprefix("Bearer ") == wanted

    def _unknown_field(self, request):
        """The first field that this provider does not know and will not have."""
        unknown = request.provider.refuses | (set() if request.provider.stream_options else {"stream_options"})
        return next((name for name in request.json if name in unknown), None)

    async def _refuse(self, request, script):
        body = dumps(self._wire(request).refusal(script.status, script.message))
        await self._send(script.but(body=body))

    def _wire(self, request):
        return getattr(request.provider, ANSWERS.get(request.endpoint, "chat"))

    async def _act(self, request, script):
        asked, provider = request.json, request.provider
        if "stream_options" in asked and not script.stream_options:
            message = "Unrecognized request argument supplied: stream_options"
            await self._refuse(request, script.but(status=400, message=message))
        elif script.silent:
            await self._until_gone()
        elif script.reset == "before_headers":
            raise Broken
        elif script.body is not None:
            await self._pause(script.first_byte_delay)
            await self._send(script)
        elif script.status != 200:
            await self._pause(script.first_byte_delay)
            await self._refuse(request, script)
        elif request.endpoint in ANSWERS:
            await self._pause(script.first_byte_delay)
            answer = self._wire(request)(script, asked, request.body, request.path)
            if asked.get("stream"):
                await self._stream(request, script, answer)
            else:
                await self._whole(request, script, answer)
        elif request.endpoint == "messages/count_tokens":
            await self._send(script.but(body=dumps({"input_tokens": script.bill(request.body).input_tokens})))
        elif request.endpoint == "responses/input_tokens":
            counted = {"object": "response.input_tokens", "input_tokens": script.bill(request.body).input_tokens}
            await self._send(script.but(body=dumps(counted)))
        elif request.endpoint == "embeddings":
            bill = Bill(script.bill(request.body).input_tokens)
            request.is_whole = True
            self._bill(request, bill)
            await self._send(script.but(body=dumps(embeddings(asked, bill, base64_known=provider.base64))))
        else:
            self._bill(request, Bill())
            await self._send(script.but(body=dumps(moderations(asked))))

    async def _whole(self, request, script, answer):
        await self._pause(script.delay * len(script.pieces))
        request.is_whole = True
        self._bill(request, answer.bill)
        request.sent_chunks = len(script.pieces)
        await self._send(script.but(body=answer.whole()), request)

    async def _stream(self, request, script, answer):
        """Bill each chunk as it leaves, so that the ledger is right however the stream ends."""
        self._head(200, answer.content_type, script.headers, framing=script.framing)
        if script.reset == "after_headers":
            await asyncio.sleep(0.02)
            raise Broken
        try:
            for event in answer.opening():
                await self._event(request, script, event)
            for piece in script.pieces:
                if request.sent_chunks == script.stall_after:
                    await self._until_gone()
                if request.sent_chunks == script.error_after:
                    break
                await self._pause(script.delay)
                for event in answer.delta(piece, request.sent_chunks + 1):
                    await self._event(request, script, event)
                request.sent_chunks += 1
            if script.error_after is not None:
                for event in answer.error():
                    await self._event(request, script, event)
            elif not script.endless:
                for event in answer.closing():
                    await self._event(request, script, event)
                request.is_whole = True
        finally:
            self._bill(request, script.bill(request.body, request.sent_chunks))
        if script.framing == "chunked":
            self._write(b"0\r\n\r\n")
        else:
            self.transport.close()

    async def _event(self, request, script, event):
        if script.newline != b"\n":
            event = event.replace(b"\n", script.newline)
        await self._body(request, script, event, chunked=script.framing == "chunked")

    async def _body(self, request, script, data, chunked):
        """Write a part of the body in pieces as told, up to the byte where the script cuts."""
        cut = script.cut_at is not None and request.sent_bytes + len(data) >= script.cut_at
        if cut:
            data = data[: script.cut_at - request.sent_bytes]
        for start in range(0, len(data), script.piece or max(len(data), 1)):
            piece = data[start : start + (script.piece or len(data))]
            self._write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            request.sent_bytes += len(piece)
            if script.piece:
                await asyncio.sleep(0.001)
        if cut:
            request.finished = True
            self.transport.close()
            raise Gone
        if self.transport.get_write_buffer_size() > 262_144:
            await self._drain()

    async def _send(self, script, request=None):
        request = request or self.current
        self._head(script.status, script.content_type, script.headers, length=len(script.body))
        if script.reset == "after_headers":
            await asyncio.sleep(0.02)
            raise Broken
        await self._body(request, script, script.body, chunked=False)

    def _head(self, status, content_type, headers, *, length=None, framing="chunked"):
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Scripted')}", f"content-type: {content_type}"]
        if length is not None:
            lines.append(f"content-length: {length}")
        elif framing == "chunked":
            lines.append("transfer-encoding: chunked")
        else:
            lines.append("connection: close")
        if "id" not in dict(headers):
            lines += [f"x-request-id: {self.current.id}", f"request-id: {self.current.id}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _write(self, data):
        if self.closed.is_set() or self.transport.is_closing():
            raise Gone
        self.transport.write(data)

    async def _pause(self, seconds):
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), seconds)
        if self.closed.is_set():
            raise Gone

    async def _drain(self):
        while self.transport.get_write_buffer_size() > 65_536:
            await self._pause(0.005)

    async def _until_gone(self):
        await self.closed.wait()
        raise Gone

    def _bill(self, request, bill):
        request.bill = bill
        upstream, marker, model = self.upstream, request.marker, request.model
        upstream.ledger[marker or ""].append(bill)
        nanos = upstream.tariffs.get(model, upstream.tariff).nanos(bill)
        upstream.books.append(Entry(request.id, marker, model, bill, request.is_whole, nanos))

    def _reset(self):
        """Close with a TCP reset instead of a polite end."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Gone(Exception):
    """The client left, or the script closed the connection: nothing more can be written."""


class Broken(Exception):
    """The script wants a TCP reset now."""
