"""The requests of a workspace, one by one."""

import hashlib

from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from console.access import get_workspace
from console.addresses import base_url
from usage import explain, queries
from usage.forms import RequestFilterForm
from usage.models import Outcome
from usage.views.pages import address, render_local, unchanged

PAGE_SIZE = 50
# The codes of refusals by a spend or rate limit.
BY_LIMITS = {"insufficient_quota", "model_not_priced", "rate_limit_exceeded"}


@gzip_page
@login_required
@require_safe
def request_list(request, workspace_slug):
    """Requests, newest first. With ``live`` it answers only where the first page is no longer that one."""
    workspace = get_workspace(request, workspace_slug)
    keys, models = queries.key_choices(workspace), queries.model_choices(workspace)
    form = RequestFilterForm(request.GET, keys=keys, models=models)
    status = 200 if form.is_valid() else 422
    found = queries.requests_of(workspace, **form.filters)
    before = form.cleaned_data.get("before")
    if before:
        found = found.filter(id__lt=before)
    logs = list(found.select_related("api_key", "provider_model")[: PAGE_SIZE + 1])
    rows, more = logs[:PAGE_SIZE], logs[PAGE_SIZE:]
    live = request.GET.get("live")
    state = state_of(rows)
    if live == state:
        return unchanged()
    with timezone.override(workspace.organization.time_zone):
        mark_new(rows, live)
    context = {
        "form": form,
        "section": "requests",
        "rows": rows,
        "state": state,
        "before": before,
        "here": address(request.path, form.query()),
        "clear_url": request.path,
        "older_url": address(request.path, form.query(before=rows[-1].pk)) if more else "",
    }
    if not rows and not form.is_filtered and not before:
        context |= {
            "base_url": base_url(request),
            "example_model": next((m for m in models if not (m.disabled_at or m.removed_at)), None),
        }
    if live is not None:
        return render_local(request, workspace, "usage/request_list.html#rows", context)
    if not request.htmx:
        return render_local(request, workspace, "usage/request_list.html", context, status)
    response = render_local(request, workspace, "usage/request_list.html#requests", context, status)
    response["HX-Push-Url"] = context["here"]
    return response


@gzip_page
@login_required
@require_safe
def request_detail(request, workspace_slug, request_id):
    """One request: its cost term by term, its time and its facts."""
    workspace = get_workspace(request, workspace_slug)
    found = queries.requests_of(workspace).select_related("api_key", "provider_model", "provider", "price", "user")
    log = get_object_or_404(found, pk=request_id)
    cost = explain.cost(log)
    context = {
        "section": "requests",
        "log": log,
        "cost": cost,
        "prompt_tokens": explain.prompt_tokens(log),
        "tokens": explain.tokens(log),
        "origin": explain.origin(log),
        "endpoint": explain.endpoint(log),
        "dialect": explain.dialect(log),
        "stored_until": queries.stored_until(log) if log.endpoint == "responses" else None,
        "stages": explain.stages(log),
        "speed": explain.tokens_a_second(log),
        "overhead_ms": None if log.overhead_us is None else log.overhead_us / 1000,
        "key_url": _key_url(workspace, log),
        "limits_url": _limits_url(workspace, log),
    }
    return render_local(request, workspace, "usage/request_detail.html", context)


def _key_url(workspace, log):
    """The requests of the key that made this one, where it still has a name."""
    if log.api_key is None:
        return ""
    return address(reverse("usage:request_list", args=[workspace.slug]), {"key": log.api_key.uid})


def _limits_url(workspace, log):
    """What limits the key that made a request which a limit refused, or its workspace; else nothing."""
    if log.outcome != Outcome.REFUSED or log.error_code not in BY_LIMITS:
        return ""
    if log.api_key is None:
        return reverse("usage:limit_list", args=[workspace.slug])
    return reverse("usage:limit_key", args=[workspace.slug, log.api_key.uid])


def state_of(rows):
    """A word for what a page of rows holds; rows never change, so their ids are enough. It begins with the newest."""
    digest = hashlib.blake2s("".join(row.pk for row in rows).encode(), digest_size=8).hexdigest()
    return f"{rows[0].pk if rows else ''}.{digest}"


def mark_new(rows, live):
    """Mark the rows that came since the reader's page had the state ``live``, and give each what a line shows."""
    newest = (live or "").partition(".")[0]
    today = timezone.localdate()
    for row in rows:
        row.is_today = timezone.localdate(row.started_at) == today
        row.is_new = live is not None and row.pk > newest
        row.prompt_tokens = explain.prompt_tokens(row)
        row.origin = explain.origin(row)
        row.api = explain.api(row)
