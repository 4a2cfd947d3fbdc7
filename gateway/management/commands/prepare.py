"""Bring the database and the static files to what this version needs; quick when they are there already."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ValidationError
from django.core.files.storage import storages
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from console.bootstrap import bootstrap, machine_time_zone, new_password
from console.models import Organization
from providers.local_model import register_local_model

# Any number that nothing else in the database locks.
ADVISORY_LOCK = 0x436F6D70


class Command(BaseCommand):
    help = "Migrate the database, create the first organization and its owner, and collect the static files."
    # What could be wrong shows in what it does; the checks would cost a start half a second.
    requires_system_checks = []

    def handle(self, *, verbosity, **options):
        with one_at_a_time():
            try:
                done = [*migrate(), *first_start(), *collect_static_files()]
                for organization in Organization.objects.order_by("pk")[:1]:
                    register_local_model(organization=organization, url=settings.LOCAL_MODEL_URL)
            except ValidationError as error:
                raise CommandError(" ".join(error.messages)) from None
            except OSError as error:
                raise CommandError(f"The data folder {settings.DATA_DIR} cannot be written: {error}.") from None
            except DatabaseError as error:
                raise CommandError(f"The database could not be brought up to date: {_line(error)}") from error
        return f"Prepared: {', '.join(done) or 'nothing to do'}." if verbosity else None


@contextmanager
def one_at_a_time():
    """Let processes that start together prepare one after the other: on this data folder and on this database."""
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
        lock = open(settings.DATA_DIR / "prepare.lock", "w")  # noqa: SIM115
    except OSError as error:
        raise CommandError(f"The data folder {settings.DATA_DIR} cannot be written: {error.strerror}.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.ensure_connection()
        except OperationalError as error:
            raise CommandError(f"The database cannot be reached: {_line(error)}") from None
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])


def migrate():
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        call_command("migrate", interactive=False, verbosity=0)
        yield f"applied {len(plan)} migrations"


def first_start():
    """Create what the first start creates; a generated password goes to the file that ``config.up`` shows once."""
    password = settings.OWNER_PASSWORD or new_password()
    shown = settings.FIRST_SIGN_IN_FILE
    if not Organization.objects.exists():
        # Before the owner exists: should this process end in between, no password is lost.
        write_private(
            shown,
            json.dumps({"email": settings.OWNER_EMAIL, "password": None if settings.OWNER_PASSWORD else password}),
        )
        owner = bootstrap(
            email=settings.OWNER_EMAIL,
            password=password,
            currency=settings.FIRST_CURRENCY,
            time_zone=settings.FIRST_TIME_ZONE or machine_time_zone(),
        )
        if owner is None:
            shown.unlink(missing_ok=True)
        else:
            yield f"created organization Default and its owner {owner.email}"


def collect_static_files():
    """Hash, join and compress them, unless they are those of last time."""
    root = Path(settings.STATIC_ROOT)
    stamp = settings.DATA_DIR / "static.stamp"
    fingerprint = static_fingerprint()
    if (root / "staticfiles.json").exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return
    stamp.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.write_text(fingerprint)
    yield "collected the static files"


def static_fingerprint():
    """A digest over every source's name, size and time, and over what processes them."""
    processor = sys.modules[type(storages["staticfiles"]).__module__].__file__
    digest = hashlib.sha256(importlib.metadata.version("django").encode() + Path(processor).read_bytes())
    for finder in get_finders():
        for name, storage in finder.list(None):
            status = os.stat(storage.path(name))
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def write_private(path, text):
    """Write ``text`` to a file that its owner alone may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _line(error):
    return " ".join(str(error).split())
