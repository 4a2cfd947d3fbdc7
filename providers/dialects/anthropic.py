"""The Anthropic dialect: messages, plain and streamed, and token counting."""

import datetime
from typing import Annotated, Any

import msgspec

from providers.dialects.request_body import field, model_name, require_messages
from providers.errors import StreamError
from providers.sse import encode
from providers.tokens import TokenUsage, count_of

NAME = "anthropic"
REQUEST_ID_HEADER = b"request-id"
ORGANIZATION_HEADER = b"anthropic-organization-id"
MAX_TOKENS = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


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


def read_request(fields):
    """
    Check what every message needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    require_messages(fields)
    field(fields, "max_tokens", MAX_TOKENS, required=True, what="a whole number of 0 or more")
    stream = bool(field(fields, "stream", bool, what="true or false"))
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
                raise StreamError(*_error_of(said.error))
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


# Errors ----------------------------------------------------------------------------------------------------------


def error_status(error):
    """The status of an error answer: this dialect has one of its own for an overloaded provider."""
    return 529 if error.code == "provider_overloaded" else error.status


def error_type(error):
    """This dialect's word for an error's status."""
    status = error_status(error)
    return ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_document(error, request_id):
    return {"type": "error", "error": {"type": error_type(error), "message": error.message}, "request_id": request_id}


def error_body(error, request_id):
    """The body of an error answer; ``error`` is a ``gateway.errors.GatewayError``."""
    return msgspec.json.encode(error_document(error, request_id))


def error_event(error, request_id):
    """The event that tells of an error after the stream has begun."""
    return encode(b"error", error_body(error, request_id))


def _error_of(error):
    if not isinstance(error, dict):
        return "The provider reported an error.", None
    message, kind = error.get("message"), error.get("type")
    return (
        message if isinstance(message, str) else "The provider reported an error.",
        kind if isinstance(kind, str) else None,
    )


def read_error(body):
    """``(message, code, param)`` of a provider's error body; ``None`` for what it does not say."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None, None, None
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return None, None, None
    message, kind = error.get("message"), error.get("type")
    return message if isinstance(message, str) else None, kind if isinstance(kind, str) else None, None


# Models ----------------------------------------------------------------------------------------------------------


def model_item(target):
    """A model as this dialect lists it."""
    created = datetime.datetime.fromtimestamp(target.created, datetime.UTC)
    return {
        "type": "model",
        "id": target.public_name,
        "display_name": target.public_name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": target.context_window,
        "max_tokens": target.max_output_tokens,
    }


def model_list(targets):
    """Every model, on one page."""
    items = [model_item(target) for target in targets]
    return {
        "data": items,
        "has_more": False,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
    }
