"""What the pages about providers read."""

from collections import Counter
from decimal import Decimal

from django.db import models
from django.db.models import Count, OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from providers import credentials
from providers.capabilities import Capability
from providers.credentials import CredentialUnreadable
from providers.currencies import current_currencies
from providers.exchange_rates import costed, current_rates, models_by_currency, priced_in, rate_at
from providers.models import Price
from providers.rates import ALL_KINDS, field_of


class CredentialState(models.TextChoices):
    """Whether a provider can be called with a credential."""

    NONE = "none", _("None")
    SEALED = "sealed", _("Sealed")
    NEEDS_KEY = "needs_key", _("Needs key")


def credential_state(provider):
    """As the gateway would find it now: a credential counts as sealed only where it can be opened."""
    try:
        return CredentialState.NONE if credentials.unseal(provider) is None else CredentialState.SEALED
    except CredentialUnreadable:
        return CredentialState.NEEDS_KEY


def providers_for_list(organization):
    """Every current provider with ``model_count``, ``unpriced_count`` and ``credential_state``, in few queries."""
    providers = organization.providers.current()
    listed = list(providers.annotate(model_count=Count("models", filter=Q(models__removed_at=None))))
    prices = list(priced_in(organization).values_list("provider_id", "price_currency"))
    known = costed(organization, {currency for _provider_id, currency in prices})
    priced = Counter(provider_id for provider_id, currency in prices if currency in known)
    for provider in listed:
        provider.organization = organization
        provider.credential_state = credential_state(provider)
        provider.unpriced_count = provider.model_count - priced[provider.pk]
    return listed


def models_with_prices(provider):
    """
    The provider's current models in at most three queries, each with its ``price`` now or ``None``, its
    ``next_price``, whether the price ``is_own``, another than the catalogue's, and whether it ``lacks_rate`` to become
    a cost.
    """
    now = timezone.now()
    prices = Price.objects.filter(provider_model=OuterRef("pk"))
    current = prices.filter(valid_from__lte=now).order_by("-valid_from", "-pk")
    coming = prices.filter(valid_from__gt=now).order_by("valid_from", "pk")
    listed = list(
        provider.models.current()
        .select_related("catalog_model")
        .annotate(price_id=Subquery(current.values("pk")[:1]), next_price_id=Subquery(coming.values("pk")[:1]))
    )
    found = Price.objects.in_bulk({pk for model in listed for pk in (model.price_id, model.next_price_id) if pk})
    known = costed(provider.organization, {price.currency for price in found.values()})
    for model in listed:
        model.price, model.next_price = found.get(model.price_id), found.get(model.next_price_id)
        model.is_own = is_own_price(model.price, model.catalog_model)
        model.lacks_rate = model.price is not None and model.price.currency not in known
    return listed


def missing_currencies(listed):
    """The currencies of which a rate is missing for the models of ``models_with_prices``."""
    return sorted({model.price.currency for model in listed if model.lacks_rate})


def is_own_price(price, entry):
    """Whether a model has another price than the catalogue has for it in the same currency."""
    if price is None or entry is None or not entry.rates or entry.currency != price.currency:
        return False
    rates = {kind: rate for kind in ALL_KINDS if (rate := getattr(price, field_of(kind))) is not None}
    return rates != {kind: Decimal(rate) for kind, rate in entry.rates.items()} or price.tiers != entry.tiers


def model_page(model):
    """What the page of a model shows: its prices, the one that is valid now, and what the catalogue makes of it."""
    history = price_history(model)
    current = next((price for price, state in history if state == "current"), None)
    return {
        "history": history,
        "current": current,
        "catalog": model.catalog_model,
        "is_own": is_own_price(current, model.catalog_model),
        **exchange_of(model.organization, current.currency if current else model.provider.currency),
        "capabilities": [Capability(name).label for name in model.capabilities],
    }


def exchange_of(organization, currency):
    """
    How amounts in ``currency`` become costs: the ``exchange_rate`` that is valid now, ``None`` where none is needed,
    and ``missing_currency``, which has none and needs one.
    """
    if currency == organization.currency:
        return {"exchange_rate": None, "missing_currency": ""}
    exchange_rate = rate_at(organization, currency, timezone.now())
    return {"exchange_rate": exchange_rate, "missing_currency": "" if exchange_rate else currency}


def exchange_rates(organization):
    """All exchange rates of an organization, newest first."""
    return organization.exchange_rates.select_related("created_by").order_by("-valid_from", "-pk")


def exchange_rate_page(organization, page):
    """
    What a page of them shows: ``rows`` of the rate, what it is now (coming, current or past) and how many models it is
    needed for; ``missing``, the currencies that models are priced in without a rate, and how many those are.
    """
    now, current = timezone.now(), current_rates(organization)
    used = models_by_currency(organization)
    rows = []
    for exchange_rate in page:
        is_current = current.get(exchange_rate.from_currency) == exchange_rate
        state = "coming" if exchange_rate.valid_from > now else "current" if is_current else "past"
        rows.append((exchange_rate, state, used[exchange_rate.from_currency] if is_current else 0))
    return {"rows": rows, "missing": [(code, count) for code, count in used.items() if code not in current]}


def currency_to_begin_with(organization, asked):
    """The currency that a form for a rate opens with: the one ``asked`` for, else one that lacks a rate."""
    if asked in current_currencies() and asked != organization.currency:
        return asked
    current, used = current_rates(organization), models_by_currency(organization)
    lacking = next((code for code in used if code not in current), None)
    return lacking or next(iter(current), None) or ("USD" if organization.currency != "USD" else "EUR")


def price_history(model):
    """All prices of a model, newest first, as pairs of the price and what it is now: coming, current or past."""
    now, rows, seen_current = timezone.now(), [], False
    for price in model.prices.select_related("created_by"):
        state = "coming" if price.valid_from > now else "past" if seen_current else "current"
        seen_current = seen_current or state == "current"
        rows.append((price, state))
    return rows
