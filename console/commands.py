"""How pages and messages write commands to be typed on the server."""

import shlex

from django.conf import settings


def comptoir() -> str:
    """The command itself, with the data folder before it where that is another than the default."""
    if settings.DATA_DIR == settings.BASE_DIR / "var":
        return "./comptoir"
    return f"COMPTOIR_DATA={shlex.quote(str(settings.DATA_DIR))} ./comptoir"
