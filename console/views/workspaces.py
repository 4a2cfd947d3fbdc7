"""The workspaces of an organization: list, create, edit. For those who manage it."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from console import services
from console.access import get_organization
from console.forms import WorkspaceForm

CHANGED = "workspaces-changed"


@login_required
@require_GET
def workspace_list(request, organization_slug):
    """Every workspace with its number of keys; htmx gets the table alone."""
    organization = get_organization(request, organization_slug)
    live = Count("api_keys", filter=Q(api_keys__revoked_at=None))
    context = {"section": "workspaces", "listed": organization.workspaces.annotate(key_count=live)}
    return render(request, "console/workspace_list.html" + ("#fragment" if request.htmx else ""), context)


@login_required
@require_http_methods(["GET", "POST"])
def workspace_create(request, organization_slug):
    """Create a workspace and enter it."""
    organization = get_organization(request, organization_slug)
    form = WorkspaceForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            workspace = services.create_workspace(organization=organization, **form.cleaned_data, actor=request.user)
        except ValidationError as error:
            _add(form, error)
        else:
            return _done(request, _("Workspace %(name)s created") % {"name": workspace.name})
    context = {
        "section": "workspaces",
        "title": _("Create a workspace"),
        "form": form,
        "back_url": _list_url(organization),
    }
    return render(request, "console/workspace_form.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def workspace_edit(request, organization_slug, workspace_uid):
    """Give a workspace another name, its address staying, or say how its keys are answered."""
    organization = get_organization(request, organization_slug)
    workspace = get_object_or_404(organization.workspaces, uid=workspace_uid)
    initial = {field: getattr(workspace, field) for field in ("name", "flavour", "stores_responses")}
    form = WorkspaceForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            services.edit_workspace(workspace=workspace, **form.cleaned_data, actor=request.user)
        except ValidationError as error:
            workspace.refresh_from_db(fields=["name"])
            _add(form, error)
        else:
            return _done(request, _("Workspace %(name)s saved") % {"name": workspace.name})
    context = {
        "section": "workspaces",
        "title": _("Edit the workspace"),
        "form": form,
        "edited": workspace,
        "back_url": _list_url(organization),
    }
    return render(request, "console/workspace_form.html", context, status=422 if form.errors else 200)


def _done(request, message):
    messages.success(request, message)
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": CHANGED})
    return redirect(_list_url(request.member.organization))


def _list_url(organization):
    return reverse("console:workspace_list", args=[organization.slug])


def _add(form, error):
    for message in error.messages:
        form.add_error("name", message)
