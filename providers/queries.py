"""What the pages about providers read."""

from django.db import models
from django.db.models import Count, OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from providers import credentials
from providers.credentials import CredentialUnreadable
from providers.models import Price


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
    """The provider's current models, each with its ``price`` now or ``None`` and its ``next_price``, in two queries."""
    now = timezone.now()
    prices = Price.objects.filter(provider_model=OuterRef("pk"))
    current = prices.filter(valid_from__lte=now).order_by("-valid_from", "-pk")
    coming = prices.filter(valid_from__gt=now).order_by("valid_from", "pk")
    listed = list(
        provider.models.current().annotate(
            price_id=Subquery(current.values("pk")[:1]), next_price_id=Subquery(coming.values("pk")[:1])
        )
    )
    found = Price.objects.in_bulk({pk for model in listed for pk in (model.price_id, model.next_price_id) if pk})
    for model in listed:
        model.price, model.next_price = found.get(model.price_id), found.get(model.next_price_id)
    return listed


def price_history(model):
    """All prices of a model, newest first, as pairs of the price and what it is now: coming, current or past."""
    now, rows, seen_current = timezone.now(), [], False
    for price in model.prices.select_related("created_by"):
        state = "coming" if price.valid_from > now else "past" if seen_current else "current"
        seen_current = seen_current or state == "current"
        rows.append((price, state))
    return rows
