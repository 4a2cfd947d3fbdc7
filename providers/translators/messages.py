"""Messages: its requests and answers, read and written in the terms of ``providers.conversation``."""

import base64
import binascii
import collections
import re

import msgspec
from django.utils.translation import gettext_noop

from providers.conversation import (
    ArgumentsPiece,
    Audio,
    Conversation,
    Document,
    Image,
    OutputFormat,
    RedactedPiece,
    Refusal,
    RefusalPiece,
    SignaturePiece,
    StopPiece,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
    Tool,
    ToolCall,
    ToolCallPiece,
    ToolChoice,
    ToolResult,
    Turn,
    web_address,
)
from providers.formats import messages
from providers.formats.messages import whole_input
from providers.request_body import InvalidRequest, Term, decoded
from providers.sse import encode

_ = gettext_noop

STOPS = {
    "end_turn": "end",
    "stop_sequence": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "filter",
    "pause_turn": "pause",
}
STOP_REASONS = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "filter": "refusal",
    "pause": "pause_turn",
}

# Requests, read --------------------------------------------------------------------------------------------------

SPELLED = {
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
TIERS = {"auto": "auto", "standard_only": "default"}
# What the two sides of a conversation may say, and what a tool may answer.
USER_BLOCKS = {"text", "image", "document", "search_result", "tool_result"}
ASSISTANT_BLOCKS = {"text", "document", "thinking", "redacted_thinking", "tool_use", "compaction"}
RESULT_BLOCKS = {"text", "image", "document", "search_result"}
# What the provider's own tools did and found in earlier turns; what came of it stands in the text beside it.
SERVER_BLOCKS = re.compile(r"(server|mcp)_tool_use|\w+_tool_result")


def read_request(fields, rules=None):
    """The conversation that ``fields`` ask for; ``rules`` is the caller's version. Raises ``InvalidRequest``."""
    model, stream = messages.read_request(fields, rules)
    asked = decoded(fields)
    conversation = Conversation(model=model, turns=[], stream=stream, spelled=dict(SPELLED))
    # Marks of the cache count as one option, whose value is the one for the request as a whole.
    cached = _Marks()
    if asked.get("system") is not None:
        parts = [_text(block, where, cached) for where, block in _blocks(asked["system"], "system", conversation)]
        conversation.turns = [Turn("system", parts, "system")] if parts else []
    conversation.turns += _turns(asked["messages"], conversation, cached)
    conversation.tools = _tools(asked.get("tools"), conversation, cached)
    options = {
        name: value
        for name, value in asked.items()
        if value is not None and name not in {"model", "stream", "messages", "system", "tools"}
    }
    conversation.options = options
    if (last := conversation.turns[-1]).role == "assistant" and last.parts and isinstance(last.parts[-1], Text):
        # The model is to go on from its own words; where it cannot, they are a turn like any other.
        options["prefill"] = True
    _read_tool_choice(conversation)
    _read_output_config(conversation)
    _read_options(conversation)
    if cached:
        options.setdefault("cache_control", True)
    return conversation


class _Marks:
    """The ``cache_control`` of blocks, and whether there was any."""

    def __init__(self):
        self.any = False

    def __bool__(self):
        return self.any

    def of(self, block):
        mark = block.get("cache_control")
        self.any = self.any or bool(mark)
        return mark if isinstance(mark, dict) else None


def _turns(asked, conversation, cached):
    """The turns of ``messages``; those of one side that follow each other are one."""
    turns = []
    for index, message in enumerate(_require(asked, list, "messages", _("a list"))):
        where = f"messages[{index}]"
        role = _require(message, dict, where, _("an object")).get("role")
        if role not in ("user", "assistant", "system"):
            raise InvalidRequest(_("%(where)s.role: must be user or assistant"), f"{where}.role", where=where)
        parts = []
        for place, block in _blocks(message.get("content"), f"{where}.content", conversation):
            parts += _parts(block, place, role, conversation, cached)
        if turns and turns[-1].role == role:
            turns[-1].parts += parts
        else:
            turns.append(Turn(role, parts, where))
    return turns


def _blocks(content, where, conversation):
    """Each content block and its place; a string is one block of text."""
    if isinstance(content, str):
        return [(where, {"type": "text", "text": content})]
    if not isinstance(content, list):
        raise InvalidRequest(_("%(where)s: must be a string or a list of content blocks"), where, where=where)
    found = []
    for index, block in enumerate(content):
        place = f"{where}[{index}]"
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InvalidRequest(_("%(where)s: must be a content block with a type"), place, where=place)
        if block.get("citations") not in (None, [], {"enabled": False}):
            conversation.lose("citations")
        found.append((place, block))
    return found


def _parts(block, where, role, conversation, cached):
    kind = block["type"]
    if role == "assistant" and SERVER_BLOCKS.fullmatch(kind):
        conversation.lose(kind)
        return []
    allowed = {"user": USER_BLOCKS, "assistant": ASSISTANT_BLOCKS, "system": {"text"}, "tool": RESULT_BLOCKS}[role]
    if kind not in allowed:
        message = _("%(where)s: the model %(model)s does not take a block of type %(type)s here")
        raise InvalidRequest(message, where, where=where, model=conversation.model, type=kind)
    match kind:
        case "text":
            return [_text(block, where, cached)]
        case "image":
            return [_image(block, where, cached)]
        case "document":
            return _document(block, where, conversation, cached)
        case "search_result":
            texts = [_text(each, place, cached).text for place, each in _blocks_of(block, where, conversation)]
            source, title = (_optional(block, name, where) for name in ("source", "title"))
            return [Document(text="\n\n".join(texts), name=title, context=source, cache=cached.of(block))]
        case "thinking":
            return [Thinking(_string(block, "thinking", where), _optional(block, "signature", where))]
        case "redacted_thinking":
            return [Thinking(redacted=_string(block, "data", where))]
        case "compaction":
            return [Text(_string(block, "content", where), cached.of(block))] if block.get("content") else []
        case "tool_use":
            arguments = _require(block.get("input", {}), dict, f"{where}.input", _("an object"))
            call = ToolCall(_string(block, "id", where), _string(block, "name", where), "")
            call.arguments, call.cache = msgspec.json.encode(arguments).decode(), cached.of(block)
            return [call]
        case "tool_result":
            content = []
            if block.get("content") is not None:
                for place, each in _blocks_of(block, where, conversation):
                    content += _parts(each, place, "tool", conversation, cached)
            is_error = bool(block.get("is_error"))
            return [ToolResult(_string(block, "tool_use_id", where), content, is_error, cached.of(block))]


def _blocks_of(block, where, conversation):
    return _blocks(block.get("content"), f"{where}.content", conversation)


def _text(block, where, cached):
    if block["type"] != "text":
        raise InvalidRequest(_("%(where)s: must be a block of text"), where, where=where)
    return Text(_string(block, "text", where), cached.of(block))


def _image(block, where, cached):
    image, source, where = Image(cache=cached.of(block)), block.get("source"), f"{where}.source"
    match _require(source, dict, where, _("an object")).get("type"):
        case "base64":
            image.media_type, image.data = _string(source, "media_type", where), _string(source, "data", where)
        case "url":
            image.url = web_address(_string(source, "url", where), f"{where}.url")
        case "file":
            image.file_id = _string(source, "file_id", where)
        case _:
            raise InvalidRequest(_("%(where)s.type: must be base64, url or file"), f"{where}.type", where=where)
    return image


def _document(block, where, conversation, cached):
    """A document, and after it the pictures that stand in it where it is made of blocks."""
    name, context = (_optional(block, field, where) for field in ("title", "context"))
    document = Document(name=name, context=context, cache=cached.of(block))
    source, pictures, where = block.get("source"), [], f"{where}.source"
    match _require(source, dict, where, _("an object")).get("type"):
        case "base64":
            document.media_type, document.data = _string(source, "media_type", where), _string(source, "data", where)
        case "text":
            document.media_type, document.text = "text/plain", _string(source, "data", where)
        case "content":
            texts = []
            for place, each in _blocks_of(source, where, conversation):
                if each["type"] == "image":
                    pictures.append(_image(each, place, cached))
                else:
                    texts.append(_text(each, place, cached).text)
            document.media_type, document.text = "text/plain", "\n\n".join(texts)
        case "url":
            document.url = web_address(_string(source, "url", where), f"{where}.url")
        case "file":
            document.file_id = _string(source, "file_id", where)
        case _:
            message = _("%(where)s.type: must be base64, text, content, url or file")
            raise InvalidRequest(message, f"{where}.type", where=where)
    return [document, *pictures]


def _tools(asked, conversation, cached):
    tools = []
    for index, tool in enumerate(_require([] if asked is None else asked, list, "tools", _("a list"))):
        where = f"tools[{index}]"
        kind = _require(tool, dict, where, _("an object")).get("type")
        if kind not in (None, "custom"):
            message = _("%(where)s: the model %(model)s has no tool of type %(type)s")
            raise InvalidRequest(message, where, where=where, model=conversation.model, type=str(kind))
        known = Tool(
            _string(tool, "name", where),
            _optional(tool, "description", where),
            _require(tool.get("input_schema"), dict, f"{where}.input_schema", _("an object")),
            _require(tool["strict"], bool, f"{where}.strict", _("true or false")) if tool.get("strict") else None,
            cached.of(tool),
        )
        tools.append(known)
        for name in sorted(set(tool) - {"type", "name", "description", "input_schema", "strict", "cache_control"}):
            if tool[name]:
                conversation.lose(f"tools.{name}")
    return tools


def _read_tool_choice(conversation):
    choice = conversation.take("tool_choice")
    if choice is None:
        return
    kind = TOOL_CHOICES.get(str(_require(choice, dict, "tool_choice", _("an object")).get("type")))
    if kind is None:
        raise InvalidRequest(
            _("%(where)s.type: must be auto, any, tool or none"), "tool_choice.type", where="tool_choice"
        )
    conversation.tool_choice = ToolChoice(kind, _string(choice, "name", "tool_choice") if kind == "named" else None)
    if choice.get("disable_parallel_tool_use"):
        conversation.options["parallel_tool_calls"] = False


def _read_output_config(conversation):
    config = dict(_require(conversation.take("output_config", {}), dict, "output_config", _("an object")))
    effort, output = config.pop("effort", None), config.pop("format", None)
    # As the beta spelled it.
    output = conversation.take("output_format", output)
    if effort is not None:
        conversation.options["reasoning_effort"] = _require(effort, str, "output_config.effort", _("a string"))
    if output is not None:
        if _require(output, dict, "output_config.format", _("an object")).get("type") != "json_schema":
            where = "output_config.format.type"
            raise InvalidRequest(_("%(where)s: must be json_schema"), where, where=where)
        where = "output_config.format.schema"
        schema = _require(output.get("schema"), dict, where, _("an object"))
        # A schema is kept to the letter in this format.
        conversation.output_format = OutputFormat("schema", schema, strict=True)
    for name, value in config.items():
        if value is not None:
            conversation.lose(f"output_config.{name}")


def _read_options(conversation):
    options = conversation.options
    metadata = dict(_require(conversation.take("metadata", {}), dict, "metadata", _("an object")))
    if (user := metadata.pop("user_id", None)) is not None:
        options["user"] = _require(user, str, "metadata.user_id", _("a string"))
    for name in metadata:
        conversation.lose(f"metadata.{name}")
    if stop := conversation.take("stop_sequences"):
        options["stop"] = _require(stop, list[str], "stop_sequences", _("a list of strings"))
    for name in ("temperature", "top_p"):
        if name in options:
            _require(options[name], float, name, _("a number"))
    if "top_k" in options:
        _require(options["top_k"], int, "top_k", _("a whole number"))
    if "thinking" in options:
        kind = _require(options["thinking"], dict, "thinking", _("an object")).get("type")
        if not isinstance(kind, str):
            raise InvalidRequest(_("%(where)s.type: must be a string"), "thinking.type", where="thinking")
    if (tier := options.get("service_tier")) is not None:
        options["service_tier"] = TIERS.get(tier, tier) if isinstance(tier, str) else tier
    if options.get("speed") == "standard":
        del options["speed"]
    if options.get("inference_geo") not in (None, "global"):
        conversation.refuse(_("%(name)s: where the model %(model)s runs cannot be chosen here"), "inference_geo")
    options.pop("inference_geo", None)
    if options.get("mcp_servers"):
        conversation.refuse(_("%(name)s: the model %(model)s does not reach MCP servers by itself"), "mcp_servers")


def _require(value, kind, where, what):
    """``value``, which is a ``kind``, described to the caller as ``what``. Raises ``InvalidRequest``."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise InvalidRequest(_("%(name)s: must be %(what)s"), where, name=where, what=Term(what)) from None


def _string(holder, name, where):
    return _require(holder.get(name), str, f"{where}.{name}", _("a string"))


def _optional(holder, name, where):
    return None if holder.get(name) is None else _string(holder, name, where)


# Requests, written -----------------------------------------------------------------------------------------------

# For a model whose own limit is not known: what nearly every model of this format can write.
DEFAULT_MAX_TOKENS = 4096
EFFORTS = {"minimal": "low"}
SENT_CHOICES = {kind: name for name, kind in TOOL_CHOICES.items()}
SENT_TIERS = {"auto": "auto", "default": "standard_only"}
BEGINNINGS = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}


def write_request(conversation, target):
    """The body of the request for ``target``'s provider. Raises ``InvalidRequest`` for what cannot be said."""
    strict = _is_strict(target)
    limit = conversation.take("max_tokens")
    if limit is None:
        limit = target.max_output_tokens or DEFAULT_MAX_TOKENS
    body = {"model": target.upstream_name, "max_tokens": limit, "stream": conversation.stream}
    system, turns = _TurnWriter(conversation, is_strict=strict).written()
    if system:
        body["system"] = system
    body["messages"] = turns
    conversation.take("prefill")
    _write_tools(conversation, target, body)
    _write_thinking(conversation, target, body)
    _write_output_format(conversation, body)
    _write_sampling(conversation, strict, body)
    _write_options(conversation, body)
    return body


def _is_strict(target):
    """Whether the provider is called by the newer rules; the versions of cloud platforms have the older ones."""
    try:
        return messages.is_strict(target.headers.get("anthropic-version"))
    except InvalidRequest:
        return False


class _TurnWriter:
    """Writes the turns of one conversation: in alternation, and each as the format allows it."""

    def __init__(self, conversation, *, is_strict):
        self.conversation = conversation
        self.is_strict = is_strict
        self.ids, self.used = {}, set()

    def written(self):
        """``(system, messages)``: system prompts stand on their own, or where they were if the version knows that."""
        system, turns = [], []
        for turn in self.conversation.turns:
            if turn.name:
                self.conversation.lose("messages.name")
            blocks = self._blocks(turn)
            if turn.role == "system" and not (self.is_strict and turns):
                system += blocks
            elif turns and turns[-1]["role"] == turn.role:
                turns[-1]["content"] += blocks
            elif blocks:
                turns.append({"role": turn.role, "content": blocks})
        if not turns:
            message = _("messages: the model %(model)s needs a message of the user that is not empty")
            raise InvalidRequest(message, "messages", model=self.conversation.model)
        for turn in turns:
            # Results come first in their turn.
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = turns[-1]["content"][-1]
        if turns[-1]["role"] == "assistant" and last["type"] == "text":
            # The model goes on from here, and it is refused after a space.
            last["text"] = last["text"].rstrip()
        for turn in turns:
            turn["content"] = _plainly(turn["content"])
        return _plainly(system, joined=True), turns

    def _blocks(self, turn):
        blocks = []
        for part in turn.parts:
            block = self._block(part, turn.role, turn.where)
            if block is not None:
                blocks.append(block)
        return blocks

    def _block(self, part, role, where):
        """The block for a part; ``None`` for one that says nothing here."""
        match part:
            case Text(text=text) | Refusal(text=text):
                # A text of white space alone is refused.
                return _marked({"type": "text", "text": text}, part) if text.strip() else None
            case Image() if role == "user":
                return self._image(part, where)
            case Document() if role == "user" or (role == "assistant" and not self.is_strict):
                return self._document(part, where)
            case Thinking() if role == "assistant":
                return self._thinking(part)
            case ToolCall() if role == "assistant":
                block = {"type": "tool_use", "id": self._id(part.id), "name": part.name}
                return _marked(block | {"input": self._input(part, where)}, part)
            case ToolResult() if role == "user":
                return self._result(part, where)
            case Audio():
                message = _("%(where)s: the model %(model)s does not take audio")
                raise InvalidRequest(message, where, where=where, model=self.conversation.model)
        message = _("%(where)s: the model %(model)s takes text only in this turn")
        raise InvalidRequest(message, where, where=where, model=self.conversation.model)

    def _id(self, name):
        """The id of a tool call in the letters that this format allows; one for one."""
        if name not in self.ids:
            plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name) or "call"
            if plain in self.used:
                plain += f"_{len(self.ids)}"
            while plain in self.used:
                plain += "_"
            self.used.add(plain)
            self.ids[name] = plain
        return self.ids[name]

    def _input(self, call, where):
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
        except (msgspec.DecodeError, RecursionError):
            arguments = ()
        if not isinstance(arguments, dict | None):
            message = _("%(where)s: the arguments of the call of %(tool)s are not a JSON object")
            raise InvalidRequest(message, where, where=where, tool=call.name)
        return arguments or {}

    def _result(self, result, where):
        content = [self._block(part, "user", where) for part in result.content]
        block = {"type": "tool_result", "tool_use_id": self._id(result.id)}
        if content := [each for each in content if each is not None]:
            block["content"] = _plainly(content)
        if result.is_error:
            block["is_error"] = True
        return _marked(block, result)

    def _thinking(self, part):
        if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        if part.signature:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        # Thoughts of other models have no proof that this format could check.
        self.conversation.lose("messages.thinking")
        return None

    def _image(self, image, where):
        if image.detail not in (None, "auto"):
            self.conversation.lose("detail")
        if image.data is not None:
            kind = image.media_type or next(
                (kind for mark, kind in BEGINNINGS.items() if image.data.startswith(mark)), ""
            )
            source = {"type": "base64", "media_type": kind, "data": image.data}
        else:
            source = self._elsewhere(image, where)
        return _marked({"type": "image", "source": source}, image)

    def _document(self, document, where):
        kind = (document.media_type or "").partition(";")[0].strip().lower()
        if document.text is not None:
            source = {"type": "text", "media_type": "text/plain", "data": document.text}
        elif document.data is None:
            source = self._elsewhere(document, where)
        elif kind == "application/pdf" or document.data.startswith("JVBERi"):
            source = {"type": "base64", "media_type": "application/pdf", "data": document.data}
        elif kind.startswith("text/") or kind in ("application/json", "application/xml"):
            source = {"type": "text", "media_type": "text/plain", "data": self._text_of(document, where)}
        else:
            message = _("%(where)s: the model %(model)s takes documents of PDF and plain text only")
            raise InvalidRequest(message, where, where=where, model=self.conversation.model)
        if source["type"] == "text" and not source["data"].strip():
            return None
        block = {"type": "document", "source": source}
        if document.name:
            block["title"] = document.name
        if document.context:
            block["context"] = document.context
        return _marked(block, document)

    def _text_of(self, document, where):
        try:
            return base64.b64decode(document.data, validate=True).decode()
        except (binascii.Error, ValueError):
            message = _("%(where)s: the text file is not base64 of UTF-8")
            raise InvalidRequest(message, where, where=where) from None

    def _elsewhere(self, part, where):
        """The source of what the request does not hold itself."""
        if part.url is not None:
            return {"type": "url", "url": part.url}
        if part.file_id is not None:
            return {"type": "file", "file_id": part.file_id}
        raise InvalidRequest(_("%(where)s: an image or file has neither data nor an address"), where, where=where)


def _marked(block, part):
    """``block`` with the mark of the cache that its part has."""
    cache = getattr(part, "cache", None)
    return block | {"cache_control": cache} if cache else block


def _plainly(blocks, *, joined=False):
    """A lone text without any marks as a string, ``joined`` several too; other blocks as they are."""
    texts = [block["text"] for block in blocks if block.keys() == {"type", "text"}]
    if len(texts) == len(blocks) and (joined or len(texts) == 1):
        return "\n\n".join(texts)
    return blocks


def _write_tools(conversation, target, body):
    choice = conversation.tool_choice
    is_serial = conversation.take("parallel_tool_calls") is False
    if not conversation.tools:
        if choice is not None and choice.kind in ("required", "named"):
            message = _("%(name)s: asks for a tool, but the request has none")
            conversation.refuse(message, "tool_choice")
        return
    keeps_strictly = not target.capabilities or "structured_outputs" in target.capabilities
    if not keeps_strictly and any(tool.strict for tool in conversation.tools):
        conversation.lose("tools.strict")
    body["tools"] = [_tool(tool, keeps_strictly) for tool in conversation.tools]
    if choice is None and is_serial:
        choice = ToolChoice("auto")
    if choice is not None:
        body["tool_choice"] = {"type": SENT_CHOICES[choice.kind]}
        if choice.kind == "named":
            body["tool_choice"]["name"] = choice.name
        if is_serial and choice.kind != "none":
            body["tool_choice"]["disable_parallel_tool_use"] = True


def _tool(tool, keeps_strictly):
    written = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    written["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict and keeps_strictly:
        written["strict"] = True
    return _marked(written, tool)


def _write_thinking(conversation, target, body):
    thinking, effort = conversation.take("thinking"), conversation.take("reasoning_effort")
    if target.capabilities and "reasoning" not in target.capabilities:
        if thinking and thinking.get("type") != "disabled":
            conversation.lose(conversation.spelling("thinking"))
        if effort not in (None, "none"):
            conversation.lose(conversation.spelling("reasoning_effort"))
        return
    if effort == "none":
        thinking = thinking or {"type": "disabled"}
    elif effort is not None:
        body["output_config"] = {"effort": EFFORTS.get(effort, effort)}
    if thinking is not None:
        body["thinking"] = thinking


def _write_output_format(conversation, body):
    wanted = conversation.output_format
    if wanted is None:
        return
    if wanted.kind != "schema" or wanted.schema is None:
        message = _("%(name)s: the model %(model)s writes JSON by a schema only; send one as json_schema")
        conversation.refuse(message, "response_format")
    body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": wanted.schema}


def _write_sampling(conversation, strict, body):
    temperature, top_p, top_k = (conversation.take(name) for name in messages.SAMPLING)
    if temperature is not None and top_p == 1:
        # Together they are refused by newer models, and this one says nothing.
        top_p = None
    given = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    for name, value in given.items():
        if value is None:
            continue
        if strict:
            conversation.lose(conversation.spelling(name))
        else:
            body[name] = min(max(value, 0), 1) if name == "temperature" else value


def _write_options(conversation, body):
    if conversation.take("n", 1) != 1:
        conversation.refuse(_("%(name)s: the model %(model)s gives one answer to a request"), "n")
    if conversation.take("suffix"):
        conversation.refuse(_("%(name)s: the model %(model)s does not fill text in before an ending"), "suffix")
    if stop := conversation.take("stop"):
        if not all(sequence.strip() for sequence in stop):
            conversation.refuse(_("%(name)s: the model %(model)s does not stop at white space alone"), "stop")
        body["stop_sequences"] = stop
    user = conversation.take("user")
    user = conversation.take("safety_identifier") if user is None else user
    if user is not None:
        body["metadata"] = {"user_id": user}
    if (tier := conversation.take("service_tier")) is not None:
        if tier in SENT_TIERS:
            body["service_tier"] = SENT_TIERS[tier]
        else:
            conversation.lose(conversation.spelling("service_tier"))
    cache = conversation.take("cache_control")
    if isinstance(cache, dict):
        body["cache_control"] = cache


# Answers, read ---------------------------------------------------------------------------------------------------


class AnswerReader:
    """
    Reads the events of a stream into pieces.

    Blocks of the provider's own tools are passed over; calls of the caller's tools are numbered among themselves.
    """

    def __init__(self):
        # Calls of tools by the place of their block: the number of each, and what of its input waits for its end.
        self._calls = {}
        self._whole = {}
        self._stop = None

    def feed(self, said):
        """The pieces that one parsed event holds."""
        match said.type:
            case "content_block_delta" if said.delta is not None:
                return self._written(said.delta, said.index)
            case "content_block_start" if said.content_block is not None:
                return self._begun(said.content_block, said.index)
            case "content_block_stop":
                return self._ended(said.index)
            case "message_delta" if said.delta is not None:
                if isinstance(said.delta.stop_reason, str):
                    self._stop = said.delta
        return []

    def finish(self):
        """The last pieces, once the stream has come to its end."""
        pieces = []
        for index in list(self._whole):
            pieces += self._ended(index)
        return pieces + _stopped(self._stop, bool(self._calls))

    def _begun(self, block, index):
        if block.type == "tool_use" and isinstance(index, int):
            number = len(self._calls)
            self._calls[index], self._whole[index] = number, whole_input(block) or "{}"
            return [_call(block, number)]
        return _pieces_of(block)

    def _written(self, delta, index):
        if delta.type == "text_delta":
            return [TextPiece(delta.text)] if isinstance(delta.text, str) and delta.text else []
        if not isinstance(delta.partial_json, str):
            return _pieces_of(delta)
        if delta.partial_json and isinstance(index, int) and index in self._calls:
            self._whole.pop(index, None)
            return [ArgumentsPiece(self._calls[index], delta.partial_json)]
        return []

    def _ended(self, index):
        """What a block's start held of a tool's input, where nothing came after it."""
        whole = self._whole.pop(index, None) if isinstance(index, int) else None
        return [] if whole is None else [ArgumentsPiece(self._calls[index], whole)]


def read_answer(said):
    """The pieces of a whole answer."""
    pieces, calls = [], 0
    for block in said.content:
        if block.type == "tool_use":
            pieces += [_call(block, calls), ArgumentsPiece(calls, whole_input(block) or "{}")]
            calls += 1
        else:
            pieces += _pieces_of(block)
    return pieces + _stopped(said, bool(calls))


def _call(block, number):
    given = block.id if isinstance(block.id, str) and block.id else f"toolu_{number}"
    return ToolCallPiece(number, given, block.name if isinstance(block.name, str) else "")


def _pieces_of(written):
    """What a block, or a delta of one, says in words."""
    pieces = []
    if isinstance(written.thinking, str) and written.thinking:
        pieces.append(ThinkingPiece(written.thinking))
    if isinstance(written.signature, str) and written.signature:
        pieces.append(SignaturePiece(written.signature))
    if written.type == "redacted_thinking" and isinstance(written.data, str):
        pieces.append(RedactedPiece(written.data))
    if isinstance(written.text, str) and written.text:
        pieces.append(TextPiece(written.text))
    return pieces


def _stopped(said, called):
    """The last pieces of an answer, from what ``said`` why it stopped."""
    if said is None:
        return [StopPiece("tools" if called else "end")]
    pieces = []
    details = said.stop_details
    if said.stop_reason == "refusal" and isinstance(details, dict) and isinstance(details.get("explanation"), str):
        pieces.append(RefusalPiece(details["explanation"]))
    reason = STOPS.get(said.stop_reason if isinstance(said.stop_reason, str) else None, "end")
    sequence = said.stop_sequence if isinstance(said.stop_sequence, str) else None
    return [*pieces, StopPiece(reason, sequence if said.stop_reason == "stop_sequence" else None)]


# Answers, written ------------------------------------------------------------------------------------------------


def usage(reported):
    """The usage object of a message, as far as it is known."""
    if reported is None:
        return {"input_tokens": 0, "output_tokens": 0}
    written, written_1h = reported.cache_write_tokens or 0, reported.cache_write_1h_tokens or 0
    told = {
        "input_tokens": reported.input_tokens or 0,
        "cache_creation_input_tokens": written + written_1h,
        "cache_read_input_tokens": reported.cache_read_tokens or 0,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": written_1h},
        "output_tokens": reported.output_tokens or 0,
    }
    if reported.reasoning_tokens is not None:
        told["output_tokens_details"] = {"thinking_tokens": reported.reasoning_tokens}
    return told


def write_answer(pieces, reply):
    """The whole message for the caller."""
    shows, shows_text = _shows_thinking(reply.fields)
    # What grows by pieces is a list of them until it is whole.
    content, calls, end = [], {}, _End()
    for piece in pieces:
        last = content[-1] if content else {}
        match piece:
            case TextPiece(text=text) | RefusalPiece(text=text):
                end.saw(piece)
                if last.get("type") == "text":
                    last["text"].append(text)
                elif text:
                    content.append({"type": "text", "text": [text]})
            case ThinkingPiece(text=text) if shows_text:
                if last.get("type") == "thinking" and not last["signature"]:
                    last["thinking"].append(text)
                else:
                    content.append({"type": "thinking", "thinking": [text], "signature": ""})
            case SignaturePiece(signature=signature) if shows:
                if last.get("type") != "thinking" or last["signature"]:
                    last = {"type": "thinking", "thinking": [], "signature": ""}
                    content.append(last)
                last["signature"] = signature
            case RedactedPiece(data=data) if shows:
                content.append({"type": "redacted_thinking", "data": data})
            case ToolCallPiece(index=index):
                end.saw(piece)
                calls[index] = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": []}
                content.append(calls[index])
            case ArgumentsPiece(index=index) if index in calls:
                calls[index]["input"].append(piece.text)
            case StopPiece():
                end.saw(piece)
    for block in content:
        for name in {"text", "thinking", "input"} & block.keys():
            block[name] = "".join(block[name])
        if block["type"] == "tool_use":
            block["input"] = _input_of(block["input"])
    message = _message(reply) | {"content": content} | end.told() | {"container": None}
    return msgspec.json.encode(message | {"usage": usage(reply.meter.told())})


class AnswerWriter:
    """
    Writes a stream's events: its blocks one after the other, whatever way their pieces come.

    A block that begins while the one before it may still grow waits for its turn; calls of tools grow until their
    arguments are a whole JSON object.
    """

    def __init__(self, reply):
        self.reply = reply
        self.shows_thinking, self.shows_thoughts = _shows_thinking(reply.fields)
        self.end = _End()
        self.begun = False
        # The first is open, the others wait; ``index`` is the place of the first in the message.
        self.blocks = collections.deque()
        self.index = 0
        self.calls = {}
        self.events = []

    def feed(self, pieces):
        """The events for some pieces of the answer; the first time, those that begin the message."""
        if len(pieces) == 1 and isinstance(pieces[0], TextPiece) and pieces[0].text and self._is_in_text():
            # As nearly every event of a stream: more words, with nothing before them.
            return DELTA % (self.index, b"text_delta", b"text", msgspec.json.encode(pieces[0].text))
        self._begin()
        for piece in pieces:
            self._take(piece)
        return self._told()

    def finish(self):
        """The events that end the stream."""
        self._begin()
        while self.blocks:
            self._close()
        told = usage(self.reply.meter.told())
        self._tell({"type": "message_delta", "delta": self.end.told(), "usage": told})
        self._tell({"type": "message_stop"})
        return self._told()

    def _is_in_text(self):
        """Whether words would go on in the open block, at once."""
        return len(self.blocks) == 1 and self.blocks[0].kind == "text" and self.blocks[0].is_open

    def _begin(self):
        if self.begun:
            return
        self.begun = True
        # What is known of the usage by now; the count of the output comes at the end.
        known = usage(self.reply.meter.reported) | {"output_tokens": 0}
        known.pop("output_tokens_details", None)
        message = _message(self.reply) | {"content": [], "stop_reason": None, "stop_sequence": None}
        self._tell({"type": "message_start", "message": message | {"usage": known}})

    def _take(self, piece):
        match piece:
            case TextPiece(text=text) | RefusalPiece(text=text):
                self.end.saw(piece)
                if text:
                    self._block("text", {"text": ""}).write("text_delta", "text", text)
            case ThinkingPiece(text=text) if self.shows_thoughts:
                self._block("thinking", {"thinking": "", "signature": ""}).write("thinking_delta", "thinking", text)
            case SignaturePiece(signature=signature) if self.shows_thinking:
                block = self._block("thinking", {"thinking": "", "signature": ""})
                block.write("signature_delta", "signature", signature)
                block.is_whole = True
            case RedactedPiece(data=data) if self.shows_thinking:
                self._block("redacted_thinking", {"data": data})
            case ToolCallPiece(index=index):
                self.end.saw(piece)
                self.calls[index] = self._block("tool_use", {"id": piece.id, "name": piece.name, "input": {}})
            case ArgumentsPiece(index=index) if index in self.calls:
                self.calls[index].write("input_json_delta", "partial_json", piece.text)
            case StopPiece():
                self.end.saw(piece)
        self._settle()

    def _block(self, kind, fields):
        """The last block where it is of this kind and may grow by such a piece, else a new one at the end."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.kind != kind or last.is_whole or kind in ("tool_use", "redacted_thinking"):
            last = _Block(kind, fields)
            self.blocks.append(last)
        return last

    def _settle(self):
        """Tell what the open block has got, and go on to the next as long as one waits and the open one is done."""
        while self.blocks:
            self._tell_first()
            if len(self.blocks) == 1 or self.blocks[0].may_grow():
                return
            self._close()

    def _tell_first(self):
        first = self.blocks[0]
        if not first.is_open:
            first.is_open = True
            block = {"type": first.kind, **first.fields}
            self._tell({"type": "content_block_start", "index": self.index, "content_block": block})
        for kind, field, text in first.waiting:
            delta = msgspec.json.encode(text)
            self.events.append(DELTA % (self.index, kind.encode(), field.encode(), delta))
        first.waiting.clear()

    def _close(self):
        self._tell_first()
        self._tell({"type": "content_block_stop", "index": self.index})
        closed = self.blocks.popleft()
        closed.is_closed = True
        self.index += 1

    def _tell(self, document):
        self.events.append(encode(document["type"].encode(), msgspec.json.encode(document)))

    def _told(self):
        told, self.events = b"".join(self.events), []
        return told


DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'


class _Block:
    """A block of a stream: the deltas of it that wait, and whether more may come."""

    def __init__(self, kind, fields):
        self.kind = kind
        self.fields = fields
        self.waiting = []
        self.is_open = self.is_closed = self.is_whole = False
        self._unread = []
        self._depth, self._in_string, self._after_backslash = 0, False, False

    def write(self, kind, field, text):
        if not text or self.is_closed:
            return
        self.waiting.append((kind, field, text))
        if self.kind == "tool_use":
            self._unread.append(text)

    def may_grow(self):
        """Whether it is the call of a tool whose arguments are not a whole object yet."""
        if self.kind == "tool_use" and not self.is_whole:
            self._read()
        return self.kind == "tool_use" and not self.is_whole

    def _read(self):
        """Follow the arguments that came since the last time, up to the brace that closes the object."""
        for char in "".join(self._unread):
            if self._after_backslash:
                self._after_backslash = False
            elif self._in_string:
                self._after_backslash = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                self.is_whole = self.is_whole or self._depth <= 0
        self._unread.clear()


class _End:
    """How the message ends, from the pieces that say so."""

    def __init__(self):
        self.called = False
        self.refusal = []
        self.stop = None

    def saw(self, piece):
        match piece:
            case ToolCallPiece():
                self.called = True
            case RefusalPiece(text=text) if text:
                self.refusal.append(text)
            case StopPiece():
                self.stop = piece

    def told(self):
        reason = self.stop.reason if self.stop else "end"
        if reason in ("end", "tools"):
            # Some providers say of a call only that the answer ended.
            reason = "tools" if self.called else "filter" if self.refusal else "end"
        sequence = self.stop.sequence if self.stop and reason == "end" else None
        details = {"type": "refusal", "category": None, "explanation": "".join(self.refusal) or None}
        return {
            "stop_reason": "stop_sequence" if sequence is not None else STOP_REASONS.get(reason, "end_turn"),
            "stop_sequence": sequence,
            "stop_details": details if reason == "filter" else None,
        }


def _message(reply):
    return {"id": f"msg_{reply.suffix}", "type": "message", "role": "assistant", "model": reply.model}


def _shows_thinking(fields):
    """Whether the caller asked for thinking, and whether for its text."""
    try:
        asked = msgspec.json.decode(fields.get("thinking", b"null"))
    except (msgspec.DecodeError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or asked.get("type") not in ("enabled", "adaptive"):
        return False, False
    return True, asked.get("display") != "omitted"


def _input_of(arguments):
    """
    The object that a tool is called with.

    What is no JSON object is kept under a name that no tool has, as this format's own documentation advises.
    """
    if not arguments.strip():
        return {}
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": arguments}
    return msgspec.Raw(arguments.encode())
