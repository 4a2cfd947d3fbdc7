"""The first page of a workspace."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import render
from django.views.decorators.http import require_GET

from console.access import get_workspace
from console.addresses import base_url


@login_required
@require_GET
def home(request, workspace_slug):
    """The next steps while any are left, today's figures, and how a program calls the gateway."""
    workspace = get_workspace(request, workspace_slug)
    context = {"section": "home", "base_url": base_url(request), "has_key": workspace.api_keys.exists()}
    return render(request, "console/home.html", context)
