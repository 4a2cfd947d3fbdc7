"""Messages, plain and streamed: ``POST /v1/messages``; and counting their tokens."""

from typing import Annotated, Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import anthropic
from providers.errors import StreamError
from providers.request_body import field, model_name, require_messages
from providers.tokens import TokenUsage, count_of

_ = gettext_noop
NAME = "messages"
DIALECT = anthropic
PROMPT_FIELDS = ("system", "messages", "tools")
MAX_TOKENS = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Written(msgspec.Struct):
    """A content block or a delta: the fields that hold what was written."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    name: Any = None
    input: Any = None
    stop_reason: Any = None
    stop_sequence: Any = None


class Message(msgspec.Struct):
    content: list[Written] | None = None
    stop_reason: Any = None
    stop_sequence: Any = None
    model: Any = None
    usage: Any = None


class StreamEvent(msgspec.Struct):
    type: Any = None
    message: Message | None = None
    content_block: Written | None = None
    delta: Written | None = None
    usage: Any = None
    error: Any = None
    index: Any = None


_EVENT = msgspec.json.Decoder(StreamEvent)
_MESSAGE = msgspec.json.Decoder(Message)


def read_request(fields, rules=None):
    """
    Check what every message needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    require_messages(fields)
    field(fields, "max_tokens", MAX_TOKENS, required=True, what=_("a whole number of 0 or more"))
    stream = bool(field(fields, "stream", bool, what=_("true or false")))
    return model, stream


def read_count_request(fields):
    """Check what token counting needs and return the model. Raises ``InvalidRequest``."""
    require_messages(fields)
    return model_name(fields)


def wants_usage(fields):
    """Usage is a part of every stream of this dialect."""
    return True


def read_usage(usage):
    """Disjoint counts from a usage object, whose ``input_tokens`` exclude the cache; ``None`` where it holds none."""
    if not isinstance(usage, dict):
        return None
    split = usage.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    written_1h = count_of(split.get("ephemeral_1h_input_tokens"))
    written = count_of(split.get("ephemeral_5m_input_tokens"))
    if written is None:
        whole = count_of(usage.get("cache_creation_input_tokens"))
        written = None if whole is None else max(whole - (written_1h or 0), 0)
    details = usage.get("output_tokens_details")
    output = count_of(usage.get("output_tokens"))
    reasoning = count_of(details.get("thinking_tokens")) if isinstance(details, dict) else None
    if reasoning is not None and output is not None:
        reasoning = min(reasoning, output)
    found = TokenUsage(
        count_of(usage.get("input_tokens")),
        count_of(usage.get("cache_read_input_tokens")),
        written,
        written_1h,
        output,
        reasoning,
    )
    return found if found != TokenUsage() else None


def text_of(written):
    """Everything that a block or delta writes, as one string."""
    parts = [part for part in (written.text, written.thinking, written.partial_json) if isinstance(part, str)]
    if written.type == "tool_use":
        parts += [written.name] if isinstance(written.name, str) else []
        parts += [msgspec.json.encode(written.input).decode()] if written.input else []
    return "".join(parts)


def read_answer(body, meter):
    """Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this dialect."""
    try:
        message = _MESSAGE.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if message.content is None:
        raise ValueError("no content")
    _begin(message, meter)
    for block in message.content:
        if text := text_of(block):
            meter.saw_text(text)
    if isinstance(message.stop_reason, str):
        meter.stop_reason = message.stop_reason
    return message


class StreamReader:
    """Reads a stream as it passes and tells a meter: text, stop reason, model, usage, the end."""

    def __init__(self, meter, *, hide_usage=False):
        self.meter = meter
        self.ended = False

    def saw(self, event):
        """Read one event: the bytes to pass on, and the parsed ``StreamEvent`` or ``None``. Raises ``StreamError``."""
        if not event.data:
            return event.raw, None
        try:
            said = _EVENT.decode(event.data)
        except (msgspec.DecodeError, RecursionError):
            return event.raw, None
        match said.type:
            case "content_block_delta" | "content_block_start":
                written = said.delta or said.content_block
                if written is not None and (text := text_of(written)):
                    self.meter.saw_text(text)
            case "message_start" if said.message is not None:
                _begin(said.message, self.meter, placeholder=True)
            case "message_delta":
                self.meter.saw_usage(read_usage(said.usage))
                if said.delta is not None and isinstance(said.delta.stop_reason, str):
                    self.meter.stop_reason = said.delta.stop_reason
            case "message_stop":
                self.ended = True
            case "error":
                raise StreamError(*anthropic.told(said.error))
        return event.raw, said


def _begin(message, meter, *, placeholder=False):
    if isinstance(message.model, str):
        meter.response_model = message.model
    usage = read_usage(message.usage)
    if usage is not None and placeholder:
        # What message_start says of the output is a placeholder; the count comes with message_delta.
        usage = msgspec.structs.replace(usage, output_tokens=None, reasoning_tokens=None)
    meter.saw_usage(usage)


def is_complete(reader):
    """Whether the stream that ``reader`` saw came to its proper end."""
    return reader.ended or reader.meter.stop_reason is not None


def error_event(error, request_id, sequence):
    """The event that tells of an error after the stream has begun."""
    return anthropic.error_event(error, request_id)
