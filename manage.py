#!/usr/bin/env python
"""Django's command line, for this project."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db.utils import DatabaseError

# How long a command waits for the server's writes; a migration takes longer than a request may.
PATIENCE_SECONDS = 60


def main(arguments):
    """Run a command; a database that is not ready for it is told in one sentence."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    _be_patient()
    try:
        execute_from_command_line(["comptoir manage", *arguments])
    except DatabaseError as error:
        said = _told(error)
        if said is None or "--traceback" in arguments:
            raise
        return said
    return 0


def _be_patient():
    from django.conf import settings

    try:
        database = settings.DATABASES["default"]
    except ImproperlyConfigured:
        # Django says of which setting.
        return
    if database["ENGINE"] == "django.db.backends.sqlite3":
        from django.db.backends.sqlite3.base import DatabaseFeatures

        database["OPTIONS"]["timeout"] = PATIENCE_SECONDS
        # Django tries it out, and takes a database that the server is writing to for one that cannot.
        DatabaseFeatures.supports_json_field = True


def _told(error):
    """What to do about an error of the database, ``None`` where it is not its state that stands in the way."""
    from django.conf import settings

    if "no such table" in str(error) or getattr(error.__cause__, "sqlstate", "") == "42P01":
        return (
            f"The database of {settings.DATA_DIR} has not been prepared: start ./comptoir up and wait until it is "
            "ready, or set COMPTOIR_DATA to the folder that is meant."
        )
    if "database is locked" in str(error):
        return "The database is busy, perhaps because the server is preparing it: try again in a moment."
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
