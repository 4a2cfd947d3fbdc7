"""The first page of a workspace."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import render
from django.views.decorators.http import require_GET

from console.access import get_workspace
from console.addresses import base_url
from console.first_steps import steps_of


@login_required
@require_GET
def home(request, workspace_slug):
    """The next steps while any are left, today's figures, and how a program calls the gateway."""
    workspace = get_workspace(request, workspace_slug)
    steps = steps_of(workspace, request.member)
    done = sum(step["is_done"] for step in steps)
    context = {
        "section": "home",
        "steps": steps if done < len(steps) else [],
        "done": done,
        "next_step": next((step for step in steps if not step["is_done"]), None),
        "base_url": base_url(request),
        "key_name": workspace.api_keys.free_name("first"),
    }
    return render(request, "console/home.html" + ("#steps" if request.htmx else ""), context)
