"""The libraries of cloud providers: installed only where they are asked for, imported only where they are used."""

import asyncio
import importlib
import sys
from importlib.util import find_spec

from django.utils.translation import gettext_noop

from providers.errors import Unreachable

_ = gettext_noop

# The modules that an adapter uses. Its own name is what ``COMPTOIR_EXTRAS`` calls them, and that of their lock file.
MODULES = {
    "bedrock": ("botocore.auth", "botocore.awsrequest", "botocore.eventstream"),
    "vertex": ("google.auth.exceptions", "google.auth.transport", "google.oauth2.service_account"),
}


def missing_extra(adapter: str) -> str | None:
    """The extra without which no provider of ``adapter`` can be called; ``None`` where nothing is missing."""
    modules = MODULES.get(adapter)
    if modules is None or modules[0] in sys.modules:
        return None
    try:
        return None if find_spec(modules[0]) else adapter
    except ModuleNotFoundError:
        return adapter


async def load(adapter: str) -> list:
    """
    The modules of ``adapter``, imported beside the event loop at the first call.

    Raises ``Unreachable`` where they are not installed.
    """
    names = MODULES[adapter]
    try:
        return [sys.modules.get(name) or await asyncio.to_thread(importlib.import_module, name) for name in names]
    except ModuleNotFoundError as error:
        message = _("This server lacks the library that calls it.")
        raise Unreachable(message, f"{error}: start it with COMPTOIR_EXTRAS={adapter}") from None
