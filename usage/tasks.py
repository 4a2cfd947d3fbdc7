"""Periodic work on what was used."""

import datetime

import structlog
from celery import shared_task
from django.utils import timezone

from usage import deliveries, processes, rate_limits, rollups, stored_responses, sweeps

log = structlog.get_logger(__name__)


@shared_task
def check_books():
    """Warn where the sums of the last two days, which dashboards read, differ from the request rows."""
    since = timezone.now().replace(minute=0, second=0, microsecond=0) - datetime.timedelta(days=2)
    if differences := rollups.disagreements(since):
        dimensions, rows, sums = differences[0]
        log.warning(
            "rollups differ from the request rows; manage.py rebuild_rollups makes them good",
            differences=len(differences),
            first={name: str(value) for name, value in dimensions.items()},
            rows=rows,
            rollups=sums,
        )


@shared_task
def delete_expired_responses():
    """Delete stored responses whose time has come."""
    if count := stored_responses.delete_expired():
        log.info("expired responses deleted", responses=count)


@shared_task
def send_alerts():
    """Raise, resolve and send spend alerts."""
    sweeps.sweep_alerts()


@shared_task
def delete_old_deliveries():
    """Delete messages that arrived, or were given up, a month ago."""
    if count := deliveries.delete_old():
        log.info("old deliveries deleted", deliveries=count)


@shared_task
def delete_old_leases():
    """Forget what processes drew of intervals that ended long ago, and processes of that time."""
    leases, ended = processes.delete_old()
    if leases or ended:
        log.info("old leases deleted", leases=leases, processes=ended)


@shared_task
def promote_organizations():
    """Move organizations up that have reached their next usage tier."""
    for place in rate_limits.promote_organizations():
        log.info("organization promoted", organization=place.organization.uid, tier=place.tier.slug)
