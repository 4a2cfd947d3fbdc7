"""Periodic work on what providers sell."""

import subprocess
import sys

import structlog
from celery import shared_task
from django.conf import settings

from providers.catalog.update import is_current

log = structlog.get_logger(__name__)


@shared_task
def fill_catalog():
    """Write the catalogue where it is not that of the installed price library, in a process that ends with it."""
    if is_current():
        return
    command = [sys.executable, "manage.py", "update_catalog", "--if-needed"]
    done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=600)  # noqa: S603
    if done.returncode:
        log.error("the catalogue could not be written", error=done.stderr.strip()[-500:])
    else:
        log.info("wrote the catalogue", result=" ".join(done.stdout.split()))
