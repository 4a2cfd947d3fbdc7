"""Stored responses from the event loop: each question to the database goes to a thread, and waits only so long."""

import asyncio
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import msgspec
import structlog
from django.db import DataError, Error, IntegrityError, connection
from django.utils.translation import gettext_noop

from console.ids import new_id
from gateway.errors import GatewayError
from gateway.http import MAX_BODY
from providers.formats.responses import UNREADABLE
from usage import stored_responses

log = structlog.get_logger(__name__)
_ = gettext_noop

SECONDS = 5.0
# An answer that is ready waits less for being stored: who asked for it is waiting, too.
KEEP_SECONDS = 2.0
READERS = 4
MOST_TOGETHER = 100
# While the database is silent, no more than so many questions, each with what it would store, are held in memory.
MOST_WAITING = 256
MOST_BYTES_WAITING = 64 * 1024 * 1024
# A conversation is told again as a whole, and no longer than a request may be. What is only listed may be as long as
# what it goes on from and a request together.
MOST_TOLD = MAX_BODY
MOST_LISTED = 2 * MAX_BODY
# What fails as soon as this on a connection that was there before is worth a second try on a new one.
STALE_SECONDS = 0.5
UNSTORABLE = (*UNREADABLE, stored_responses.TooLarge)
# Items that every provider understands.
PLAIN = ("message", "function_call", "function_call_output")

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


def not_found():
    """The same for an id that was never there, one that is gone, and one of another workspace."""
    return GatewayError(404, "response_not_found", _("No response with this id is stored here."))


def previous_not_found():
    return GatewayError(
        400,
        "previous_response_not_found",
        _("previous_response_id: no response with this id is stored here, or one that it goes on from is gone."),
        param="previous_response_id",
    )


def item_not_found():
    return GatewayError(400, "item_not_found", _("input: an item is named that is not stored here."), param="input")


def too_long():
    return GatewayError(
        413,
        "request_too_large",
        _(
            "The conversation has grown too long: with all that it goes on from, it is more than %(limit)s MB. "
            "Begin a new one, for example from a summary."
        ),
        values={"limit": MOST_TOLD // 1024**2},
    )


def away():
    return GatewayError(
        503,
        "not_ready",
        _("The server cannot look up stored responses at the moment: its database does not answer."),
        headers=[(b"retry-after", b"5")],
    )


class StoredResponses:
    """The stored responses of every workspace, for one process: some threads that read, and one that writes."""

    def __init__(self):
        self._readers = ThreadPoolExecutor(READERS, "responses-reader")
        self._writer = ThreadPoolExecutor(1, "responses-writer")
        self._unwritten = deque()
        self._lock = Lock()
        self._waiting = self._bytes_waiting = 0

    def close(self):
        for executor in (self._readers, self._writer):
            executor.submit(lambda: connection.close())
            executor.shutdown(wait=False)

    async def ask(self, function, *values, seconds=SECONDS, **named):
        """
        What ``function`` of the database returns. Raises ``GatewayError`` where it does not answer within ``seconds``
        or has found too much, and what ``function`` raises otherwise.
        """
        try:
            self._enter()
            return await self._wait(self._readers.submit(_asked, function, *values, **named), seconds)
        except (Error, TimeoutError) as error:
            log.error("stored responses not reached", error=str(error).strip() or "timeout")
            raise away() from None
        except stored_responses.TooLarge:
            raise too_long() from None

    async def keep(self, **named):
        """Store a response; whether that worked. All that wait are written in one transaction."""
        size = sum(len(named[part]) for part in ("input", "output", "response"))
        try:
            self._enter(size)
            answer = Future()
            self._unwritten.append((named, answer))
            self._writer.submit(self._write)
            await self._wait(answer, KEEP_SECONDS, size)
        except (Error, TimeoutError, *UNSTORABLE) as error:
            reason = str(error).strip() or type(error).__name__
            log.error("response not stored; it went out all the same", response_id=named["id"], error=reason)
            return False
        return True

    def _enter(self, size=0):
        with self._lock:
            # One that is larger than what may wait can still wait alone.
            is_full = self._bytes_waiting and self._bytes_waiting + size > MOST_BYTES_WAITING
            if self._waiting >= MOST_WAITING or (size and is_full):
                raise TimeoutError("too many are waiting")
            self._waiting += 1
            self._bytes_waiting += size

    def _leave(self, size):
        with self._lock:
            self._waiting -= 1
            self._bytes_waiting -= size

    async def _wait(self, answer, seconds, size=0):
        # Whoever asked may leave; the question stays in its line, so that the room it takes is known.
        answer.add_done_callback(lambda done: self._leave(size))
        waiting = asyncio.wrap_future(answer)
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        async with asyncio.timeout(seconds):
            return await asyncio.shield(waiting)

    def _write(self):
        """Write what waits; whoever submitted it later finds nothing more to do."""
        ready = []
        while self._unwritten and len(ready) < MOST_TOGETHER:
            named, answer = self._unwritten.popleft()
            try:
                ready.append((_kept(**named), answer))
            except UNSTORABLE as error:
                answer.set_exception(error)
        if ready:
            self._store(ready)

    def _store(self, ready):
        failure = Error("not written")
        try:
            _asked(stored_responses.keep, [kept for kept, _answer in ready])
            failure = None
        except (DataError, IntegrityError) as error:
            failure = error
            if len(ready) > 1:
                # What no database would take stands alone, and hinders nobody.
                for each in ready:
                    self._store([each])
        except Error as error:
            failure = error
        finally:
            for _kept_one, answer in ready:
                if not answer.done():
                    answer.set_exception(failure) if failure else answer.set_result(None)


def _asked(function, *values, **named):
    was_open, began = connection.connection is not None, time.monotonic()
    try:
        return function(*values, **named)
    except Error:
        # The next question gets a connection of its own.
        connection.close()
        if not was_open or time.monotonic() - began > STALE_SECONDS:
            raise
    # The database had closed the connection since it was last used, say for a restart.
    try:
        return function(*values, **named)
    except Error:
        connection.close()
        raise


# Items: each is read one level deep, however much stands in it -----------------------------------------------------


def items_in(data):
    """The items of a list as raw JSON; none where it is no list."""
    return _ITEMS.decode(data) if data.lstrip()[:1] == b"[" else []


def fields_of(item):
    """The fields of an item as raw JSON, or ``None`` for what is no object."""
    return _FIELDS.decode(item) if memoryview(item)[:1] == b"{" else None


def text_in(fields, name):
    """The string under ``name``, or ``None``."""
    raw = bytes(fields.get(name, b""))
    return msgspec.json.decode(raw) if raw[:1] == b'"' else None


def listed(asked, most=MOST_LISTED):
    """
    ``(ids, items)``: the items in an ``input``, each with an id, as they are listed: a plain text is a message.

    What is no item passes as it is: an answer has been made of it, so it meant something. Raises ``TooLarge``.
    """
    ids, items, size = [], [], 0
    asked = asked.strip()
    told = [_encode({"role": "user", "content": msgspec.Raw(asked)})] if asked[:1] == b'"' else items_in(asked)
    for item in told:
        fields = fields_of(item)
        if fields is not None:
            item = _encode(_listed(fields))
            ids.append(text_in(fields, "id"))
        items.append(bytes(item))
        size += len(items[-1]) + 1
        if size > most:
            raise stored_responses.TooLarge
    return ids, b"[" + b",".join(items) + b"]"


def _listed(fields):
    """``fields``, of which each item has some, with those that this one lacks."""
    kind = text_in(fields, "type") or "message"
    fields["type"] = msgspec.Raw(_encode(kind))
    if text_in(fields, "id") is None:
        prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}.get(kind, "item")
        fields["id"] = msgspec.Raw(_encode(new_id(prefix)))
    content = fields.get("content", msgspec.Raw(b""))
    if kind == "message" and bytes(content)[:1] == b'"':
        said = {"type": "input_text", "text": content}
        if text_in(fields, "role") == "assistant":
            said = {"type": "output_text", "text": content, "annotations": []}
        fields["content"] = msgspec.Raw(_encode([said]))
    if kind in PLAIN:
        fields.setdefault("status", msgspec.Raw(b'"completed"'))
    return fields


def told_again(item, *, is_own):
    """
    A stored item as a later request repeats it to a provider, or ``None`` for what does not go there.

    No provider knows the ids, since none has stored anything; and thoughts can be read only by who had them.
    """
    fields = fields_of(item)
    if fields is None:
        return None
    kind = text_in(fields, "type") or "message"
    hidden = ("id", "status") if kind in PLAIN else ("status",)
    if kind not in PLAIN and not (is_own and (kind != "reasoning" or text_in(fields, "encrypted_content") is not None)):
        return None
    return _encode({name: raw for name, raw in fields.items() if name not in hidden and bytes(raw) != b"null"})


def without_proof(item):
    """An item without its encrypted thoughts, for callers who did not ask for those."""
    fields = fields_of(item)
    if fields is None or "encrypted_content" not in fields:
        return item
    return msgspec.Raw(_encode({name: raw for name, raw in fields.items() if name != "encrypted_content"}))


# In a thread -----------------------------------------------------------------------------------------------------


def _kept(*, input, output, **named):
    ids, items = listed(input)
    output.decode()
    written = items_in(output)
    for item in written:
        fields = fields_of(item)
        ids.append(text_in(fields, "id") if fields is not None else None)
    return stored_responses.Kept(
        input=items, output=output if written else b"[]", item_ids=[id for id in ids if id is not None], **named
    )


def _read(columns, most):
    """The items of each column in turn. Raises ``TooLarge`` where all are more than ``most`` bytes together."""
    for column in columns:
        data = stored_responses.unpacked(column, most)
        most -= len(data)
        yield items_in(data)


def _columns(responses):
    return (column for response in responses for column in (response.input, response.output))


def context(id, workspace_id, provider_model_id):
    """
    ``(ids, items)``: the responses that a request goes on from, oldest first, and what they say before its own input.

    The items are JSON without the brackets around it, as ``provider_model_id`` may have them. Raises
    ``StoredResponse.DoesNotExist`` and ``TooLarge``.
    """
    path = stored_responses.path_to(id, workspace_id, MOST_TOLD)
    owned = [response.provider_model_id == provider_model_id for response in path for _column in range(2)]
    told = [
        told_again(item, is_own=is_own)
        for is_own, items in zip(owned, _read(_columns(path), MOST_TOLD), strict=True)
        for item in items
    ]
    return [response.pk for response in path], b",".join(item for item in told if item is not None)


def named_items(ids, workspace_id, provider_model_id):
    """
    The items of these ids as JSON, as ``provider_model_id`` may have them; ``None`` for one that does not go there.

    Raises ``TooLarge``.
    """
    holding = stored_responses.holding(ids, workspace_id, MOST_TOLD)
    owners = [(response, wanted) for response, wanted in holding.items() for _column in range(2)]
    found = {}
    for (response, wanted), items in zip(owners, _read(_columns(holding), MOST_TOLD), strict=True):
        for item in items:
            fields = fields_of(item)
            id = text_in(fields, "id") if fields is not None else None
            if id in wanted:
                found[id] = told_again(item, is_own=response.provider_model_id == provider_model_id)
    return found


def document(id, workspace_id, *, with_proofs=False):
    """A response as it was answered, its fields as raw JSON. Raises ``StoredResponse.DoesNotExist``."""
    response = stored_responses.find(id, workspace_id)
    output = items_in(stored_responses.unpacked(response.output))
    if not (response.shows_reasoning or with_proofs):
        output = [without_proof(item) for item in output]
    return _FIELDS.decode(stored_responses.unpacked(response.response)) | {"output": output}


def input_items(id, workspace_id, *, with_proofs=False):
    """
    All that the model was told for a response, oldest first: pairs of an item's id, or ``None``, and its raw JSON.

    Raises ``StoredResponse.DoesNotExist`` and ``TooLarge``.
    """
    path = stored_responses.path_to(id, workspace_id, MOST_LISTED)
    shows_proofs = path[-1].shows_reasoning or with_proofs
    listed_items = []
    for items in _read([*_columns(path[:-1]), path[-1].input], MOST_LISTED):
        for item in items:
            fields = fields_of(item)
            if fields is not None:
                listed_items.append((text_in(fields, "id"), item if shows_proofs else without_proof(item)))
    return listed_items
