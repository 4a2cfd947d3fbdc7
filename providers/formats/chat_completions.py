"""Chat completions, plain and streamed: ``POST /v1/chat/completions``."""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.errors import StreamError
from providers.formats.usage_chunk import without_usage
from providers.odd_json import decoded
from providers.request_body import TRUE_OR_FALSE, field, model_name, require_messages
from providers.tokens import CEILING, TokenUsage, count_of

_ = gettext_noop
NAME = "chat_completions"
DIALECT = openai
PROMPT_FIELDS = ("messages", "tools", "functions", "response_format")
# Where a request says how long its answer may get.
MAX_TOKENS_FIELDS = ("max_completion_tokens", "max_tokens")
DONE = b"data: [DONE]\n\n"
AN_OBJECT = _("an object")


class Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    message: Delta | None = None
    text: Any = None
    finish_reason: Any = None
    index: Any = 0
    usage: Any = None


class Chunk(msgspec.Struct):
    """One event of a stream, or a whole answer: the fields that are read, of any type a provider may send."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    model: Any = None
    x_groq: Any = None


_CHUNK = msgspec.json.Decoder(Chunk)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
PLAIN_USAGE = {
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
}  # fmt: skip


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def read_request(fields, rules=None):
    """
    Check what every chat completion needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    require_messages(fields)
    stream = bool(field(fields, "stream", bool, what=TRUE_OR_FALSE))
    return model, stream


def wants_usage(fields):
    """Whether the caller of a stream asked for its usage chunk."""
    options = field(fields, "stream_options", StreamOptions, what=AN_OBJECT)
    return bool(options and options.include_usage)


def asking_for_usage(fields):
    """``fields`` with ``stream_options.include_usage`` on, whatever else the options hold."""
    options = field(fields, "stream_options", dict, what=AN_OBJECT) or {}
    return fields | {"stream_options": msgspec.Raw(msgspec.json.encode(options | {"include_usage": True}))}


def read_usage(usage):
    """
    Disjoint counts from a usage object of this dialect or one of its kin; ``None`` where it holds none.

    ``prompt_tokens`` includes cached tokens and ``completion_tokens`` what was thought, except where ``total_tokens``
    says otherwise. Of the spellings of a count the first that is not zero speaks: EvoLink sends twins that are.
    """
    if not isinstance(usage, dict):
        return None
    if (plain := _plain_usage(usage)) is not None:
        return plain
    prompt = _count(usage.get("prompt_tokens"), usage.get("input_tokens"))
    output = _count(usage.get("completion_tokens"), usage.get("output_tokens"))
    if prompt is None and output is None:
        return None
    details = _details(usage, "prompt_tokens_details", "input_tokens_details")
    spent = _details(usage, "completion_tokens_details", "output_tokens_details")
    # DeepSeek's spelling, Moonshot's and LiteLLM's.
    read = _count(
        details.get("cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),
        usage.get("cached_tokens"),
        usage.get("cache_read_input_tokens"),
    )
    written = _count(details.get("cache_write_tokens"), usage.get("cache_creation_input_tokens"))
    reasoning = _count(spent.get("reasoning_tokens"), usage.get("reasoning_tokens"))
    cached = (read or 0) + (written or 0)
    uncached = prompt
    if prompt is not None:
        # A larger sum means that the provider has left the cache out already.
        includes_cache = cached <= prompt
        total = count_of(usage.get("total_tokens"))
        unnamed = (total or 0) - prompt - (output or 0) - (0 if includes_cache else cached)
        if prompt and unnamed > 0 and total < CEILING:
            if reasoning and unnamed == reasoning:
                # xAI counts thoughts beside the completion, and so do many who stand before Gemini.
                output = (output or 0) + reasoning
            elif unnamed == cached:
                includes_cache = False
            elif not reasoning:
                # Gemini says what it thought in the total alone.
                output, reasoning = (output or 0) + unnamed, unnamed
        uncached = prompt - cached if includes_cache else prompt
    if reasoning is not None and output is not None:
        reasoning = min(reasoning, output)
    return TokenUsage(uncached, read, written, None, output, reasoning)


def _plain_usage(usage):
    """The counts of a usage object just as OpenAI writes it, in a third of the time; ``None`` for any other."""
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(output) is not int or prompt < 1 or output < 1:
        return None
    if usage.get("total_tokens") != prompt + output or prompt + output > CEILING or not usage.keys() <= PLAIN_USAGE:
        return None
    read = written = reasoning = None
    if details := usage.get("prompt_tokens_details"):
        if not isinstance(details, dict):
            return None
        read, written = count_of(details.get("cached_tokens")), count_of(details.get("cache_write_tokens"))
        cached = (read or 0) + (written or 0)
        prompt = prompt - cached if cached <= prompt else prompt
    if spent := usage.get("completion_tokens_details"):
        if not isinstance(spent, dict):
            return None
        reasoning = count_of(spent.get("reasoning_tokens"))
    return TokenUsage(prompt, read, written, None, output, reasoning and min(reasoning, output))


def _count(*spellings):
    """The first count that is not zero, else the first at all."""
    counts = [count for value in spellings if (count := count_of(value)) is not None]
    return next((count for count in counts if count), counts[0] if counts else None)


def _details(usage, *names):
    """The first details object that holds something."""
    return next((usage[name] for name in names if usage.get(name) and isinstance(usage[name], dict)), {})


def content_of(delta):
    """The answer's own words in a delta or message: no reasoning, no tool arguments."""
    if isinstance(delta.content, list):
        return "".join(_texts(delta.content))
    return delta.content if isinstance(delta.content, str) else ""


def thinking_of(delta):
    """What a delta or message says of the model's thoughts, under whichever name it comes."""
    for thoughts in (delta.reasoning_content, delta.reasoning):
        # OpenRouter and vLLM have sent the same text under both.
        if isinstance(thoughts, str) and thoughts:
            return thoughts
    if not isinstance(delta.content, list):
        return ""
    # Mistral's: parts beside those of the answer.
    found = [part.get("thinking") for part in delta.content if isinstance(part, dict)]
    return "".join(
        thoughts if isinstance(thoughts, str) else "".join(_texts(thoughts) if isinstance(thoughts, list) else ())
        for thoughts in found
    )


def _texts(parts):
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def is_words_alone(delta):
    """Whether a delta or message says nothing but words of the answer, as nearly all of a stream do."""
    return isinstance(delta.content, str) and not (
        delta.reasoning_content or delta.reasoning or delta.tool_calls or delta.refusal or delta.function_call
    )


def text_of(delta):
    """Everything that a delta or message writes, as one string: text, thoughts, refusals, speech and tool arguments."""
    if is_words_alone(delta):
        return delta.content
    parts = [thinking_of(delta), content_of(delta)]
    if isinstance(delta.refusal, str):
        parts.append(delta.refusal)
    if isinstance(delta.audio, dict) and isinstance(delta.audio.get("transcript"), str):
        parts.append(delta.audio["transcript"])
    calls = delta.tool_calls if isinstance(delta.tool_calls, list) else []
    functions = [call.get("function") or call.get("custom") for call in calls if isinstance(call, dict)]
    for function in [*functions, delta.function_call]:
        if isinstance(function, dict):
            for written in (function.get("name"), function.get("arguments"), function.get("input")):
                if isinstance(written, str):
                    parts.append(written)
                elif isinstance(written, dict):
                    parts.append(msgspec.json.encode(written).decode())
    return "".join(parts)


def read_answer(body, meter):
    """Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this dialect."""
    try:
        answer = decoded(_CHUNK, body)
    except UNREADABLE as error:
        raise ValueError(str(error)) from None
    if answer.choices is None:
        raise ValueError("no choices")
    _tell(answer, meter)
    return answer


class StreamReader:
    """Reads a stream as it passes and tells a meter: text, stop reason, model, usage, the end."""

    # The last chunk whose usage was held back from the caller, as JSON.
    held_back = None

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
            # However the provider spells it: a usage chunk may have to go before it.
            return DONE, None
        if not data:
            return event.raw, None
        try:
            # Not by ``decoded`` at once, whose call would cost a twentieth of all this.
            chunk = _CHUNK.decode(data)
        except UNREADABLE:
            try:
                chunk = decoded(_CHUNK, data)
            except UNREADABLE:
                return event.raw, None
        if chunk.error is not None:
            raise StreamError(*openai.told(chunk.error))
        _tell(chunk, self.meter)
        if not self.hide_usage:
            return event.raw, chunk
        if chunk.usage is not None and not chunk.choices:
            return b"", chunk
        return event.raw.replace(b',"usage":null', b"", 1), chunk


class RepeatedUsageReader(StreamReader):
    """Reads a stream whose every chunk repeats the usage up to there, and holds it back: clients would add it up."""

    def saw(self, event):
        raw, chunk = super().saw(event)
        if chunk is None or chunk.usage is None:
            return raw, chunk
        self.held_back = event.data
        return without_usage(event.data) if chunk.choices else b"", chunk


def _tell(chunk, meter):
    if chunk.usage is not None:
        meter.said = chunk.usage
        meter.saw_usage(read_usage(chunk.usage))
    if meter.response_model is None and isinstance(chunk.model, str):
        meter.response_model = chunk.model
    for choice in chunk.choices or ():
        written = choice.delta or choice.message
        if written is not None and (text := text_of(written)):
            meter.saw_text(text)
        elif choice.text and isinstance(choice.text, str):
            meter.saw_text(choice.text)
        if choice.finish_reason is not None:
            _tell_end(chunk, choice, meter)


def _tell_end(chunk, choice, meter):
    if isinstance(choice.finish_reason, str):
        meter.stop_reason = choice.finish_reason
    if chunk.usage is None:
        # Moonshot's place for it, and Groq's.
        for usage in (choice.usage, chunk.x_groq.get("usage") if isinstance(chunk.x_groq, dict) else None):
            if usage is not None:
                meter.said = usage
                meter.saw_usage(read_usage(usage))


def text_in(event):
    """The text that one event of a stream writes; empty for every other kind."""
    try:
        choices = decoded(_CHUNK, event.data).choices
    except UNREADABLE:
        return ""
    return "".join(content_of(choice.delta) for choice in choices or () if choice.delta)


def is_complete(reader):
    """Whether the stream that ``reader`` saw came to its proper end."""
    return reader.ended or reader.meter.stop_reason is not None


def error_event(error, request_id, sequence):
    """The event that tells of an error after the stream has begun."""
    return openai.error_event(error, request_id)
