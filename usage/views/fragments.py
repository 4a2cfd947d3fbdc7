"""Parts that pages of lower packages fetch by address."""

from django.contrib.auth.decorators import login_required
from django.utils import timezone
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from console.access import get_workspace
from console.ids import is_uid
from usage import queries
from usage.periods import Period, Span
from usage.views.pages import render_local, unchanged
from usage.views.requests import mark_new, state_of

LATEST = 5
MOST_KEYS = 200


@gzip_page
@login_required
@require_safe
def today(request, workspace_slug):
    """Today's totals and the latest requests, for the home page. ``live`` as in the request list."""
    workspace = get_workspace(request, workspace_slug)
    period = Period.of(Span.TODAY, workspace.organization.time_zone)
    rows = list(queries.requests_of(workspace).select_related("api_key", "provider_model")[:LATEST])
    total = queries.total_of(queries.rollups(workspace, period))
    live, state = request.GET.get("live"), f"{state_of(rows)}.{total.requests}.{period.first}"
    if live == state:
        return unchanged()
    with timezone.override(workspace.organization.time_zone):
        mark_new(rows, live)
    context = {"rows": rows, "total": total, "state": state, "period": period}
    return render_local(
        request, workspace, "usage/today.html#today" if live is not None else "usage/today.html", context
    )


@login_required
@require_safe
def key_spends(request, workspace_slug):
    """This month's cost of each ``key`` asked for by its uid, as cells that find their places on the page of keys."""
    workspace = get_workspace(request, workspace_slug)
    period = Period.of(Span.MONTH, workspace.organization.time_zone)
    uids = filter(is_uid, request.GET.getlist("key")[:MOST_KEYS])
    keys = workspace.api_keys.filter(uid__in=list(uids))
    sums = queries.key_spends(workspace, period)
    spends = [(key, sums.get(key.pk, queries.Sums())) for key in keys]
    return render_local(request, workspace, "usage/key_spends.html", {"spends": spends, "period": period})
