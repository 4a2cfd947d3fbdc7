"""Stored responses from the event loop: each question to the database goes to a thread, and waits only so long."""

import asyncio
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore

import msgspec
import structlog
from django.db import DataError, Error, IntegrityError, connection
from django.utils.translation import gettext_noop

from console.ids import new_id
from gateway.errors import GatewayError
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
# What fails as soon as this on a connection that was there before is worth a second try on a new one.
STALE_SECONDS = 0.5
# Items that every provider understands.
PLAIN = ("message", "function_call", "function_call_output")


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
        self._room = BoundedSemaphore(MOST_WAITING)

    def close(self):
        for executor in (self._readers, self._writer):
            executor.submit(lambda: connection.close())
            executor.shutdown(wait=False)

    async def ask(self, function, *values, seconds=SECONDS, **named):
        """
        What ``function`` of the database returns. Raises ``GatewayError`` where it does not answer within ``seconds``,
        and what ``function`` raises otherwise.
        """
        try:
            self._enter()
            return await self._wait(self._readers.submit(_asked, function, *values, **named), seconds)
        except (Error, TimeoutError) as error:
            log.error("stored responses not reached", error=str(error).strip() or "timeout")
            raise away() from None

    async def keep(self, **named):
        """Store a response; whether that worked. All that wait are written in one transaction."""
        try:
            self._enter()
            answer = Future()
            self._unwritten.append((named, answer))
            self._writer.submit(self._write)
            await self._wait(answer, KEEP_SECONDS)
        except (Error, TimeoutError, *UNREADABLE) as error:
            reason = str(error).strip() or "timeout"
            log.error("response not stored; it went out all the same", response_id=named["id"], error=reason)
            return False
        return True

    def _enter(self):
        if not self._room.acquire(blocking=False):
            raise TimeoutError("too many are waiting")

    async def _wait(self, answer, seconds):
        # Whoever asked may leave; the question stays in its line, so that the room it takes is known.
        answer.add_done_callback(lambda done: self._room.release())
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
            except UNREADABLE as error:
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


# Items -----------------------------------------------------------------------------------------------------------


def listed(asked):
    """
    The items in an ``input``, each with an id, as they are listed: a plain text is a message of the user.

    What is no item passes as it is: an answer has been made of it, so it meant something.
    """
    value = msgspec.json.decode(asked)
    items = [{"role": "user", "content": value}] if isinstance(value, str) else value
    return [_listed(item) for item in items] if isinstance(items, list) else []


def _listed(item):
    if not isinstance(item, dict):
        return item
    kind = item.get("type") or "message"
    item = item | {"type": kind}
    if not isinstance(item.get("id"), str):
        item["id"] = new_id({"message": "msg", "function_call": "fc", "reasoning": "rs"}.get(kind, "item"))
    if kind == "message" and isinstance(item.get("content"), str):
        said = {"type": "input_text", "text": item["content"]}
        if item.get("role") == "assistant":
            said = {"type": "output_text", "text": item["content"], "annotations": []}
        item["content"] = [said]
    if kind in PLAIN:
        item.setdefault("status", "completed")
    return item


def told_again(item, *, is_own):
    """
    A stored item as a later request repeats it to a provider, or ``None`` for what does not go there.

    No provider knows the ids, since none has stored anything; and thoughts can be read only by who had them.
    """
    if not isinstance(item, dict):
        return None
    kind = item.get("type") or "message"
    if kind in PLAIN:
        return {name: value for name, value in item.items() if name not in ("id", "status") and value is not None}
    if not is_own or (kind == "reasoning" and not isinstance(item.get("encrypted_content"), str)):
        return None
    return {name: value for name, value in item.items() if name != "status" and value is not None}


def without_proofs(items):
    """``items`` without the encrypted thoughts in them, for callers who did not ask for those."""
    return [
        {name: value for name, value in item.items() if name != "encrypted_content"} if isinstance(item, dict) else item
        for item in items
    ]


# In a thread -----------------------------------------------------------------------------------------------------


def _kept(*, input, output, **named):
    items, written = listed(input), msgspec.json.decode(output)
    if not isinstance(written, list):
        written, output = [], b"[]"
    ids = [item.get("id") for item in [*items, *written] if isinstance(item, dict)]
    return stored_responses.Kept(
        input=msgspec.json.encode(items), output=output, item_ids=[id for id in ids if isinstance(id, str)], **named
    )


def context(id, workspace_id, provider_model_id):
    """
    ``(ids, items)``: the responses that a request goes on from, oldest first, and what they say before its own input.

    The items are as ``provider_model_id`` may have them. Raises ``StoredResponse.DoesNotExist``.
    """
    path = stored_responses.path_to(id, workspace_id)
    items = [
        told_again(item, is_own=response.provider_model_id == provider_model_id)
        for response in path
        for item in [*_decoded(response.input), *_decoded(response.output)]
    ]
    return [response.pk for response in path], [item for item in items if item is not None]


def named_items(ids, workspace_id, provider_model_id):
    """The items of these ids, as ``provider_model_id`` may have them; ``None`` for one that does not go there."""
    found = {}
    for response in stored_responses.holding(ids, workspace_id):
        for item in [*_decoded(response.input), *_decoded(response.output)]:
            if isinstance(item, dict) and item.get("id") in ids:
                found[item["id"]] = told_again(item, is_own=response.provider_model_id == provider_model_id)
    return found


def document(id, workspace_id, *, with_proofs=False):
    """A response as it was answered. Raises ``StoredResponse.DoesNotExist``."""
    response = stored_responses.find(id, workspace_id)
    output = _decoded(response.output)
    if not (response.shows_reasoning or with_proofs):
        output = without_proofs(output)
    return msgspec.json.decode(stored_responses.unpacked(response.response)) | {"output": output}


def input_items(id, workspace_id, *, with_proofs=False):
    """All that the model was told for a response, oldest first. Raises ``StoredResponse.DoesNotExist``."""
    *earlier, last = stored_responses.path_to(id, workspace_id)
    items = [item for response in earlier for item in [*_decoded(response.input), *_decoded(response.output)]]
    items += _decoded(last.input)
    items = [item for item in items if isinstance(item, dict)]
    return items if last.shows_reasoning or with_proofs else without_proofs(items)


def _decoded(column):
    return msgspec.json.decode(stored_responses.unpacked(column))
