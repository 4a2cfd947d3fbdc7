"""Embeddings, never streamed: ``POST /v1/embeddings``."""

import array
import base64
import sys
from typing import Annotated, Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.odd_json import decoded
from providers.request_body import InvalidRequest, Term, field, model_name
from providers.tokens import TokenUsage, count_entries, count_of

_ = gettext_noop
NAME = "embeddings"
DIALECT = openai
PROMPT_FIELDS = ("input",)
MOST_INPUTS = 2048
FORMATS = ("float", "base64")
DIMENSIONS = Annotated[int, msgspec.Meta(ge=1)]
SHAPES = _("a string, a list of strings, a list of token ids or a list of such lists")


class Entry(msgspec.Struct):
    embedding: msgspec.Raw = msgspec.Raw(b"null")


class Answer(msgspec.Struct):
    data: list[Entry]
    model: Any = None
    usage: Any = None


_ANSWER = msgspec.json.Decoder(Answer)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRIES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_VECTOR = msgspec.json.Decoder(list[float])
_TEXTS = msgspec.json.Decoder(list[str])
# All that token ids in a list are written with.
DIGITS = b"0123456789, \t\r\n"


# The request -----------------------------------------------------------------------------------------------------


def read_request(fields, rules=None):
    """
    Check what every request for embeddings needs and return ``(model, False)``: there are no streams of them.

    Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    raw = bytes(fields.get("input", b"null")).strip()
    if raw == b"null":
        raise InvalidRequest(_("%(name)s: field required"), "input", name="input")
    _require_inputs(raw)
    field(fields, "dimensions", DIMENSIONS, what=_("a whole number of 1 or more"))
    if asked_format(fields) not in FORMATS:
        raise InvalidRequest(_("encoding_format: must be float or base64"), "encoding_format")
    return model, False


def asked_format(fields):
    """How the caller wants its vectors; ``float`` where it does not say."""
    return field(fields, "encoding_format", str, what=_("float or base64")) or "float"


def wants_usage(fields):
    """Usage is a part of every answer."""
    return True


def count_prompt(fields):
    """How many tokens the input is, counted here: a token id is one."""
    try:
        return count_entries(msgspec.json.decode(fields.get("input", b"null")))
    except (msgspec.DecodeError, RecursionError):
        return 0


def _require_inputs(raw):
    """
    Refuse an input that is empty, too long a list, or not one of ``SHAPES``; long texts and ids are not decoded.

    ``raw`` is JSON, as the body was parsed: what its bytes are tells which of the shapes it has.
    """
    if raw.startswith(b'"'):
        if raw == b'""':
            raise InvalidRequest(_("input: must not be empty"), "input")
        return
    kind = raw[1:].lstrip()[:1] if raw.startswith(b"[") else b""
    if kind == b"]":
        raise InvalidRequest(_("input: must not be empty"), "input")
    if kind == b'"':
        _require_room((raw.count(b'"') - raw.count(b'\\"')) // 2)
        try:
            entries = _TEXTS.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            raise _misshapen() from None
    elif kind == b"[":
        _require_room(raw.count(b"[") - 1)
        entries = _id_lists(raw)
    elif kind and raw[1:-1].translate(None, DIGITS) == b"":
        # One text as token ids, however many.
        return
    else:
        raise _misshapen()
    empty = next((index for index, entry in enumerate(entries) if not entry), None)
    if empty is not None:
        raise InvalidRequest(_("input[%(index)s]: must not be empty"), "input", index=empty)
    _require_room(len(entries))


def _id_lists(raw):
    """The bytes of each list of token ids in a list of them."""
    lists = raw.translate(None, b" \t\r\n")[1:-1].split(b"]")
    if lists.pop() or not lists[0].startswith(b"[") or not all(each.startswith(b",[") for each in lists[1:]):
        raise _misshapen()
    lists = [each.removeprefix(b",")[1:] for each in lists]
    if any(each.translate(None, DIGITS) for each in lists):
        raise _misshapen()
    return lists


def _misshapen():
    return InvalidRequest(_("input: must be %(what)s"), "input", what=Term(SHAPES))


def _require_room(count):
    """Refuse more than MOST_INPUTS entries: before they are read, too, which takes seconds where there are millions."""
    if count > MOST_INPUTS:
        message = _("input: must hold %(most)s entries at most, not %(count)s")
        raise InvalidRequest(message, "input", most=MOST_INPUTS, count=count)


# The answer ------------------------------------------------------------------------------------------------------


def read_usage(usage):
    """Counts from a usage object of this format: all of it is input. ``None`` where it holds none."""
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage.get("prompt_tokens")) or count_of(usage.get("total_tokens"))
    if prompt is None:
        prompt = count_of(usage.get("prompt_tokens"))
    return None if prompt is None else TokenUsage(input_tokens=prompt, output_tokens=0)


def read_answer(body, meter):
    """Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this format."""
    try:
        answer = decoded(_ANSWER, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if isinstance(answer.model, str):
        meter.response_model = answer.model
    meter.said = answer.usage
    usage = read_usage(answer.usage)
    # A zero for a prompt that is never empty is no count.
    if usage is not None and usage.input_tokens:
        meter.saw_usage(usage)
    return answer


def as_asked(fields, body):
    """
    The answer with its vectors as the request's raw ``fields`` ask for them, whichever way the provider gave them.

    An answer that has them so already stays as it is, byte for byte. Floats written for base64 are the very numbers
    that the base64 holds; base64 holds floats of 32 bits.
    """
    wants_base64 = asked_format(fields) == "base64"
    try:
        vectors = [bytes(entry.embedding) for entry in _ANSWER.decode(body).data]
    except (msgspec.DecodeError, RecursionError):
        return body
    opening, convert = (b"[", _to_base64) if wants_base64 else (b'"', _to_floats)
    if not any(vector.startswith(opening) for vector in vectors):
        return body
    answer = _FIELDS.decode(body)
    entries = _ENTRIES.decode(answer["data"])
    try:
        for entry in entries:
            if bytes(entry.get("embedding", b"")).startswith(opening):
                entry["embedding"] = convert(entry["embedding"])
    except (ValueError, OverflowError):
        # No vector of this format: the caller gets what was sent.
        return body
    return msgspec.json.encode(answer | {"data": entries})


def _to_base64(raw):
    vector = array.array("f", _VECTOR.decode(raw))
    return base64.b64encode(_little_endian(vector).tobytes()).decode()


def _to_floats(raw):
    vector = array.array("f")
    vector.frombytes(base64.b64decode(msgspec.json.decode(raw), validate=True))
    return _little_endian(vector).tolist()


def _little_endian(vector):
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
