"""
One conversation, whatever the wire format: what is asked, and the pieces of what is answered.

A translator reads a caller's request into a ``Conversation`` and writes it for a provider; it reads a provider's answer
into pieces and writes them for the caller. Four formats are then eight readers and writers instead of twelve pairs.
"""

from typing import Any

import msgspec
from django.utils.translation import gettext_noop

from providers.request_body import InvalidRequest

_ = gettext_noop

# Parts of a turn -------------------------------------------------------------------------------------------------


class Text(msgspec.Struct):
    """``cache`` is the caller's ``cache_control``, where its format has one."""

    text: str
    cache: dict | None = None


class Image(msgspec.Struct):
    """One of ``data`` (base64, of ``media_type``), ``url`` and ``file_id``."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    cache: dict | None = None


class Audio(msgspec.Struct):
    """Base64 ``data`` in a ``format`` such as ``wav`` or ``mp3``."""

    data: str
    format: str


class Document(msgspec.Struct):
    """One of ``data`` (base64, of ``media_type``), ``text``, ``url`` and ``file_id``; ``name`` is its title or file."""

    media_type: str | None = None
    data: str | None = None
    text: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    context: str | None = None
    cache: dict | None = None


class Thinking(msgspec.Struct):
    """What the model thought, with the provider's ``signature``; ``redacted`` stands in for thoughts that it hides."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None


class Refusal(msgspec.Struct):
    text: str


class ToolCall(msgspec.Struct):
    """A call that the model made; ``arguments`` is JSON text as it was written, ``""`` meaning ``{}``."""

    id: str
    name: str
    arguments: str
    cache: dict | None = None


class ToolResult(msgspec.Struct):
    """What a tool answered to the call ``id``: parts of ``Text``, ``Image`` and ``Document``."""

    id: str
    content: list[Any]
    is_error: bool = False
    cache: dict | None = None


class Turn(msgspec.Struct):
    """
    What one side said. ``role`` is system, user or assistant; tool results stand in user turns.

    ``where`` names it in the caller's request, for errors: ``messages[3]``.
    """

    role: str
    parts: list[Any]
    where: str
    name: str | None = None


def web_address(url, where):
    """
    ``url``, an address that anybody may open.

    Raises ``InvalidRequest`` for any other, such as of a file on the machine that runs the model.
    """
    if not url[:8].lower().startswith(("http://", "https://", "data:")):
        raise InvalidRequest(_("%(where)s: must be an address of http or https, or a data URL"), where, where=where)
    return url


# The request -----------------------------------------------------------------------------------------------------


class Tool(msgspec.Struct):
    """A function that the model may call; ``parameters`` is its JSON schema."""

    name: str
    description: str | None = None
    parameters: dict | None = None
    strict: bool | None = None
    cache: dict | None = None


class ToolChoice(msgspec.Struct):
    """``kind`` is auto, none, required or named; ``name`` says which."""

    kind: str
    name: str | None = None


class OutputFormat(msgspec.Struct):
    """``kind`` is json (any object) or schema (one of ``schema``)."""

    kind: str
    schema: dict | None = None
    name: str | None = None
    strict: bool | None = None
    description: str | None = None


class Conversation(msgspec.Struct):
    """
    A request in no format's terms.

    ``options`` hold every other field by its neutral name, which is chat completions' own where that has one:
    max_tokens, temperature, top_p, top_k, stop (a list), n, seed, presence_penalty, frequency_penalty, logit_bias,
    logprobs, top_logprobs, parallel_tool_calls, reasoning_effort, thinking (messages' own object), verbosity, user,
    metadata, service_tier … What a writer takes it can say; what it leaves is dropped, under the caller's spelling of
    it (``spelled``, where that differs).
    """

    model: str
    turns: list[Turn]
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    output_format: OutputFormat | None = None
    options: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    lost: set[str] = msgspec.field(default_factory=set)

    def take(self, name, default=None):
        """The option ``name``, which the writer can say; ``default`` where it was not given or is null."""
        value = self.options.pop(name, None)
        return default if value is None else value

    def lose(self, name):
        """Say that ``name``, as the caller spells it, has no counterpart and does not go on."""
        self.lost.add(name)

    def spelling(self, name):
        """How the caller spells the option ``name``."""
        return self.spelled.get(name, name)

    def dropped(self):
        """The caller's names of everything that did not go on, sorted: what was lost, and options nobody took."""
        left = {self.spelling(name) for name, value in self.options.items() if value is not None}
        return sorted(left | self.lost)

    def refuse(self, message, name, **values):
        """Refuse the request for its field or option ``name``, which cannot be dropped without changing its meaning."""
        name = self.spelling(name)
        raise InvalidRequest(message, name, name=name, model=self.model, **values)


# The answer ------------------------------------------------------------------------------------------------------


class TextPiece(msgspec.Struct):
    text: str


class ThinkingPiece(msgspec.Struct):
    text: str


class SignaturePiece(msgspec.Struct):
    """Ends the thoughts before it: the provider's proof that they are its own."""

    signature: str


class RedactedPiece(msgspec.Struct):
    """Thoughts that the provider hides, whole."""

    data: str


class RefusalPiece(msgspec.Struct):
    text: str


class ToolCallPiece(msgspec.Struct):
    """A tool call begins. ``index`` tells calls of one answer apart; arguments may come interleaved."""

    index: int
    id: str
    name: str


class ArgumentsPiece(msgspec.Struct):
    """More of the JSON text of the arguments of the call ``index``."""

    index: int
    text: str


class StopPiece(msgspec.Struct):
    """
    Why the model stopped: end, length, tools, filter or pause; ``sequence`` is the stop sequence that it hit.

    An answer has one, after everything else.
    """

    reason: str
    sequence: str | None = None


class Reply(msgspec.Struct):
    """
    What a writer of answers needs to know of the exchange.

    ``meter`` has ``response_model``, ``requested_model``, ``reported`` (a ``TokenUsage`` or ``None``) and, once the
    answer is whole, ``told()``, the usage with what was not reported counted here; ``fields`` are the caller's request
    as raw JSON; ``with_usage`` says that a stream ends with usage where the format leaves that to the caller;
    ``conversation`` is what was asked.
    """

    request_id: str
    created: int
    meter: Any
    fields: dict[str, Any]
    with_usage: bool
    conversation: Conversation

    @property
    def model(self):
        return self.meter.response_model or self.meter.requested_model

    @property
    def suffix(self):
        """The part of the request's id that the format's own prefix goes before."""
        return self.request_id.removeprefix("req_")
