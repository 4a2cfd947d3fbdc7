"""Messages, plain and streamed: ``POST /v1/messages``; and counting their tokens."""

import datetime
import functools
import re
from typing import Annotated, Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import anthropic
from providers.errors import StreamError
from providers.media_tokens import document_tokens, image_tokens
from providers.odd_json import decoded
from providers.request_body import MOST_TOKENS, TRUE_OR_FALSE, InvalidRequest, field, model_name, require_messages
from providers.tokens import TokenUsage, count_of, count_tokens

_ = gettext_noop
NAME = "messages"
DIALECT = anthropic
PROMPT_FIELDS = ("system", "messages", "tools")
# Where a request says how long its answer may get.
MAX_TOKENS_FIELDS = ("max_tokens",)
LIMIT = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
WHOLE_NUMBER = _("a whole number from 0 to 2147483647")
# From this version on a request may not sample, quote its own user or hold documents that the model wrote.
STRICT_VERSION = "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")
INPUT_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation")
# What in a block is no part of its text.
NO_TEXT = {"type", "role", "id", "tool_use_id", "cache_control", "media_type", "citations", "encrypted_content"}
NOTHING = msgspec.Raw()


class Written(msgspec.Struct):
    """A content block or a delta: the fields that hold what was written. ``input`` is JSON as it came."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    partial_json: Any = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = NOTHING
    stop_reason: Any = None
    stop_sequence: Any = None
    stop_details: Any = None


class Message(msgspec.Struct):
    content: list[Written] | None = None
    stop_reason: Any = None
    stop_sequence: Any = None
    stop_details: Any = None
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


class AskedTurn(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = NOTHING


class AskedBlock(msgspec.Struct):
    type: Any = None
    citations: msgspec.Raw = NOTHING


_EVENT = msgspec.json.Decoder(StreamEvent)
_MESSAGE = msgspec.json.Decoder(Message)
_TURNS = msgspec.json.Decoder(list[AskedTurn])
_BLOCKS = msgspec.json.Decoder(list[AskedBlock])
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@functools.lru_cache(64)
def is_strict(version):
    """
    Whether the rules of ``STRICT_VERSION`` hold under an ``anthropic-version`` header; other dates keep the old ones.

    Raises ``InvalidRequest`` where it is no date.
    """
    if version is None:
        return False
    try:
        if not _DATE.fullmatch(version):
            raise ValueError
        datetime.date.fromisoformat(version)
    except ValueError:
        raise InvalidRequest(_("anthropic-version: must be a date such as 2023-06-01"), "anthropic-version") from None
    return version >= STRICT_VERSION


def read_request(fields, rules=None):
    """
    Check what every message needs and return ``(model, stream)``; ``rules`` is the caller's version of the API.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    strict = is_strict(rules)
    model = model_name(fields)
    require_messages(fields)
    field(fields, "max_tokens", LIMIT, required=True, what=WHOLE_NUMBER)
    stream = bool(field(fields, "stream", bool, what=TRUE_OR_FALSE))
    if strict:
        _check_strictly(fields, rules)
    return model, stream


def read_count_request(fields, rules=None):
    """Check what token counting needs and return the model. Raises ``InvalidRequest``."""
    strict = is_strict(rules)
    require_messages(fields)
    model = model_name(fields)
    if strict:
        _check_strictly(fields, rules)
    return model


def _check_strictly(fields, version):
    """
    Refuse what ``STRICT_VERSION`` does, without building the turns: their texts are skipped, not decoded.

    It takes some 1.2 ms a megabyte.
    """
    for name in SAMPLING:
        if field(fields, name, Any, what="") is not None:
            raise InvalidRequest(
                _("%(name)s: not part of version %(version)s of this API"), name, name=name, version=version
            )
    try:
        turns = _TURNS.decode(fields["messages"])
    except (msgspec.DecodeError, RecursionError):
        return
    for index, turn in enumerate(turns):
        content = bytes(turn.content)
        if turn.role not in ("user", "assistant") or not content.startswith(b"["):
            continue
        try:
            blocks = _BLOCKS.decode(content)
        except (msgspec.DecodeError, RecursionError):
            continue
        for place, block in enumerate(blocks):
            where = f"messages[{index}].content[{place}]"
            if turn.role == "assistant" and block.type == "document":
                message = _("%(where)s: a turn of the assistant takes no documents in version %(version)s of this API")
                raise InvalidRequest(message, where, where=where, version=version)
            if turn.role == "user" and block.type == "text" and bytes(block.citations) not in (b"", b"null"):
                message = _("%(where)s.citations: a text of the user takes none in version %(version)s of this API")
                raise InvalidRequest(message, f"{where}.citations", where=where, version=version)


def count_request(fields):
    """
    About how many tokens the prompt of a checked request is, offline and for models of any provider.

    System prompt, turns and tools are counted as text, without earlier thinking, which is not read again; pictures by
    their size and PDFs by their pages. Counting what is long takes long: call it in a thread.
    """
    texts, tokens = [], 0
    todo = []
    for name in PROMPT_FIELDS:
        raw = fields.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        try:
            todo.append(msgspec.json.decode(raw) if name != "tools" else bytes(raw).decode())
        except (msgspec.DecodeError, RecursionError):
            # Valid JSON that Python cannot hold, such as 1e999: as it was written, it is still the prompt.
            todo.append(bytes(raw).decode())
    while todo:
        match todo.pop():
            case str(text):
                texts.append(text)
            case list(values):
                todo += values
            case {"type": "thinking" | "redacted_thinking"}:
                pass
            case {"type": "image"} as block:
                tokens += image_tokens(_data_of(block))
            case {"type": "document", "source": {"type": "base64" | "url" | "file"}} as block:
                tokens += document_tokens(_data_of(block))
                todo += [block.get("title"), block.get("context")]
            case dict(values):
                # What a tool was called with counts as it is written, names and all.
                todo += [
                    msgspec.json.encode(value).decode() if name == "input" else value
                    for name, value in values.items()
                    if name not in NO_TEXT
                ]
    return tokens + count_tokens("\n".join(texts))


def _data_of(block):
    source = block.get("source")
    return source.get("data") if isinstance(source, dict) else None


def wants_usage(fields):
    """Usage is a part of every stream of this dialect."""
    return True


def read_usage(usage):
    """Disjoint counts from a usage object, whose ``input_tokens`` exclude the cache; ``None`` where it holds none."""
    if not isinstance(usage, dict):
        return None
    written_1h = written = None
    if isinstance(split := usage.get("cache_creation"), dict):
        written_1h = count_of(split.get("ephemeral_1h_input_tokens"))
        written = count_of(split.get("ephemeral_5m_input_tokens"))
    whole = count_of(usage.get("cache_creation_input_tokens"))
    if whole is not None:
        # What the split leaves out lives five minutes.
        written = max(written or 0, whole - (written_1h or 0))
    given, read = count_of(usage.get("input_tokens")), count_of(usage.get("cache_read_input_tokens"))
    output, reasoning = count_of(usage.get("output_tokens")), None
    if isinstance(details := usage.get("output_tokens_details"), dict):
        reasoning = count_of(details.get("thinking_tokens"))
        if reasoning is not None and output is not None:
            reasoning = min(reasoning, output)
    if given is None and output is None and read is written is written_1h is reasoning is None:
        return None
    return TokenUsage(given, read, written, written_1h, output, reasoning)


def text_of(written):
    """Everything that a block or delta writes, as one string."""
    if written.type in ("text", "text_delta") and isinstance(written.text, str):
        return written.text
    parts = [part for part in (written.text, written.thinking, written.partial_json) if isinstance(part, str)]
    if written.type == "tool_use":
        parts += [written.name] if isinstance(written.name, str) else []
        parts += [whole_input(written)]
    return "".join(parts)


def whole_input(written):
    """The JSON text of a tool's input where the block holds it; empty where it is empty or comes in pieces."""
    text = bytes(written.input).decode(errors="replace")
    return "" if text in ("", "{}", "null") or not text[1:-1].strip() else text


def read_answer(body, meter):
    """Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this dialect."""
    try:
        message = decoded(_MESSAGE, body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if message.content is None:
        raise ValueError("no content")
    _saw_model(message, meter)
    meter.said = message.usage
    meter.saw_usage(read_usage(message.usage))
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
        self.usage = {}

    def saw(self, event):
        """Read one event: the bytes to pass on, and the parsed ``StreamEvent`` or ``None``. Raises ``StreamError``."""
        if not event.data:
            return event.raw, None
        try:
            said = decoded(_EVENT, event.data)
        except (msgspec.DecodeError, RecursionError):
            return event.raw, None
        match said.type:
            case "content_block_delta" | "content_block_start":
                written = said.delta or said.content_block
                if written is not None and (text := text_of(written)):
                    self.meter.saw_text(text)
            case "message_start" if said.message is not None:
                _saw_model(said.message, self.meter)
                # What message_start says of the output is a placeholder; the count comes with message_delta.
                self._saw_usage(said.message.usage, without=("output_tokens", "output_tokens_details"))
            case "message_delta":
                self._saw_usage(said.usage)
                if said.delta is not None and isinstance(said.delta.stop_reason, str):
                    self.meter.stop_reason = said.delta.stop_reason
            case "message_stop":
                self.ended = True
            case "error":
                raise StreamError(*anthropic.told(said.error))
        return event.raw, said

    def _saw_usage(self, usage, without=()):
        """Tell the meter what the stream has reported up to now: cumulative, each event only what it knows."""
        if not isinstance(usage, dict):
            return
        known = {name: count for name, count in usage.items() if count is not None and name not in without}
        if not any(count_of(known.get(name)) for name in INPUT_COUNTS):
            # Some repeat the counts of the input as zeros.
            known = {name: count for name, count in known.items() if name not in self.usage or name not in INPUT_COUNTS}
        self.usage |= known
        self.meter.said = self.usage
        self.meter.saw_usage(read_usage(self.usage))


def _saw_model(message, meter):
    if isinstance(message.model, str):
        meter.response_model = message.model


def is_complete(reader):
    """Whether the stream that ``reader`` saw came to its proper end."""
    return reader.ended or reader.meter.stop_reason is not None


def error_event(error, request_id, sequence):
    """The event that tells of an error after the stream has begun."""
    return anthropic.error_event(error, request_id)
