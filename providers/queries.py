"""What the pages about providers read."""

from decimal import Decimal

from django.db import models
from django.db.models import Count, OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from providers import credentials
from providers.capabilities import Capability
from providers.credentials import CredentialUnreadable
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
    """Every current provider with ``model_count``, ``unpriced_count`` and ``credential_state``, in one query."""
    now = timezone.now()
    current = Q(models__removed_at=None)
    priced = current & Q(models__prices__valid_from__lte=now)
    providers = organization.providers.current().annotate(
        model_count=Count("models", filter=current, distinct=True),
        priced_count=Count("models", filter=priced, distinct=True),
    )
    listed = list(providers)
    for provider in listed:
        provider.organization = organization
        provider.credential_state = credential_state(provider)
        provider.unpriced_count = provider.model_count - provider.priced_count
    return listed


def models_with_prices(provider):
    """
    The provider's current models in two queries, each with its ``price`` now or ``None``, its ``next_price`` and
    whether the price ``is_own``: another than the catalogue's.
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
    for model in listed:
        model.price, model.next_price = found.get(model.price_id), found.get(model.next_price_id)
        model.is_own = is_own_price(model.price, model.catalog_model, provider.organization.currency)
    return listed


def is_own_price(price, entry, currency):
    """Whether a model has another price than the catalogue has for it in the same currency."""
    if price is None or entry is None or not entry.rates or entry.currency != currency:
        return False
    rates = {kind: rate for kind in ALL_KINDS if (rate := getattr(price, field_of(kind))) is not None}
    return rates != {kind: Decimal(rate) for kind, rate in entry.rates.items()} or price.tiers != entry.tiers


def model_page(model):
    """What the page of a model shows: its prices, the one that is valid now, and what the catalogue makes of it."""
    history = price_history(model)
    current = next((price for price, state in history if state == "current"), None)
    entry, currency = model.catalog_model, model.organization.currency
    return {
        "history": history,
        "current": current,
        "catalog": entry,
        "is_own": is_own_price(current, entry, currency),
        "capabilities": [Capability(name).label for name in model.capabilities],
    }


def price_history(model):
    """All prices of a model, newest first, as pairs of the price and what it is now: coming, current or past."""
    now, rows, seen_current = timezone.now(), [], False
    for price in model.prices.select_related("created_by"):
        state = "coming" if price.valid_from > now else "past" if seen_current else "current"
        seen_current = seen_current or state == "current"
        rows.append((price, state))
    return rows
