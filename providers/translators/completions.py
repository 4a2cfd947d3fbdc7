"""
Completions of a text, for callers only: a prompt is a turn of the user, and the text of the answer its completion.

Who is asked takes conversations; a provider that takes completions gets them as they are.
"""

import msgspec
from django.utils.translation import gettext_noop

from providers.conversation import Conversation, RefusalPiece, StopPiece, Text, TextPiece, Turn
from providers.formats.chat_completions import DONE
from providers.request_body import InvalidRequest, decoded
from providers.sse import encode
from providers.translators.chat_completions import require_options, usage_of

_ = gettext_noop

FINISH_REASONS = {"length": "length", "filter": "content_filter"}
# What says no more than leaving it out does.
WITHOUT_EFFECT = {
    "n": 1, "best_of": 1, "echo": False, "suffix": "", "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {},
}  # fmt: skip
REFUSED = {
    "n": _("n: this model gives one completion of a prompt"),
    "best_of": _("best_of: this model gives one completion of a prompt"),
    "echo": _("echo: this model does not repeat the prompt"),
    "suffix": _("suffix: this model writes on from a prompt, not up to a suffix"),
}


def read_request(fields, rules=None):
    """The conversation that a caller's ``fields`` ask for. Raises ``InvalidRequest``."""
    asked = decoded(fields)
    require_options(asked)
    options = {
        name: value
        for name, value in asked.items()
        if name not in ("model", "prompt", "stream", "stream_options", "logprobs")
        and value is not None
        and (name not in WITHOUT_EFFECT or value != WITHOUT_EFFECT[name])
    }
    for name, message in REFUSED.items():
        if name in options:
            raise InvalidRequest(message, name)
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    conversation = Conversation(
        model=asked["model"],
        turns=[Turn("user", [Text(_prompt(asked["prompt"]))], "prompt")],
        stream=bool(asked.get("stream")),
        options=options,
    )
    if asked.get("logprobs") is not None:
        # A number here, and something else in every format that has the name.
        conversation.lose("logprobs")
    return conversation


def _prompt(prompt):
    """The text of the one prompt."""
    match prompt:
        case str(text) | [str(text)]:
            return text
        case [str(), *_rest]:
            raise InvalidRequest(_("prompt: this model takes one prompt a request"), "prompt")
        case [int() | list(), *_rest]:
            raise InvalidRequest(_("prompt: this model takes text, not tokens"), "prompt")
    raise InvalidRequest(_("prompt: must be a string, or a list of strings or of tokens"), "prompt")


def write_answer(pieces, reply):
    """The completion for the caller, from every piece of it."""
    text, stop = [], None
    for piece in pieces:
        match piece:
            case TextPiece() | RefusalPiece():
                text.append(piece.text)
            case StopPiece():
                stop = piece.reason
    choice = _choice("".join(text), FINISH_REASONS.get(stop, "stop"))
    return msgspec.json.encode(_head(reply) | {"choices": [choice], "usage": usage_of(reply)})


class AnswerWriter:
    """Writes pieces as the chunks of a stream."""

    def __init__(self, reply):
        self.reply = reply
        self.head = None
        self.stop = None

    def feed(self, pieces):
        """The caller's chunks for some pieces."""
        chunks = []
        for piece in pieces:
            match piece:
                case TextPiece() | RefusalPiece():
                    chunks.append(self._chunk(piece.text))
                case StopPiece():
                    self.stop = piece.reason
        return b"".join(chunks)

    def finish(self):
        """The chunks that end the stream."""
        end = self._chunk("", FINISH_REASONS.get(self.stop, "stop"))
        if self.reply.with_usage:
            end += encode(None, msgspec.json.encode(self.head | {"choices": [], "usage": usage_of(self.reply)}))
        return end + DONE

    def _chunk(self, text, finish=None):
        if self.head is None:
            self.head = _head(self.reply)
        extra = {"usage": None} if self.reply.with_usage else {}
        return encode(None, msgspec.json.encode(self.head | {"choices": [_choice(text, finish)]} | extra))


def _head(reply):
    return {
        "id": f"cmpl-{reply.suffix}",
        "object": "text_completion",
        "created": reply.created,
        "model": reply.model,
        "system_fingerprint": None,
    }


def _choice(text, finish):
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
