"""Calling a provider: one POST, its answer opened, every way it can fail told in ``providers.errors``."""

import asyncio
import email.utils
import functools
import time
from dataclasses import dataclass, field

import aiohttp
import structlog
from yarl import URL

from providers.endpoints import endpoint_url
from providers.errors import Broken, OwnAccount, Rejected, TimedOut, Unreachable

log = structlog.get_logger(__name__)

MAX_ANSWER = 64 * 1024 * 1024
MAX_ERROR = 64 * 1024
LONGEST_RETRY_AFTER = 3600
# An answer that is not streamed arrives when all of it has been written.
PLAIN_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600)
STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
# How long a provider that has said its last word may keep the connection from being used again.
END_SECONDS = 0.1
# What is about the account that this server uses there, whatever the status that comes with it.
OWN_ACCOUNT_STATUSES = {401, 402, 403}
OWN_ACCOUNT_CODES = {
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error", "account_deactivated",
    "access_terminated", "invalid_api_key",
}  # fmt: skip
OWN_ACCOUNT_WORDS = "credit balance is too low"


@dataclass(frozen=True, slots=True)
class Adapter:
    """
    A wire format's own: the path of its chat endpoint, its fixed headers and how its errors read.

    ``request_id_headers`` are where providers of this shape say how they call the request.
    """

    dialect: str
    path: str
    read_error: object
    request_id_headers: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=dict)

    async def post(self, upstream, target, body, *, stream, headers=None, path=None):
        """
        Send ``body`` to ``target`` and return its open answer, an ``aiohttp.ClientResponse`` of status 200.

        The caller closes it: before the answer has ended that closes the connection, and so ends the provider's work.
        Raises a ``ProviderError``.
        """
        url = _url(target.dialect, target.base_url, path or self.path)
        sent = {"content-type": "application/json", **self.headers, **target.headers, **(headers or {})}
        try:
            session = upstream.session_for(target.base_url, target.private_allowed)
            timeout = STREAM_TIMEOUT if stream else PLAIN_TIMEOUT
            response = await session.post(url, data=body, headers=sent, timeout=timeout)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable("The provider did not take the connection in time.", repr(error)) from None
        except TimeoutError as error:
            raise TimedOut("The provider did not answer in time.", repr(error), timeout="first_byte") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable("The provider could not be reached.", repr(error)) from None
        if response.status == 200 and response.headers.get("content-encoding", "identity").lower() == "identity":
            return response
        try:
            if response.status != 200:
                raise await self._rejection(response, target)
            raise Broken("The provider's answer is compressed although it was asked not to be.")
        finally:
            response.close()

    async def read(self, response):
        """The whole body of an answer. Raises a ``ProviderError``."""
        try:
            body = await _whole(response)
        except TimeoutError as error:
            raise TimedOut("The provider did not finish its answer in time.", repr(error), timeout="idle") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken("The provider's answer was cut off.", repr(error)) from None
        return body

    async def next_chunk(self, response):
        """The next bytes of a streamed answer as they come, empty at its end. Raises a ``ProviderError``."""
        try:
            return await response.content.readany()
        except TimeoutError as error:
            raise TimedOut(
                "The provider went silent in the middle of its answer.", repr(error), timeout="idle"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken("The provider's answer was cut off.", repr(error)) from None

    def request_id(self, response):
        """How the provider calls this request, if it says."""
        for name in self.request_id_headers:
            if value := response.headers.get(name):
                # Headers come with whatever bytes were sent; records hold text.
                return value[:200].encode("utf-8", "replace").decode()
        return None

    async def finish(self, response):
        """Take what stands between the end of an answer and the end of its body, where it comes at once."""
        try:
            async with asyncio.timeout(END_SECONDS):
                while await response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            # The connection is closed then instead of used again.
            pass

    def scrubbed(self, failure, target):
        """What a provider said of its failure in mid-stream, fit to be passed on."""
        if failure is not None:
            failure.message = _scrubbed(failure.message, target)[:1000]
        return failure

    async def _rejection(self, response, target):
        """The error to raise for an answer whose status is not 200."""
        try:
            async with asyncio.timeout(10):
                body = await response.content.read(MAX_ERROR)
        except (TimeoutError, aiohttp.ClientError, OSError):
            body = b""
        message, code, param = self.read_error(body)
        message = _scrubbed(message, target)
        detail = f"{response.status} {message or _scrubbed(body[:300].decode(errors='replace'), target)}"
        is_own = (
            response.status in OWN_ACCOUNT_STATUSES
            or code in OWN_ACCOUNT_CODES
            or OWN_ACCOUNT_WORDS in (message or "").lower()
        )
        kind = OwnAccount if is_own else Rejected
        return kind(
            (message or f"The provider answered with status {response.status}.")[:1000],
            status=response.status,
            code=code[:60] if code else None,
            param=param,
            retry_after=_retry_after(response.headers.get("retry-after")),
            detail=detail[:500],
        )


@functools.lru_cache(4096)
def _url(dialect, base_url, path):
    return URL(endpoint_url(dialect, base_url, path))


async def _whole(response):
    if (response.content_length or MAX_ANSWER) < MAX_ANSWER:
        return await response.content.read(-1)
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise Broken(f"The provider's answer is larger than {MAX_ANSWER // 1024**2} MB.")
    return bytes(body)


def _scrubbed(text, target):
    """``text`` without the credential that some providers repeat in their errors."""
    for name in ("authorization", "x-api-key"):
        secret = target.headers.get(name, "").removeprefix("Bearer ")
        if text and len(secret) >= 8:
            text = text.replace(secret, "***")
    return text


def _retry_after(value):
    """Whole seconds within [0, LONGEST_RETRY_AFTER] from either form of the header; ``None`` where it says nothing."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    if seconds != seconds:
        return None
    return int(min(max(seconds, 0), LONGEST_RETRY_AFTER) + 0.999)
