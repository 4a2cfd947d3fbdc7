"""The front door: the API and the process's lifespan go to the gateway, everything else to Django."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application
from servestatic import ServeStaticASGI

site = ServeStaticASGI(
    get_asgi_application(),
    root=settings.STATIC_ROOT,
    prefix=settings.STATIC_URL,
    immutable_file_test=r"\.[0-9a-f]{12}\.",
)

# After get_asgi_application: Django must be set up before the gateway imports models.
from gateway.asgi import gateway  # noqa: E402
from providers import flavours  # noqa: E402

API_ROOTS = {"/v1", "/api/v1", "/api"}
MISPLACED = ("/chat/completions", "/completions", "/embeddings", "/messages", "/models", "/responses")
MACHINE_PATHS = {"/healthz", "/readyz", "/metrics"}


def is_api(path):
    """Whether ``path`` belongs to the gateway: also what SDKs ask for when their base URL lacks its ``/v1``."""
    if path.startswith("//"):
        # As from a base URL that ends in a slash.
        path = "/" + path.lstrip("/")
    if path in MACHINE_PATHS or path.removesuffix("/") in API_ROOTS or path.startswith(MISPLACED):
        return True
    return path.startswith(("/v1/", *flavours.ROOTS))


async def application(scope, receive, send):
    """Send the API and the process's lifespan to the gateway, pages and static files to Django."""
    await (gateway if scope["type"] == "lifespan" or is_api(scope["path"]) else site)(scope, receive, send)
