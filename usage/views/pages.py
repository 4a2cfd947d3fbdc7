"""What the views of this package share."""

from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
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


def done(request, message, page, changed="limits-changed"):
    """Say what happened: on the page to go back to, or to the one beneath the dialog, which fetches itself anew."""
    messages.success(request, message)
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": changed})
    return redirect(page)


def refuse(form, error, names=None):
    """Put a service's refusal beside the field that it speaks of; ``names`` are the form's where they differ."""
    for field, errors in error.error_dict.items() if hasattr(error, "error_dict") else [(None, error.error_list)]:
        name = (names or {}).get(field, field)
        form.add_error(name if name in form.fields else None, errors)


def unchanged():
    """The answer to a page that asks for news when there are none: htmx leaves it as it is."""
    response = HttpResponse(status=204)
    patch_vary_headers(response, ["HX-Request"])
    return response


def address(path, query):
    return f"{path}?{urlencode(query)}" if query else path
