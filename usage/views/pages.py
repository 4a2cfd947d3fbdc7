"""What the views of this package share."""

from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_vary_headers


def render_local(request, workspace, template, context, status=200):
    """Render by the organization's clock. One address gives a page or a part of it, so caches must tell them apart."""
    with timezone.override(workspace.organization.time_zone):
        response = render(
            request,
            template,
            {"workspace": workspace, "currency": workspace.organization.currency, **context},
            status=status,
        )
    patch_vary_headers(response, ["HX-Request"])
    return response


def unchanged():
    """The answer to a page that asks for news when there are none: htmx leaves it as it is."""
    response = HttpResponse(status=204)
    patch_vary_headers(response, ["HX-Request"])
    return response


def address(path, query):
    return f"{path}?{urlencode(query)}" if query else path
