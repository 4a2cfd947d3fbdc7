"""Chat completions, plain and streamed: ``POST /v1/chat/completions``."""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.errors import StreamError
from providers.request_body import field, model_name, require_messages
from providers.tokens import TokenUsage, count_of

_ = gettext_noop
NAME = "chat_completions"
DIALECT = openai
PROMPT_FIELDS = ("messages", "tools")
DONE = b"data: [DONE]\n\n"


class Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    message: Delta | None = None
    text: Any = None
    finish_reason: Any = None
    index: Any = 0


class Chunk(msgspec.Struct):
    """One event of a stream, or a whole answer: the fields that are read, of any type a provider may send."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    model: Any = None


_CHUNK = msgspec.json.Decoder(Chunk)


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def read_request(fields, rules=None):
    """
    Check what every chat completion needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    require_messages(fields)
    stream = bool(field(fields, "stream", bool, what=_("true or false")))
    return model, stream


def wants_usage(fields):
    """Whether the caller of a stream asked for its usage chunk."""
    options = field(fields, "stream_options", StreamOptions, what=_("an object"))
    return bool(options and options.include_usage)


def asking_for_usage(fields):
    """``fields`` with ``stream_options.include_usage`` on, whatever else the options hold."""
    options = field(fields, "stream_options", dict, what=_("an object")) or {}
    return fields | {"stream_options": msgspec.Raw(msgspec.json.encode(options | {"include_usage": True}))}


def read_usage(usage):
    """
    Disjoint counts from a usage object of this dialect or one of its kin; ``None`` where it holds none.

    ``prompt_tokens`` includes cached tokens. Twins (``input_tokens``, ``output_tokens``) count only where the first
    spelling is absent or zero: EvoLink sends them as zeros.
    """
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage.get("prompt_tokens")) or count_of(usage.get("input_tokens"))
    output = count_of(usage.get("completion_tokens")) or count_of(usage.get("output_tokens"))
    if prompt is None:
        prompt = count_of(usage.get("prompt_tokens"))
    if output is None:
        output = count_of(usage.get("completion_tokens"))
    if prompt is None and output is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    details = details if isinstance(details, dict) else {}
    spent = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    spent = spent if isinstance(spent, dict) else {}
    read, written = count_of(details.get("cached_tokens")), count_of(details.get("cache_write_tokens"))
    uncached = prompt
    if prompt is not None and (read or 0) + (written or 0) <= prompt:
        # A larger sum means that the provider has left the cache out already.
        uncached = prompt - (read or 0) - (written or 0)
    reasoning = count_of(spent.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = count_of(usage.get("reasoning_tokens"))
    if reasoning is not None and output is not None:
        reasoning = min(reasoning, output)
    return TokenUsage(uncached, read, written, None, output, reasoning)


def content_of(delta):
    """The answer's own words in a delta or message: no reasoning, no tool arguments."""
    if isinstance(delta.content, list):
        return "".join(
            part["text"] for part in delta.content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return delta.content if isinstance(delta.content, str) else ""


def text_of(delta):
    """Everything that a delta or message writes, as one string: text, reasoning, refusals and tool arguments."""
    if isinstance(delta.content, str) and not (
        delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal
    ):
        return delta.content
    parts = [content_of(delta)]
    parts += [part for part in (delta.reasoning_content, delta.refusal) if isinstance(part, str)]
    if isinstance(delta.reasoning, str) and not isinstance(delta.reasoning_content, str):
        parts.append(delta.reasoning)
    for call in delta.tool_calls if isinstance(delta.tool_calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            parts += [part for part in (function.get("name"), function.get("arguments")) if isinstance(part, str)]
    return "".join(parts)


def read_answer(body, meter):
    """Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this dialect."""
    try:
        answer = _CHUNK.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if answer.choices is None:
        raise ValueError("no choices")
    _tell(answer, meter)
    return answer


class StreamReader:
    """Reads a stream as it passes and tells a meter: text, stop reason, model, usage, the end."""

    def __init__(self, meter, *, hide_usage=False):
        self.meter = meter
        self.hide_usage = hide_usage
        self.ended = False

    def saw(self, event):
        """
        Read one event. Returns the bytes to pass on, which are none for the usage chunk that the caller did not ask
        for, and the parsed ``Chunk`` or ``None``.
        """
        data = event.data
        if data.startswith(b"[DONE]"):
            self.ended = True
            return event.raw, None
        if not data:
            return event.raw, None
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return event.raw, None
        if chunk.error is not None:
            raise StreamError(*openai.told(chunk.error))
        _tell(chunk, self.meter)
        if not self.hide_usage:
            return event.raw, chunk
        if chunk.usage is not None and not chunk.choices:
            return b"", chunk
        return event.raw.replace(b',"usage":null', b"", 1), chunk


def _tell(chunk, meter):
    if chunk.usage is not None:
        meter.saw_usage(read_usage(chunk.usage))
    if isinstance(chunk.model, str) and meter.response_model is None:
        meter.response_model = chunk.model
    for choice in chunk.choices or ():
        written = choice.delta or choice.message
        if written is not None and (text := text_of(written)):
            meter.saw_text(text)
        elif isinstance(choice.text, str) and choice.text:
            meter.saw_text(choice.text)
        if isinstance(choice.finish_reason, str):
            meter.stop_reason = choice.finish_reason


def text_in(event):
    """The text that one event of a stream writes; empty for every other kind."""
    try:
        choices = _CHUNK.decode(event.data).choices
    except (msgspec.DecodeError, RecursionError):
        return ""
    return "".join(content_of(choice.delta) for choice in choices or () if choice.delta)


def is_complete(reader):
    """Whether the stream that ``reader`` saw came to its proper end."""
    return reader.ended or reader.meter.stop_reason is not None


def error_event(error, request_id, sequence):
    """The event that tells of an error after the stream has begun."""
    return openai.error_event(error, request_id)
