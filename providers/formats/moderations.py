"""Moderations, never streamed: ``POST /v1/moderations``."""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.formats import chat_completions
from providers.odd_json import decoded
from providers.request_body import InvalidRequest, Term, model_name
from providers.tokens import count_tokens

_ = gettext_noop
NAME = "moderations"
DIALECT = openai
PROMPT_FIELDS = ("input",)
MOST_INPUTS = 2048
# What is moderated by where the caller names no model.
DEFAULT_MODEL = "omni-moderation-latest"
# Providers take no money for it: without a price it costs nothing, where any other request is "not priced".
IS_FREE_UNLESS_PRICED = True
SHAPES = _("a string, a list of strings or a list of text and image_url parts")


class Part(msgspec.Struct):
    """One thing that is moderated together with the others of its list; pictures are not decoded."""

    type: str
    text: str | None = None
    image_url: msgspec.Raw = msgspec.Raw(b"null")


class Answer(msgspec.Struct):
    results: list[msgspec.Raw]
    model: Any = None
    usage: Any = None


_ANSWER = msgspec.json.Decoder(Answer)
_INPUTS = msgspec.json.Decoder(str | list[str | Part])
# Reads one entry more than there may be, and passes over the others without building anything of them.
_LAST = f"entry_{MOST_INPUTS}"
_NAMES = (f"entry_{index}" for index in range(MOST_INPUTS + 1))
_FIRST_INPUTS = msgspec.json.Decoder(
    msgspec.defstruct(
        "FirstInputs",
        [(name, str | Part | msgspec.UnsetType, msgspec.UNSET) for name in _NAMES],
        array_like=True,
    )
)


# The request -----------------------------------------------------------------------------------------------------


def read_request(fields, rules=None):
    """
    Check what every moderation needs and return ``(model, False)``: there are no streams of them.

    ``model`` may be left out. Raises ``InvalidRequest``.
    """
    model = DEFAULT_MODEL if bytes(fields.get("model", b"null")) == b"null" else model_name(fields)
    inputs = _inputs(fields)
    if inputs is None:
        raise InvalidRequest(_("%(name)s: field required"), "input", name="input")
    if isinstance(inputs, str):
        return model, False
    if not inputs:
        raise InvalidRequest(_("input: must not be empty"), "input")
    kinds = {type(entry) for entry in inputs}
    if len(kinds) > 1:
        raise InvalidRequest(_("input: must be %(what)s"), "input", what=Term(SHAPES))
    if kinds == {Part}:
        for index, part in enumerate(inputs):
            _require_part(part, index)
    return model, False


def _require_part(part, index):
    if part.type not in {"text", "image_url"}:
        raise InvalidRequest(
            _("input[%(index)s].type: must be text or image_url, not “%(given)s”"),
            "input",
            index=index,
            given=part.type[:40],
        )
    if part.text is None if part.type == "text" else bytes(part.image_url) == b"null":
        name = part.type
        raise InvalidRequest(_("%(name)s: field required"), "input", name=f"input[{index}].{name}")


def _inputs(fields):
    raw = fields.get("input", b"null")
    if bytes(raw) == b"null":
        return None
    try:
        # An entry is two bytes and a comma, if it is empty: what is short holds no more than it may.
        is_long = len(bytes(raw)) > 3 * MOST_INPUTS and not bytes(raw).startswith(b'"')
        if is_long and getattr(_FIRST_INPUTS.decode(raw), _LAST) is not msgspec.UNSET:
            raise InvalidRequest(_("input: must hold %(most)s entries at most"), "input", most=MOST_INPUTS)
        return _INPUTS.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(_("input: must be %(what)s"), "input", what=Term(SHAPES)) from None


def wants_usage(fields):
    """No answer has usage that a caller could turn on."""
    return True


def count_prompt(fields):
    """How many tokens the texts of the input are, counted here; pictures are none."""
    try:
        inputs = _inputs(fields)
    except InvalidRequest:
        return 0
    texts = [inputs] if isinstance(inputs, str) else inputs or ()
    texts = [text if isinstance(text, str) else text.text for text in texts]
    return sum(count_tokens(text) for text in texts if text)


# The answer ------------------------------------------------------------------------------------------------------


def read_answer(body, meter):
    """
    Tell ``meter`` what the answer ``body`` says. Raises ``ValueError`` where it is none of this format.

    OpenAI's has no usage; some providers' do.
    """
    try:
        answer = decoded(_ANSWER, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if isinstance(answer.model, str):
        meter.response_model = answer.model
    meter.said = answer.usage
    usage = chat_completions.read_usage(answer.usage)
    if usage is not None and usage.input_tokens:
        # The answer is no text: what providers count as output is nothing that they charge.
        meter.saw_usage(msgspec.structs.replace(usage, output_tokens=usage.output_tokens or 0))
    return answer
