"""Completions of a text, plain and streamed: ``POST /v1/completions``, whose answers are chunks of the chat's shape."""

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects import openai
from providers.formats.chat_completions import (
    StreamReader,
    asking_for_usage,
    error_event,
    is_complete,
    read_answer,
    wants_usage,
)
from providers.request_body import TRUE_OR_FALSE, InvalidRequest, field, model_name
from providers.tokens import count_entries

__all__ = [
    "DIALECT", "NAME", "PROMPT_FIELDS", "StreamReader", "asking_for_usage", "count_prompt", "error_event",
    "is_complete", "read_answer", "read_request", "wants_usage",
]  # fmt: skip

_ = gettext_noop
NAME = "completions"
DIALECT = openai
PROMPT_FIELDS = ("prompt", "suffix")
# Where a request says how long its answer may get.
MAX_TOKENS_FIELDS = ("max_tokens",)


def read_request(fields, rules=None):
    """
    Check what every completion needs and return ``(model, stream)``.

    What else stands in ``fields`` is the provider's to judge. Raises ``InvalidRequest``.
    """
    model = model_name(fields)
    prompt = bytes(fields.get("prompt", b"null"))
    if prompt == b"null":
        raise InvalidRequest(_("%(name)s: field required"), "prompt", name="prompt")
    if not prompt.startswith((b'"', b"[")) or not prompt.strip(b"[] \t\r\n"):
        raise InvalidRequest(_("prompt: must be a string, or a list of strings or of tokens"), "prompt")
    stream = bool(field(fields, "stream", bool, what=TRUE_OR_FALSE))
    return model, stream


def count_prompt(fields):
    """How many tokens the prompt and what is to follow it are, counted here: a token id is one."""
    try:
        return sum(count_entries(msgspec.json.decode(fields[name])) for name in PROMPT_FIELDS if name in fields)
    except (msgspec.DecodeError, RecursionError):
        return 0
