"""
The shapes of requests and answers as JSON Schema: what the API reference shows and the tests hold answers to.

Requests name the fields that are read here; whatever else a caller sends goes on to the provider. Answers name what
every client may rely on; providers may add to them.
"""

from django.utils.translation import gettext_noop

_ = gettext_noop


def _object(_required="", _about=None, **properties):
    """An object that may hold more than it names; ``_required`` are names with spaces between."""
    schema = {"type": "object", "properties": properties}
    if _required:
        schema["required"] = _required.split()
    if _about:
        schema["description"] = _about
    return schema


def _list(items, **more):
    return {"type": "array", "items": items} | more


def _one_of(*schemas):
    return {"anyOf": list(schemas)}


def _or_null(schema):
    return _one_of(schema, {"type": "null"})


def _text(about=None, **more):
    return {"type": "string"} | ({"description": about} if about else {}) | more


def _number(about=None, **more):
    return {"type": "number"} | ({"description": about} if about else {}) | more


def _whole(about=None, **more):
    return {"type": "integer"} | ({"description": about} if about else {}) | more


def _flag(about=None):
    return {"type": "boolean"} | ({"description": about} if about else {})


def _word(*words, about=None):
    return {"type": "string", "enum": list(words)} | ({"description": about} if about else {})


def _is(value):
    return {"const": value}


def ref(name):
    """A reference to one of ``SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}


COUNT = _whole(minimum=0)
MODEL = _text(_("A model or route of this server, as GET /v1/models lists them."), minLength=1, maxLength=200)
STREAM = _flag(_("Answer piece by piece, as server-sent events."))
FUNCTION_SCHEMA = {"type": "object", "description": _("A JSON Schema of the arguments.")}
STOP = _one_of(_text(), _list(_text(), maxItems=4))
METADATA = {"type": "object", "additionalProperties": {"type": "string"}}

CHAT_PARTS = _list(
    _one_of(
        _object("type text", type=_is("text"), text=_text()),
        _object(
            "type image_url",
            type=_is("image_url"),
            image_url=_object("url", url=_text(_("https or a data: URL.")), detail=_word("auto", "low", "high")),
        ),
        _object(
            "type input_audio",
            type=_is("input_audio"),
            input_audio=_object("data format", data=_text(_("Base64.")), format=_text()),
        ),
        _object(
            "type file",
            type=_is("file"),
            file=_object(file_data=_text(_("A data: URL.")), file_id=_text(), filename=_text()),
        ),
        _object("type refusal", type=_is("refusal"), refusal=_text()),
    )
)
CHAT_TOOL_CALL = _object(
    "id type function",
    id=_text(),
    type=_is("function"),
    function=_object("name arguments", name=_text(), arguments=_text(_("JSON, as the model wrote it."))),
)
MESSAGE_BLOCKS = _list(
    _one_of(
        _object("type text", type=_is("text"), text=_text()),
        _object("type source", type=_is("image"), source=_object("type")),
        _object("type source", type=_is("document"), source=_object("type"), title=_or_null(_text())),
        _object("type id name input", type=_is("tool_use"), id=_text(), name=_text(), input={"type": "object"}),
        _object("type tool_use_id", type=_is("tool_result"), tool_use_id=_text(), is_error=_flag()),
        _object("type thinking signature", type=_is("thinking"), thinking=_text(), signature=_text()),
        _object("type", _about=_("Any other block of the Messages API."), type=_text()),
    )
)

SCHEMAS = {
    # Chat completions
    "ChatCompletionRequest": _object(
        "model messages",
        model=MODEL,
        messages=_list(ref("ChatMessage"), minItems=1),
        max_completion_tokens=_whole(_("The most tokens to write, thoughts included."), minimum=1),
        max_tokens=_whole(_("The older name of max_completion_tokens."), minimum=1),
        temperature=_number(_("0 is plain, 2 is wild."), minimum=0, maximum=2),
        top_p=_number(minimum=0, maximum=1),
        top_k=_whole(_("Where the provider knows it."), minimum=1),
        n=_whole(_("How many answers; some providers give one."), minimum=1),
        stop=STOP,
        stream=STREAM,
        stream_options=_object(include_usage=_flag(_("End the stream with a chunk that holds the usage."))),
        tools=_list(ref("ChatTool")),
        tool_choice=_one_of(_word("none", "auto", "required"), _object("type", type=_text())),
        parallel_tool_calls=_flag(),
        response_format=_object("type", type=_word("text", "json_object", "json_schema")),
        reasoning_effort=_word("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        include_reasoning=_flag(_("Send what the model thought, as reasoning_content.")),
        seed=_whole(),
        logprobs=_flag(),
        top_logprobs=_whole(minimum=0, maximum=20),
        presence_penalty=_number(minimum=-2, maximum=2),
        frequency_penalty=_number(minimum=-2, maximum=2),
        user=_text(_("Who asks, in your own terms.")),
        metadata=METADATA,
    ),
    "ChatMessage": _object(
        "role",
        role=_word("system", "developer", "user", "assistant", "tool"),
        content=_or_null(_one_of(_text(), CHAT_PARTS)),
        name=_text(),
        tool_calls=_list(CHAT_TOOL_CALL),
        tool_call_id=_text(_("On role tool: the call that this answers.")),
    ),
    "ChatTool": _object(
        "type function",
        type=_is("function"),
        function=_object(
            "name", name=_text(), description=_text(), parameters=FUNCTION_SCHEMA, strict=_or_null(_flag())
        ),
    ),
    "ChatCompletion": _object(
        "id object created model choices usage",
        id=_text(),
        object=_word("chat.completion", "conversation.completion"),
        created=_whole(_("Unix seconds.")),
        model=_text(_("The model that answered.")),
        choices=_list(
            _object(
                "index message finish_reason",
                index=COUNT,
                message=_object(
                    "role content",
                    role=_is("assistant"),
                    content=_or_null(_text()),
                    refusal=_or_null(_text()),
                    tool_calls=_or_null(_list(CHAT_TOOL_CALL)),
                    reasoning_content=_or_null(_text()),
                ),
                finish_reason=ref("FinishReason"),
            ),
            minItems=1,
        ),
        usage=ref("ChatUsage"),
    ),
    "ChatCompletionChunk": _object(
        "id object created model choices",
        id=_text(),
        object=_word("chat.completion.chunk", "conversation.completion.chunk"),
        created=_whole(),
        model=_text(),
        choices=_list(
            _object(
                "index delta", index=COUNT, delta={"type": "object"}, finish_reason=_or_null(ref("FinishReason"))
            )
        ),
        usage=_or_null(ref("ChatUsage")),
    ),
    "FinishReason": _word("stop", "length", "tool_calls", "content_filter", "function_call"),
    "ChatUsage": _object(
        "prompt_tokens completion_tokens total_tokens",
        prompt_tokens=_whole(_("Cached ones included."), minimum=0),
        completion_tokens=_whole(_("Thoughts included."), minimum=0),
        total_tokens=COUNT,
        prompt_tokens_details=_or_null(_object(cached_tokens=_or_null(COUNT), cache_write_tokens=_or_null(COUNT))),
        completion_tokens_details=_or_null(_object(reasoning_tokens=_or_null(COUNT))),
    ),
    # Completions
    "CompletionRequest": _object(
        "model prompt",
        model=MODEL,
        prompt=_one_of(_text(), _list(_text()), _list(_whole()), _list(_list(_whole()))),
        max_tokens=_whole(minimum=1),
        temperature=_number(minimum=0, maximum=2),
        top_p=_number(minimum=0, maximum=1),
        stop=STOP,
        stream=STREAM,
        stream_options=_object(include_usage=_flag()),
        suffix=_or_null(_text()),
        echo=_or_null(_flag()),
        user=_text(),
    ),
    "Completion": _object(
        "id object created model choices usage",
        id=_text(),
        object=_word("text_completion", "completion"),
        created=_whole(),
        model=_text(),
        choices=_list(_object("text index", text=_text(), index=COUNT, finish_reason=_or_null(_text())), minItems=1),
        usage=ref("ChatUsage"),
    ),
    "CompletionChunk": _object(
        "id object created model choices",
        id=_text(),
        object=_word("text_completion", "completion"),
        created=_whole(),
        model=_text(),
        choices=_list(_object("text index", text=_text(), index=COUNT, finish_reason=_or_null(_text()))),
        usage=_or_null(ref("ChatUsage")),
    ),
    # Embeddings, moderations
    "EmbeddingRequest": _object(
        "model input",
        model=MODEL,
        input=_one_of(_text(minLength=1), _list(_text()), _list(_whole()), _list(_list(_whole()))),
        encoding_format=_word("float", "base64", about=_("base64: little-endian float32, as SDKs ask by themselves.")),
        dimensions=_whole(minimum=1),
        user=_text(),
    ),
    "Embeddings": _object(
        "object data model usage",
        object=_is("list"),
        model=_text(),
        data=_list(
            _object(
                "object index embedding",
                object=_is("embedding"),
                index=COUNT,
                embedding=_one_of(_list(_number()), _text(_("Base64."))),
            )
        ),
        usage=_object("prompt_tokens total_tokens", prompt_tokens=COUNT, total_tokens=COUNT),
    ),
    "ModerationRequest": _object(
        "input",
        input=_one_of(_text(), _list(_text()), _list(_object("type", type=_word("text", "image_url")))),
        model=MODEL,
    ),
    "Moderation": _object(
        "id model results",
        id=_text(),
        model=_text(),
        results=_list(
            _object(
                "flagged categories category_scores",
                flagged=_flag(),
                categories={"type": "object", "additionalProperties": _or_null(_flag())},
                category_scores={"type": "object", "additionalProperties": _number()},
            )
        ),
    ),
    # Responses
    "ResponseRequest": _object(
        "model input",
        model=MODEL,
        input=_one_of(_text(), _list({"type": "object"}, description=_("Messages, tool calls and tool outputs."))),
        instructions=_or_null(_text(_("What the system prompt is elsewhere."))),
        max_output_tokens=_or_null(_whole(minimum=1)),
        previous_response_id=_or_null(_text(_("Go on from a response that was stored."))),
        store=_or_null(
            _flag(
                _(
                    "Keep it for thirty days, so that it can be fetched and gone on from. On by default, and always "
                    "off where the key or its workspace stores nothing."
                )
            )
        ),
        stream=STREAM,
        temperature=_or_null(_number(minimum=0, maximum=2)),
        top_p=_or_null(_number(minimum=0, maximum=1)),
        tools=_list(_object("type", type=_text(), name=_text(), parameters=_or_null(FUNCTION_SCHEMA))),
        tool_choice=_one_of(_word("none", "auto", "required"), _object("type", type=_text())),
        parallel_tool_calls=_or_null(_flag()),
        reasoning=_or_null(_object(effort=_or_null(_text()), summary=_or_null(_text()))),
        text=_object(format=_object("type", type=_word("text", "json_object", "json_schema"))),
        metadata=_or_null(METADATA),
    ),
    "Response": _object(
        "id object created_at status model output",
        id=_text(pattern="^resp_"),
        object=_is("response"),
        created_at=_number(),
        status=_word("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
        model=_text(),
        output=_list(_object("type", type=_text())),
        error=_or_null(_object("code message", code=_text(), message=_text())),
        incomplete_details=_or_null(_object(reason=_text())),
        usage=_or_null(
            _object(
                "input_tokens output_tokens total_tokens",
                input_tokens=COUNT,
                input_tokens_details=_object(cached_tokens=COUNT),
                output_tokens=COUNT,
                output_tokens_details=_object(reasoning_tokens=COUNT),
                total_tokens=COUNT,
            )
        ),
    ),
    "ResponseEvent": _object("type", type=_text(), sequence_number=COUNT),
    "ResponseDeleted": _object("id object deleted", id=_text(), object=_text(), deleted=_is(True)),
    "ResponseItems": _object(
        "object data has_more",
        object=_is("list"),
        data=_list(_object("type", type=_text())),
        has_more=_flag(),
        first_id=_or_null(_text()),
        last_id=_or_null(_text()),
    ),
    "ResponseTokens": _object(
        "object input_tokens", object=_is("response.input_tokens"), input_tokens=COUNT
    ),
    # Messages
    "MessageRequest": _object(
        "model messages max_tokens",
        model=MODEL,
        messages=_list(
            _object(
                "role content", role=_word("user", "assistant", "system"), content=_one_of(_text(), MESSAGE_BLOCKS)
            ),
            minItems=1,
        ),
        max_tokens=_whole(_("The most tokens to write, thoughts included."), minimum=0),
        system=_one_of(_text(), MESSAGE_BLOCKS),
        stop_sequences=_list(_text()),
        stream=STREAM,
        temperature=_number(_("Under version 2023-06-01 alone."), minimum=0, maximum=1),
        top_p=_number(_("Under version 2023-06-01 alone."), minimum=0, maximum=1),
        top_k=_whole(_("Under version 2023-06-01 alone."), minimum=0),
        tools=_list(ref("MessageTool")),
        tool_choice=_object("type", type=_word("auto", "any", "tool", "none"), name=_text()),
        thinking=_object("type", type=_word("enabled", "adaptive", "between_tools", "disabled")),
        output_config=_object(effort=_text(), format=_object("type", type=_is("json_schema"), schema=FUNCTION_SCHEMA)),
        metadata=_object(user_id=_or_null(_text())),
    ),
    "MessageTool": _object("name", name=_text(), type=_text(), description=_text(), input_schema=FUNCTION_SCHEMA),
    "Message": _object(
        "id type role model content stop_reason usage",
        id=_text(),
        type=_is("message"),
        role=_is("assistant"),
        model=_text(),
        content=MESSAGE_BLOCKS,
        stop_reason=_or_null(
            _word(
                "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal",
                "model_context_window_exceeded",
            )
        ),
        stop_sequence=_or_null(_text()),
        usage=_object(
            "input_tokens output_tokens",
            input_tokens=_whole(_("Neither read from the cache nor written to it."), minimum=0),
            cache_creation_input_tokens=_or_null(COUNT),
            cache_read_input_tokens=_or_null(COUNT),
            output_tokens=COUNT,
        ),
    ),
    "MessageEvent": _object("type", type=_text()),
    "CountTokensRequest": _object(
        "model messages",
        model=MODEL,
        messages=_list({"type": "object"}, minItems=1),
        system=_one_of(_text(), MESSAGE_BLOCKS),
        tools=_list({"type": "object"}),
    ),
    "TokenCount": _object("input_tokens", input_tokens=COUNT),
    # Models
    "Models": _object("data", data=_list(ref("Model")), object=_is("list"), has_more=_flag()),
    "Model": _one_of(
        _object(
            "id object created owned_by", id=_text(), object=_is("model"), created=_whole(), owned_by=_text()
        ),
        _object(
            "type id display_name created_at",
            type=_is("model"),
            id=_text(),
            display_name=_text(),
            created_at=_text(),
            lifecycle=_word("active", "deprecated", "retired"),
            max_input_tokens=_or_null(_whole()),
            max_tokens=_or_null(_whole()),
        ),
    ),
    # Errors
    "OpenAIError": _object(
        "error",
        error=_object(
            "message type param code",
            message=_text(_("In the language of Accept-Language: English, French or Spanish.")),
            type=_text(),
            param=_or_null(_text(_("The field that it is about."))),
            code=_or_null(_text(_("Stable, and never translated."))),
        ),
    ),
    "AnthropicError": _object(
        "type error request_id",
        type=_is("error"),
        error=_object("type message", type=_text(), message=_text(), details=_object(error_code=_text())),
        request_id=_text(),
    ),
    "IkalasChatRequest": _object(
        "messages modele",
        modele=MODEL,
        messages=_list(ref("ChatMessage"), minItems=1),
        temperature=_number(minimum=0, maximum=2),
        max_tokens=_whole(minimum=1),
        stream=STREAM,
    ),
    "IkalasCompletionRequest": _object("prompt modele", modele=MODEL, prompt=_text(), max_tokens=_whole(minimum=1)),
    "IkalasEmbeddingRequest": _object("input modele", modele=MODEL, input=_one_of(_text(), _list(_text()))),
    "IkalasModerationRequest": _object("input", modele=MODEL, input=_one_of(_text(), _list(_text()))),
}  # fmt: skip
