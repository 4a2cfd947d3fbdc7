"""Chat completions: its requests and answers, read and written in the terms of ``providers.conversation``."""

import base64
import binascii
import re
import secrets
from typing import Annotated, Any

import msgspec
from django.utils.translation import gettext_noop

from providers.conversation import (
    ArgumentsPiece,
    Audio,
    Conversation,
    Document,
    Image,
    OutputFormat,
    Refusal,
    RefusalPiece,
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
from providers.formats.chat_completions import DONE, content_of, is_words_alone, thinking_of
from providers.request_body import MOST_TOKENS, InvalidRequest, Term, decoded
from providers.sse import encode

_ = gettext_noop

STOPS = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "filter",
    # Mistral's word for a full context; what it and OpenRouter, and what DeepSeek say of an answer that broke off.
    "model_length": "length",
    "error": "length",
    "insufficient_system_resource": "length",
}
FINISH_REASONS = {"end": "stop", "length": "length", "tools": "tool_calls", "filter": "content_filter", "pause": "stop"}

# Requests, read --------------------------------------------------------------------------------------------------

WHOLE = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
LIMIT = Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)], _("a whole number from 1 to 2147483647")
# The options that writers of other formats build on, as they must be for that.
OPTIONS = {
    "max_tokens": LIMIT,
    "max_completion_tokens": LIMIT,
    "n": (WHOLE, _("a whole number of 1 or more")),
    "top_k": (int, _("a whole number")),
    "seed": (int, _("a whole number")),
    "temperature": (float, _("a number")),
    "top_p": (float, _("a number")),
    "stop": (str | list[str], _("a string or a list of strings")),
    "parallel_tool_calls": (bool, _("true or false")),
    "reasoning_effort": (str, _("a string")),
    "verbosity": (str, _("a string")),
    "user": (str, _("a string")),
    "metadata": (dict[str, Any], _("an object")),
    "modalities": (list[str], _("a list of strings")),
    "service_tier": (str, _("a string")),
    "thinking": (dict[str, Any], _("an object")),
}
# What says no more than leaving it out does.
WITHOUT_EFFECT = {
    "n": 1, "logprobs": False, "store": False, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {},
    "modalities": ["text"], "service_tier": "auto",
}  # fmt: skip
# Fields that become something else than an option, or are between the caller and this server.
STRUCTURE = {
    "model", "messages", "stream", "stream_options", "tools", "tool_choice", "functions", "function_call",
    "response_format", "max_tokens", "max_completion_tokens", "include_reasoning",
}  # fmt: skip


def read_request(fields, rules=None):
    """The conversation that a caller's ``fields`` ask for. Raises ``InvalidRequest``."""
    asked = decoded(fields)
    require_options(asked)
    if "audio" in (asked.get("modalities") or ()):
        raise InvalidRequest(_("%(where)s: this model answers in text only"), "modalities", where="modalities")
    if asked.get("web_search_options") is not None:
        name = "web_search_options"
        raise InvalidRequest(_("%(where)s: this model does not search the web by itself"), name, where=name)
    conversation = Conversation(
        model=asked["model"],
        turns=_turns(asked["messages"]),
        stream=bool(asked.get("stream")),
        tools=_tools(asked),
        output_format=_output_format(asked.get("response_format")),
    )
    conversation.tool_choice = _tool_choice(asked, conversation)
    options = conversation.options = {
        name: value
        for name, value in asked.items()
        if name not in STRUCTURE and value is not None and (name not in WITHOUT_EFFECT or value != WITHOUT_EFFECT[name])
    }
    for name in ("max_completion_tokens", "max_tokens"):
        if asked.get(name) is not None:
            options["max_tokens"] = asked[name]
            conversation.spelled["max_tokens"] = name
            break
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    if not conversation.tools:
        options.pop("parallel_tool_calls", None)
    elif is_legacy(asked):
        # The older spelling of tools has room for one call in an answer.
        options["parallel_tool_calls"] = False
        conversation.spelled["parallel_tool_calls"] = "functions"
    return conversation


def is_legacy(fields):
    """Whether a request, decoded or raw, spells its tools in the older way, and so wants calls answered in it."""
    nothing = (None, [], b"null", b"[]")
    functions, tools = [
        bytes(value) if isinstance(value, msgspec.Raw) else value
        for value in (fields.get("functions"), fields.get("tools"))
    ]
    return functions not in nothing and tools in nothing


def require_options(asked, spelling=str):
    """Refuse options that are not what OPTIONS says; ``spelling`` gives the caller's name of each."""
    for name, (kind, what) in OPTIONS.items():
        if asked.get(name) is not None:
            require(asked[name], kind, spelling(name), what)


def require(value, kind, where, what):
    """``value`` as a ``kind``, described to the caller as ``what``. Raises ``InvalidRequest``."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise InvalidRequest(_("%(name)s: must be %(what)s"), where, name=where, what=Term(what)) from None


def _turns(messages):
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest(_("messages: must be a list with at least one message"), "messages")
    turns, functions_called = [], {}
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        require(message, dict, where, _("an object"))
        name = message.get("name") if isinstance(message.get("name"), str) else None
        match message.get("role"):
            case "system" | "developer":
                turns.append(Turn("system", _said(message, where, _TEXT_PARTS), where, name))
            case "user":
                turns.append(Turn("user", _said(message, where, _USER_PARTS), where, name))
            case "assistant":
                turns.append(Turn("assistant", _assistant_parts(message, where, functions_called), where, name))
            case "tool":
                id = require(message.get("tool_call_id"), str, f"{where}.tool_call_id", _("a string"))
                _add_result(turns, ToolResult(id, _result_parts(message, where)), where)
            case "function":
                if name not in functions_called:
                    raise InvalidRequest(_("%(where)s: answers a function that was not called"), where, where=where)
                _add_result(turns, ToolResult(functions_called[name], _result_parts(message, where)), where)
            case _:
                raise InvalidRequest(
                    _("%(where)s.role: must be system, developer, user, assistant or tool"),
                    f"{where}.role",
                    where=where,
                )
    return turns


def _add_result(turns, result, where):
    """Results of tools that follow one another are one turn of the user."""
    last = turns[-1] if turns else None
    if last is not None and last.role == "user" and last.parts and isinstance(last.parts[-1], ToolResult):
        last.parts.append(result)
    else:
        turns.append(Turn("user", [result], where))


def _result_parts(message, where):
    return [part for part in _said(message, where, _TEXT_PARTS) if part.text]


def _assistant_parts(message, where, functions_called):
    if message.get("audio") is not None:
        raise InvalidRequest(
            _("%(where)s.audio: only the model that spoke it knows it; send its transcript as text"),
            f"{where}.audio",
            where=where,
        )
    parts = []
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            parts.append(Thinking(message[name]))
            break
    calls = require(message.get("tool_calls") or [], list[dict], f"{where}.tool_calls", _("a list of objects"))
    if message.get("content") is not None:
        parts += [part for part in _said(message, where, _ASSISTANT_PARTS) if part.text]
    if message.get("refusal") is not None:
        parts.append(Refusal(require(message["refusal"], str, f"{where}.refusal", _("a string"))))
    for index, call in enumerate(calls):
        parts.append(_tool_call(call, f"{where}.tool_calls[{index}]"))
    if message.get("function_call") is not None:
        call = _function(message, "function_call", where)
        id = f"call_{where.removeprefix('messages[').removesuffix(']')}"
        functions_called[call["name"]] = id
        parts.append(ToolCall(id, call["name"], _arguments(call, f"{where}.function_call")))
    if not parts and message.get("content") is None:
        raise InvalidRequest(_("%(where)s.content: field required"), f"{where}.content", where=where)
    return parts


def _tool_call(call, where):
    if call.get("type", "function") != "function":
        raise _other_type(call["type"], where, "function")
    id = require(call.get("id"), str, f"{where}.id", _("a string"))
    function = _function(call, "function", where)
    return ToolCall(id, function["name"], _arguments(function, f"{where}.function"))


def _function(holder, name, where):
    """The object under ``name``, which names a function."""
    function = require(holder.get(name), dict, f"{where}.{name}", _("an object"))
    require(function.get("name"), str, f"{where}.{name}.name", _("a string"))
    return function


def _arguments(function, where):
    return require(function.get("arguments", ""), str, f"{where}.arguments", _("a string"))


def _said(message, where, kinds):
    """The parts of a message's ``content``, each of which is one of ``kinds``."""
    content, where = message.get("content"), f"{where}.content"
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise InvalidRequest(_("%(where)s: must be a string or a list of parts"), where, where=where)
    parts = []
    for index, part in enumerate(content):
        at = f"{where}[{index}]"
        require(part, dict, at, _("an object"))
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            raise _other_type(kind, at, ", ".join(kinds))
        parts.append(kinds[kind](part, at))
    return parts


def _other_type(kind, where, known):
    where = f"{where}.type"
    message = _("%(where)s: must be %(known)s for this model, not “%(kind)s”")
    return InvalidRequest(message, where, where=where, known=known, kind=str(kind)[:80])


def _text(part, where):
    return Text(require(part.get("text"), str, f"{where}.text", _("a string")), _cache(part))


def _refusal(part, where):
    return Refusal(require(part.get("refusal"), str, f"{where}.refusal", _("a string")))


def _image(part, where):
    where = f"{where}.image_url"
    image = part.get("image_url")
    image = {"url": image} if isinstance(image, str) else require(image, dict, where, _("an object"))
    url = require(image.get("url"), str, f"{where}.url", _("a string"))
    detail = image.get("detail") if isinstance(image.get("detail"), str) else None
    if not url:
        raise InvalidRequest(_("%(where)s.url: must not be empty"), f"{where}.url", where=where)
    if not url.startswith("data:"):
        return Image(url=web_address(url, f"{where}.url"), detail=detail, cache=_cache(part))
    media_type, data = _data_url(url, f"{where}.url")
    if not media_type.startswith("image/"):
        raise InvalidRequest(_("%(where)s.url: must be an image, not %(kind)s"), where, where=where, kind=media_type)
    return Image(media_type, data, detail=detail, cache=_cache(part))


def _audio(part, where):
    where = f"{where}.input_audio"
    audio = require(part.get("input_audio"), dict, where, _("an object"))
    data = require(audio.get("data"), str, f"{where}.data", _("a string"))
    return Audio(data, require(audio.get("format"), str, f"{where}.format", _("a string")))


def _file(part, where):
    where = f"{where}.file"
    file = require(part.get("file"), dict, where, _("an object"))
    name = require(file.get("filename"), str | None, f"{where}.filename", _("a string"))
    if file.get("file_data") is None:
        id = require(file.get("file_id"), str, f"{where}.file_id", _("a string"))
        return Document(file_id=id, name=name, cache=_cache(part))
    data = require(file["file_data"], str, f"{where}.file_data", _("a string"))
    media_type = "text/plain" if (name or "").endswith((".txt", ".md", ".csv")) else "application/pdf"
    if data.startswith("data:"):
        media_type, data = _data_url(data, f"{where}.file_data")
    if media_type.startswith("text/"):
        text = text_of_base64(data, f"{where}.file_data")
        return Document(media_type, text=text, name=name, cache=_cache(part))
    return Document(media_type, data, name=name, cache=_cache(part))


def text_of_base64(data, where):
    """The text whose UTF-8 is ``data``. Raises ``InvalidRequest``."""
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidRequest(_("%(where)s: must be text in base64"), where, where=where) from None


_TEXT_PARTS = {"text": _text}
_USER_PARTS = {"text": _text, "image_url": _image, "input_audio": _audio, "file": _file}
_ASSISTANT_PARTS = {"text": _text, "refusal": _refusal}


def _data_url(url, where):
    """``(media type, base64)`` of a data URL."""
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, *parameters = head.split(";")
    if not comma or "base64" not in parameters or "/" not in media_type:
        raise InvalidRequest(_("%(where)s: must be data:type/subtype;base64,…"), where, where=where)
    return media_type.lower(), data


def _cache(part):
    # No field of this format's own; routers took it over from messages, and their clients send it.
    return part["cache_control"] if isinstance(part.get("cache_control"), dict) else None


def _tools(asked):
    tools = []
    for index, tool in enumerate(require(asked.get("tools") or [], list[dict], "tools", _("a list of objects"))):
        where = f"tools[{index}]"
        if tool.get("type", "function") != "function":
            raise _other_type(tool["type"], where, "function")
        tools.append(_tool(_function(tool, "function", where), f"{where}.function", _cache(tool)))
    functions = require(asked.get("functions") or [], list[dict], "functions", _("a list of objects"))
    for index, function in enumerate(functions):
        where = f"functions[{index}]"
        require(function.get("name"), str, f"{where}.name", _("a string"))
        tools.append(_tool(function, where, None))
    return tools


def _tool(function, where, cache):
    return Tool(
        function["name"],
        require(function.get("description"), str | None, f"{where}.description", _("a string")),
        require(function.get("parameters"), dict | None, f"{where}.parameters", _("an object")),
        require(function.get("strict"), bool | None, f"{where}.strict", _("true or false")),
        cache,
    )


def _tool_choice(asked, conversation):
    """What the caller says of tools to use; of allowed tools only those stay in ``conversation``."""
    where = "function_call" if is_legacy(asked) else "tool_choice"
    choice = asked.get(where)
    known = {tool.name for tool in conversation.tools}
    match choice:
        case None:
            return None
        case "none" | "auto" if not known:
            return None
        case "none" | "auto" | "required":
            found = ToolChoice(choice)
        case "any":
            # Mistral's word for it.
            found = ToolChoice("required")
        case {"type": "function", "function": {"name": str(name)}}:
            found = ToolChoice("named", name)
        case {"name": str(name)} if where == "function_call":
            found = ToolChoice("named", name)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(allowed)}}:
            names = {_allowed(tool) for tool in allowed}
            if None in names or not names <= known:
                raise InvalidRequest(_("%(where)s: must name tools of this request"), where, where=where)
            conversation.tools = [tool for tool in conversation.tools if tool.name in names]
            found = ToolChoice(mode)
        case _:
            message = _("%(where)s: must be none, auto, required or a function to call")
            raise InvalidRequest(message, where, where=where)
    if not known or (found.kind == "named" and found.name not in known):
        raise InvalidRequest(_("%(where)s: must name tools of this request"), where, where=where)
    return found


def _allowed(tool):
    match tool:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    return None


def _output_format(asked):
    where = "response_format"
    match asked:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return OutputFormat("json")
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)} as wanted}:
            texts = [wanted.get(name) for name in ("name", "description")]
            name, description = [text if isinstance(text, str) else None for text in texts]
            strict = wanted.get("strict") if isinstance(wanted.get("strict"), bool) else None
            return OutputFormat("schema", schema, name, strict, description)
        case {"type": "json_schema"}:
            where += ".json_schema.schema"
            raise InvalidRequest(_("%(name)s: must be %(what)s"), where, name=where, what=Term(_("an object")))
    raise InvalidRequest(_("%(where)s: must be of type text, json_object or json_schema"), where, where=where)


# Requests, written -----------------------------------------------------------------------------------------------

PASSED_ON = (
    "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort",
    "verbosity", "user",
)  # fmt: skip
# The kinds of provider that document top_k; the others refuse what they do not know.
TAKES_TOP_K = {"vllm", "llama-cpp", "local", "openrouter", "evolink"}
# Gemini 3 refuses calls of its own without its signature, and takes this in its place for calls from elsewhere.
GEMINI = re.compile(r"(models/)?gemini-([3-9]|\d\d)")
UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
# How many tokens of thinking are which effort, at most; more is high.
EFFORTS = ((4_096, "low"), (16_384, "medium"))
KINDS = {
    Text: _("text"), Image: _("an image"), Audio: _("audio"), Document: _("a document"), Refusal: _("a refusal"),
    ToolCall: _("a tool call"), ToolResult: _("a tool result"), Thinking: _("thinking"),
}  # fmt: skip


def write_request(conversation, target):
    """The body that asks ``target``'s provider. Raises ``InvalidRequest`` for what it cannot be asked."""
    _write_thinking(conversation, target)
    messages = []
    for turn in _merged(conversation.turns):
        messages += _messages(turn, conversation, target)
    body = {"model": target.upstream_name, "messages": messages}
    if conversation.tools:
        body["tools"] = [_written_tool(tool, conversation) for tool in conversation.tools]
        if conversation.tool_choice is not None:
            body["tool_choice"] = _written_choice(conversation.tool_choice)
        if (parallel := conversation.take("parallel_tool_calls")) is not None:
            body["parallel_tool_calls"] = parallel
    if conversation.output_format is not None:
        body["response_format"] = _written_format(conversation.output_format)
    if conversation.take("n", 1) != 1:
        conversation.refuse(_("%(name)s: the model %(model)s gives one answer"), "n")
    if (most := conversation.take("max_tokens")) is not None:
        # Some formats demand a limit, and what is more than the model can is refused.
        body[target.max_tokens_field] = min(most, target.max_output_tokens or most)
    if stop := conversation.take("stop"):
        body["stop"] = stop
    for name in PASSED_ON:
        if (value := conversation.take(name)) is not None:
            body[name] = value
    if target.kind in TAKES_TOP_K and (most := conversation.take("top_k")) is not None:
        body["top_k"] = most
    if conversation.stream:
        body["stream"] = True
        if target.takes_stream_options:
            body["stream_options"] = {"include_usage": True}
    return body


def _write_thinking(conversation, target):
    """Say ``thinking``, an object of messages, as an effort, where none is given; neither to who cannot think."""
    thinking, effort = conversation.take("thinking"), conversation.options.get("reasoning_effort")
    kind = thinking.get("type") if isinstance(thinking, dict) else thinking
    if target.capabilities and "reasoning" not in target.capabilities:
        if kind not in (None, "disabled"):
            conversation.lose(conversation.spelling("thinking"))
        if conversation.take("reasoning_effort") not in (None, "none"):
            conversation.lose(conversation.spelling("reasoning_effort"))
    elif kind == "enabled" and effort is None and isinstance(budget := thinking.get("budget_tokens"), int):
        efforts = (effort for most, effort in EFFORTS if budget < most)
        conversation.options["reasoning_effort"] = next(efforts, "high")
        conversation.spelled["reasoning_effort"] = conversation.spelling("thinking")
    elif effort is None and kind not in (None, "enabled", "adaptive"):
        conversation.lose(conversation.spelling("thinking"))


def _merged(turns):
    """The turns, those of one side that follow one another as one: many a provider wants them to alternate."""
    merged = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is not None and (last.role, last.name) == (turn.role, turn.name):
            last.parts += turn.parts
        else:
            merged.append(Turn(turn.role, list(turn.parts), turn.where, turn.name))
    return merged


def _messages(turn, conversation, target):
    """The messages that a turn becomes: a user's turn may hold results of tools, which are messages of their own."""
    named = {"name": turn.name} if turn.name else {}
    if turn.role == "assistant":
        message = {"role": "assistant", **named} | _written_assistant(turn, conversation, target)
        is_thought = message["content"] == "" and any(isinstance(part, Thinking) for part in turn.parts)
        return [] if is_thought else [message]
    results, parts, moved = [], [], []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            results.append(_written_result(part, turn, moved, conversation))
        else:
            parts.append(part)
    content = _content([*moved, *parts], turn, conversation)
    if not content and results:
        return results
    return [*results, {"role": turn.role, **named, "content": content}]


def _written_assistant(turn, conversation, target):
    texts, thoughts, refusals, calls = [], [], [], []
    for part in turn.parts:
        match part:
            case Text():
                texts.append(part.text)
                _lose_cache(part, conversation)
            case Refusal():
                refusals.append(part.text)
            case ToolCall():
                function = {"name": part.name, "arguments": part.arguments or "{}"}
                calls.append({"id": part.id, "type": "function", "function": function})
                _lose_cache(part, conversation)
            case Thinking():
                thoughts.append(part.text)
            case _:
                raise _unsayable(part, turn)
    message = {"content": "\n\n".join(texts) if texts else None if calls or refusals else ""}
    if refusals:
        message["refusal"] = "\n\n".join(refusals)
    if calls:
        message["tool_calls"] = calls
    if calls and target.kind == "deepseek":
        # It refuses calls of its own without what it thought of them, be it nothing.
        message["reasoning_content"] = "".join(thoughts)
    elif thoughts:
        conversation.lose("messages.thinking")
    if target.kind == "gemini" and GEMINI.match(target.upstream_name):
        for call in calls:
            call["extra_content"] = UNSIGNED
    return message


def _written_result(result, turn, moved, conversation):
    """The message of a tool's result, which takes text only: its pictures and files go to ``moved``."""
    texts, others, where = [], [], turn.where
    for part in result.content:
        if isinstance(part, Document) and (text := _text_of_document(part, where)) is not None:
            part = Text(text, part.cache)
        if isinstance(part, Text):
            texts.append(part.text)
            _lose_cache(part, conversation)
        else:
            others.append(part)
    _lose_cache(result, conversation)
    if result.is_error:
        conversation.lose("tool_result.is_error")
    moved += others
    content = "\n\n".join(texts)
    if others and not content:
        content = "(The result is attached to the next message.)"
    return {"role": "tool", "tool_call_id": result.id, "content": content}


def _content(parts, turn, conversation):
    """A string where every part is text, for providers that take no lists; else a list of parts."""
    written = []
    for part in parts:
        written.append(_written_part(part, turn))
        _lose_cache(part, conversation)
    if all(part["type"] == "text" for part in written):
        return "\n\n".join(part["text"] for part in written)
    return written


def _written_part(part, turn):
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image() if part.url or part.data:
            image = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
            return {"type": "image_url", "image_url": image | ({"detail": part.detail} if part.detail else {})}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case Document() if (text := _text_of_document(part, turn.where)) is not None:
            return {"type": "text", "text": text}
        case Document() if part.file_id:
            return {"type": "file", "file": {"file_id": part.file_id}}
        case Document() if part.data:
            data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}"
            return {"type": "file", "file": {"file_data": data, "filename": part.name or "document.pdf"}}
        case Image():
            raise _unsayable(part, turn, by="file_id")
        case Document():
            raise _unsayable(part, turn, by="url")
    raise _unsayable(part, turn)


def _text_of_document(document, where):
    """A document that is text, with its title and context; ``None`` of every other."""
    text = document.text
    if text is None and document.data and (document.media_type or "").startswith("text/"):
        text = text_of_base64(document.data, where)
    if text is None:
        return None
    return "\n\n".join(each for each in (document.name, document.context, text) if each)


def _unsayable(part, turn, *, by=None):
    message, values = _("%(where)s: this model does not take %(kind)s from this side"), {}
    if by is not None:
        message, values = _("%(where)s: this model does not take %(kind)s by its %(by)s; send it in base64"), {"by": by}
    return InvalidRequest(message, turn.where, where=turn.where, kind=Term(KINDS[type(part)]), **values)


def _lose_cache(part, conversation):
    if getattr(part, "cache", None) is not None:
        conversation.lose("cache_control")


def _written_tool(tool, conversation):
    _lose_cache(tool, conversation)
    function = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _written_choice(choice):
    if choice.kind == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.kind


def _written_format(wanted):
    if wanted.kind == "json":
        return {"type": "json_object"}
    schema = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.description is not None:
        schema["description"] = wanted.description
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


# Answers, read ---------------------------------------------------------------------------------------------------


class _Call(msgspec.Struct):
    """A tool call of which a part has come; what came before its name is ``held``."""

    index: int
    id: str | None
    name: str | None = None
    held: list[str] = []


class AnswerReader:
    """Reads the chunks of a stream into pieces: those of the first choice, whatever else there is."""

    def __init__(self):
        self.choice = None
        self.calls = []
        # The last call of each index and of each id.
        self.by_key, self.by_id = {}, {}
        self.stop = None

    def feed(self, chunk):
        """The pieces in one parsed ``Chunk``."""
        pieces = []
        for choice in chunk.choices or ():
            if self.choice is None:
                self.choice = choice.index
            if choice.index != self.choice:
                continue
            if (written := choice.delta or choice.message) is not None:
                self._read(written, pieces)
            if isinstance(choice.finish_reason, str):
                self.stop = choice.finish_reason
        return pieces

    def finish(self):
        """The last piece: why the model stopped."""
        stop = STOPS.get(self.stop, "end")
        has_calls = any(call.name for call in self.calls)
        if stop == "end" and has_calls:
            stop = "tools"
        elif stop == "tools" and not has_calls:
            stop = "end"
        return [StopPiece(stop)]

    def _read(self, written, pieces):
        if is_words_alone(written):
            if written.content:
                pieces.append(TextPiece(written.content))
            return
        if thoughts := thinking_of(written):
            pieces.append(ThinkingPiece(thoughts))
        if text := content_of(written):
            pieces.append(TextPiece(text))
        if isinstance(written.refusal, str) and written.refusal:
            pieces.append(RefusalPiece(written.refusal))
        for call in written.tool_calls if isinstance(written.tool_calls, list) else ():
            if isinstance(call, dict):
                function = call.get("function")
                self._read_call(call, function if isinstance(function, dict) else {}, pieces)
        if isinstance(written.function_call, dict):
            self._read_call({"index": "function_call"}, written.function_call, pieces)

    def _read_call(self, said, function, pieces):
        name, id = _string(function.get("name")), _string(said.get("id"))
        call = self._called(said.get("index"), id, name)
        if call is None:
            return
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if isinstance(arguments, str) and arguments:
            call.held.append(arguments)
        if call.name is None and name is not None:
            call.name = name
            pieces.append(ToolCallPiece(call.index, call.id or f"call_{secrets.token_hex(12)}", name))
        if call.name is not None and call.held:
            pieces.append(ArgumentsPiece(call.index, "".join(call.held)))
            call.held.clear()

    def _called(self, key, id, name):
        """
        The call that a part of one belongs to.

        Some providers leave the index out and some give every call the same: a new id with a name is a new call then.
        """
        key = _key(key)
        if key is not None:
            call = self.by_key.get(key)
        elif id is not None or name is not None:
            call = self.by_id.get(id)
        else:
            # More of the last, or of a call that never began.
            return self.calls[-1] if self.calls else None
        is_another = call is not None and None not in (call.name, name, id) and id != call.id
        if call is None or is_another:
            call = _Call(len(self.calls), None)
            self.calls.append(call)
            if key is not None:
                self.by_key[key] = call
        if call.id is None and id is not None:
            call.id = id
            self.by_id[id] = call
        return call


def _key(index):
    """An index as what calls are told apart by, whatever a provider sends as one."""
    return repr(index) if isinstance(index, list | dict) else index


def _string(value):
    return value if isinstance(value, str) and value else None


def read_answer(answer):
    """The pieces of a whole answer, a parsed ``Chunk``."""
    reader = AnswerReader()
    return reader.feed(answer) + reader.finish()


# Answers, written ------------------------------------------------------------------------------------------------


def write_answer(pieces, reply):
    """The completion for the caller, from every piece of it."""
    texts, thoughts, refusals, calls, stop = [], [], [], {}, None
    for piece in pieces:
        match piece:
            case TextPiece():
                texts.append(piece.text)
            case ThinkingPiece():
                thoughts.append(piece.text)
            case RefusalPiece():
                refusals.append(piece.text)
            case ToolCallPiece():
                function = {"name": piece.name, "arguments": []}
                calls[piece.index] = {"id": piece.id, "type": "function", "function": function}
            case ArgumentsPiece() if piece.index in calls:
                calls[piece.index]["function"]["arguments"].append(piece.text)
            case StopPiece():
                stop = piece.reason
    for call in calls.values():
        call["function"]["arguments"] = "".join(call["function"]["arguments"]) or "{}"
    message = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (calls or refusals) else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    if thoughts and _shows_reasoning(reply):
        message["reasoning_content"] = "".join(thoughts)
    if calls and is_legacy(reply.fields):
        message["function_call"] = next(iter(calls.values()))["function"]
    elif calls:
        message["tool_calls"] = list(calls.values())
    message["annotations"] = []
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(stop, calls, reply)}
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{reply.suffix}",
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [choice],
            "usage": usage_of(reply),
            "system_fingerprint": None,
        }
    )


class AnswerWriter:
    """Writes pieces as the chunks of a stream."""

    def __init__(self, reply):
        self.reply = reply
        self.head = None
        self.calls = {}
        self.silent = set()
        self.stop = None
        self.shows_reasoning = _shows_reasoning(reply)
        self.is_legacy = is_legacy(reply.fields)

    def feed(self, pieces):
        """The caller's chunks for some pieces; the first comes before any."""
        chunks = [] if self.head else [self._begin()]
        for piece in pieces:
            match piece:
                case TextPiece():
                    chunks.append(self._chunk({"content": piece.text}))
                case ThinkingPiece() if self.shows_reasoning:
                    chunks.append(self._chunk({"reasoning_content": piece.text}))
                case RefusalPiece():
                    chunks.append(self._chunk({"refusal": piece.text}))
                case ToolCallPiece():
                    index = self.calls[piece.index] = len(self.calls)
                    self.silent.add(index)
                    chunks.append(self._call(index, {"name": piece.name, "arguments": ""}, id=piece.id))
                case ArgumentsPiece() if piece.index in self.calls and piece.text:
                    index = self.calls[piece.index]
                    self.silent.discard(index)
                    chunks.append(self._call(index, {"arguments": piece.text}))
                case StopPiece():
                    self.stop = piece.reason
        return b"".join(chunks)

    def finish(self):
        """The chunks that end the stream."""
        chunks = [] if self.head else [self._begin()]
        # Clients parse the arguments of every call: without any they are an empty object.
        chunks += [self._call(index, {"arguments": "{}"}) for index in sorted(self.silent)]
        chunks.append(self._chunk({}, _finish_reason(self.stop, self.calls, self.reply)))
        if self.reply.with_usage:
            chunks.append(encode(None, self.head + b'[],"usage":' + msgspec.json.encode(usage_of(self.reply)) + b"}"))
        chunks.append(DONE)
        return b"".join(chunks)

    def _begin(self):
        head = {
            "id": f"chatcmpl-{self.reply.suffix}",
            "object": "chat.completion.chunk",
            "created": self.reply.created,
            "model": self.reply.model,
            "system_fingerprint": None,
        }
        self.head = msgspec.json.encode(head)[:-1] + b',"choices":'
        return self._chunk({"role": "assistant", "content": ""})

    def _call(self, index, function, *, id=None):
        if self.is_legacy:
            return self._chunk({"function_call": function}) if index == 0 else b""
        begun = {} if id is None else {"id": id, "type": "function"}
        return self._chunk({"tool_calls": [{"index": index, **begun, "function": function}]})

    def _chunk(self, delta, finish=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        end = b',"usage":null}' if self.reply.with_usage else b"}"
        return encode(None, b"%b[%b]%b" % (self.head, msgspec.json.encode(choice), end))


def _shows_reasoning(reply):
    """Whether the caller asked for what the model thought: clients of this format do not expect it."""
    return bytes(reply.fields.get("include_reasoning", b"")) == b"true"


def _finish_reason(stop, calls, reply):
    reason = FINISH_REASONS.get(stop, "tool_calls" if calls else "stop")
    return "function_call" if reason == "tool_calls" and calls and is_legacy(reply.fields) else reason


def usage_of(reply):
    """The usage object of a whole answer."""
    told = reply.meter.told()
    prompt, output = told.total_input or 0, told.output_tokens or 0
    read = told.cache_read_tokens or 0
    written = (told.cache_write_tokens or 0) + (told.cache_write_1h_tokens or 0)
    reasoning = min(told.reasoning_tokens or 0, output)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "text_tokens": output - reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
