"""The processes that answer calls, as the database knows them, and how long it does."""

import datetime
import os
import socket

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from usage.models import GatewayProcess, SpendLease

# One that looks often and was not seen for so long is gone.
SEEN_SECONDS = 75
# How long is told which processes there were, and what they drew of an interval that has ended.
TOLD = datetime.timedelta(days=35)
BATCH, BATCHES = 1_000, 200


def count_living(*, uid, host, pid) -> int:
    """
    Say that this process lives, and return how many do; one of the same machine whose pid is gone does not count.

    Safe to repeat; a row is written at each call.
    """
    now = timezone.now()
    if not GatewayProcess.objects.filter(pk=uid).update(seen_at=now):
        GatewayProcess.objects.get_or_create(uid=uid, defaults={"host": host[:200], "pid": pid})
    return _count(now, host, uid)


def sharing() -> int:
    """
    Into how many shares limits by the minute are cut, one for each process; one query.

    One where there is one process, and where Redis or Valkey counts for all of them.
    """
    if settings.REDIS_URL:
        return 1
    return max(_count(timezone.now(), socket.gethostname()), settings.WEB_PROCESSES)


def _count(now, host, uid=None):
    since = now - datetime.timedelta(seconds=SEEN_SECONDS)
    living = GatewayProcess.objects.filter(ended_at=None, seen_at__gte=since).values_list("uid", "host", "pid")
    return sum(1 for other, where, number in living if other == uid or where != host[:200] or _is_alive(number))


def delete_old(now=None) -> tuple[int, int]:
    """
    Forget what processes drew of intervals that ended ``TOLD`` ago, and processes that were last seen before that and
    have drawn nothing that is kept; return how many of each.

    A lease that still holds something stays, and so does its process. Rows that arrive later are settled all the same.
    """
    before = (now or timezone.now()) - TOLD
    leases = SpendLease.objects.filter(remaining_nanos=0, ledger_period__end__lt=before)
    gone = Q(ended_at__lt=before) | Q(ended_at=None, seen_at__lt=before)
    return _delete(leases), _delete(GatewayProcess.objects.filter(gone, leases=None))


def _delete(rows):
    """Delete in transactions so short that no request waits for one."""
    count = 0
    for _ in range(BATCHES):
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:BATCH])
        count += rows.filter(pk__in=ids).delete()[0] if ids else 0
        if len(ids) < BATCH:
            break
    return count


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
