"""
Responses that callers asked to have stored, so that they can be read again and gone on from: plain queries.

Thirty days after a conversation was last gone on with, all of it is deleted.
"""

import datetime
import zlib

import msgspec
from django.db import transaction
from django.db.models import Max, Sum
from django.db.models.functions import Length
from django.utils import timezone

from usage.models import StoredItem, StoredResponse

KEPT_FOR = datetime.timedelta(days=30)
DELETED_AT_ONCE = 500
MAX_ID = 64
MAX_ITEM_ID = StoredItem._meta.get_field("item_id").max_length
# What is read of a response that a request goes on from, and how much that is in the database.
TOLD = ("provider_model_id", "shows_reasoning", "input", "output")
PACKED_SIZE = Length("input") + Length("output")


class TooLarge(Exception):
    """What is asked for is more bytes than whoever asks would take."""


class Kept(msgspec.Struct):
    """
    A response to be stored, as in ``StoredResponse`` but not compressed yet.

    ``previous`` are the ids of the responses that it goes on from, oldest first, and ``item_ids`` those of its items.
    """

    id: str
    workspace_id: int
    previous: list[str]
    provider_model_id: int | None
    shows_reasoning: bool
    input: bytes
    output: bytes
    response: bytes
    item_ids: list[str]


def keep(kept: list[Kept]):
    """Store responses, and let what they go on from live as long: one transaction, in a fixed number of queries."""
    now = timezone.now()
    expires_at = now + KEPT_FOR
    packed = [[zlib.compress(part, 1) for part in (each.input, each.output, each.response)] for each in kept]
    earlier = {id for each in kept for id in each.previous}
    with transaction.atomic():
        threads = {}
        if earlier:
            StoredResponse.objects.filter(pk__in=earlier).update(expires_at=expires_at)
            threads = dict(StoredResponse.objects.filter(pk__in=earlier).values_list("pk", "thread"))
        StoredResponse.objects.bulk_create(
            StoredResponse(
                id=each.id,
                workspace_id=each.workspace_id,
                thread=threads.get(each.previous[-1], each.id) if each.previous else each.id,
                previous_id=each.previous[-1] if each.previous else "",
                provider_model_id=each.provider_model_id,
                shows_reasoning=each.shows_reasoning,
                input=parts[0],
                output=parts[1],
                response=parts[2],
                created_at=now,
                expires_at=expires_at,
            )
            for each, parts in zip(kept, packed, strict=True)
        )
        StoredItem.objects.bulk_create(
            StoredItem(response_id=each.id, item_id=item_id)
            for each in kept
            for item_id in dict.fromkeys(each.item_ids)
            if len(item_id) <= MAX_ITEM_ID
        )


def unpacked(column, most=None):
    """The bytes of a compressed column. Raises ``TooLarge`` where they are more than ``most``, having made no more."""
    if most is None:
        return zlib.decompress(column)
    data = zlib.decompressobj().decompress(column, most + 1)
    if len(data) > most:
        raise TooLarge
    return data


def _there(workspace_id):
    return StoredResponse.objects.filter(workspace_id=workspace_id, expires_at__gt=timezone.now())


def find(id, workspace_id):
    """The response of that id in the workspace. Raises ``StoredResponse.DoesNotExist``."""
    return _there(workspace_id).get(pk=_checked(id))


def _checked(id):
    if len(id) > MAX_ID or not id.isascii() or not id.isprintable():
        raise StoredResponse.DoesNotExist
    return id


def path_to(id, workspace_id, most):
    """
    The response of that id and all that it goes on from, oldest first, as far as ``TOLD``, in at most three queries.

    Raises ``StoredResponse.DoesNotExist`` where one of them is not there any more, too, and ``TooLarge``, before any
    content is read, where they are more than ``most`` bytes as they are stored.
    """
    there = _there(workspace_id)
    sized = there.annotate(size=PACKED_SIZE)
    thread, previous, size = sized.values_list("thread", "previous_id", "size").get(pk=_checked(id))
    ids = [id]
    earlier = {}
    if previous:
        rows = sized.filter(thread=thread).values_list("pk", "previous_id", "size")
        earlier = {pk: (before, more) for pk, before, more in rows}
    while previous:
        if previous not in earlier:
            raise StoredResponse.DoesNotExist
        ids.append(previous)
        previous, more = earlier[previous]
        size += more
    if size > most:
        raise TooLarge
    found = there.only(*TOLD).in_bulk(ids)
    if len(found) < len(ids):
        raise StoredResponse.DoesNotExist
    return [found[each] for each in reversed(ids)]


def holding(item_ids, workspace_id, most):
    """
    ``{response: ids}``: for each item that the workspace has, the newest response that holds it, as far as ``TOLD``.

    Raises ``TooLarge``, before any content is read, where those are more than ``most`` bytes as they are stored.
    """
    there = _there(workspace_id)
    asked = [id for id in item_ids if len(id) <= MAX_ITEM_ID and "\0" not in id]
    newest = (
        StoredItem.objects.filter(item_id__in=asked, response__in=there)
        .values("item_id")
        .annotate(newest=Max("pk"))
        .values("newest")
    )
    held = {}
    for item_id, response_id in StoredItem.objects.filter(pk__in=newest).values_list("item_id", "response_id"):
        held.setdefault(response_id, set()).add(item_id)
    responses = there.filter(pk__in=held)
    if (responses.aggregate(size=Sum(PACKED_SIZE))["size"] or 0) > most:
        raise TooLarge
    return {response: held[response.pk] for response in responses.only(*TOLD)}


def delete(id, workspace_id):
    """Delete a response for good. Raises ``StoredResponse.DoesNotExist``."""
    find(id, workspace_id).delete()


def delete_expired():
    """Delete what has expired, a bounded batch at a time; returns how many responses that were."""
    count = 0
    while ids := list(
        StoredResponse.objects.filter(expires_at__lte=timezone.now()).values_list("pk", flat=True)[:DELETED_AT_ONCE]
    ):
        StoredResponse.objects.filter(pk__in=ids).only("pk").delete()
        count += len(ids)
    return count
