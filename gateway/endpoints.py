"""One function an endpoint, and the table that finds it."""

import asyncio
import contextlib
import functools

import msgspec
import structlog

from gateway import errors, responses
from gateway.http import JSON_HEADERS
from gateway.routing import find_route, models_of
from gateway.serving import serve
from providers import formats
from providers.adapters import ADAPTERS
from providers.dialects import anthropic
from providers.errors import ProviderError
from providers.request_body import parse_body

log = structlog.get_logger(__name__)
COUNT = "count_tokens"


async def count_message_tokens(http, runtime):
    """POST /v1/messages/count_tokens: free, and no request of anybody's."""
    caller = await http.authenticate(runtime)
    headers = http.provider_headers()
    fields = parse_body(await http.body())
    model = formats.messages.read_count_request(fields, http.rules)
    target = (await find_route(model, caller.organization_id, runtime.keeper)).listed
    if not target.counts_tokens or not target.is_usable:
        await http.json({"input_tokens": await asyncio.to_thread(formats.messages.count_request, fields)})
        return
    adapter = ADAPTERS[target.adapter]
    body = msgspec.json.encode(fields | {"model": target.encoded_name})
    try:
        response = await adapter.post(runtime.upstream, target, COUNT, body, stream=False, headers=headers)
        with contextlib.closing(response):
            await http.send(200, JSON_HEADERS, await adapter.read(response))
    except ProviderError as error:
        raise errors.from_provider(error, target.provider_name) from None


async def list_models(http, runtime):
    """GET /v1/models"""
    caller = await http.authenticate(runtime)
    targets = [route.listed for route in models_of(caller.organization_id, runtime.keeper.current).values()]
    listing = anthropic if http.dialect is anthropic else http.flavour
    await http.json(listing.model_list(targets, http.query))


async def get_model(http, runtime):
    """GET /v1/models/{id}"""
    caller = await http.authenticate(runtime)
    name = http.path.removeprefix("/v1/models/")
    route = models_of(caller.organization_id, runtime.keeper.current).get(name)
    if route is None:
        raise errors.unknown_model(name)
    listing = anthropic if http.dialect is anthropic else http.flavour
    await http.json(listing.model_item(route.listed))


def _answering(format):
    """The endpoint of a call for a model's answer in ``format``."""
    return functools.partial(serve, format=format)


EXACT = {
    "/v1/chat/completions": {"POST": _answering(formats.chat_completions)},
    "/v1/completions": {"POST": _answering(formats.completions)},
    "/v1/embeddings": {"POST": _answering(formats.embeddings)},
    "/v1/moderations": {"POST": _answering(formats.moderations)},
    "/v1/messages": {"POST": _answering(formats.messages)},
    "/v1/messages/count_tokens": {"POST": count_message_tokens},
    "/v1/responses": {"POST": responses.create_response},
    "/v1/responses/input_tokens": {"POST": responses.count_input_tokens},
    "/v1/models": {"GET": list_models},
}
# What stands between a prefix and a suffix is an id; ids of models may hold slashes.
PATTERNS = (
    ("/v1/models/", "", {"GET": get_model}),
    ("/v1/responses/", "/cancel", {"POST": responses.cancel_response}),
    ("/v1/responses/", "/input_items", {"GET": responses.list_input_items}),
    ("/v1/responses/", "", {"GET": responses.get_response, "DELETE": responses.delete_response}),
)


def find(http):
    """The function that answers a request. Raises ``GatewayError`` where there is none."""
    functions = EXACT.get(http.path) or _matching(http.path)
    if functions is None:
        raise errors.unknown_path(http.method, http.full_path)
    function = functions.get("GET" if http.method == "HEAD" else http.method)
    if function is None:
        raise errors.wrong_method(http.method, http.full_path, ", ".join(functions))
    return function


def _matching(path):
    for prefix, suffix, functions in PATTERNS:
        if path.startswith(prefix) and path.endswith(suffix) and len(path) > len(prefix) + len(suffix):
            return functions
    return None
