"""One HTTP request as ASGI gives it, and the ways to answer it."""

import asyncio
import contextlib
import re
import time

import msgspec
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.translation import get_supported_language_variant
from django.utils.translation.trans_real import parse_accept_lang_header

from gateway import errors
from gateway.auth import authenticate
from providers import flavours
from providers.dialects import anthropic, openai
from usage.ulid import new_ulid, request_id

FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
OPENAI_PATHS = ("/v1/chat/", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations")
MAX_BODY = 32 * 1024 * 1024
BODY_TIMEOUT = 60.0
JSON_HEADERS = [(b"content-type", b"application/json")]


class Http:
    """
    A request and its answer.

    ``dialect`` is the caller's; an answer goes out in it and carries the request's id as that dialect names it.
    ``path`` is ``full_path`` without the prefix that asks for a flavour; ``flavour`` is what that prefix says or, once
    the caller is known, what the key or its workspace is set to. ``error_event`` tells of an error in the stream that
    has begun.
    """

    __slots__ = (
        "_by_name",
        "_receive",
        "_scheme",
        "_send",
        "_started",
        "answer_headers",
        "caller",
        "dialect",
        "error_event",
        "flavour",
        "full_path",
        "headers",
        "method",
        "path",
        "query",
        "received",
        "request_id",
        "ulid",
    )

    def __init__(self, scope, receive, send):
        self._receive = receive
        self._send = send
        self._started = False
        self._scheme = scope.get("scheme", "http")
        self.headers = scope["headers"]
        # Of a header that comes twice the first counts.
        self._by_name = dict(reversed(self.headers))
        self.method = scope["method"]
        self.full_path = scope["path"]
        self.flavour, self.path = flavours.at_path(self.full_path)
        self.query = scope["query_string"]
        self.ulid = new_ulid()
        self.request_id = request_id(self.ulid)
        self.received = time.perf_counter()
        self.caller = None
        self.answer_headers = None
        self.dialect = anthropic if self._speaks_anthropic() else openai
        self.error_event = self.dialect.error_event

    def _speaks_anthropic(self):
        """By path where that says it, and by the headers that only SDKs of that dialect send where it does not."""
        if self.path.startswith("/v1/messages"):
            return True
        if self.path.startswith(OPENAI_PATHS) or self.flavour is not None:
            return False
        return any(name == b"anthropic-version" or name == b"anthropic-beta" for name, _ in self.headers)

    @property
    def id(self):
        """What a flavour calls the request by, which of a call is the same."""
        return self.request_id

    # The request ----------------------------------------------------------------------------------------------

    async def authenticate(self, runtime):
        """The caller; raises ``GatewayError``."""
        self.caller = await authenticate(self.headers, runtime.keeper)
        if self.dialect is anthropic:
            # Flavours are of OpenAI's shape.
            self.flavour = flavours.OPENAI
        elif self.flavour is None:
            self.flavour = flavours.BY_NAME[self.caller.flavour] if self.caller.flavour else flavours.OPENAI
        return self.caller

    def header(self, wanted):
        """The first value of a header, or ``None``."""
        return self._by_name.get(wanted)

    def text_header(self, wanted):
        """A header for a record: printable, at most 200 characters."""
        value = self.header(wanted)
        if not value:
            return None
        text = value[:200].decode("latin-1")
        return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)

    def retry_count(self):
        """How often the client's SDK has tried this call before, where it says."""
        value = self.header(b"x-stainless-retry-count") or b""
        return min(int(value), 1000) if value.isdigit() and len(value) < 5 else None

    def provider_headers(self):
        """What a caller says of its wire format, for a provider that speaks the same. Raises ``GatewayError``."""
        if self.dialect is not anthropic:
            return {}
        version, beta = self.header(b"anthropic-version"), self.header(b"anthropic-beta")
        if version is None:
            raise errors.missing_version()
        passed = {"anthropic-version": version.decode("latin-1")}
        return passed if beta is None else passed | {"anthropic-beta": beta.decode("latin-1")}

    @property
    def rules(self):
        """The version of its dialect that the caller holds to, where it has versions."""
        version = self.header(b"anthropic-version")
        return version and version.decode("latin-1")

    @property
    def language(self):
        """The language of messages: the first of ``Accept-Language`` that there is, else English."""
        accepted = self.header(b"accept-language")
        if accepted:
            for code, wish in parse_accept_lang_header(accepted.decode("latin-1").lower()):
                with contextlib.suppress(LookupError):
                    if wish:
                        return get_supported_language_variant(code)
        return "en"

    @property
    def origin(self):
        """The address that the request came to, where it is one of this server's; else nothing."""
        host = (self.header(b"host") or b"").decode("latin-1")
        domain, _port = split_domain_port(host)
        return f"{self._scheme}://{host}" if domain and validate_host(domain, settings.ALLOWED_HOSTS) else ""

    async def body(self):
        """The whole body, counted as it comes. Raises ``GatewayError`` past ``MAX_BODY`` or ``BODY_TIMEOUT``."""
        encoding = self.header(b"content-encoding")
        if encoding and encoding.lower() != b"identity":
            raise errors.encoded_body(encoding.decode("latin-1")[:40])
        claimed = self.header(b"content-length") or b""
        if claimed.isdigit() and (len(claimed) > 12 or int(claimed) > MAX_BODY):
            raise errors.too_large(MAX_BODY)
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise errors.body_cut()
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MAX_BODY:
                        raise errors.too_large(MAX_BODY)
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise errors.body_slow() from None

    async def disconnected(self):
        """Return when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # The answer -----------------------------------------------------------------------------------------------

    @property
    def has_begun(self):
        """Whether the answer's headers have gone out."""
        return self._started

    async def send(self, status, headers, body, *, dropped=()):
        """A whole answer."""
        await self._start(status, [*headers, (b"content-length", b"%d" % len(body))], dropped)
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def json(self, document):
        """A whole answer of 200 from plain values."""
        await self.send(200, JSON_HEADERS, msgspec.json.encode(document))

    async def stream(self, chunk, headers, *, dropped=()):
        """A part of a streamed answer; the first one starts it."""
        if not self._started:
            await self._start(200, headers, dropped)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self):
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error):
        """Tell the caller of a ``GatewayError``: as a status, or as an event where a stream has begun."""
        error.speak(self.language, self.origin if error.page else "")
        if self._started:
            event = self.error_event(error, self.request_id)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            body = self.dialect.error_body(error, self.request_id)
            headers = [*JSON_HEADERS, *error.headers]
            if not error.is_relayed:
                headers.append((b"content-language", self.language.encode()))
            await self.send(self.dialect.error_status(error), headers, body)

    async def _start(self, status, headers, dropped):
        dialect = self.dialect
        headers = [*headers, (dialect.REQUEST_ID_HEADER, self.request_id.encode())]
        if self.answer_headers is not None:
            headers += self.answer_headers
        elif self.flavour is not None:
            headers += self.flavour.headers(self)
        if self.caller is not None:
            headers.append((dialect.ORGANIZATION_HEADER, self.caller.organization_uid.encode()))
            headers.append((dialect.WORKSPACE_HEADER, self.caller.workspace_uid.encode()))
        if dialect is openai:
            headers.append((b"openai-version", b"2020-10-01"))
            spent = (time.perf_counter() - self.received) * 1000
            headers.append((b"openai-processing-ms", b"%d" % spent))
        # The names are the caller's text: only those that are harmless in a header are said.
        if dropped and (names := [name for name in dropped if FIELD_NAME.fullmatch(name)]):
            headers.append((b"x-comptoir-dropped", ", ".join(names[:40]).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self._started = True
