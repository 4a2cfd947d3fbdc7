"""
Models on Amazon Bedrock: requests signed with the account's keys, Claude's streams out of Amazon's event stream.

The signature and the frames are botocore's, an optional library that is imported at the first call.
"""

import functools
import re
import struct
from typing import Any

import msgspec
from django.utils.translation import gettext_noop
from yarl import URL

from providers.adapters.extras import load
from providers.adapters.http import Adapter, Answer, url_of
from providers.adapters.refusals import read_error
from providers.credentials import Secret
from providers.errors import Broken, OwnAccount
from providers.sse import MAX_EVENT_BYTES, encode

_ = gettext_noop

ANTHROPIC_VERSION = msgspec.Raw(b'"bedrock-2023-05-31"')
INVOKE, INVOKE_STREAMED, COUNT = "/invoke", "/invoke-with-response-stream", "/count-tokens"
SIGNATURE = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
EVENT_STREAM = "application/vnd.amazon.eventstream"
# An event in base64, and what is wrapped around it.
MAX_FRAME_BYTES = MAX_EVENT_BYTES * 3 // 2
# Amazon counts the tokens of a whole request, which has a limit to its answer.
COUNTED_MAX_TOKENS = 1024
# The hosts of Bedrock, those with an address in one's own network and of both address families among them.
HOST = re.compile(r"(?:^|\.)(bedrock-runtime|bedrock-mantle)(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d+)\.")
# What an exception in a stream would have been as the status of an answer, and how Claude's own streams call it.
EXCEPTIONS = {
    "internalserverexception": (500, "api_error"),
    "modelstreamerrorexception": (424, "api_error"),
    "modeltimeoutexception": (408, "timeout_error"),
    "serviceunavailableexception": (503, "overloaded_error"),
    "throttlingexception": (429, "rate_limit_error"),
    "validationexception": (400, "invalid_request_error"),
}


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A credential of the long form, which is written as JSON; the names are those of Amazon's own files."""

    access_key: str = msgspec.field(name="access_key_id")
    secret_key: str = msgspec.field(name="secret_access_key")
    token: str | None = msgspec.field(name="session_token", default=None)
    region: str | None = None

    def __repr__(self):
        return "Keys(***)"


class Payload(msgspec.Struct):
    """A frame's: base64 in the JSON."""

    data: bytes = msgspec.field(name="bytes", default=b"")


class Event(msgspec.Struct):
    type: Any = None


class Thinking(msgspec.Struct):
    budget_tokens: int = 0


class Counted(msgspec.Struct):
    tokens: int = msgspec.field(name="inputTokens")


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEYS = msgspec.json.Decoder(Keys)
_PAYLOAD = msgspec.json.Decoder(Payload)
_EVENT = msgspec.json.Decoder(Event)
_COUNTED = msgspec.json.Decoder(Counted)


class InvalidCredential(ValueError):
    """A text that is no credential of the provider's kind."""


@functools.lru_cache(256)
def keys_of(credential: Secret) -> Keys | None:
    """
    The keys that ``credential`` holds; ``None`` where it is a Bedrock API key, which is sent as it is.

    Raises ``InvalidCredential``.
    """
    text = credential.reveal().strip()
    if not text.startswith("{"):
        return None
    try:
        return _KEYS.decode(text)
    except msgspec.MsgspecError as error:
        raise InvalidCredential(str(error)) from None


def place_of(base_url: str, keys: Keys) -> tuple[str, str | None]:
    """How the signature calls service and region: by the host, or else by what the credential says."""
    found = HOST.search(URL(base_url).host or "")
    if found is None:
        return "bedrock", keys.region
    return ("bedrock" if found[1] == "bedrock-runtime" else found[1]), found[2]


class BedrockAnswer(Answer):
    """An answer of which events have been read ahead, and how the rest of it is to be read."""

    __slots__ = ("counts", "events", "frames")

    def __init__(self, response, first=None):
        super().__init__(response, first)
        self.frames = Frames() if first is not None and response.content_type == EVENT_STREAM else None
        self.events = b""
        self.counts = False

    @property
    def content_type(self):
        return "text/event-stream" if self.frames else self.response.content_type


class Bedrock(Adapter):
    """
    Calls Bedrock with an API key or with keys that sign.

    Bodies are rewritten for the paths that name a model, which are Amazon's own; at others it takes them as they are.
    """

    answer_class = BedrockAnswer

    async def post(self, upstream, target, format, body, *, stream, headers=None):
        await load("bedrock")
        path = target.endpoints[format]
        sent = {**target.headers, **(headers or {})}
        counts = path.endswith(COUNT)
        if "{model}" in path:
            body = invoking_body(body, sent.get("anthropic-beta"), counts=counts)
            if stream:
                path = path.removesuffix(INVOKE) + INVOKE_STREAMED
            sent = {}
        sent["content-type"] = "application/json"
        url = url_of(None, target.base_url, path, target.upstream_name)
        sent |= authorization(target, url, sent, body)
        answer = await self.send(upstream, target, url, body, sent, stream=stream)
        answer.counts = counts
        if answer.frames is None:
            return answer
        try:
            # Amazon may answer 200 and say in the first frame what went wrong.
            answer.events = await self.next_chunk(answer)
            if answer.frames.refusal:
                status, kind, payload = answer.frames.refusal
                raise self.rejection(status, {"x-amzn-errortype": kind}, payload, target, sent)
        except BaseException:
            answer.close()
            raise
        return answer

    async def read(self, answer):
        body = await super().read(answer)
        if not answer.counts:
            return body
        try:
            return msgspec.json.encode({"input_tokens": _COUNTED.decode(body).tokens})
        except msgspec.MsgspecError as error:
            raise Broken(_("The provider's answer is no count of tokens."), str(error)) from None

    async def next_chunk(self, answer):
        if answer.frames is None:
            return await super().next_chunk(answer)
        if answer.events:
            events, answer.events = answer.events, b""
            return events
        while not answer.frames.failure and (received := await super().next_chunk(answer)):
            if events := answer.frames.feed(received):
                return events
        if answer.frames.failure:
            raise answer.frames.failure
        return b""

    def secrets(self, target, headers):
        texts = super().secrets(target, headers)
        try:
            keys = keys_of(target.credential) if target.credential else None
        except InvalidCredential:
            return texts
        return texts + [text for text in (keys.access_key, keys.secret_key, keys.token) if text] if keys else texts


def authorization(target, url, headers, body) -> dict[str, str]:
    """The headers that say who calls. Raises ``OwnAccount`` where this server has nothing to say it with."""
    if not target.credential:
        return {}
    try:
        keys = keys_of(target.credential)
    except InvalidCredential as error:
        raise _unusable(str(error)) from None
    if keys is None:
        return {"authorization": f"Bearer {target.credential.reveal().strip()}"}
    service, region = place_of(target.base_url, keys)
    if not region:
        raise _unusable("Neither the host nor the credential names a region.")
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest(method="POST", url=str(url), headers=headers, data=body)
    SigV4Auth(keys, service, region).add_auth(request)
    return {name: request.headers[name] for name in SIGNATURE if name in request.headers}


def _unusable(detail):
    return OwnAccount(_("The credential is not one for this provider."), status=401, detail=detail)


def invoking_body(body: bytes, beta: str | None, *, counts: bool = False) -> bytes:
    """A request for messages as Bedrock takes it: its model and whether it streams stand in the path."""
    fields = _FIELDS.decode(body)
    for name in ("model", "stream"):
        fields.pop(name, None)
    fields.setdefault("anthropic_version", ANTHROPIC_VERSION)
    if beta:
        names = [name for name in map(str.strip, beta.split(",")) if name]
        fields.setdefault("anthropic_beta", msgspec.Raw(msgspec.json.encode(names)))
    if not counts:
        return msgspec.json.encode(fields)
    fields.setdefault("max_tokens", msgspec.Raw(b"%d" % (_thinking_budget(fields) + COUNTED_MAX_TOKENS)))
    # Bytes become base64.
    return msgspec.json.encode({"input": {"invokeModel": {"body": msgspec.json.encode(fields)}}})


def _thinking_budget(fields):
    try:
        return msgspec.json.decode(fields.get("thinking", b"{}"), type=Thinking).budget_tokens
    except msgspec.MsgspecError:
        return 0


class Frames:
    """
    Feeds on the bytes of an event stream and gives the server-sent events that Claude's own API would have sent.

    ``refusal`` is the status, kind and payload of an exception that came before anything else.
    """

    def __init__(self):
        from botocore.eventstream import EventStreamBuffer, ParserError

        self._buffer = EventStreamBuffer()
        self._errors = (ParserError, ValueError, LookupError, struct.error, msgspec.MsgspecError)
        self._has_begun = False
        # Bytes since the last whole frame.
        self._held = 0
        self.refusal = None
        self.failure: Broken | None = None

    def feed(self, received: bytes) -> bytes:
        """The events that ``received`` completed; what cannot be read is left in ``failure``."""
        events = []
        self._buffer.add_data(received)
        self._held += len(received)
        try:
            for frame in self._buffer:
                events.append(self._event(frame))
                self._has_begun, self._held = True, 0
            if self._held > MAX_FRAME_BYTES:
                raise ValueError("a frame without end")
        except self._errors as error:
            self.failure = Broken(_("The provider's answer is not one of its dialect."), repr(error))
        return b"".join(events)

    def _event(self, frame):
        headers, payload = frame.headers, frame.payload
        match headers.get(":message-type"):
            case "exception":
                return self._exception(headers.get(":exception-type") or "", payload)
            case "error":
                said = msgspec.json.encode({"message": headers.get(":error-message")})
                return self._exception(headers.get(":error-code") or "", said)
        if headers.get(":event-type") != "chunk":
            return b""
        data = _PAYLOAD.decode(payload).data
        kind = _EVENT.decode(data).type
        if kind == "message_stop":
            # Amazon's own figures hang on it.
            fields = _FIELDS.decode(data)
            data = msgspec.json.encode({name: raw for name, raw in fields.items() if not name.startswith("amazon-")})
        if not isinstance(kind, str) or not kind.isidentifier():
            return b""
        return encode(kind.encode(), data.replace(b"\n", b" ").replace(b"\r", b" "))

    def _exception(self, kind, payload):
        status, written = EXCEPTIONS.get(kind.lower(), (500, "api_error"))
        if not self._has_begun:
            self.refusal = status, kind, payload
        message = read_error(payload).message or kind
        error = {"type": "error", "error": {"type": written, "message": message}}
        return encode(b"error", msgspec.json.encode(error))
