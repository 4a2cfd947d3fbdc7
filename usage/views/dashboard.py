"""What a workspace used and what it cost."""

from django.contrib.auth.decorators import login_required
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe

from console.access import get_workspace
from console.addresses import base_url
from usage import charts, queries
from usage.forms import MEASURES, UsageForm
from usage.models import Outcome, UsageSource
from usage.periods import Span
from usage.views.pages import address, render_local, unchanged


@gzip_page
@login_required
@require_safe
def dashboard(request, workspace_slug):
    """Totals, chart and tables of a period. With ``live`` it answers only where the figures are no longer those."""
    workspace = get_workspace(request, workspace_slug)
    keys, models = queries.key_choices(workspace), queries.model_choices(workspace)
    form = UsageForm(request.GET, workspace=workspace, keys=keys, models=models)
    status = 200 if form.is_valid() else 422
    with timezone.override(workspace.organization.time_zone):
        figures = _figures(workspace, form, keys, models)
    live = request.GET.get("live")
    if live is not None and live == figures["state"]:
        return unchanged()
    here = address(request.path, form.query())
    context = {"form": form, "here": here, "section": "usage", **_links(request.path, form), **figures}
    if not figures["total"].requests and not figures["is_used"]:
        context |= {
            "base_url": base_url(request),
            "example_model": next((m for m in models if not (m.disabled_at or m.removed_at)), None),
        }
    if live is not None:
        return render_local(request, workspace, "usage/dashboard.html#figures", context)
    if not request.htmx:
        return render_local(request, workspace, "usage/dashboard.html", context, status)
    response = render_local(request, workspace, "usage/dashboard.html#usage", context, status)
    response["HX-Push-Url"] = here
    return response


def _figures(workspace, form, keys, models):
    """Everything that the page shows of the books."""
    period, by, measure, filters = form.shown_period, form.shown_by, form.shown_measure, form.filters
    currency = workspace.organization.currency
    by_entity = queries.sums_by_entity(queries.rollups(workspace, period, **filters), by)
    rows, total = charts.breakdown(by_entity, by, measure, charts.entities(by, keys, models), currency)
    before = queries.total_of(queries.rollups(workspace, period.before(), **filters))
    series, steps = [], []
    if total.sums.requests:
        sums = queries.series_sums(workspace, period, by, charts.leading(rows), **filters)
        series, steps = charts.chart(period, sums, rows, measure, currency)
    for row in rows:
        row.url = address("", form.query(**dict([row.entity.filter]))) if row.entity.filter else ""
    points, tone = charts.failure_change(total.sums, before)
    return {
        "period": period,
        "period_name": charts.span_name(period.first, period.last),
        "rows": rows,
        "total_row": total,
        "total": total.sums,
        "before": before,
        "before_name": charts.before_name(period),
        "cost_change": charts.change(total.sums.cost_nanos, before.cost_nanos),
        "requests_change": charts.change(total.sums.requests, before.requests),
        "cache_share": total.sums.cache_read_tokens / total.sums.prompt_tokens if total.sums.prompt_tokens else None,
        "failure_share": charts.failure_share(total.sums),
        "failure_share_before": charts.failure_share(before),
        "failure_points": points,
        "failure_tone": f"delta--{tone}" if tone else "",
        "known_as": _known_as(total.sums),
        "series": series,
        "steps": steps,
        "chart_title": _chart_title(measure, period.grain, by),
        "is_used": bool(total.sums.requests or before.requests) or queries.has_requests(workspace),
        # The minute is in it so that "up to 14:32" does not grow old.
        "state": f"{total.sums.requests}-{total.sums.tokens}-{total.sums.cost_nanos}-{period.now:%H%M}",
    }


def _known_as(sums):
    """How many requests that reached a provider have their tokens known in which way, with the share of each."""
    found = [(source, sums.usage_sources.get(source, 0)) for source in UsageSource.values]
    parts = charts.shares([requests for _source, requests in found])
    return [
        {"source": source, "requests": requests, "share": charts.share_text(share, requests)}
        for (source, requests), share in zip(found, parts, strict=True)
        if requests
    ]


def _links(path, form):
    """The page's segments: each a name, an address and whether it is the current one."""
    period = form.shown_period
    custom = {"period": Span.CUSTOM, "from": period.first.isoformat(), "to": period.last.isoformat()}
    plain = {"from": "", "to": ""}
    return {
        "spans": [
            {
                "name": label,
                "url": address(path, form.query(**(custom if span == Span.CUSTOM else plain | {"period": span}))),
                "is_current": span == period.span,
                "is_custom": span == Span.CUSTOM,
            }
            for span, label in Span.choices
        ],
        "measures": [
            {"name": label, "url": address(path, form.query(measure=name)), "is_current": name == form.shown_measure}
            for name, label in MEASURES
        ],
        "requests_url": _requests_url(form),
        "refused_url": _requests_url(form, outcome=Outcome.REFUSED.value),
        "clear_url": address(path, form.query(key="", model="", source="")),
        "longer_url": address(path, form.query(**plain, period=Span.MONTH.value)),
    }


def _requests_url(form, **query):
    """The request list under the same filters."""
    shared = {name: value for name, value in form.query().items() if name in {"key", "model", "source"}}
    slug = form.workspace.slug
    return address(reverse("usage:request_list", args=[slug]), shared | query)


def _chart_title(measure, grain, by):
    """Such as "Cost by day and model", written out since word order differs between languages."""
    return {
        ("cost", "hour", "model"): _("Cost by hour and model"),
        ("cost", "hour", "key"): _("Cost by hour and key"),
        ("cost", "day", "model"): _("Cost by day and model"),
        ("cost", "day", "key"): _("Cost by day and key"),
        ("cost", "month", "model"): _("Cost by month and model"),
        ("cost", "month", "key"): _("Cost by month and key"),
        ("tokens", "hour", "model"): _("Tokens by hour and model"),
        ("tokens", "hour", "key"): _("Tokens by hour and key"),
        ("tokens", "day", "model"): _("Tokens by day and model"),
        ("tokens", "day", "key"): _("Tokens by day and key"),
        ("tokens", "month", "model"): _("Tokens by month and model"),
        ("tokens", "month", "key"): _("Tokens by month and key"),
        ("requests", "hour", "model"): _("Requests by hour and model"),
        ("requests", "hour", "key"): _("Requests by hour and key"),
        ("requests", "day", "model"): _("Requests by day and model"),
        ("requests", "day", "key"): _("Requests by day and key"),
        ("requests", "month", "model"): _("Requests by month and model"),
        ("requests", "month", "key"): _("Requests by month and key"),
    }[measure, grain, by]
