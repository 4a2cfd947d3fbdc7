"""Exchange rates: what other currencies that providers bill in are worth in an organization's own, and from when."""

import datetime
from collections import Counter
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import audit
from console.revision import bump_revision
from providers.models import ExchangeRate, Price, ProviderModel


@transaction.atomic
def set_exchange_rate(*, organization, from_currency, rate: Decimal, actor, valid_from=None, source=""):
    """
    A new rate from ``valid_from`` on, by default from now; older rates and what was charged at them stay as they are.

    Raises ``ValidationError``, also for a moment that has passed: what was served keeps the rate that it was served at.
    """
    now = timezone.now()
    if from_currency == organization.currency:
        message = _("%(currency)s is the organization’s own currency.")
        raise ValidationError({"from_currency": ValidationError(message, params={"currency": from_currency})})
    if valid_from is not None and valid_from < now - datetime.timedelta(minutes=1):
        raise ValidationError({"valid_from": _("A rate begins now or later: what was served keeps its rate.")})
    exchange_rate = ExchangeRate(
        organization=organization,
        from_currency=from_currency,
        rate=rate,
        valid_from=valid_from or now,
        source=source,
        created_by=actor,
    )
    if organization.exchange_rates.filter(from_currency=from_currency, valid_from=exchange_rate.valid_from).exists():
        raise ValidationError({"valid_from": _("Another rate begins at that moment.")})
    exchange_rate.full_clean()
    exchange_rate.save()
    _audit(exchange_rate, actor, "exchange_rate.set", rate=f"{exchange_rate.rate:f}", source=source)
    return exchange_rate


@transaction.atomic
def withdraw_exchange_rate(*, exchange_rate, actor):
    """Take back a rate that has not begun; raises ``ValidationError`` for one that has."""
    if exchange_rate.valid_from <= timezone.now():
        raise ValidationError(_("This rate has begun. Set another one instead."))
    _audit(exchange_rate, actor, "exchange_rate.withdrawn", rate=f"{exchange_rate.rate:f}")
    exchange_rate.delete()


def _audit(exchange_rate, actor, action, **details):
    audit.record(
        organization=exchange_rate.organization,
        actor=actor,
        action=action,
        target=exchange_rate,
        valid_from=exchange_rate.valid_from.isoformat(),
        **details,
    )
    bump_revision()


# What is read ----------------------------------------------------------------------------------------------------


def rates_from(moment):
    """The rates of all organizations that are valid at ``moment`` or later, newest first."""
    newer = ExchangeRate.objects.filter(
        organization=OuterRef("organization"),
        from_currency=OuterRef("from_currency"),
        valid_from__gt=OuterRef("valid_from"),
        valid_from__lte=moment,
    )
    return ExchangeRate.objects.filter(~Exists(newer))


def current_rates(organization) -> dict[str, ExchangeRate]:
    """The rate that is valid now, by the currency that it is from."""
    now = timezone.now()
    rows = rates_from(now).filter(organization=organization, valid_from__lte=now)
    return {row.from_currency: row for row in rows.order_by("from_currency")}


def costed(organization, currencies) -> set[str]:
    """Those of ``currencies`` of which amounts can be made costs now; no question where all are its own."""
    foreign = {*currencies} - {None, organization.currency}
    return {organization.currency} | (foreign & current_rates(organization).keys() if foreign else set())


def rate_at(organization, from_currency, moment):
    """The rate that was valid at ``moment``, or ``None``."""
    rows = organization.exchange_rates.filter(from_currency=from_currency, valid_from__lte=moment)
    return rows.order_by("-valid_from").first()


def priced_in(organization):
    """The current models of an organization with ``price_currency``: that of their price now, ``None`` without one."""
    current = Price.objects.filter(provider_model=OuterRef("pk"), valid_from__lte=timezone.now())
    return (
        ProviderModel.objects.current()
        .filter(organization=organization)
        .annotate(price_currency=Subquery(current.order_by("-valid_from", "-pk").values("currency")[:1]))
    )


def models_by_currency(organization) -> Counter:
    """How many current models have a price in each currency but the organization's own."""
    found = Counter(priced_in(organization).values_list("price_currency", flat=True))
    return Counter({currency: found[currency] for currency in sorted(found.keys() - {None, organization.currency})})
