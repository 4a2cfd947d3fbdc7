"""Where this server is reached, as programs and browsers must write it."""

from django.conf import settings


def base_url(request):
    """Such as ``https://ai.example.org``: the public URL of the settings, or the one this request came by."""
    return settings.PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
