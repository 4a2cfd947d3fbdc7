"""Periodic work on what was used."""

import structlog
from celery import shared_task

from usage import rollups

log = structlog.get_logger(__name__)


@shared_task
def check_books():
    """Warn where the sums that dashboards read differ from the request rows."""
    if differences := rollups.disagreements():
        dimensions, rows, sums = differences[0]
        log.warning(
            "rollups differ from the request rows; manage.py rebuild_rollups makes them good",
            differences=len(differences),
            first={name: str(value) for name, value in dimensions.items()},
            rows=rows,
            rollups=sums,
        )
