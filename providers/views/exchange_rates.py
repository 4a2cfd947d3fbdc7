"""The exchange rates of an organization: list, set, withdraw."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.access import get_organization
from providers import queries
from providers.exchange_rates import set_exchange_rate, withdraw_exchange_rate
from providers.forms import ExchangeRateForm
from providers.views.access import CHANGED, refuse

PAGE = 50


@login_required
@require_GET
def exchange_rate_list(request, organization_slug):
    """Every rate, newest first, and the currencies that lack one; htmx gets what changes."""
    organization = get_organization(request, organization_slug)
    page = Paginator(queries.exchange_rates(organization), PAGE).get_page(request.GET.get("page"))
    context = {"section": "providers", "page": page, **queries.exchange_rate_page(organization, page)}
    return render(request, "providers/exchange_rate_list.html" + ("#fragment" if request.htmx else ""), context)


@login_required
@require_http_methods(["GET", "POST"])
def exchange_rate_create(request, organization_slug):
    """Set a new rate; ``from`` in the address says of which currency."""
    organization = get_organization(request, organization_slug)
    form = ExchangeRateForm(
        request.POST or None,
        currency=organization.currency,
        initial={"from_currency": queries.currency_to_begin_with(organization, request.GET.get("from"))},
    )
    if request.method == "POST" and form.is_valid():
        try:
            rate = set_exchange_rate(organization=organization, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            refuse(form, error, "rate")
        else:
            return _done(request, organization, _("Rate of %(currency)s set") % {"currency": rate.from_currency})
    context = {"section": "providers", "form": form, "back_url": _list_url(organization)}
    return render(request, "providers/exchange_rate_form.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def exchange_rate_withdraw(request, organization_slug, exchange_rate_uid):
    """Take back a rate that has not begun."""
    organization = get_organization(request, organization_slug)
    exchange_rate = get_object_or_404(organization.exchange_rates, uid=exchange_rate_uid)
    try:
        withdraw_exchange_rate(exchange_rate=exchange_rate, actor=request.user)
    except ValidationError as error:
        messages.error(request, error.messages[0])
        return _back(request, organization)
    return _done(request, organization, _("Rate of %(currency)s withdrawn") % {"currency": exchange_rate.from_currency})


def _done(request, organization, message):
    messages.success(request, message)
    return _back(request, organization)


def _back(request, organization):
    """To the list, or to the page beneath a dialog, which fetches itself anew."""
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": CHANGED})
    return redirect(_list_url(organization))


def _list_url(organization):
    return reverse("providers:exchange_rate_list", args=[organization.slug])
