"""
The most that a request can cost at one target, as far as its provider keeps to what it is told.

Known before the provider is asked: from the bytes of the prompt, from what the caller says of the answer's length, and
from what the model can do.
"""

import re

import msgspec
from django.utils.translation import gettext_noop

from providers.request_body import InvalidRequest, Term
from usage.costs import most_of

_ = gettext_noop

A_POSITIVE_INTEGER = _("an integer of at least 1")
# What an answer is worth that was cut to what can be afforded.
LEAST_TOKENS = 16
# What a provider's own frame around a conversation comes to, and what it says to the model of tools.
FRAME_TOKENS = 20
TOOLS_TOKENS = 1_000
# What says by its bytes nothing of its tokens, where the model's context window is not known.
BEYOND_BYTES_TOKENS = 200_000
# Parts of a prompt whose tokens their bytes bound; anything else is media, or a tool with which the provider fetches.
BOUNDED = frozenset(
    b"text input_text output_text refusal message tool_use tool_result tool_call function_call function_call_output "
    b"function custom custom_tool_call custom_tool_call_output reasoning reasoning_text summary_text thinking "
    b"redacted_thinking search_result ephemeral auto any tool none json_schema json_object grammar "
    b"object string number integer boolean array null".split()
)
_TYPE = re.compile(rb'"type"\s*:\s*"([^"]*)"')
# A letter that is written as an escape may hide such a word.
_HIDDEN = re.compile(rb"\\u00(?:[46][1-9a-fA-F]|[57][0-9aA])")
# Fields beside the prompt that bring in what is not in it.
FETCHING = frozenset({"web_search_options", "mcp_servers", "conversation", "prompt", "plugins", "container"})


class Bound:
    """The most tokens of a call at ``target``; ``rates`` are ``None`` for a model without a price."""

    __slots__ = ("answers", "input", "output", "rates", "target")

    def __init__(self, call, target, size):
        """``size`` is the call's own. Raises ``InvalidRequest`` where nothing says how long the answer may get."""
        self.target = target
        self.rates = target.rates_at(call.received_at)
        self.input = self.output = 0
        self.answers = size.answers
        if self.rates is not None:
            self.input, self.output = size.input_at(target), size.output_at(target)

    def cost(self, output=None):
        """In nanos, of an answer of at most ``output`` tokens where that is given; nothing without a price."""
        output = self.output if output is None else min(output, self.output)
        return most_of(self.rates, self.input, output * self.answers) if self.rates else 0


class Size:
    """
    What a request says of its own size: bytes of the prompt, and how many answers of how many tokens it asks for.

    Raises ``InvalidRequest`` for a number that is none: what cannot be understood here, a provider may understand.
    """

    __slots__ = ("_names", "_raws", "answers", "asked", "bytes", "fetches", "prompts")

    def __init__(self, form, fields):
        """Of a request with ``fields`` in ``form``, a module of ``providers.formats``."""
        self._raws = [bytes(fields[name]) for name in form.PROMPT_FIELDS if name in fields]
        self.bytes = sum(map(len, self._raws)) + FRAME_TOKENS + (TOOLS_TOKENS if "tools" in fields else 0)
        self._names = getattr(form, "MAX_TOKENS_FIELDS", ())
        self.asked, self.prompts, self.answers = 0, None, 0
        for name in self._names:
            if name in fields:
                self.asked = max(self.asked, _positive(fields, name) or 0)
        if self._names:
            self.prompts = self.answers = _prompts(form, fields)
            if "n" in fields or "best_of" in fields:
                self.answers *= max(_positive(fields, "n") or 1, _positive(fields, "best_of") or 1)
        self.fetches = not FETCHING.isdisjoint(fields) and not FETCHING.intersection(fields) <= set(form.PROMPT_FIELDS)

    def input_at(self, target):
        """No tokenizer makes more tokens of a text than it has bytes, no model reads more at once than its window."""
        # Where no answer is written each of many texts is read by itself, and nobody has counted them.
        window = target.context_window * self.prompts if target.context_window and self.prompts else None
        if window is not None and self.bytes >= window:
            return window
        if self.fetches or any(map(goes_beyond, self._raws)):
            return window or self.bytes + BEYOND_BYTES_TOKENS
        return self.bytes

    def output_at(self, target):
        """As the caller says, or as many as the model can write."""
        if not self._names:
            return 0
        most = target.max_output_tokens or target.context_window
        if not self.asked and most is None:
            name = self._names[0]
            raise InvalidRequest(
                _(
                    "%(field)s is needed: a spend limit applies, and nothing else says how long the answer may get. "
                    "An administrator can enter the model’s maximum output, too."
                ),
                name,
                field=name,
            )
        return min(self.asked or most, most or self.asked)


def affordable(bounds, nanos) -> int | None:
    """The most tokens of an answer that costs at most ``nanos`` wherever it comes from; ``None`` for too few."""
    least, most = 0, max(bound.output for bound in bounds)
    while least < most:
        middle = (least + most + 1) // 2
        if all(bound.cost(middle) <= nanos for bound in bounds):
            least = middle
        else:
            most = middle - 1
    return least if least >= LEAST_TOKENS else None


def lower(call, tokens, target):
    """Ask for an answer of at most ``tokens``, in every field that says how long it may get."""
    names = call.format.MAX_TOKENS_FIELDS
    said = {name: length for name in names if (length := _positive(call.fields, name))}
    own = target.max_tokens_field if target.max_tokens_field in names else names[0]
    longer = [name for name, length in said.items() if length > tokens] if said else [own]
    call.fields = call.fields | dict.fromkeys(longer, msgspec.Raw(b"%d" % tokens))


def goes_beyond(raw: bytes) -> bool:
    """Whether a part of the prompt may come to more tokens than its bytes say."""
    # Nearly every prompt is text alone: a plain look is much quicker than a pattern.
    if b"\\u00" in raw and _HIDDEN.search(raw):
        return True
    return b'"type"' in raw and any(found[1] not in BOUNDED for found in _TYPE.finditer(raw))


def _positive(fields, name):
    """A field that must be a positive integer, ``None`` where it is missing or null."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=int | None)
    except msgspec.DecodeError:
        value = 0
    if value is not None and value < 1:
        raise InvalidRequest(_("%(name)s: must be %(what)s"), name, name=name, what=Term(A_POSITIVE_INTEGER))
    return value


def _prompts(form, fields):
    """How many prompts a legacy completion has: each gets answers of its own."""
    raw = fields.get("prompt")
    if raw is None or "prompt" not in form.PROMPT_FIELDS or not bytes(raw).lstrip().startswith(b"["):
        return 1
    entries = msgspec.json.decode(raw, type=list[msgspec.Raw])
    return len(entries) if entries and bytes(entries[0]).lstrip()[:1] in {b'"', b"["} else 1
