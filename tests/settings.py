"""The product's settings in a data folder that is thrown away, with what only costs time turned down."""

import atexit
import os
import shutil
import tempfile

_folder = tempfile.mkdtemp(prefix="comptoir-tests-")
_owner = os.getpid()
_before = os.environ.get("COMPTOIR_DATA")
os.environ["COMPTOIR_DATA"] = _folder

from config.settings import *  # noqa: E402, F403

# Servers that tests start as child processes choose their own folder; none may fall into this one.
del os.environ["COMPTOIR_DATA"]
if _before is not None:
    os.environ["COMPTOIR_DATA"] = _before


@atexit.register
def _remove_folder():
    if os.getpid() == _owner:
        shutil.rmtree(_folder, ignore_errors=True)


PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = STORAGES | {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}  # noqa: F405
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":  # noqa: F405
    # A file, not memory: connections of several threads share it as they share the real one.
    DATABASES["default"]["TEST"] = {"NAME": os.path.join(_folder, "test.sqlite3")}  # noqa: F405
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"  # noqa: F405
