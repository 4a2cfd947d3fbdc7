"""Ikalas: a French name for the model, paths, ids and objects of its own, and a limit on what is asked."""

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
# A longer text is counted piece by piece, as counting one takes more by the letter the longer it is.
SLICE = 8_192
# No token of the vocabulary is longer.
LONGEST_TOKEN = 128
# No message or text of no more tokens than there may be holds so many braces: each is a part of one of its tokens.
MOST_BRACES = MOST_MESSAGE_TOKENS * 16


class PromptTooLong(InvalidRequest):
    """The messages hold more tokens than this system takes."""

    code = "context_length_exceeded"


class Ikalas(Flavour):
    name = "ikalas"
    looks_deep = True

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
    text: msgspec.Raw = msgspec.Raw(b"null")


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
    if bytes(messages).count(b"{") > MOST_BRACES:
        raise _too_long()
    try:
        asked = _MESSAGES.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        # Not of this shape: the provider says what it makes of them.
        return
    texts = list(_texts(asked))
    if sum(map(len, texts)) > MOST_MESSAGE_TOKENS * LONGEST_TOKEN:
        raise _too_long()
    counted = 0
    for text in texts:
        for piece in _sliced(text):
            counted += count_tokens(piece)
            if counted > MOST_MESSAGE_TOKENS:
                raise _too_long()


def _too_long():
    message = _("messages: hold more than %(most)s tokens, which is the most for one request")
    return PromptTooLong(message, "messages", most=MOST_MESSAGE_TOKENS)


def _sliced(text):
    """``text`` in pieces of ``SLICE`` at most, cut before spaces where there are any: no token goes on over one."""
    start = 0
    while len(text) - start > SLICE:
        end = text.rfind(" ", start + SLICE // 2, start + SLICE)
        end = start + SLICE if end < 0 else end
        yield text[start:end]
        start = end
    yield text[start:]


def _texts(messages):
    for message in messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            texts = (part.text for part in message.content or () if bytes(part.text).startswith(b'"'))
            yield from map(msgspec.json.decode, texts)
