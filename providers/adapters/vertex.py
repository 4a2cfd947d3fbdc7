"""
Models on Google's Vertex AI: an access token of a service account on each request, Claude's body as Google takes it.

The token comes from google-auth, an optional library that is imported at the first call; what it sends goes through
the guard that every other request of this server goes through.
"""

import asyncio
import functools
import threading
import time
from concurrent.futures import Future

import httpx
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.utils.translation import gettext_noop

from providers.adapters.extras import load
from providers.adapters.http import Adapter, url_of
from providers.client import ANSWER_LIMIT, AnswerTooLarge, admin_client
from providers.credentials import Secret
from providers.errors import OwnAccount, ProviderError, TimedOut, Unreachable
from providers.origins import ForbiddenAddress, InvalidBaseUrl, is_private_allowed, origin_of, parse_base_url

_ = gettext_noop

ANTHROPIC_VERSION = msgspec.Raw(b'"vertex-2023-10-16"')
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_SECONDS = 10
# A token endpoint that has refused, or kept silent, is not asked again for so long.
REFUSED_SECONDS = 5
RAW_PREDICT, STREAM_RAW_PREDICT, COUNT = ":rawPredict", ":streamRawPredict", "/count-tokens:rawPredict"
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ServiceAccount(msgspec.Struct, frozen=True):
    """What is read of a service account's key file; the rest of it is for google-auth."""

    type: str
    client_email: str
    private_key: str
    token_uri: str


class InvalidCredential(ValueError):
    """A text that is no key of a service account."""


_ACCOUNT = msgspec.json.Decoder(ServiceAccount)


def account_of(credential: Secret) -> ServiceAccount:
    """The service account whose key file ``credential`` is. Raises ``InvalidCredential``."""
    try:
        account = _ACCOUNT.decode(credential.reveal())
    except msgspec.MsgspecError as error:
        raise InvalidCredential(str(error)) from None
    if account.type != "service_account":
        # Other kinds name files, programs and addresses to ask, all on this machine.
        raise InvalidCredential(f"type is {account.type[:40]}, not service_account")
    try:
        parse_base_url(account.token_uri)
    except InvalidBaseUrl:
        raise InvalidCredential("token_uri is not a plain address") from None
    return account


def is_key_file(text: str) -> bool:
    """Whether ``text`` is the key file of a service account, with a private key that can sign."""
    try:
        load_pem_private_key(account_of(Secret(text)).private_key.encode(), password=None)
    except (InvalidCredential, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


class Vertex(Adapter):
    """
    Calls Vertex AI. Bodies are rewritten for the paths of Claude's models; at others it takes them as they are.
    """

    async def post(self, upstream, target, format, body, *, stream, headers=None):
        token = await token_of(target)
        path = target.endpoints[format]
        sent = {**target.headers, **(headers or {}), "content-type": "application/json"}
        sent["authorization"] = f"Bearer {token}"
        if path.endswith(RAW_PREDICT):
            # Which version of the API it is stands in the body, which model in the path.
            sent.pop("anthropic-version", None)
            body = predicting_body(body, with_model=path.endswith(COUNT))
            if stream:
                path = path.removesuffix(RAW_PREDICT) + STREAM_RAW_PREDICT
        url = url_of(None, target.base_url, path, target.upstream_name)
        return await self.send(upstream, target, url, body, sent, stream=stream)

    def secrets(self, target, headers):
        texts = super().secrets(target, headers)
        try:
            return [*texts, account_of(target.credential).private_key] if target.credential else texts
        except InvalidCredential:
            return texts


def predicting_body(body: bytes, *, with_model: bool = False) -> bytes:
    """A request for messages as Vertex AI takes it."""
    fields = _FIELDS.decode(body)
    if not with_model:
        fields.pop("model", None)
    fields.setdefault("anthropic_version", ANTHROPIC_VERSION)
    return msgspec.json.encode(fields)


# Access tokens ---------------------------------------------------------------------------------------------------


async def token_of(target) -> str:
    """
    An access token for ``target``: the one that is there while it is good, and one request for another.

    Raises a ``ProviderError``.
    """
    await load("vertex")
    if not target.credential:
        raise _unusable("There is no credential.")
    return await _source(target.credential, target.base_url, target.private_allowed).token()


@functools.lru_cache(256)
def _source(credential, base_url, private_allowed):
    return TokenSource(credential, base_url if private_allowed else None)


class TokenSource:
    """
    The tokens of one service account in this process.

    ``private_base_url`` is that of a provider whose origin the operator lets be private: its token endpoint may stand
    there too. Safe to use from any thread and event loop.
    """

    def __init__(self, credential: Secret, private_base_url: str | None):
        self._credential = credential
        self._private_base_url = private_base_url
        self._google = None
        self._lock = threading.Lock()
        self._asking: Future | None = None
        self._refusal: tuple[float, ProviderError] | None = None

    async def token(self) -> str:
        """The token; a caller waits only where the last one has run out. Raises a ``ProviderError``."""
        from google.auth.credentials import TokenState

        state = self._google.token_state if self._google else TokenState.INVALID
        if state == TokenState.FRESH:
            return self._google.token
        asking = self._ask()
        if state == TokenState.STALE:
            return self._google.token
        # Whoever leaves meanwhile leaves it to the others.
        await asyncio.shield(asyncio.wrap_future(asking))
        return self._google.token

    def _ask(self):
        """The running request for a token, begun where there is none."""
        with self._lock:
            if self._asking is None or self._asking.done():
                if self._refusal and time.monotonic() < self._refusal[0]:
                    failed = Future()
                    failed.set_exception(self._refusal[1])
                    return failed
                self._asking = Future()
                # One of its own: in a pool, endpoints that hang would hold up those of everybody else.
                threading.Thread(target=self._run, args=(self._asking,), name="access-token", daemon=True).start()
            return self._asking

    def _run(self, asking):
        asking.set_running_or_notify_cancel()
        try:
            self._refresh()
        except BaseException as error:
            asking.set_exception(error)
        else:
            asking.set_result(None)

    def _refresh(self):
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2.service_account import Credentials

        try:
            account = account_of(self._credential)
            if self._google is None:
                info = msgspec.json.decode(self._credential.reveal())
                self._google = Credentials.from_service_account_info(info, scopes=SCOPES)
            self._google.refresh(request_through_guard(account.token_uri, self._is_private(account.token_uri)))
        except InvalidCredential as error:
            raise self._refused(_unusable(str(error))) from None
        except httpx.TimeoutException as error:
            message = _("The provider did not give an access token in time.")
            raise self._refused(TimedOut(message, repr(error), timeout="first_byte")) from None
        except (httpx.HTTPError, ForbiddenAddress, InvalidBaseUrl) as error:
            raise self._refused(Unreachable(_("The provider could not be reached."), repr(error))) from None
        except (GoogleAuthError, UnsupportedAlgorithm, TypeError, ValueError) as error:
            if getattr(error, "retryable", False):
                raise self._refused(Unreachable(_("The provider gave no access token."), repr(error))) from None
            raise self._refused(_unusable(repr(error))) from None

    def _refused(self, error):
        self._refusal = time.monotonic() + REFUSED_SECONDS, error
        return error

    def _is_private(self, token_uri):
        if self._private_base_url and origin_of(token_uri) == origin_of(self._private_base_url):
            return True
        return is_private_allowed(token_uri)


def _unusable(detail):
    return OwnAccount(_("The credential is not one for this provider."), status=401, detail=detail[:500])


def request_through_guard(token_uri: str, private_allowed: bool):
    """
    A ``google.auth.transport.Request`` that goes through the guard of the provider's other requests.

    All its attempts together end after ``TOKEN_SECONDS``.
    """
    from google.auth import transport

    deadline = time.monotonic() + TOKEN_SECONDS

    class Response(transport.Response):
        status = headers = data = None

        def __init__(self, status, headers, data):
            self.status, self.headers, self.data = status, headers, data

    class Request(transport.Request):
        def __call__(self, url, method="GET", body=None, headers=None, **_options):
            left = deadline - time.monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("the time is up")
            with (
                admin_client(token_uri, private_allowed=private_allowed, seconds=left) as client,
                client.stream(method, url, content=body, headers=headers) as response,
            ):
                data = bytearray()
                for chunk in response.iter_raw():
                    data += chunk
                    if len(data) > ANSWER_LIMIT:
                        raise AnswerTooLarge("too large")
                return Response(response.status_code, response.headers, bytes(data))

    return Request()
