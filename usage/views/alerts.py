"""Spend alerts: the list of an organization, and what stands on the pages of a workspace."""

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET

from console.access import get_organization, get_workspace
from usage import deliveries, limit_alerts
from usage.models import LimitAlert, Webhook
from usage.views.pages import render_local

PAGE_SIZE = 50


@login_required
@require_GET
def alert_list(request, organization_slug):
    """Every alert of the organization's limits, the open ones first; htmx gets the table alone."""
    organization = get_organization(request, organization_slug)
    page = Paginator(limit_alerts.alerts_for_list(organization), PAGE_SIZE).get_page(request.GET.get("page"))
    _describe(page.object_list)
    context = {
        "section": "alerts",
        "page": page,
        "open_count": LimitAlert.objects.filter(spend_limit__organization=organization, resolved_at=None).count(),
        "webhook_count": Webhook.objects.filter(organization=organization, disabled_at=None).count(),
        "can_mail": deliveries.can_mail(),
        "currency": organization.currency,
    }
    return render(request, "usage/alert_list.html" + ("#alerts" if request.htmx else ""), context)


@login_required
@require_GET
def spend_alerts(request, workspace_slug):
    """The open alerts that the reader should know of, as a fragment for pages that do not know of limits."""
    workspace = get_workspace(request, workspace_slug)
    if not request.htmx:
        return redirect(workspace)
    alerts = limit_alerts.open_alerts(request.member, workspace)
    _describe(alerts[:3])
    context = {"alerts": alerts[:3], "more": len(alerts[3:]), "now": timezone.now()}
    return render_local(request, workspace, "usage/_spend_alerts.html", context)


def _describe(alerts):
    """Give each alert what a line says of it, in a fixed number of queries."""
    alerts = list(alerts)
    subjects = limit_alerts.subjects_of([alert.spend_limit for alert in alerts])
    now = timezone.now()
    for alert in alerts:
        limit = alert.spend_limit
        alert.who = limit_alerts.who(limit, subjects.get((limit.scope, limit.scope_id)))
        alert.percent = limit_alerts.percent(alert.threshold)
        alert.refuses = limit_alerts.refuses(alert)
        alert.is_full = alert.spent_nanos >= alert.amount_nanos
        alert.spent_now = alert.ledger_period.settled_nanos
        alert.amount_now = limit.amount_at(now)
