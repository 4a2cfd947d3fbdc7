"""Calling a provider: one POST, its answer opened, every way it can fail told in ``providers.errors``."""

import asyncio
import functools
import time
import urllib.parse

import aiohttp
from django.utils.translation import gettext_noop
from multidict import istr
from yarl import URL

from providers.adapters.refusals import rejection
from providers.endpoints import endpoint_url
from providers.errors import Broken, TimedOut, Unreachable

_ = gettext_noop

MAX_ANSWER = 64 * 1024 * 1024
MAX_ERROR = 64 * 1024
# Where the provider has no figures of its own. An answer that is not streamed arrives when all of it has been written.
CONNECT_SECONDS = 10
FIRST_BYTE_SECONDS = 120
WHOLE_SECONDS = 600
IDLE_SECONDS = 120
# The part of a timeout by which it may be longer than it should.
NEGLIGIBLE = 0.02
# How long a provider that has said its last word may keep the connection from being used again.
END_SECONDS = 0.1
# Where providers say how they call the request.
REQUEST_ID_HEADERS = tuple(
    istr(name) for name in ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "id")
)
CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key", "x-amz-security-token")


class Answer:
    """
    An answer of status 200 whose body is still to be read; of a streamed one the first bytes are there.

    Its caller closes it: before its end that closes the connection, and so ends the provider's work; after it the
    connection is used again.
    """

    __slots__ = ("first", "response")

    def __init__(self, response, first=None):
        self.response = response
        self.first = first

    @property
    def headers(self):
        return self.response.headers

    @property
    def content_type(self):
        """The type of what ``next_chunk`` and ``read`` give."""
        return self.response.content_type

    def close(self):
        self.response.close()


class Adapter:
    """
    A way of calling providers: this one for all that take a body as it is, with the credential in a header.

    Where the wire differs, an adapter turns the body into the provider's request and its answer into what the format
    says it is: ``read`` and ``next_chunk`` give the bytes of the format, whatever came.
    """

    answer_class = Answer

    async def post(self, upstream, target, format, body, *, stream, headers=None):
        """
        Send ``body`` to where ``target`` answers ``format``, and return its ``Answer``.

        Of a stream it has waited for the first byte, so that until then the call can still go elsewhere. Raises a
        ``ProviderError``.
        """
        url = url_of(target.dialect, target.base_url, target.endpoints[format], target.upstream_name)
        sent = {"content-type": "application/json", **target.headers, **(headers or {})}
        return await self.send(upstream, target, url, body, sent, stream=stream)

    async def send(self, upstream, target, url, body, headers, *, stream):
        """POST to ``url``, as ``post``."""
        seconds = target.first_byte_timeout or (FIRST_BYTE_SECONDS if stream else WHOLE_SECONDS)
        timeout = _timeout(target.connect_timeout or CONNECT_SECONDS, seconds)
        began = time.monotonic()
        try:
            session = upstream.session_for(target.base_url, target.private_allowed)
            response = await session.post(url, body=body, headers=headers, timeouts=timeout)
        except aiohttp.ConnectionTimeoutError as error:
            message = _("The provider did not take the connection in time.")
            raise Unreachable(message, repr(error), timeout="connect") from None
        except TimeoutError as error:
            raise TimedOut(_("The provider did not answer in time."), repr(error), timeout="first_byte") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(_("The provider could not be reached."), repr(error)) from None
        try:
            if response.status != 200:
                raise await self._rejection(response, target, headers)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise Broken(_("The provider's answer is compressed although it was asked not to be."))
            if not stream:
                return self.answer_class(response)
            idle = target.idle_timeout or IDLE_SECONDS
            first = await _first_bytes(response, seconds, time.monotonic() - began, idle)
            return self.answer_class(response, first)
        except BaseException:
            response.close()
            raise

    async def read(self, answer) -> bytes:
        """The whole body of an answer. Raises a ``ProviderError``."""
        try:
            return await _whole(answer.response)
        except TimeoutError as error:
            message = _("The provider did not finish its answer in time.")
            raise TimedOut(message, repr(error), timeout="idle") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(_("The provider's answer was cut off."), repr(error)) from None

    async def next_chunk(self, answer) -> bytes:
        """The next bytes of a stream of events as they come, empty at its end. Raises a ``ProviderError``."""
        if answer.first is not None:
            first, answer.first = answer.first, None
            return first
        try:
            return await answer.response.content.readany()
        except TimeoutError as error:
            message = _("The provider went silent in the middle of its answer.")
            raise TimedOut(message, repr(error), timeout="idle") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(_("The provider's answer was cut off."), repr(error)) from None

    async def finish(self, answer) -> None:
        """Take what stands between the end of an answer and the end of its body, where it comes at once."""
        try:
            async with asyncio.timeout(END_SECONDS):
                while await answer.response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            # The connection is closed then instead of used again.
            pass

    def request_id(self, answer) -> str | None:
        """How the provider calls this request, if it says."""
        value = next(filter(None, map(answer.response.headers.get, REQUEST_ID_HEADERS)), None)
        if value is None or (len(value) <= 200 and value.isascii()):
            return value
        # Headers come with whatever bytes were sent; records hold text.
        return value[:200].encode("utf-8", "replace").decode()

    def scrubbed(self, failure, target):
        """What a provider said of its failure in mid-stream, fit to be passed on."""
        if failure is not None:
            failure.message = without(failure.message, self.secrets(target, {}))[:1000]
        return failure

    def secrets(self, target, headers) -> list[str]:
        """The texts of this server's credential that a provider may repeat in its errors."""
        texts = [{**target.headers, **headers}.get(name, "").removeprefix("Bearer ") for name in CREDENTIAL_HEADERS]
        if target.credential:
            texts.append(target.credential.reveal())
        return texts

    async def _rejection(self, response, target, headers):
        """The error to raise for an answer whose status is not 200."""
        try:
            async with asyncio.timeout(10):
                body = await response.content.read(MAX_ERROR)
        except (TimeoutError, aiohttp.ClientError, OSError):
            body = b""
        return self.rejection(response.status, response.headers, body, target, headers)

    def rejection(self, status, answered, body, target, headers):
        """The error to raise for a refusal with these headers and body; ``headers`` are those that were sent."""
        secrets = self.secrets(target, headers)
        return rejection(status, answered, body, lambda text: without(text, secrets))


@functools.lru_cache(4096)
def url_of(dialect: str | None, base_url: str, path: str, model: str) -> URL:
    """
    Where a path of a preset stands under a base URL; ``{model}`` in it is the model's name, escaped.

    ``dialect`` is ``None`` where the path is all that follows the base URL.
    """
    path = path.replace("{model}", urllib.parse.quote(model, safe="@"))
    return URL(endpoint_url(dialect, base_url, path), encoded=True)


@functools.lru_cache(256)
def _timeout(connect, first_byte):
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=first_byte)


async def _first_bytes(response, seconds, waited, idle):
    """
    Wait for the beginning of a body, ``seconds`` in all of which ``waited`` are over; from then on ``idle`` counts.

    The connection's timer runs anew with ``seconds`` since the headers; setting it costs, so little is let pass.
    """
    try:
        is_set = waited > seconds * NEGLIGIBLE
        if is_set:
            _let_silence_last(response, max(seconds - waited, 0.001))
        first = await response.content.readany()
        if is_set or seconds != idle:
            _let_silence_last(response, idle)
    except TimeoutError as error:
        raise TimedOut(_("The provider did not begin its answer in time."), repr(error), timeout="first_byte") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Broken(_("The provider's answer was cut off."), repr(error)) from None
    return first


def _let_silence_last(response, seconds):
    """Have the next ``seconds`` without a byte be a timeout; there is no connection where the body has come whole."""
    if (connection := response.connection) is not None and (protocol := connection.protocol) is not None:
        protocol.read_timeout = seconds
        protocol.start_timeout()


async def _whole(response):
    if (response.content_length or MAX_ANSWER) < MAX_ANSWER:
        return await response.content.read(-1)
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise Broken(_("The provider's answer is larger than 64 MB."))
    return bytes(body)


def without(text, secrets):
    """``text`` without any of ``secrets``, which some providers repeat in their errors."""
    for secret in secrets:
        if text and len(secret) >= 8:
            text = text.replace(secret, "***")
    return text
