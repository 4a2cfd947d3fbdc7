"""Ikalas: a French name for the model, paths, ids and objects of its own, and a limit on what is asked."""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.flavours.plain import DRESSED, Flavour, renamed
from providers.request_body import InvalidRequest
from providers.tokens import count_tokens

_ = gettext_noop

# Its paths under /api/v1/, and the formats' own under /v1/.
PATHS = {
    "conversation": "chat/completions",
    "completion": "completions",
    "embedding": "embeddings",
    "moderation": "moderations",
}
ID_PREFIXES = {"chat_completions": "conv_", "completions": "comp_"}
OBJECTS = {"chat_completions": "conversation.completion", "completions": "completion"}
FORMATS = frozenset({*DRESSED, "embeddings", "moderations"})
MOST_MESSAGE_TOKENS = 16_000
# A longer text is counted piece by piece; all but odd ones are over the limit with the first.
SLICE = 262_144


class PromptTooLong(InvalidRequest):
    """The messages hold more tokens than this system takes."""

    code = "context_length_exceeded"


class Ikalas(Flavour):
    name = "ikalas"

    def read(self, format_name, fields):
        """``modele`` is the model, ``model`` a synonym; 16,000 tokens of messages are the most."""
        if format_name not in FORMATS:
            return fields
        if bytes(fields.get("modele", b"null")) != b"null":
            fields = {("model" if name == "modele" else name): raw for name, raw in fields.items() if name != "model"}
        elif "model" not in fields and format_name != "moderations":
            raise InvalidRequest(_("%(name)s: field required"), "modele", name="modele")
        if format_name == "chat_completions" and "messages" in fields:
            require_room(fields["messages"])
        return fields

    def rewrites(self, format_name, target):
        return format_name in DRESSED

    def dress(self, fields, answer):
        kind = OBJECTS[answer.format]
        if answer.is_event and answer.format == "chat_completions":
            kind += ".chunk"
        return fields | {"id": renamed(fields, answer, ID_PREFIXES[answer.format]), "object": kind}


class Part(msgspec.Struct):
    text: Any = None


class Message(msgspec.Struct):
    content: str | list[Part] | None = None


_MESSAGES = msgspec.json.Decoder(list[Message])


def require_room(messages):
    """
    Refuse raw ``messages`` of more than ``MOST_MESSAGE_TOKENS``.

    A token is at least a byte, so most requests are not counted at all, and counting stops where it is enough.
    """
    if len(bytes(messages)) <= MOST_MESSAGE_TOKENS:
        return
    try:
        asked = _MESSAGES.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        # Not of this shape: the provider says what it makes of them.
        return
    counted = 0
    for text in _texts(asked):
        for start in range(0, len(text), SLICE):
            counted += count_tokens(text[start : start + SLICE])
            if counted > MOST_MESSAGE_TOKENS:
                message = _("messages: hold more than %(most)s tokens, which is the most for one request")
                raise PromptTooLong(message, "messages", most=MOST_MESSAGE_TOKENS)


def _texts(messages):
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or () if isinstance(part.text, str))
