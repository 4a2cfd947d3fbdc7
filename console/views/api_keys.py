"""The keys of a workspace: list, create, edit, disable, revoke."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console import services
from console.access import get_workspace
from console.forms import ApiKeyEditForm, ApiKeyFilterForm, ApiKeyForm, ConfirmationForm
from console.models import ApiKey, Member

PAGE_SIZE = 50
CHANGED = "keys-changed"


@login_required
@require_GET
def api_key_list(request, workspace_slug):
    """The keys, narrowed by name or ending and by status; htmx gets the table and the segments alone."""
    workspace = get_workspace(request, workspace_slug)
    filters = ApiKeyFilterForm(request.GET)
    q, status = filters.value("q"), filters.value("status", ApiKey.Status.ACTIVE)
    found = workspace.api_keys.matching(q)
    counts = found.counts()
    keys = found.for_list() if status == ApiKeyFilterForm.ALL else found.for_list().of_status(status)
    paginator = Paginator(keys, PAGE_SIZE)
    paginator.count = counts[status]
    context = {
        "section": "keys",
        "page": paginator.get_page(request.GET.get("page")),
        "segments": [
            (value, label, counts[value])
            for value, label in _segment_names()
            if counts[value] or value in {status, ApiKey.Status.ACTIVE, ApiKeyFilterForm.ALL}
        ],
        "status": status,
        "q": q,
        "now": timezone.now(),
        "is_narrowed": bool(q) or status != ApiKey.Status.ACTIVE,
    }
    return render(request, "console/api_key_list.html" + ("#fragment" if request.htmx else ""), context)


def _segment_names():
    """The statuses as the segments say them: of several keys, where a language writes that otherwise."""
    return [
        (ApiKey.Status.ACTIVE, pgettext("keys", "Active")),
        (ApiKey.Status.DISABLED, pgettext("keys", "Disabled")),
        (ApiKey.Status.EXPIRED, pgettext("keys", "Expired")),
        (ApiKey.Status.REVOKED, pgettext("keys", "Revoked")),
        (ApiKeyFilterForm.ALL, pgettext("keys", "All")),
    ]


@login_required
@require_http_methods(["GET", "POST"])
def api_key_create(request, workspace_slug):
    """Create a key and show its secret, once."""
    workspace = get_workspace(request, workspace_slug)
    form = ApiKeyForm(request.POST or None, workspace=workspace)
    if request.method == "POST" and form.is_valid():
        try:
            api_key, secret = services.create_api_key(
                workspace=workspace,
                name=form.cleaned_data["name"],
                created_by=request.user,
                expires_at=form.expires_at,
                flavour=form.cleaned_data["flavour"],
                stores_responses=form.cleaned_data["stores_responses"],
            )
        except ValidationError as error:
            _add(form, error)
        else:
            context = {
                "section": "keys",
                "title": api_key.name,
                "api_key": api_key,
                "secret": secret,
                "back_url": _list_url(workspace),
            }
            response = render(request, "console/api_key_created.html", context)
            response["HX-Trigger"] = CHANGED
            return response
    context = {
        "section": "keys",
        "title": _("Create an API key"),
        "form": form,
        "back_url": _list_url(workspace),
    }
    return render(request, "console/api_key_form.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "POST"])
def api_key_edit(request, workspace_slug, api_key_uid):
    """Give a key another name or another style of answers, or say whether its responses may be stored."""
    api_key = _get_api_key(request, workspace_slug, api_key_uid)
    initial = {"name": api_key.name, "flavour": api_key.flavour, "stores_responses": api_key.stores_responses}
    form = ApiKeyEditForm(request.POST or None, initial=initial, workspace=request.workspace)
    if request.method == "POST" and form.is_valid():
        try:
            services.edit_api_key(api_key=api_key, **form.cleaned_data, actor=request.user)
        except ValidationError as error:
            api_key.refresh_from_db(fields=["name"])
            _add(form, error)
        else:
            return _done(request, _("Key %(name)s saved") % {"name": api_key.name})
    context = {
        "section": "keys",
        "title": _("Edit the key"),
        "form": form,
        "api_key": api_key,
        "back_url": _list_url(request.workspace),
    }
    return render(request, "console/api_key_edit.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def api_key_disable(request, workspace_slug, api_key_uid):
    """Refuse a key until it is enabled again."""
    api_key = _get_api_key(request, workspace_slug, api_key_uid)
    services.disable_api_key(api_key=api_key, actor=request.user)
    return _done(request, _("Key %(name)s disabled. It is refused from now on.") % {"name": api_key.name})


@login_required
@require_POST
def api_key_enable(request, workspace_slug, api_key_uid):
    """Let a disabled key work again."""
    api_key = _get_api_key(request, workspace_slug, api_key_uid)
    services.enable_api_key(api_key=api_key, actor=request.user)
    return _done(request, _("Key %(name)s enabled. It works again.") % {"name": api_key.name})


@login_required
@require_http_methods(["GET", "POST"])
def api_key_revoke(request, workspace_slug, api_key_uid):
    """Refuse a key for ever, once its name has been typed."""
    api_key = _get_api_key(request, workspace_slug, api_key_uid)
    form = ConfirmationForm(request.POST or None, name=api_key.name)
    if request.method == "POST" and form.is_valid():
        services.revoke_api_key(api_key=api_key, actor=request.user)
        return _done(request, _("Key %(name)s revoked") % {"name": api_key.name})
    context = {
        "section": "keys",
        "title": _("Revoke the key"),
        "form": form,
        "api_key": api_key,
        "back_url": _list_url(request.workspace),
    }
    return render(request, "console/api_key_revoke.html", context, status=422 if form.errors else 200)


def _get_api_key(request, workspace_slug, uid):
    """A key that the reader may change and that can still be changed: their own, or any for an admin."""
    workspace = get_workspace(request, workspace_slug)
    api_key = get_object_or_404(workspace.api_keys.select_related("workspace__organization"), uid=uid, revoked_at=None)
    if api_key.created_by_id != request.user.pk and not request.member.may(Member.Role.ADMIN):
        raise PermissionDenied
    return api_key


def _done(request, message):
    """Say what happened: on the list, or to the list beneath the dialog, which fetches itself anew."""
    messages.success(request, message)
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": CHANGED})
    return redirect(_list_url(request.workspace))


def _list_url(workspace):
    return reverse("console:api_key_list", args=[workspace.slug])


def _add(form, error):
    """Put a service's refusal beside the name, which is what it speaks of."""
    for message in error.messages:
        form.add_error("name", message)
