"""The processes that answer calls, as the database knows them."""

import datetime
import os

from django.utils import timezone

from usage.models import GatewayProcess

# One that looks often and was not seen for so long is gone.
SEEN_SECONDS = 75


def count_living(*, uid, host, pid) -> int:
    """
    Say that this process lives, and return how many do; one of the same machine whose pid is gone does not count.

    Safe to repeat; a row is written at each call.
    """
    now = timezone.now()
    if not GatewayProcess.objects.filter(pk=uid).update(seen_at=now):
        GatewayProcess.objects.get_or_create(uid=uid, defaults={"host": host[:200], "pid": pid})
    since = now - datetime.timedelta(seconds=SEEN_SECONDS)
    living = GatewayProcess.objects.filter(ended_at=None, seen_at__gte=since).values_list("uid", "host", "pid")
    return sum(1 for other, where, number in living if other == uid or where != host[:200] or _is_alive(number))


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
