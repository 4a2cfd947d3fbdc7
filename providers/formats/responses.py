"""Responses, plain and streamed: ``POST /v1/responses``."""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.errors import StreamError
from providers.media_tokens import document_tokens, image_tokens
from providers.odd_json import decoded
from providers.request_body import TRUE_OR_FALSE, InvalidRequest, field, model_name
from providers.sse import encode
from providers.tokens import TokenUsage, count_of, count_tokens

_ = gettext_noop
NAME = "responses"
DIALECT = openai
PROMPT_FIELDS = ("instructions", "input", "tools")
# Where a request says how long its answer may get.
MAX_TOKENS_FIELDS = ("max_output_tokens",)
ENCRYPTED = "reasoning.encrypted_content"
# Sound comes as base64 under the same name as text does.
NOT_TEXT = {"response.audio.delta", "response.output_audio.delta"}
# What an item holds beside what is read by the model.
NO_TEXT = {"type", "role", "id", "call_id", "status", "encrypted_content", "input_audio", "annotations", "logprobs"}
NOTHING = msgspec.Raw(b"null")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ENDS = {"response.completed", "response.incomplete"}


class Response(msgspec.Struct):
    """A response as far as it is read; ``output`` stays as it was written."""

    id: Any = None
    status: Any = None
    model: Any = None
    error: Any = None
    incomplete_details: Any = None
    usage: Any = None
    output: msgspec.Raw = NOTHING


class StreamEvent(msgspec.Struct):
    """One event of a stream: the fields that are read, of any type a provider may send."""

    type: Any = None
    sequence_number: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    delta: Any = None
    item: msgspec.Raw = NOTHING
    response: Response | None = None
    error: Any = None
    code: Any = None
    message: Any = None


class Item(msgspec.Struct):
    """An output item, of any kind."""

    type: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    content: Any = None
    summary: Any = None
    encrypted_content: Any = None


_RESPONSE = msgspec.json.Decoder(Response)
_EVENT = msgspec.json.Decoder(StreamEvent)
_ITEM = msgspec.json.Decoder(Item)
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])


# The request -----------------------------------------------------------------------------------------------------


def read_request(fields, rules=None):
    """
    Check what every response needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = read_count_request(fields)
    # A prompt template of the provider's may hold all that is asked.
    if bytes(fields.get("input", b"null")) == bytes(fields.get("prompt", b"null")) == b"null":
        raise InvalidRequest(_("%(name)s: field required"), "input", name="input")
    stream = bool(field(fields, "stream", bool, what=TRUE_OR_FALSE))
    return model, stream


def read_count_request(fields):
    """Check what is needed to count a request's tokens and return the ``model``. Raises ``InvalidRequest``."""
    model = model_name(fields)
    raw = bytes(fields.get("input", b"null"))
    if raw != b"null" and raw[:1] not in (b'"', b"["):
        raise InvalidRequest(_("input: must be a string or a list of items"), "input")
    return model


def wants_usage(fields):
    """Usage is a part of every stream of this format."""
    return True


def count_request(fields):
    """
    About how many tokens the prompt of a request is, offline and for models of any provider.

    Instructions, items and tools are counted as text, pictures by their size and PDFs by their pages. Counting what
    is long takes long: call it in a thread.
    """
    texts, tokens, todo = [], 0, []
    for name in PROMPT_FIELDS:
        raw = fields.get(name, NOTHING)
        if name == "tools" and bytes(raw) != b"null":
            texts.append(bytes(raw).decode())
            continue
        try:
            todo.append(msgspec.json.decode(raw))
        except UNREADABLE:
            # Valid JSON that Python cannot hold, such as 1e999: as it was written, it is still the prompt.
            texts.append(bytes(raw).decode())
    while todo:
        match todo.pop():
            case str(text):
                texts.append(text)
            case list(values):
                todo += values
            case {"type": "input_image"} as part:
                tokens += image_tokens(_data_of(part.get("image_url")))
            case {"type": "input_file"} as part:
                tokens += document_tokens(_data_of(part.get("file_data")))
            case dict(values):
                todo += [value for name, value in values.items() if name not in NO_TEXT]
    return tokens + count_tokens("\n".join(texts))


def _data_of(url):
    """The base64 in a data URL, or what stands without one."""
    if not isinstance(url, str) or url.startswith(("http:", "https:")):
        return None
    return url.partition(",")[2] or url


# The answer ------------------------------------------------------------------------------------------------------


def read_usage(usage):
    """
    Disjoint counts from a usage object, whose ``input_tokens`` include the cache; ``None`` where it holds none.
    """
    if not isinstance(usage, dict):
        return None
    whole, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if whole is None and output is None:
        return None
    details = usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    spent = usage.get("output_tokens_details")
    spent = spent if isinstance(spent, dict) else {}
    read, written = count_of(details.get("cached_tokens")), count_of(details.get("cache_write_tokens"))
    uncached = whole
    if whole is not None and (read or 0) + (written or 0) <= whole:
        # A larger sum means that the provider has left the cache out already.
        uncached = whole - (read or 0) - (written or 0)
    split = details.get("cache_write_tokens_details")
    long = count_of(split.get("ttl_12h_tokens")) if isinstance(split, dict) else None
    if long is not None and written is not None:
        # Those that live longest cost the most, whatever the provider calls how long that is.
        long = min(long, written)
        written -= long
    reasoning = count_of(spent.get("reasoning_tokens"))
    if reasoning is not None and output is not None:
        reasoning = min(reasoning, output)
    return TokenUsage(uncached, read, written, long, output, reasoning)


def read_item(raw):
    """The output item in ``raw``; an empty one where that is none."""
    try:
        return decoded(_ITEM, raw)
    except UNREADABLE:
        return Item()


def items_of(output):
    """The items of an ``output`` as raw JSON, read."""
    try:
        return [read_item(raw) for raw in _RAW_LIST.decode(output)]
    except UNREADABLE:
        return []


def texts_in(parts, *names):
    """What stands under ``names`` in a list of parts."""
    if not isinstance(parts, list):
        return []
    found = (part.get(name) for part in parts if isinstance(part, dict) for name in names)
    return [text for text in found if isinstance(text, str)]


def text_of(item):
    """Everything that the model wrote into an item, as one string: text, refusals, thoughts, names and arguments."""
    parts = texts_in(item.summary, "text") + texts_in(item.content, "text", "refusal")
    return "".join([*parts, *(text for text in (item.name, item.arguments, item.input) if isinstance(text, str))])


def read_answer(body, meter):
    """
    Tell ``meter`` what the answer ``body`` says.

    Raises ``ValueError`` where it is none of this format, and ``StreamError`` where it tells of a failure.
    """
    try:
        response = decoded(_RESPONSE, body)
    except UNREADABLE as error:
        raise ValueError(str(error)) from None
    if bytes(response.output) == b"null" and response.status is None:
        raise ValueError("no output")
    for item in items_of(response.output):
        if text := text_of(item):
            meter.saw_text(text)
    _tell(response, meter)
    if response.status == "failed":
        raise StreamError(*openai.told(response.error))
    return response


class StreamReader:
    """Reads a stream as it passes and tells a meter: text, stop reason, model, usage, the end."""

    def __init__(self, meter, *, hide_usage=False):
        self.meter = meter
        self.ended = False
        # How much of the text of each output item has come in pieces, and whose names are counted.
        self._told, self._named = {}, set()

    def saw(self, event):
        """Read one event: the bytes to pass on, and the parsed ``StreamEvent`` or ``None``. Raises ``StreamError``."""
        if not event.data:
            return event.raw, None
        if event.data.startswith(b"[DONE]"):
            # Not of this format, although some servers send it.
            return b"", None
        try:
            # Not by ``decoded`` at once, whose call would cost a twentieth of all this.
            said = _EVENT.decode(event.data)
        except UNREADABLE:
            try:
                said = decoded(_EVENT, event.data)
            except UNREADABLE:
                return event.raw, None
        kind = said.type
        if not isinstance(kind, str):
            if said.error is not None:
                raise StreamError(*openai.told(said.error))
        elif kind.endswith(".delta"):
            if isinstance(said.delta, str) and said.delta and kind not in NOT_TEXT:
                place = _index(said.output_index)
                self._told[place] = self._told.get(place, 0) + len(said.delta)
                self.meter.saw_text(said.delta)
        elif kind == "response.output_item.added":
            self._take_name(_index(said.output_index), read_item(said.item))
        elif kind == "response.output_item.done":
            self._take_item(_index(said.output_index), read_item(said.item))
        elif kind == "error":
            raise StreamError(*openai.told(said.error or {"message": said.message, "code": said.code}))
        elif said.response is not None:
            _tell(said.response, self.meter)
            if kind == "response.failed":
                raise StreamError(*openai.told(said.response.error))
            self.ended = kind in ENDS
        if isinstance(said.sequence_number, int):
            self.meter.call.sequence = said.sequence_number
        return event.raw, said

    def _take_name(self, place, item):
        """Count the name of a function where the item begins: its end may never come."""
        if isinstance(item.name, str) and item.name and place not in self._named:
            self._named.add(place)
            self.meter.saw_text(item.name)

    def _take_item(self, place, item):
        """Count what an item says that has not been said before."""
        self._take_name(place, item)
        item.name = None
        if text := text_of(item)[self._told.get(place, 0) :]:
            self.meter.saw_text(text)


def _index(value):
    return value if isinstance(value, int) else None


def _tell(response, meter):
    if isinstance(response.model, str) and meter.response_model is None:
        meter.response_model = response.model
    if response.usage is not None:
        meter.said = response.usage
        meter.saw_usage(read_usage(response.usage))
    if response.status in ("completed", "incomplete", "failed", "cancelled"):
        reason = response.incomplete_details
        reason = reason.get("reason") if isinstance(reason, dict) else None
        meter.stop_reason = reason if isinstance(reason, str) and reason else response.status


def is_complete(reader):
    """Whether the stream that ``reader`` saw came to its proper end, which only its last event tells."""
    return reader.ended


def error_event(error, request_id, sequence):
    """The event that tells of an error after the stream has begun; ``sequence`` is its number there."""
    told = msgspec.json.decode(openai.error_body(error, request_id))["error"]
    event = {
        "type": "error",
        "code": told["code"],
        "message": told["message"],
        "param": told["param"],
        "sequence_number": sequence,
    }
    return encode(b"error", msgspec.json.encode(event))
