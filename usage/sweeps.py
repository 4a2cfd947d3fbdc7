"""Work that must be done every few seconds by somebody, whether a worker runs or not."""

import datetime

from django.utils import timezone

from usage import deliveries, limit_alerts
from usage.models import Sweep

# Less than the time between two beats of a worker, so that a beat that comes early is not missed.
LEAST_SECONDS = 10


def sweep_alerts(every=LEAST_SECONDS) -> bool:
    """Raise, resolve and send spend alerts, unless somebody did within ``every`` seconds; whether it was done."""
    if not _claim("alerts", every):
        return False
    limit_alerts.evaluate()
    deliveries.send_due()
    return True


def _claim(name, seconds):
    now = timezone.now()
    before = now - datetime.timedelta(seconds=seconds)
    # Asked for first: who writes, waits for others that do.
    if Sweep.objects.filter(name=name, swept_at__gt=before).exists():
        return False
    if Sweep.objects.filter(name=name, swept_at__lte=before).update(swept_at=now):
        return True
    _sweep, made = Sweep.objects.get_or_create(name=name, defaults={"swept_at": now})
    return made
