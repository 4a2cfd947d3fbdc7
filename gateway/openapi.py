"""
The one description of the API, as OpenAPI 3.1: what the reference at ``/docs`` is made of and tests hold answers to.

Each operation carries a request that works as it stands, with ``MODEL`` in place of a model's name.
"""

from typing import NamedTuple

from django.utils.translation import gettext, gettext_noop

from gateway.schemas import SCHEMAS, ref

_ = gettext_noop
VERSION = "1.0.0"
# Stands in examples where a model's name belongs.
MODEL = "MODEL"

TAGS = {
    "chat": _("Chat completions"),
    "messages": _("Messages"),
    "responses": _("Responses"),
    "texts": _("Text, vectors and moderation"),
    "models": _("Models"),
    "ikalas": _("Ikalas"),
}
HELLO = [{"role": "user", "content": "Say hello in one word."}]


class Operation(NamedTuple):
    """
    One endpoint: its method and path, with ``{name}`` for what a caller fills in, and the names of its schemas.

    ``event`` is what a stream consists of, where there is one; ``dialect`` says how its errors look; ``example`` is a
    body that works.
    """

    name: str
    method: str
    path: str
    tag: str
    summary: str
    about: str
    answer: str
    request: str | None = None
    event: str | None = None
    dialect: str = "openai"
    example: dict | None = None
    query: tuple[str, ...] = ()


OPERATIONS = (
    Operation(
        "create_chat_completion", "POST", "/v1/chat/completions", "chat",
        _("Answer a conversation"),
        _(
            "What most programs use. Text, images, sound and files go in, text and tool calls come out, from any "
            "provider: where it speaks another format, the conversation is translated."
        ),
        "ChatCompletion", "ChatCompletionRequest", "ChatCompletionChunk",
        example={"model": MODEL, "messages": HELLO},
    ),
    Operation(
        "create_message", "POST", "/v1/messages", "messages",
        _("Answer a conversation, as Claude does"),
        _(
            "The Messages API, in the versions 2023-06-01 and 2026-10-21, for every model of this server. The header "
            "anthropic-version says which one holds."
        ),
        "Message", "MessageRequest", "MessageEvent", "anthropic",
        {"model": MODEL, "max_tokens": 64, "messages": HELLO},
    ),
    Operation(
        "count_message_tokens", "POST", "/v1/messages/count_tokens", "messages",
        _("Count a conversation’s tokens"),
        _("Free. The provider’s count where it counts, else one made here: an estimate for other vocabularies."),
        "TokenCount", "CountTokensRequest", None, "anthropic",
        {"model": MODEL, "messages": HELLO},
    ),
    Operation(
        "create_response", "POST", "/v1/responses", "responses",
        _("Answer, and keep the answer to go on from"),
        _(
            "The Responses API for every model. With store, the default, the response stays here for thirty days and "
            "previous_response_id goes on from it, whichever provider answers next."
        ),
        "Response", "ResponseRequest", "ResponseEvent",
        example={"model": MODEL, "input": "Say hello in one word."},
    ),
    Operation(
        "get_response", "GET", "/v1/responses/{response_id}", "responses",
        _("Fetch a stored response"), _("Of the key’s own workspace."), "Response",
    ),
    Operation(
        "delete_response", "DELETE", "/v1/responses/{response_id}", "responses",
        _("Delete a stored response"), _("At once, with what was asked."), "ResponseDeleted",
    ),
    Operation(
        "cancel_response", "POST", "/v1/responses/{response_id}/cancel", "responses",
        _("Cancel a response"), _("For those that run in the background, which no response here does."), "Response",
    ),
    Operation(
        "list_input_items", "GET", "/v1/responses/{response_id}/input_items", "responses",
        _("List what a response was asked"), _("Page by page."), "ResponseItems", query=("limit", "order", "after"),
    ),
    Operation(
        "count_input_tokens", "POST", "/v1/responses/input_tokens", "responses",
        _("Count a request’s tokens"), _("Free, and nothing is stored."), "ResponseTokens", "ResponseRequest",
        example={"model": MODEL, "input": "Say hello in one word."},
    ),
    Operation(
        "create_completion", "POST", "/v1/completions", "texts",
        _("Go on with a text"),
        _("The older way to ask. Models that converse alone are asked in a conversation of one turn."),
        "Completion", "CompletionRequest", "CompletionChunk",
        example={"model": MODEL, "prompt": "Say hello in one word.", "max_tokens": 16},
    ),
    Operation(
        "create_embedding", "POST", "/v1/embeddings", "texts",
        _("Turn texts into vectors"), _("For models that do; as numbers or as base64."),
        "Embeddings", "EmbeddingRequest",
        example={"model": MODEL, "input": "Hello"},
    ),
    Operation(
        "create_moderation", "POST", "/v1/moderations", "texts",
        _("Judge texts and images"), _("For models that do."), "Moderation", "ModerationRequest",
        example={"model": MODEL, "input": "Hello"},
    ),
    Operation(
        "list_models", "GET", "/v1/models", "models",
        _("List the models"),
        _("In the shape of the Models API of Claude for callers that send anthropic-version, else in OpenAI’s."),
        "Models", query=("limit", "after_id", "before_id", "lifecycle[]", "type"),
    ),
    Operation(
        "get_model", "GET", "/v1/models/{model}", "models",
        _("Look a model up"), _("By its name, or by an alias."), "Model",
    ),
    Operation(
        "create_conversation", "POST", "/api/v1/conversation", "ikalas",
        _("Answer a conversation, as Ikalas does"), _("At most 16,000 tokens of messages."),
        "ChatCompletion", "IkalasChatRequest", "ChatCompletionChunk",
        example={"modele": MODEL, "messages": HELLO},
    ),
    Operation(
        "create_ikalas_completion", "POST", "/api/v1/completion", "ikalas",
        _("Go on with a text"), _("As /v1/completions."), "Completion", "IkalasCompletionRequest", "CompletionChunk",
        example={"modele": MODEL, "prompt": "Say hello in one word."},
    ),
    Operation(
        "create_ikalas_embedding", "POST", "/api/v1/embedding", "ikalas",
        _("Turn texts into vectors"), _("As /v1/embeddings."), "Embeddings", "IkalasEmbeddingRequest",
        example={"modele": MODEL, "input": "Hello"},
    ),
    Operation(
        "create_ikalas_moderation", "POST", "/api/v1/moderation", "ikalas",
        _("Judge texts and images"), _("As /v1/moderations."), "Moderation", "IkalasModerationRequest",
        example={"modele": MODEL, "input": "Hello"},
    ),
)  # fmt: skip

STATUSES = {
    "400": _("The request is wrong; the message says where."),
    "401": _("The API key is missing, unknown, disabled or expired."),
    "403": _("A spend limit applies, and nothing says what the model costs."),
    "404": _("The model, or what the path names, does not exist for this key."),
    "413": _("The body is larger than 32 MB."),
    "429": _(
        "A limit is reached; retry-after says when to come back, where waiting helps. Where the header "
        "x-comptoir-lower-max-tokens is true, a request that a spend limit cannot afford is answered with fewer "
        "tokens, as many as x-comptoir-max-tokens says, if there is enough for 16."
    ),
    "502": _("The provider failed, or refuses this server."),
    "503": _("The provider is overloaded, or this server cannot record requests."),
    "504": _("The provider took too long."),
}


def describe(server_url=""):
    """The OpenAPI document, with its prose in the active language."""
    paths = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Comptoir", "version": VERSION},
        "servers": [{"url": server_url or "/"}],
        "security": [{"bearer": []}, {"header": []}],
        "tags": [{"name": name, "description": gettext(title)} for name, title in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _said(SCHEMAS),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _said(schema):
    """A schema with its prose in the active language."""
    if isinstance(schema, list):
        return [_said(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: gettext(value) if name == "description" and isinstance(value, str) else _said(value)
        for name, value in schema.items()
    }


def _operation(operation):
    content = {"application/json": {"schema": ref(operation.answer)}}
    if operation.event:
        content["text/event-stream"] = {"schema": ref(operation.event)}
    error = ref("AnthropicError" if operation.dialect == "anthropic" else "OpenAIError")
    described = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": gettext(operation.summary),
        "description": gettext(operation.about),
        "parameters": _parameters(operation),
        "responses": {
            "200": {"description": gettext(_("The answer.")), "content": content},
            **{
                status: {"description": gettext(about), "content": {"application/json": {"schema": error}}}
                for status, about in STATUSES.items()
            },
        },
    }
    if operation.request:
        media = {"schema": ref(operation.request), "example": operation.example}
        described["requestBody"] = {"required": True, "content": {"application/json": media}}
    return described


def _parameters(operation):
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if operation.dialect == "anthropic":
        versions = {"type": "string", "enum": ["2023-06-01", "2026-10-21"]}
        parameters.append({"name": "anthropic-version", "in": "header", "required": True, "schema": versions})
    return parameters + [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in operation.query
    ]
