"""
Responses: one endpoint that answers, and those for what it has stored.

What is stored is stored here and with no provider, whoever answers: each is asked to store nothing, and is told again
what a request goes on from.
"""

import asyncio
import contextlib
from dataclasses import replace
from urllib.parse import parse_qs

import msgspec
import structlog
from django.utils.translation import gettext_noop

from gateway import stored_responses
from gateway.errors import GatewayError
from gateway.http import JSON_HEADERS
from gateway.routing import find_route
from gateway.serving import FALSE, serve
from providers import formats
from providers.adapters import ADAPTERS
from providers.capabilities import Capability
from providers.errors import ProviderError
from providers.formats.responses import ENCRYPTED, UNREADABLE
from providers.request_body import InvalidRequest, field, parse_body
from providers.sse import EventSplitter, encode
from usage import stored_responses as records
from usage.models import StoredResponse

log = structlog.get_logger(__name__)
_ = gettext_noop

PREFIX = "/v1/responses/"
# Whose responses hand encrypted reasoning out and take it back in again, and who count tokens beforehand.
STATEFUL = {"openai", "azure"}
COUNT = "input_tokens"
ENDS = {b'"response.completed"', b'"response.incomplete"'}
# As they stand in JSON; within a text the quotes would be escaped.
RESPONSE, PROOF, REFERENCE, REASONING = b'"response"', b'"encrypted_content"', b'"item_reference"', b'"reasoning"'
ITEM_DONE = b'"response.output_item.done"'
MOST_ITEMS = 100
# How many stored items a request may name, and among how many items.
MOST_NAMED, MOST_LOOKED_INTO = 500, 100_000
# What is longer is looked through in a thread.
LARGE_INPUT = 256 * 1024

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


async def create_response(http, runtime):
    """POST /v1/responses"""
    passage = Passage(runtime)
    await serve(http, runtime, format=formats.responses, prepare=passage.prepare, through=passage.through)


async def get_response(http, runtime):
    """GET /v1/responses/{id}"""
    caller = await http.authenticate(runtime)
    query = _query(http)
    if query.get("stream", ["false"])[-1] == "true":
        raise GatewayError(
            400, "invalid_request_error", _("stream: a stored response is not streamed again"), param="stream"
        )
    found = await _stored(
        runtime, stored_responses.document, _id_in(http), caller.workspace_id, with_proofs=_asks_for_proofs(query)
    )
    await http.json(found)


async def delete_response(http, runtime):
    """DELETE /v1/responses/{id}"""
    caller = await http.authenticate(runtime)
    id = _id_in(http)
    await _stored(runtime, records.delete, id, caller.workspace_id)
    await http.json({"id": id, "object": "response", "deleted": True})


async def cancel_response(http, runtime):
    """POST /v1/responses/{id}/cancel"""
    caller = await http.authenticate(runtime)
    await _stored(runtime, stored_responses.document, _id_in(http, "/cancel"), caller.workspace_id)
    raise GatewayError(
        400, "invalid_request_error", _("This response is complete: only one in the background could be cancelled.")
    )


async def list_input_items(http, runtime):
    """GET /v1/responses/{id}/input_items"""
    caller = await http.authenticate(runtime)
    query = _query(http)
    limit = query.get("limit", ["20"])[-1]
    if not limit.isascii() or not limit.isdigit() or len(limit) > 3 or not 1 <= int(limit) <= MOST_ITEMS:
        raise InvalidRequest(_("limit: must be a whole number from 1 to %(most)s"), "limit", most=MOST_ITEMS)
    order = query.get("order", ["desc"])[-1]
    if order not in ("asc", "desc"):
        raise InvalidRequest(_("order: must be asc or desc"), "order")
    items = await _stored(
        runtime,
        stored_responses.input_items,
        _id_in(http, "/input_items"),
        caller.workspace_id,
        with_proofs=_asks_for_proofs(query),
    )
    if order == "desc":
        items.reverse()
    if after := query.get("after", [""])[-1]:
        ids = [id for id, _item in items]
        if after not in ids:
            raise InvalidRequest(_("after: no item of this response has this id"), "after")
        items = items[ids.index(after) + 1 :]
    page = items[: int(limit)]
    await http.json(
        {
            "object": "list",
            "data": [item for _id, item in page],
            # What a provider wrote without an id has none.
            "first_id": page[0][0] if page else None,
            "last_id": page[-1][0] if page else None,
            "has_more": len(items) > len(page),
        }
    )


async def count_input_tokens(http, runtime):
    """POST /v1/responses/input_tokens: free, and no request of anybody's."""
    caller = await http.authenticate(runtime)
    fields = parse_body(await http.body())
    model = formats.responses.read_count_request(fields)
    target, thinker = await _asked_first(model, caller, runtime)
    fields = (await _going_on(fields, thinker, caller, runtime))[0]
    if target.kind in STATEFUL and formats.responses.NAME in target.endpoints and target.is_usable:
        try:
            await http.send(200, JSON_HEADERS, await _counted_there(fields, target, runtime))
            return
        except ProviderError as error:
            log.info("provider does not count", provider=target.provider_name, detail=error.detail or error.message)
    count = await asyncio.to_thread(formats.responses.count_request, fields)
    await http.json({"object": "response.input_tokens", "input_tokens": count})


async def _counted_there(fields, target, runtime):
    """What the provider counts, as it says it. Raises ``ProviderError``."""
    path = target.endpoints[formats.responses.NAME] + "/input_tokens"
    asked = replace(target, endpoints={COUNT: path})
    body = msgspec.json.encode(fields | {target.model_field: target.encoded_name})
    adapter = ADAPTERS[target.adapter]
    answer = await adapter.post(runtime.upstream, asked, COUNT, body, stream=False)
    with contextlib.closing(answer):
        return await adapter.read(answer)


# The request -----------------------------------------------------------------------------------------------------


async def _asked_first(model, caller, runtime):
    """
    The target that is asked first for a name, and its model's id where that is sure to be what answers.

    Raises ``GatewayError`` where there is none.
    """
    route = await find_route(model, caller.organization_id, runtime.keeper)
    is_drawn = route.weights and len({target.provider_model_id for target in route.targets}) > 1
    return route.listed, None if is_drawn else route.listed.provider_model_id


async def _going_on(fields, thinker, caller, runtime):
    """
    ``(fields, own, ids)``: the request with what it goes on from before its own input; that own input, with the items
    that it names; and the responses that it goes on from, oldest first.

    Thoughts are told again to ``thinker`` alone, a model's id. Raises ``InvalidRequest`` and ``GatewayError``.
    """
    previous = field(fields, "previous_response_id", str, what=_("a string"))
    own, ids, earlier = bytes(fields.get("input", b"null")), [], b""
    if previous is not None:
        fields = {name: raw for name, raw in fields.items() if name != "previous_response_id"}
        try:
            ids, earlier = await runtime.stored_responses.ask(
                stored_responses.context, previous, caller.workspace_id, thinker
            )
        except StoredResponse.DoesNotExist:
            raise stored_responses.previous_not_found() from None
    if REFERENCE in own or REASONING in own:
        own = await _with_named_items(own, thinker, caller, runtime)
        fields = fields | {"input": msgspec.Raw(own)}
    if earlier:
        after = own[1:-1].strip()
        if own.startswith(b'"'):
            after = msgspec.json.encode({"role": "user", "content": msgspec.Raw(own)})
        elif not own.startswith(b"["):
            after = b""
        fields = fields | {"input": msgspec.Raw(_joined([part for part in (earlier, after) if part]))}
    return fields, own, ids


def _joined(items):
    """A list of ``items``, which are JSON. Raises ``GatewayError`` where it is longer than a request may be."""
    if sum(map(len, items)) + len(items) > stored_responses.MOST_TOLD:
        raise stored_responses.too_long()
    return b"[" + b",".join(items) + b"]"


async def _with_named_items(asked, thinker, caller, runtime):
    """
    ``asked`` with stored items in the place of references to them, and of thoughts that lack what makes them legible.

    Thoughts that are not stored, or that the model cannot read, are left out: no provider would find them.
    """
    try:
        if len(asked) > LARGE_INPUT:
            items, named = await asyncio.to_thread(_naming, asked)
        else:
            items, named = _naming(asked)
    except UNREADABLE:
        return asked
    if not named:
        return asked
    names = {head.id for head in named.values()}
    if len(names) > MOST_NAMED:
        raise InvalidRequest(_("input: names more than %(most)s stored items"), "input", most=MOST_NAMED)
    found = await runtime.stored_responses.ask(stored_responses.named_items, names, caller.workspace_id, thinker)
    if any(head.type == "item_reference" and head.id not in found for head in named.values()):
        raise stored_responses.item_not_found()
    told = (found.get(named[place].id) if place in named else bytes(item) for place, item in enumerate(items))
    return _joined([item for item in told if item is not None])


class Head(msgspec.Struct, gc=False):
    """What an item is, and which."""

    type: str | None = None
    id: str | None = None


class Thoughts(msgspec.Struct):
    """What makes thoughts legible."""

    encrypted_content: msgspec.Raw = msgspec.Raw(b"null")
    content: msgspec.Raw = msgspec.Raw(b"null")


_HEADS = msgspec.json.Decoder(list[Head])
_THOUGHTS = msgspec.json.Decoder(Thoughts)


def _naming(asked):
    """
    The items in ``asked`` as raw JSON, and by their places the heads of those that only name what is stored.

    Raises one of ``UNREADABLE`` where it is no list of items, at the first that is none, and ``InvalidRequest``.
    """
    heads = _HEADS.decode(asked)
    if len(heads) > MOST_LOOKED_INTO:
        raise InvalidRequest(_("input: has more than %(most)s items"), "input", most=MOST_LOOKED_INTO)
    named = {
        place: head
        for place, head in enumerate(heads)
        if head.type in ("item_reference", "reasoning") and head.id is not None
    }
    items = _ITEMS.decode(asked) if named else []
    return items, {place: head for place, head in named.items() if not _is_legible(head, items[place])}


def _is_legible(head, item):
    """Whether an item is thoughts of which more is said than the id."""
    if head.type == "item_reference":
        return False
    thoughts = _THOUGHTS.decode(item)
    return not (_is_empty(thoughts.encrypted_content) and _is_empty(thoughts.content))


def _is_empty(raw):
    raw = bytes(raw)
    return len(raw) < 100 and not msgspec.json.decode(raw)


# The answer ------------------------------------------------------------------------------------------------------


class Passage:
    """One response on its way: what it goes on from is put before it, and it is stored before its end goes out."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.stores = self.shows_reasoning = self.patches = False
        self.previous = []
        self.input = b"[]"
        self.items = []

    async def prepare(self, call):
        """
        Make the request one that needs no state of its provider's.

        Raises ``InvalidRequest`` and ``GatewayError``.
        """
        fields = call.fields
        for name, kind, what in (("background", bool, _("true or false")), ("conversation", object, "")):
            if field(fields, name, kind, what=what):
                raise InvalidRequest(_("%(name)s: not available here"), name, name=name)
        stores = field(fields, "store", bool, what=_("true or false"))
        self.stores = call.caller.stores and (stores is None or stores)
        include = field(fields, "include", list[str], what=_("a list of strings")) or []
        self.shows_reasoning = ENCRYPTED in include
        target, thinker = await _asked_first(call.model, call.caller, self.runtime)
        fields, self.input, self.previous = await _going_on(fields, thinker, call.caller, self.runtime)
        self.patches = self.stores or bool(self.previous)
        if self.stores or not call.caller.stores:
            fields = fields | {"store": FALSE}
        if self.stores and not self.shows_reasoning and _may_reason(fields, target):
            fields["include"] = msgspec.Raw(msgspec.json.encode([*include, ENCRYPTED]))
        call.fields = fields
        # What is told again may be far more than what came in, and takes as long to translate.
        call.size = max(call.size, len(bytes(fields.get("input", b""))))

    async def through(self, call, chunks):
        """The answer as the caller gets it, with the response's own id."""
        async for chunk in chunks:
            if call.stream:
                yield await self._events(call, chunk)
            else:
                yield await self._whole(call, chunk)

    async def _whole(self, call, body):
        try:
            response = _OBJECT.decode(body)
        except UNREADABLE:
            return body
        return msgspec.json.encode(await self._ended(call, response)) if self._concerns(body) else body

    def _concerns(self, data):
        return self.patches or (not self.shows_reasoning and PROOF in data)

    async def _events(self, call, chunk):
        """The events in ``chunk``: only those that hold a response or a proof are looked into."""
        is_item = self.stores and ITEM_DONE in chunk
        if not (is_item or (self.patches and RESPONSE in chunk) or (not self.shows_reasoning and PROOF in chunk)):
            return chunk
        return b"".join([await self._event(call, event) for event in EventSplitter().feed(chunk)])

    async def _event(self, call, event):
        try:
            said = _OBJECT.decode(event.data)
            response = _OBJECT.decode(said["response"]) if "response" in said else None
        except UNREADABLE:
            return event.raw
        if self.stores and bytes(said.get("type", b"")) == ITEM_DONE and "item" in said:
            self.items.append(said["item"])
        if response is not None and bytes(said.get("type", b"")) in ENDS:
            said["response"] = await self._ended(call, response)
        elif response is not None:
            said["response"] = self._told(call, response, self.stores)
        elif not self.shows_reasoning and PROOF in bytes(said.get("item", b"")):
            said["item"] = _without_proof(said["item"])
        else:
            return event.raw
        return encode(event.name or None, msgspec.json.encode(said))

    def _told(self, call, response, is_stored):
        """The response as its caller gets it: under an id of this server's, as everything that is kept here."""
        told = dict(response)
        if self.patches:
            told |= {
                "id": call.id.replace("req_", "resp_", 1),
                "store": is_stored,
                "previous_response_id": self.previous[-1] if self.previous else None,
            }
        if not self.shows_reasoning and PROOF in bytes(told.get("output", b"")):
            told["output"] = [_without_proof(item) for item in _items_in(told["output"])]
        return told

    def _output(self, response):
        """What the model wrote: some providers tell of items one by one and not again where they end."""
        output = bytes(response.get("output", b"null"))
        return output if output.strip(b" []\n\r\t") not in (b"", b"null") else msgspec.json.encode(self.items)

    async def _ended(self, call, response):
        """The whole response, stored where that is wanted and works."""
        if not self.stores:
            return self._told(call, response, False)
        told = self._told(call, response, True)
        target = call.plan.target
        is_stored = await self.runtime.stored_responses.keep(
            id=told["id"],
            workspace_id=call.caller.workspace_id,
            previous=self.previous,
            provider_model_id=target.provider_model_id,
            shows_reasoning=self.shows_reasoning,
            input=self.input,
            output=self._output(response),
            response=msgspec.json.encode({name: value for name, value in told.items() if name != "output"}),
        )
        return told | {"store": is_stored}


def _may_reason(fields, target):
    """Whether the model has thoughts to hand out for safekeeping; others refuse to be asked for them."""
    if target.kind not in STATEFUL or formats.responses.NAME not in target.endpoints:
        return False
    if target.capabilities:
        return Capability.REASONING in target.capabilities
    asked = field(fields, "reasoning", dict, what=_("an object")) or {}
    return asked.get("effort") not in (None, "none")


def _items_in(output):
    try:
        return _ITEMS.decode(output)
    except UNREADABLE:
        return []


def _without_proof(item):
    """An item without its encrypted thoughts, for callers who did not ask for those."""
    try:
        fields = _OBJECT.decode(item)
    except UNREADABLE:
        return item
    return {name: raw for name, raw in fields.items() if name != "encrypted_content"}


# Requests for what is stored -------------------------------------------------------------------------------------


async def _stored(runtime, function, *values, **named):
    try:
        return await runtime.stored_responses.ask(function, *values, **named)
    except StoredResponse.DoesNotExist:
        raise stored_responses.not_found() from None


def _id_in(http, suffix=""):
    return http.path.removeprefix(PREFIX).removesuffix(suffix)


def _query(http):
    """The query's parameters, each with all its values; ``ids[]`` means ``ids``."""
    query = {}
    for name, values in parse_qs(http.query.decode("latin-1"), keep_blank_values=True).items():
        query.setdefault(name.removesuffix("[]"), []).extend(values)
    return query


def _asks_for_proofs(query):
    return ENCRYPTED in query.get("include", [])
