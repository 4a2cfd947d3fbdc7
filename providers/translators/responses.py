"""Responses in the terms of a conversation: requests, answers and streams, both ways."""

import time

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
from providers.formats import responses
from providers.request_body import InvalidRequest, decoded
from providers.sse import encode
from providers.translators.chat_completions import require_options

_ = gettext_noop

# What a request is made of here; every other field is an option, under its neutral name where it has one.
OWN_FIELDS = {
    "model", "input", "instructions", "stream", "stream_options", "tools", "tool_choice", "text", "reasoning",
    "truncation", "include", "background", "conversation", "prompt", "previous_response_id", "store", "metadata",
}  # fmt: skip
NEUTRAL = {"max_output_tokens": "max_tokens"}
SPELLED = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity"}
# Before a proof of another format's thoughts in ``encrypted_content``, and before one of this format's in a signature.
SIGNED, HIDDEN, SEALED = "signed-thinking.", "hidden-thinking.", "encrypted-reasoning."


# The caller's request --------------------------------------------------------------------------------------------


def read_request(fields, rules=None):
    """What is asked. Raises ``InvalidRequest`` for what is no request of this format, or only this format can say."""
    asked = decoded(fields)
    conversation = Conversation(
        model=asked["model"],
        turns=[],
        stream=asked.get("stream") is True,
        options={NEUTRAL.get(name, name): value for name, value in asked.items() if name not in OWN_FIELDS},
        spelled=dict(SPELLED),
    )
    for name in ("background", "conversation", "prompt", "previous_response_id"):
        if asked.get(name):
            conversation.refuse(_("%(name)s: not available for the model %(model)s"), name)
    if asked.get("truncation") not in (None, "disabled"):
        conversation.lose("truncation")
    include = asked.get("include")
    if isinstance(include, list) and set(filter(_is_text, include)) - {responses.ENCRYPTED}:
        conversation.lose("include")
    _read_text(asked.get("text"), conversation)
    _read_reasoning(asked.get("reasoning"), conversation)
    require_options(conversation.options, conversation.spelling)
    _read_tools(asked.get("tools"), conversation)
    _read_tool_choice(asked.get("tool_choice"), conversation)
    if (instructions := asked.get("instructions")) is not None:
        if isinstance(instructions, str):
            conversation.turns.append(Turn("system", [Text(instructions)], "instructions"))
        else:
            _read_items(instructions, "instructions", conversation)
    asked_input = asked.get("input")
    if isinstance(asked_input, str):
        conversation.turns.append(Turn("user", [Text(asked_input)], "input"))
    else:
        _read_items(asked_input, "input", conversation)
    if not any(turn.role != "system" for turn in conversation.turns):
        raise InvalidRequest(_("input: needs a message of the user"), "input")
    return conversation


def _is_text(value):
    return isinstance(value, str)


def _object(value, name):
    """``value``, an object or nothing."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(_("%(name)s: must be an object"), name, name=name)
    return value


def _read_text(text, conversation):
    text = _object(text, "text")
    wanted = _object(text.get("format"), "text.format")
    match wanted.get("type", "text"):
        case "text":
            pass
        case "json_object":
            conversation.output_format = OutputFormat("json")
        case "json_schema":
            schema = wanted.get("schema")
            if not isinstance(schema, dict):
                raise InvalidRequest(_("text.format.schema: must be a JSON schema"), "text.format.schema")
            conversation.output_format = OutputFormat(
                "schema", schema, wanted.get("name"), wanted.get("strict"), wanted.get("description")
            )
        case kind:
            raise InvalidRequest(
                _("text.format.type: must be text, json_object or json_schema, not “%(kind)s”"),
                "text.format.type",
                kind=str(kind)[:80],
            )
    if text.get("verbosity") is not None:
        conversation.options["verbosity"] = text["verbosity"]


def _read_reasoning(reasoning, conversation):
    reasoning = _object(reasoning, "reasoning")
    if reasoning.get("effort") is not None:
        conversation.options["reasoning_effort"] = reasoning["effort"]
    for name in ("summary", "generate_summary"):
        if reasoning.get(name) is not None:
            # Thoughts that the provider tells of are told in any case; how is up to it.
            conversation.lose(f"reasoning.{name}")


def _read_tools(tools, conversation):
    if tools is None:
        return
    if not isinstance(tools, list):
        raise InvalidRequest(_("%(name)s: must be a list"), "tools", name="tools")
    conversation.tools = []
    for index, tool in enumerate(tools):
        tool = _object(tool, f"tools[{index}]")
        if tool.get("type") != "function":
            raise InvalidRequest(
                _("tools[%(index)s]: the tool “%(kind)s” is not available for the model %(model)s"),
                f"tools[{index}].type",
                index=index,
                kind=str(tool.get("type"))[:80],
                model=conversation.model,
            )
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise InvalidRequest(_("%(name)s: field required"), f"tools[{index}].name", name=f"tools[{index}].name")
        conversation.tools.append(
            Tool(
                tool["name"],
                tool.get("description"),
                _object(tool.get("parameters"), f"tools[{index}].parameters") or None,
                tool.get("strict"),
            )
        )


def _read_tool_choice(choice, conversation):
    match choice:
        case None:
            return
        case "auto" | "none" | "required":
            conversation.tool_choice = ToolChoice(choice)
        case {"type": "function", "name": str(name)}:
            conversation.tool_choice = ToolChoice("named", name)
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = {name for tool in allowed if isinstance(tool, dict) and isinstance(name := tool.get("name"), str)}
            conversation.tools = [tool for tool in conversation.tools if tool.name in names]
            conversation.tool_choice = ToolChoice(mode)
        case {"type": str(kind)}:
            raise InvalidRequest(
                _("tool_choice: “%(kind)s” is not available for the model %(model)s"),
                "tool_choice",
                kind=kind[:80],
                model=conversation.model,
            )
        case _:
            raise InvalidRequest(_("tool_choice: must be auto, none, required or an object"), "tool_choice")


def _read_items(items, name, conversation):
    """Make turns of items: what one side says in a row, in thoughts, words and calls, is one turn."""
    if not isinstance(items, list):
        raise InvalidRequest(_("%(name)s: must be a string or a list of items"), name, name=name)
    for index, item in enumerate(items):
        where = f"{name}[{index}]"
        item = _object(item, where)
        match item.get("type", "message"):
            case "message":
                role, parts = _read_message(item, where)
                _say(conversation, role, parts, where, joins=role == "assistant")
            case "function_call":
                call = ToolCall(*(_text(item, key, where) for key in ("call_id", "name", "arguments")))
                _say(conversation, "assistant", [call], where)
            case "function_call_output":
                result = ToolResult(_text(item, "call_id", where), _read_output(item.get("output"), where))
                _say(conversation, "user", [result], where, joins=_ends_with_result(conversation))
            case "reasoning":
                if thoughts := _read_thoughts(item):
                    _say(conversation, "assistant", thoughts, where)
                else:
                    # Sealed by another provider, and readable to it alone.
                    conversation.lose("input.reasoning")
            case "item_reference":
                raise InvalidRequest(
                    _("%(where)s: no item “%(id)s” is stored here"), where, where=where, id=str(item.get("id"))[:80]
                )
            case kind:
                raise InvalidRequest(
                    _("%(where)s: an item of the type “%(kind)s” is not available for the model %(model)s"),
                    where,
                    where=where,
                    kind=str(kind)[:80],
                    model=conversation.model,
                )


def _say(conversation, role, parts, where, *, joins=True):
    turns = conversation.turns
    if joins and turns and turns[-1].role == role:
        turns[-1].parts += parts
    else:
        turns.append(Turn(role, parts, where))


def _ends_with_result(conversation):
    turns = conversation.turns
    return bool(turns and turns[-1].parts and isinstance(turns[-1].parts[-1], ToolResult))


def _text(item, key, where):
    value = item.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(_("%(name)s: must be a string"), f"{where}.{key}", name=f"{where}.{key}")
    return value


def _read_message(item, where):
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequest(
            _("%(where)s.role: must be user, assistant, system or developer"), f"{where}.role", where=where
        )
    content = item.get("content")
    parts = [Text(content)] if isinstance(content, str) else _read_parts(content, f"{where}.content")
    return "system" if role == "developer" else role, parts


def _read_output(output, where):
    return [Text(output)] if isinstance(output, str) else _read_parts(output, f"{where}.output")


def _read_parts(content, where):
    if not isinstance(content, list):
        raise InvalidRequest(_("%(name)s: must be a string or a list of parts"), where, name=where)
    return [_read_part(_object(part, f"{where}[{index}]"), f"{where}[{index}]") for index, part in enumerate(content)]


def _read_part(part, where):
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return Text(_text(part, "text", where))
        case "refusal":
            return Refusal(_text(part, "refusal", where))
        case "input_image" if isinstance(part.get("image_url") or part.get("file_id"), str):
            detail = part.get("detail") if isinstance(part.get("detail"), str) else None
            if not part.get("image_url"):
                return Image(file_id=part["file_id"], detail=detail)
            media_type, data = _from_data_url(part["image_url"], where)
            url = web_address(part["image_url"], f"{where}.image_url") if data is None else None
            return Image(media_type, data, url, detail=detail)
        case "input_file" if isinstance(part.get("file_data") or part.get("file_url") or part.get("file_id"), str):
            name = part.get("filename") if isinstance(part.get("filename"), str) else None
            if part.get("file_data"):
                media_type, data = _from_data_url(part["file_data"], where)
                return Document(media_type or "application/pdf", data or part["file_data"], name=name)
            if part.get("file_url"):
                return Document(url=web_address(_text(part, "file_url", where), f"{where}.file_url"), name=name)
            return Document(file_id=part.get("file_id"), name=name)
        case "input_audio" if isinstance(sound := part.get("input_audio"), dict):
            return Audio(_text(sound, "data", where), _text(sound, "format", where))
        case kind:
            raise InvalidRequest(
                _("%(where)s: a part of the type “%(kind)s” is not available here, or lacks its content"),
                where,
                where=where,
                kind=str(kind)[:80],
            )


def _from_data_url(url, where):
    """``(media type, base64)`` of a data URL; nothing of any other."""
    if url[:5].lower() != "data:":
        return None, None
    head, comma, data = url[5:].partition(",")
    media_type, *parameters = head.split(";")
    if not comma or "base64" not in parameters:
        raise InvalidRequest(_("%(where)s: a data URL must hold base64"), where, where=where)
    return media_type or None, data


def _read_thoughts(item):
    """The parts in a reasoning item: thoughts in clear, with the proof that the provider who had them wants back."""
    sealed = item.get("encrypted_content")
    sealed = sealed if isinstance(sealed, str) else ""
    if sealed.startswith(HIDDEN):
        return [Thinking(redacted=sealed.removeprefix(HIDDEN))]
    said = responses.texts_in(item.get("summary"), "text") or responses.texts_in(item.get("content"), "text")
    text = "\n\n".join(said)
    signature = sealed.removeprefix(SIGNED) if sealed.startswith(SIGNED) else None
    return [Thinking(text, signature)] if text or signature else []


# A provider's request --------------------------------------------------------------------------------------------


def write_request(conversation, target):
    """The body for a provider of this format. Nothing of it is kept there. Raises ``InvalidRequest``."""
    turns = list(conversation.turns)
    body = {"model": target.upstream_name, "input": []}
    first = []
    while turns and turns[0].role == "system" and all(isinstance(part, Text) for part in turns[0].parts):
        first += [part.text for part in turns.pop(0).parts]
    if first:
        body["instructions"] = "\n\n".join(first)
    for turn in turns:
        body["input"] += _items(turn, conversation)
    if conversation.stream:
        body["stream"] = True
    body["store"] = False
    _write_tools(body, conversation)
    text = {}
    if wanted := conversation.output_format:
        text["format"] = {"type": "json_object"}
        if wanted.kind == "schema":
            known = {"description": wanted.description, "strict": wanted.strict}
            text["format"] = {"type": "json_schema", "name": wanted.name or "answer", "schema": wanted.schema} | {
                name: value for name, value in known.items() if value is not None
            }
    if (verbosity := conversation.take("verbosity")) is not None:
        text["verbosity"] = verbosity
    if text:
        body["text"] = text
    if (limit := conversation.take("max_tokens")) is not None:
        body["max_output_tokens"] = limit
    for name in (
        "temperature", "top_p", "parallel_tool_calls", "user", "service_tier", "metadata", "safety_identifier",
        "prompt_cache_key",
    ):  # fmt: skip
        if (value := conversation.take(name)) is not None:
            body[name] = value
    _write_reasoning(body, conversation)
    if conversation.take("n", 1) != 1:
        conversation.refuse(_("%(name)s: the model %(model)s gives one choice"), "n")
    if conversation.take("stop"):
        conversation.refuse(_("%(name)s: not available for the model %(model)s"), "stop")
    return body


def _write_tools(body, conversation):
    if conversation.tools:
        body["tools"] = []
    for tool in conversation.tools:
        written = {"type": "function", "name": tool.name, "parameters": tool.parameters}
        if tool.description is not None:
            written["description"] = tool.description
        # Without a word this format is strict, and the others are not.
        body["tools"].append(written | {"strict": bool(tool.strict)})
    if choice := conversation.tool_choice:
        named = {"type": "function", "name": choice.name}
        body["tool_choice"] = named if choice.kind == "named" else choice.kind


def _write_reasoning(body, conversation):
    effort, thinking = conversation.take("reasoning_effort"), conversation.take("thinking")
    reasoning = {}
    if effort is not None:
        reasoning["effort"] = effort
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive", "between_tools"):
        reasoning["summary"] = "auto"
        if effort is None and isinstance(budget := thinking.get("budget_tokens"), int):
            reasoning["effort"] = "low" if budget < 4096 else "medium" if budget < 16384 else "high"
    elif isinstance(thinking, dict) and effort is None and thinking.get("type") == "disabled":
        # As little as each of these models can; no word of it means their default, which is to think.
        conversation.lose("thinking")
    if reasoning:
        body["reasoning"] = reasoning
        if reasoning.get("effort") != "none":
            body["include"] = [responses.ENCRYPTED]


def _items(turn, conversation):
    """The items of one turn, in its order."""
    items, content = [], []

    def close():
        if content:
            items.append({"type": "message", "role": turn.role, "content": list(content)})
            content.clear()

    for part in turn.parts:
        match part:
            case ToolCall():
                close()
                call = {"type": "function_call", "call_id": part.id, "name": part.name}
                items.append(call | {"arguments": part.arguments or "{}"})
            case ToolResult():
                close()
                if part.is_error:
                    conversation.lose("is_error")
                items.append(
                    {"type": "function_call_output", "call_id": part.id, "output": _output(part.content, turn.where)}
                )
            case Thinking(signature=str(signature)) if signature.startswith(SEALED):
                close()
                item_id, _dot, sealed = signature.removeprefix(SEALED).partition(".")
                summary = [{"type": "summary_text", "text": part.text}] if part.text else []
                items.append({"type": "reasoning", "id": item_id, "summary": summary, "encrypted_content": sealed})
            case Thinking():
                conversation.lose("thinking")
            case _:
                content.append(_part(part, turn.role, turn.where))
    close()
    return items


def _output(content, where):
    if all(isinstance(part, Text) for part in content):
        return "\n\n".join(part.text for part in content)
    return [_part(part, "user", where) for part in content]


def _part(part, role, where):
    """One content part; the model's own words are spelled otherwise than those it is told."""
    match part:
        case Text():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Image() if role != "assistant":
            source = {"file_id": part.file_id} if part.file_id else {"image_url": part.url or _data_url(part)}
            return {"type": "input_image", "detail": part.detail or "auto"} | source
        case Document(text=str(text)):
            return {"type": "input_text", "text": f"{part.name}\n\n{text}" if part.name else text}
        case Document() if role != "assistant":
            if part.file_id:
                return {"type": "input_file", "file_id": part.file_id}
            if part.url:
                return {"type": "input_file", "file_url": part.url}
            return {"type": "input_file", "filename": part.name or "document.pdf", "file_data": _data_url(part)}
        case Audio() if role != "assistant":
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    raise InvalidRequest(
        _("%(where)s: holds a part that an %(role)s message cannot have there"), where, where=where, role=role
    )


def _data_url(part):
    return f"data:{part.media_type or 'application/octet-stream'};base64,{part.data}"


# A provider's answer ---------------------------------------------------------------------------------------------


class AnswerReader:
    """Reads the events of a stream into pieces; what came without deltas is taken from the item that it ends."""

    def __init__(self):
        self.stop = StopPiece("end")
        self._told = set()
        self._calls = set()
        self._summary = None

    def feed(self, said):
        """The pieces in one event."""
        kind, at = said.type, said.output_index if isinstance(said.output_index, int) else -1
        match kind:
            case "response.output_text.delta":
                return self._written(at, said.delta, TextPiece)
            case "response.refusal.delta":
                return self._written(at, said.delta, RefusalPiece)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._thought(at, said)
            case "response.function_call_arguments.delta" if at in self._calls and isinstance(said.delta, str):
                self._told.add(at)
                return [ArgumentsPiece(at, said.delta)]
            case "response.output_item.added":
                item = responses.read_item(said.item)
                return self._begun(at, item)
            case "response.output_item.done":
                return self._ended(at, responses.read_item(said.item))
            case "response.completed" | "response.incomplete" if said.response is not None:
                self.stop = _stop(said.response, bool(self._calls))
        return []

    def finish(self):
        """The piece that ends the answer."""
        return [self.stop]

    def _written(self, at, delta, piece):
        if not isinstance(delta, str) or not delta:
            return []
        self._told.add(at)
        return [piece(delta)]

    def _thought(self, at, said):
        pieces = self._written(at, said.delta, ThinkingPiece)
        part = (at, said.summary_index)
        if pieces and self._summary is not None and self._summary[0] == at and self._summary != part:
            pieces.insert(0, ThinkingPiece("\n\n"))
        if pieces:
            self._summary = part
        return pieces

    def _begun(self, at, item):
        if item.type != "function_call" or at in self._calls:
            return []
        self._calls.add(at)
        return [_call(at, item)]

    def _ended(self, at, item):
        pieces = self._begun(at, item)
        if at not in self._told:
            pieces += _said(at, item)
        if item.type == "reasoning":
            pieces += _proof(item, in_clear=at in self._told or bool(pieces))
        self._told.add(at)
        return pieces


def read_answer(said):
    """The pieces of a whole answer, a parsed ``responses.Response``."""
    pieces, called = [], False
    for index, item in enumerate(responses.items_of(said.output)):
        if item.type == "function_call":
            called = True
            pieces.append(_call(index, item))
        thoughts = _said(index, item)
        pieces += thoughts
        if item.type == "reasoning":
            pieces += _proof(item, in_clear=bool(thoughts))
    return [*pieces, _stop(said, called)]


def _call(at, item):
    call_id = item.call_id if isinstance(item.call_id, str) else item.id if isinstance(item.id, str) else f"call_{at}"
    return ToolCallPiece(at, call_id, item.name if isinstance(item.name, str) else "")


def _said(at, item):
    """All that an item says, but for the name of a function."""
    match item.type:
        case "message" if isinstance(item.content, list):
            pieces = []
            for part in item.content:
                match part:
                    case {"type": "output_text", "text": str(text)} if text:
                        pieces.append(TextPiece(text))
                    case {"type": "refusal", "refusal": str(text)} if text:
                        pieces.append(RefusalPiece(text))
            return pieces
        case "function_call" if isinstance(item.arguments, str) and item.arguments:
            return [ArgumentsPiece(at, item.arguments)]
        case "reasoning":
            texts = responses.texts_in(item.summary, "text") or responses.texts_in(item.content, "text")
            return [ThinkingPiece("\n\n".join(texts))] if any(texts) else []
    return []


def _proof(item, *, in_clear):
    """
    What lets this provider go on from its own thoughts, as a signature of those in clear, or as hidden ones.

    The item's id goes with it: this provider wants both back.
    """
    if not isinstance(item.encrypted_content, str) or not isinstance(item.id, str) or "." in item.id:
        return []
    proof = f"{SEALED}{item.id}.{item.encrypted_content}"
    return [SignaturePiece(proof)] if in_clear else [ThinkingPiece(""), SignaturePiece(proof)]


def _stop(response, called):
    details = response.incomplete_details
    match details.get("reason") if isinstance(details, dict) else None:
        case "max_output_tokens" | "max_messages":
            return StopPiece("length")
        case "content_filter":
            return StopPiece("filter")
    if response.status == "incomplete":
        return StopPiece("length")
    return StopPiece("tools" if called else "end")


# The caller's answer ---------------------------------------------------------------------------------------------


def write_answer(pieces, reply):
    """The whole answer for the caller."""
    writer = AnswerWriter(reply)
    writer.feed(pieces)
    writer.finish()
    return msgspec.json.encode(writer.response)


class AnswerWriter:
    """Writes pieces as the events of a stream; ``response`` is the whole of it once it has ended."""

    def __init__(self, reply):
        self.reply = reply
        self.response = None
        self._sequence = -1
        self._output = []
        self._open = None
        # What the part that is open says so far, and each call with its arguments: joined once, when they end.
        self._written = []
        self._calls = {}
        self._stop = StopPiece("end")

    def feed(self, pieces):
        """The events for some pieces; the first ones begin the stream."""
        events = [] if self.response is not None else self._begin()
        for piece in pieces:
            match piece:
                case TextPiece():
                    events += self._write("output_text", piece.text)
                case RefusalPiece():
                    events += self._write("refusal", piece.text)
                case ThinkingPiece():
                    events += self._think(piece.text)
                case SignaturePiece():
                    events += self._seal(SIGNED + piece.signature)
                case RedactedPiece():
                    events += [*self._close(), *self._seal(HIDDEN + piece.data)]
                case ToolCallPiece():
                    events += self._call(piece)
                case ArgumentsPiece() if piece.text and piece.index in self._calls:
                    at, item, arguments = self._calls[piece.index]
                    arguments.append(piece.text)
                    said = {"item_id": item["id"], "output_index": at, "delta": piece.text}
                    events.append(self._event("response.function_call_arguments.delta", said))
                case StopPiece():
                    self._stop = piece
        return b"".join(events)

    def finish(self):
        """The events that end the stream."""
        events = [] if self.response is not None else self._begin()
        is_whole = self._stop.reason not in ("length", "filter")
        status = "completed" if is_whole else "incomplete"
        # Of an answer that was cut short the last item is what was cut.
        last = self._output[-1] if self._output else None
        events += self._close(status if self._open and self._open[1] is last else "completed")
        for at, item, arguments in self._calls.values():
            item["arguments"] = "".join(arguments) or "{}"
            item["status"] = status if item is last else "completed"
            said = {"item_id": item["id"], "output_index": at, "name": item["name"], "arguments": item["arguments"]}
            events.append(self._event("response.function_call_arguments.done", said))
            events.append(self._event("response.output_item.done", {"output_index": at, "item": item}))
        ending = {"status": status, "output": self._output, "usage": _usage(self.reply.meter)}
        if is_whole:
            ending["completed_at"] = int(time.time())
        else:
            reason = "max_output_tokens" if self._stop.reason == "length" else "content_filter"
            ending["incomplete_details"] = {"reason": reason}
        self.response |= {"model": self.reply.model} | ending
        events.append(self._event(f"response.{status}", {"response": self.response}))
        return b"".join(events)

    # Items -----------------------------------------------------------------------------------------------------

    def _begin(self):
        self.response = _response(self.reply)
        return [self._event(f"response.{step}", {"response": self.response}) for step in ("created", "in_progress")]

    def _add(self, prefix, kind, **fields):
        """Begin an item at the end of the output; ``added`` is how it looks in the event that says so."""
        at = len(self._output)
        item = {"id": f"{prefix}_{self.reply.suffix}{at}", "type": kind, "status": "in_progress"} | fields
        self._output.append(item)
        return at, item, self._event("response.output_item.added", {"output_index": at, "item": item})

    def _write(self, kind, text):
        """More of the message, in a part of ``kind``: its text or its refusal."""
        if not text:
            return []
        events = []
        if self._open and self._open[1]["type"] != "message":
            events += self._close()
        if not self._open:
            at, item, added = self._add("msg", "message", role="assistant", content=[])
            self._open = at, item
            events.append(added)
        at, item = self._open
        if not item["content"] or item["content"][-1]["type"] != kind:
            events += self._end_part()
            item["content"].append(_empty_part(kind))
            events.append(self._part_event("response.content_part.added", part=item["content"][-1]))
        self._written.append(text)
        if kind == "refusal":
            return [*events, self._part_event("response.refusal.delta", delta=text)]
        return [*events, self._part_event("response.output_text.delta", delta=text, logprobs=[])]

    def _part_event(self, name, **said):
        at, item = self._open
        place = {"item_id": item["id"], "output_index": at, "content_index": len(item["content"]) - 1}
        return self._event(name, place | said)

    def _end_part(self):
        _at, item = self._open
        if not item.get("content"):
            return []
        part = item["content"][-1]
        part["refusal" if part["type"] == "refusal" else "text"] = self._text()
        if part["type"] == "refusal":
            done = self._part_event("response.refusal.done", refusal=part["refusal"])
        else:
            done = self._part_event("response.output_text.done", text=part["text"], logprobs=[])
        return [done, self._part_event("response.content_part.done", part=part)]

    def _think(self, text):
        events = []
        if self._open and (self._open[1]["type"] != "reasoning" or "encrypted_content" in self._open[1]):
            events += self._close()
        if not self._open:
            at, item, added = self._add("rs", "reasoning", summary=[])
            self._open = at, item
            events.append(added)
        if not text:
            return events
        at, item = self._open
        place = {"item_id": item["id"], "output_index": at, "summary_index": 0}
        if not item["summary"]:
            item["summary"].append({"type": "summary_text", "text": ""})
            part = {"part": item["summary"][0]}
            events.append(self._event("response.reasoning_summary_part.added", place | part))
        self._written.append(text)
        events.append(self._event("response.reasoning_summary_text.delta", place | {"delta": text}))
        return events

    def _seal(self, proof):
        events = [] if self._open and self._open[1]["type"] == "reasoning" else self._think("")
        self._open[1]["encrypted_content"] = proof
        return events

    def _call(self, piece):
        if piece.index in self._calls:
            return []
        events = self._close()
        call = {"call_id": piece.id, "name": piece.name, "arguments": ""}
        at, item, added = self._add("fc", "function_call", **call)
        self._calls[piece.index] = at, item, []
        return [*events, added]

    def _close(self, status="completed"):
        """End the message or the thoughts that are open; calls stay open, for their arguments may come mixed."""
        if not self._open:
            return []
        at, item = self._open
        if item["type"] == "message":
            events = self._end_part()
        else:
            events = []
            place = {"item_id": item["id"], "output_index": at, "summary_index": 0}
            for part in item["summary"]:
                part["text"] = self._text()
                done = self._event("response.reasoning_summary_text.done", place | {"text": part["text"]})
                events += [done, self._event("response.reasoning_summary_part.done", place | {"part": part})]
        item["status"] = status
        events.append(self._event("response.output_item.done", {"output_index": at, "item": item}))
        self._open = None
        return events

    def _text(self):
        """What the open part says, which ends."""
        text, self._written = "".join(self._written), []
        return text

    def _event(self, name, said):
        self._sequence += 1
        self.reply.meter.call.sequence = self._sequence
        event = {"type": name, "sequence_number": self._sequence} | said
        return encode(name.encode(), msgspec.json.encode(event))


def _empty_part(kind):
    if kind == "refusal":
        return {"type": "refusal", "refusal": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


# What a response repeats of its request, and what that is where the request is silent.
ECHOED = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None}, "safety_identifier": None, "service_tier": "default",
    "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": None,
}  # fmt: skip


def _response(reply):
    """The response as it begins, with what its request said."""
    response = {
        "id": f"resp_{reply.suffix}",
        "object": "response",
        "created_at": reply.created,
        "completed_at": None,
        "status": "in_progress",
        "model": reply.model,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    for name, default in ECHOED.items():
        said = reply.fields.get(name)
        response[name] = default if said is None or bytes(said) == b"null" else said
    if response["text"] is reply.fields.get("text"):
        text = msgspec.json.decode(response["text"])
        response["text"] = (
            ECHOED["text"]
            | ({"format": text["format"]} if text.get("format") else {})
            | {name: value for name, value in text.items() if name != "format"}
        )
    return response


def _usage(meter):
    """The usage object of a whole answer."""
    told = meter.told()
    whole, output = told.total_input or 0, told.output_tokens or 0
    written = (told.cache_write_tokens or 0) + (told.cache_write_1h_tokens or 0)
    return {
        "input_tokens": whole,
        "input_tokens_details": {
            "cached_tokens": told.cache_read_tokens or 0,
            "cache_write_tokens": written,
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": told.reasoning_tokens or 0},
        "total_tokens": whole + output,
    }
