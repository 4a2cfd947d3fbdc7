"""The OpenAI shape as it is, and what every flavour of it shares."""

from typing import Any, NamedTuple

import msgspec

from providers.dialects import openai
from providers.sse import EventSplitter, encode

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Bytes that are no UTF-8 are found out only where something is decoded.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# The formats whose answers differ between flavours.
DRESSED = frozenset({"chat_completions", "completions"})
ID_PREFIXES = {"chat_completions": "chatcmpl-", "completions": "cmpl-"}
# What a provider of any flavour may call its answers.
KNOWN_PREFIXES = ("chatcmpl-", "cmpl-", "conv_", "comp_")


class Answer(NamedTuple):
    """
    What a flavour may know of an answer: the call that it answers, who answered, and with which headers.

    ``is_event`` tells an event of a stream from a whole answer.
    """

    format: str
    call: Any
    target: Any
    headers: Any
    is_event: bool


class Flavour:
    """
    One way to dress an OpenAI-shaped answer; this one is none.

    Nothing is written where there is nothing to say: only answers of providers whose own shape is another are changed.
    """

    name = "openai"
    # Whether ``read`` takes long for a large request: it is called beside the event loop then.
    looks_deep = False

    def read(self, format_name: str, fields: dict) -> dict:
        """A request's raw fields in the OpenAI shape. Raises ``InvalidRequest`` for what this system refuses."""
        return fields

    def headers(self, call, target=None, upstream_headers=None) -> list[tuple[bytes, bytes]]:
        """Headers of the answer to ``call``, whose ``id`` is its request id; without ``target`` nobody was asked."""
        return []

    def rewrites(self, format_name: str, target) -> bool:
        """Whether ``answer`` and ``events`` change what ``target`` sends."""
        return target.kind == "ikalas" and format_name in DRESSED

    def answer(self, format_name: str, body: bytes, call, target, upstream_headers=None) -> bytes:
        """A whole answer as it goes to the caller; what is no JSON object stays as it is."""
        return self._dressed(body, Answer(format_name, call, target, upstream_headers, is_event=False)) or body

    def events(self, format_name: str, passed: bytes, call, target, upstream_headers=None) -> bytes:
        """Whole events of a stream as they go to the caller; what is no answer's chunk stays as it is."""
        answer = Answer(format_name, call, target, upstream_headers, is_event=True)
        events = []
        for event in EventSplitter().feed(passed):
            dressed = self._dressed(event.data, answer) if event.data.startswith(b"{") else None
            events.append(event.raw if dressed is None else encode(event.name or None, dressed))
        return b"".join(events)

    def model_item(self, target) -> dict:
        """A model as this system lists it."""
        return openai.model_item(target)

    def model_list(self, targets, query_string: bytes = b"") -> dict:
        """The models, as far as ``query_string`` asks for them."""
        return {"object": "list", "data": [self.model_item(target) for target in targets]}

    def dress(self, fields: dict, answer: Answer) -> dict:
        """The fields of an answer or a chunk in the OpenAI shape, as this system has them."""
        return fields

    def _dressed(self, document, answer):
        try:
            fields = _FIELDS.decode(document)
        except UNREADABLE:
            return None
        if "choices" not in fields:
            return None
        if answer.target.kind == "ikalas":
            fields = as_openai(fields, answer)
        return msgspec.json.encode(self.dress(fields, answer))


def as_openai(fields, answer):
    """The fields of a chat or text completion with the object and the id that this shape gives them."""
    if answer.format == "completions":
        kind = "text_completion"
    else:
        kind = "chat.completion.chunk" if answer.is_event else "chat.completion"
    names = {"id": renamed(fields, answer, ID_PREFIXES[answer.format]), "object": kind}
    return fields | {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in names.items()}


def renamed(fields, answer, prefix):
    """The id of an answer with another prefix; where it has none, the call's."""
    given = decoded(fields, "id")
    if not isinstance(given, str) or not given:
        given = answer.call.id.removeprefix("req_")
    for known in KNOWN_PREFIXES:
        given = given.removeprefix(known)
    return prefix + given


def decoded(fields, name):
    """A field as a plain value; ``None`` where it is absent or cannot be held."""
    try:
        return msgspec.json.decode(fields.get(name, b"null"))
    except UNREADABLE:
        return None
