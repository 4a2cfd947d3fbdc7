"""
The one module that knows transports: aiohttp under the gateway, httpx for everything else, one guard in both.

The guard stands where a connection is opened (reliability: the resolved address is what counts), so a request on a
connection that is kept alive pays nothing for it. No redirects, no proxies from the environment, no cookies, and
bodies as they are on the wire: both ask for ``identity`` and never decompress.
"""

import os
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import aiohttp
import certifi
import httpcore
import httpx
from aiohttp.helpers import TimerNoop
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDict
from yarl import URL

from providers.origins import (
    ForbiddenAddress,
    InvalidBaseUrl,
    Origin,
    connection_verdict,
    origin_verdict,
    parse_base_url,
)

USER_AGENT = "Comptoir"
HEADERS = CIMultiDict({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
CONNECT_SECONDS = 10
USUAL = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
EMPTY = MappingProxyType({})
NO_TIMER, NO_TRACES = TimerNoop(), []
ANSWER_LIMIT = 4 * 1024 * 1024


@cache
def tls_context() -> ssl.SSLContext:
    """The machine's certificate authorities; those of certifi where this Python knows of none."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and any(os.scandir(paths.capath))):
        context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(frozen=True, slots=True)
class Guard:
    """
    What may be connected to: public https, or the one private origin that the operator allows.

    ``private_origin`` of ``None`` is public.
    """

    private_origin: Origin | None = None

    def check_origin(self, origin: Origin) -> None:
        """Raise ``ForbiddenAddress`` where the text of ``origin`` already says that it must not be called."""
        if self.private_origin is not None and origin != self.private_origin:
            raise ForbiddenAddress("another origin than the approved one")
        if verdict := origin_verdict(origin, private_allowed=self.private_origin is not None):
            raise ForbiddenAddress(verdict)

    def check_address(self, origin: Origin, address: str) -> None:
        """Raise ``ForbiddenAddress`` where ``origin`` must not be reached at ``address``."""
        if verdict := connection_verdict(origin, address, private_allowed=self.private_origin is not None):
            raise ForbiddenAddress(verdict)

    @classmethod
    def for_base_url(cls, base_url: str, private_allowed: bool) -> "Guard":
        """The guard of one provider, after a first look at its base URL."""
        origin = parse_base_url(base_url).origin
        guard = cls(origin if private_allowed else None)
        guard.check_origin(origin)
        return guard


# The hot path ----------------------------------------------------------------------------------------------------


class Upstream:
    """
    The gateway's connections to providers; make it inside the running event loop and close it with it.

    One connector for all public origins, one for each approved private origin.
    """

    def __init__(self):
        self._public: Session | None = None
        self._private: dict[Origin, Session] = {}
        self._by_base_url: dict[tuple[str, bool], Session] = {}

    def session_for(self, base_url: str, private_allowed: bool) -> "Session":
        """
        The session that reaches ``base_url``, made on first use.

        Raises ``ForbiddenAddress`` for an origin that its text alone forbids, and ``InvalidBaseUrl``.
        """
        try:
            return self._by_base_url[base_url, private_allowed]
        except KeyError:
            session = self._by_base_url[base_url, private_allowed] = self._session(base_url, private_allowed)
            return session

    async def close(self) -> None:
        """Close every connection."""
        for session in [self._public, *self._private.values()]:
            if session is not None:
                await session.close()
        self.__init__()

    def _session(self, base_url, private_allowed):
        guard = Guard.for_base_url(base_url, private_allowed)
        if guard.private_origin is None:
            self._public = self._public or Session(guard)
            return self._public
        if guard.private_origin not in self._private:
            self._private[guard.private_origin] = Session(guard)
        return self._private[guard.private_origin]


class Session:
    """
    What reaches the origins that one guard lets through: aiohttp's connections, requests and answers.

    They are used without its ``ClientSession``, whose cookies, redirects, proxies and hooks no provider needs: a tenth
    of a request's time. A body arrives as it was sent: an answer with a ``Content-Encoding`` of its own is for the
    caller to refuse.
    """

    __slots__ = ("connector",)

    def __init__(self, guard: Guard):
        self.connector = GuardedConnector(guard)

    async def post(
        self,
        url: URL,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = EMPTY,
        timeouts: aiohttp.ClientTimeout = USUAL,
    ) -> aiohttp.ClientResponse:
        """
        Send ``body``; the answer's status and headers are there, its body still comes.

        Of ``timeouts`` those for connecting and for reading from the socket count. Raises ``aiohttp.ClientError``
        and ``OSError``, among them ``ConnectionTimeoutError`` and, for silence, ``SocketTimeoutError``.
        """
        sent = HEADERS.copy()
        sent.update(headers)
        request = aiohttp.ClientRequest("POST", url, headers=sent, data=body, timer=NO_TIMER)
        try:
            connection = await self.connector.connect(request, traces=NO_TRACES, timeout=timeouts)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"No connection to {url.host} in time") from error
        try:
            connection.protocol.set_response_params(
                timer=NO_TIMER, read_until_eof=True, auto_decompress=False, read_timeout=timeouts.sock_read
            )
            response = await request.send(connection)
            try:
                return await response.start(connection)
            except BaseException:
                response.close()
                raise
        except BaseException:
            connection.close()
            raise

    @property
    def open_connections(self) -> int:
        """How many connections are in use now."""
        return len(self.connector._acquired)

    async def close(self) -> None:
        """Close every connection."""
        await self.connector.close()


class GuardedConnector(aiohttp.TCPConnector):
    """
    Opens connections only where its guard lets it.

    Three looks, each where the others cannot be: the origin before anything is resolved, every answer of the
    resolver, and the address of the socket (literal addresses never see the resolver).
    """

    def __init__(self, guard: Guard):
        super().__init__(
            resolver=GuardedResolver(guard),
            socket_factory=self._guarded_socket,
            ssl=tls_context(),
            limit=0,
            limit_per_host=0,
            keepalive_timeout=60,
        )
        self._guard = guard

    async def _create_connection(self, req, traces, timeout):  # noqa: ASYNC109
        # aiohttp's one place where a connection is opened; pooled ones were checked when they were.
        try:
            self._guard.check_origin(parse_base_url(str(req.url.origin())).origin)
        except InvalidBaseUrl as error:
            raise aiohttp.InvalidUrlClientError(req.url, str(error)) from None
        except ForbiddenAddress as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from None
        return await super()._create_connection(req, traces, timeout)

    def _guarded_socket(self, addr_info):
        family, kind, protocol, _, (address, port, *_) = addr_info
        private_allowed = self._guard.private_origin is not None
        # Here the host's name is not known any more; the private origin is the only one that this connector opens.
        origin = self._guard.private_origin or Origin("https", address, port)
        if port != origin.port or connection_verdict(origin, address, private_allowed=private_allowed):
            raise ForbiddenAddress("forbidden at connect")
        return _socket(family, kind, protocol)


class GuardedResolver(ThreadedResolver):
    """Answers with a name's addresses only where every one of them may be connected to."""

    def __init__(self, guard: Guard):
        super().__init__()
        self._guard = guard

    async def resolve(self, host, port=0, family=socket.AF_UNSPEC):
        answers = await super().resolve(host, port, family)
        origin = self._guard.private_origin or Origin("https", host.rstrip("."), port)
        for answer in answers:
            self._guard.check_address(origin, answer["host"])
        return answers


def _socket(family, kind, protocol):
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


# Everything else -------------------------------------------------------------------------------------------------


class AnswerTooLarge(httpx.TransportError):
    """An answer longer than ``ANSWER_LIMIT``, or compressed although it was asked not to be."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    milliseconds: int


@contextmanager
def admin_client(base_url: str, *, private_allowed: bool, seconds: float = 10) -> Iterator[httpx.Client]:
    """
    A client for one provider, for calls that a person waits for: all of them together end after ``seconds``.

    Raises ``ForbiddenAddress`` and ``InvalidBaseUrl`` as ``Upstream.session_for``; a forbidden address found while
    connecting is an ``httpx.ConnectError`` like any other.
    """
    guard = Guard.for_base_url(base_url, private_allowed)
    with httpx.Client(
        transport=GuardedTransport(guard, time.monotonic() + seconds),
        headers=HEADERS,
        timeout=seconds,
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield client


def fetch(client: httpx.Client, url: str, headers: dict[str, str]) -> Answer:
    """GET ``url`` and read at most ``ANSWER_LIMIT`` bytes; raises ``httpx.TransportError`` for all that fails."""
    began = time.monotonic()
    with client.stream("GET", url, headers=headers) as response:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise AnswerTooLarge("compressed")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > ANSWER_LIMIT:
                raise AnswerTooLarge("too large")
    return Answer(response.status_code, bytes(body), round((time.monotonic() - began) * 1000))


def post(client: httpx.Client, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """POST ``body`` to ``url``; of the answer its status alone. Raises ``httpx.TransportError`` for all that fails."""
    began = time.monotonic()
    with client.stream("POST", url, headers=headers, content=body) as response:
        return Answer(response.status_code, b"", round((time.monotonic() - began) * 1000))


class GuardedTransport(httpx.HTTPTransport):
    """httpx's own transport over a guarded network."""

    def __init__(self, guard: Guard, deadline: float):
        super().__init__(verify=tls_context(), trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls_context(), network_backend=GuardedNetwork(guard, deadline), max_keepalive_connections=0
        )
        self._guard = guard

    def handle_request(self, request):
        url = request.url
        try:
            self._guard.check_origin(parse_base_url(f"{url.scheme}://{url.netloc.decode('ascii')}").origin)
        except (ForbiddenAddress, ValueError) as error:
            raise httpx.ConnectError("forbidden", request=request) from error
        return super().handle_request(request)


class GuardedNetwork(httpcore.NetworkBackend):
    """Resolves once, refuses unless every answer may be connected to, and connects to what it checked."""

    def __init__(self, guard: Guard, deadline: float):
        self._guard, self._deadline = guard, deadline

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        origin = self._guard.private_origin or Origin("https", host.strip("[]").rstrip("."), port)
        try:
            if port != origin.port:
                raise ForbiddenAddress("another port than the approved one")
            answers = socket.getaddrinfo(origin.host, port, type=socket.SOCK_STREAM)
            for *_, (address, *_) in answers:
                self._guard.check_address(origin, address)
            return DeadlineStream(self._connect(answers), self._deadline)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    def connect_unix_socket(self, path, timeout=None, socket_options=None):
        raise httpcore.ConnectError("forbidden")

    def _connect(self, answers):
        failure = OSError("no address")
        for family, kind, protocol, _, address in answers:
            made = _socket(family, kind, protocol)
            try:
                made.settimeout(_seconds_left(self._deadline, TimeoutError))
                made.connect(address)
            except OSError as error:
                made.close()
                failure = error
            else:
                return made
        raise failure


class DeadlineStream(httpcore.NetworkStream):
    """A connection of which every step ends at one deadline, so that a slow drip of bytes cannot stretch it."""

    def __init__(self, connection: socket.socket, deadline: float):
        self._socket, self._deadline = connection, deadline

    def read(self, max_bytes, timeout=None):
        try:
            self._socket.settimeout(_seconds_left(self._deadline, httpcore.ReadTimeout))
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer, timeout=None):
        try:
            self._socket.settimeout(_seconds_left(self._deadline, httpcore.WriteTimeout))
            self._socket.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self):
        self._socket.close()

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        try:
            self._socket.settimeout(_seconds_left(self._deadline, httpcore.ConnectTimeout))
            # The certificate must be that of the name, not of the address that was dialled.
            return DeadlineStream(
                ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._deadline
            )
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info):
        return None


def _seconds_left(deadline, error):
    left = deadline - time.monotonic()
    if left <= 0:
        raise error("the time is up")
    return left
