"""What translators are tried with: a target, a meter that sees, and a provider's stream retold for a caller."""

import itertools
import json

import msgspec

from providers.conversation import Conversation, Reply
from providers.request_body import parse_body
from providers.sse import EventSplitter
from providers.targets import Target
from providers.tokens import TokenUsage, count_tokens


class Seen:
    """Stands where a meter does."""

    def __init__(self, requested_model="public"):
        self.text, self.reported = "", None
        self.requested_model = requested_model
        self.response_model = self.stop_reason = None

    def saw_text(self, text):
        self.text += text

    def saw_usage(self, usage):
        if usage is not None:
            self.reported = usage if self.reported is None else self.reported.updated(usage)

    def count_output(self):
        return count_tokens(self.text)

    def told(self):
        known = self.reported or TokenUsage(input_tokens=0)
        return msgspec.structs.replace(known, output_tokens=known.output_tokens or self.count_output())


def target(**fields):
    known = {
        "public_name": "public", "upstream_name": "upstream", "provider_model_id": 1, "provider_id": 1,
        "provider_name": "p", "dialect": "openai", "base_url": "https://x.example/v1", "private_allowed": False,
        "headers": {}, "is_usable": True, "created": 0, "context_window": None, "max_output_tokens": None,
        "endpoints": {"chat_completions": "/chat/completions"},
    }  # fmt: skip
    return Target(**known | fields)


def raw(body):
    """The fields of a body given as plain values, as they come from the wire."""
    return parse_body(json.dumps(body).encode())


def reply_for(meter, fields=None, *, with_usage=False, conversation=None):
    asked = conversation or Conversation(model="public", turns=[])
    return Reply("req_1", 1, meter, raw(fields or {}), with_usage, asked)


def data(document):
    """An event without a name."""
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def retold(stream, format, reader, write, *, cuts=None, fields=None, with_usage=False):
    """
    The bytes that a caller gets for a provider's ``stream`` of ``format``, and the meter that saw it pass.

    ``reader`` and ``write`` are an ``AnswerReader`` and the class of an ``AnswerWriter``; ``cuts`` are the places at
    which the network cuts the stream.
    """
    meter = Seen()
    splitter, passing = EventSplitter(), format.StreamReader(meter)
    writer = write(reply_for(meter, fields, with_usage=with_usage))
    told = b""
    places = [0, *(cuts or ()), len(stream)]
    for start, end in itertools.pairwise(places):
        for event in splitter.feed(stream[start:end]):
            _, said = passing.saw(event)
            if said is not None:
                told += writer.feed(reader.feed(said))
    return told + writer.feed(reader.finish()) + writer.finish(), meter


def documents(told):
    """The data of events, decoded; the last word of a stream as it stands."""
    return [
        json.loads(event.data) if event.data != b"[DONE]" else "[DONE]"
        for event in EventSplitter().feed(told)
        if event.data
    ]
