"""Checks of an organization's books that somebody asked for: a pass over its rows."""

import datetime
import threading

import structlog
from django.db import Error, connection, transaction
from django.utils import timezone

from console.models import Organization
from usage import books
from usage.models import BooksCheck

log = structlog.get_logger(__name__)

TOLD_EVERY = 1.0
# One that has told nothing for so long has ended with its process.
SILENT = datetime.timedelta(seconds=30)
KEPT = 20


def start_check(*, organization, actor) -> BooksCheck:
    """Begin a check, or name the one that is under way."""
    with transaction.atomic():
        # Two who ask at once get one check.
        Organization.objects.select_for_update().get(pk=organization.pk)
        check = latest_check(organization)
        if check and is_running(check):
            return check
        check = BooksCheck.objects.create(organization=organization, requested_by=actor)
        old = list(organization.books_checks.order_by("-pk").values_list("pk", flat=True)[KEPT:])
        BooksCheck.objects.filter(pk__in=old).delete()
        transaction.on_commit(
            lambda: threading.Thread(target=_run, args=(check.pk,), name="books", daemon=True).start()
        )
    return check


def latest_check(organization) -> BooksCheck | None:
    return organization.books_checks.select_related("requested_by").order_by("-pk").first()


def is_running(check) -> bool:
    return check.ended_at is None and timezone.now() - check.seen_at < SILENT


def run_check(check_pk):
    """Make the check; where the database fails it ends without a result."""
    check = BooksCheck.objects.get(pk=check_pk)
    progress, done = [0, 0], threading.Event()

    def on_day(*figures):
        progress[:] = figures

    reporter = threading.Thread(target=_report, args=(check_pk, progress, done), name="books-progress", daemon=True)
    reporter.start()
    result = None
    try:
        result = books.total(books.Asked(organization_id=check.organization_id), on_day)
    finally:
        done.set()
        reporter.join()
        days_done, days = progress
        BooksCheck.objects.filter(pk=check_pk).update(
            ended_at=timezone.now(), seen_at=timezone.now(), days_done=days_done, days=days, result=result
        )


def _run(check_pk):
    try:
        run_check(check_pk)
    except Error as error:
        log.warning("books not checked", check=check_pk, error=str(error).strip())
    finally:
        connection.close()


def _report(check_pk, progress, done):
    """Write how far it is, over a connection of its own: the check's sees one state of the database all the while."""
    try:
        while not done.wait(TOLD_EVERY):
            days_done, days = progress
            BooksCheck.objects.filter(pk=check_pk).update(seen_at=timezone.now(), days_done=days_done, days=days)
    except Error as error:
        log.warning("progress not told", check=check_pk, error=str(error).strip())
    finally:
        connection.close()
