"""
Responses that callers asked to have stored, so that they can be read again and gone on from: plain queries.

Thirty days after a conversation was last gone on with, all of it is deleted.
"""

import datetime
import zlib

import msgspec
from django.db import transaction
from django.utils import timezone

from usage.models import StoredItem, StoredResponse

KEPT_FOR = datetime.timedelta(days=30)
DELETED_AT_ONCE = 500
MAX_ID = 64


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
    limit = StoredItem._meta.get_field("item_id").max_length
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
            if len(item_id) <= limit
        )


def unpacked(column):
    """The bytes of a compressed column."""
    return zlib.decompress(column)


def find(id, workspace_id):
    """The response of that id in the workspace. Raises ``StoredResponse.DoesNotExist``."""
    if len(id) > MAX_ID or not id.isascii() or not id.isprintable():
        raise StoredResponse.DoesNotExist
    return StoredResponse.objects.get(pk=id, workspace_id=workspace_id, expires_at__gt=timezone.now())


def path_to(id, workspace_id):
    """
    The response of that id and all that it goes on from, oldest first, in at most three queries.

    Raises ``StoredResponse.DoesNotExist`` where one of them is not there any more, too.
    """
    last = find(id, workspace_id)
    if not last.previous_id:
        return [last]
    thread = StoredResponse.objects.filter(thread=last.thread, workspace_id=workspace_id, expires_at__gt=timezone.now())
    previous = dict(thread.values_list("pk", "previous_id"))
    ids = [last.previous_id]
    while ids[-1] in previous and previous[ids[-1]]:
        ids.append(previous[ids[-1]])
    found = thread.in_bulk(ids)
    if len(found) < len(ids):
        raise StoredResponse.DoesNotExist
    return [*(found[each] for each in reversed(ids)), last]


def holding(item_ids, workspace_id):
    """The responses of the workspace that hold items of these ids."""
    wanted = StoredItem.objects.filter(item_id__in=item_ids).values("response")
    return list(StoredResponse.objects.filter(pk__in=wanted, workspace_id=workspace_id, expires_at__gt=timezone.now()))


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
