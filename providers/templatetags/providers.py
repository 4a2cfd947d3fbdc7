from decimal import Decimal

from babel.numbers import format_decimal, get_currency_precision, get_currency_symbol
from django import template
from django.utils.translation import gettext as _

from console import formatting
from console.templatetags.console import badge
from providers.alerts import open_alerts
from providers.queries import CredentialState
from providers.rates import ALL_KINDS, BATCH_KINDS, KINDS, field_of

register = template.Library()


@register.filter
def rate(amount, currency):
    """A price per million tokens with every digit that it has, and two at least: €3.00, €0.075."""
    if amount is None:
        return formatting.NOTHING
    digits = -amount.normalize().as_tuple().exponent - get_currency_precision(currency)
    return formatting.money(int(amount.scaleb(9)), currency, extra_digits=max(0, digits))


@register.filter
def catalog_rate(text, currency):
    """The same of a rate as the catalogue has it, in the currency of the catalogue."""
    return rate(Decimal(text), currency) if text else formatting.NOTHING


@register.filter
def exchange(exchange_rate):
    """An exchange rate in a sentence, with every decimal that it has: 1 USD = 0.9231 EUR."""
    amount = format_decimal(exchange_rate.rate, format="#,##0.0#########", locale=formatting.reader_locale())
    text = f"1 {exchange_rate.from_currency} = {amount} {exchange_rate.organization.currency}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


@register.inclusion_tag("providers/_missing_rate.html")
def missing_rate(organization, currency):
    """That amounts in ``currency`` are no costs yet, and what mends it."""
    return {"organization": organization, "currency": currency}


@register.filter
def rate_rows(price):
    """The rates of a price as rows of a table: of plain requests and of batches, at first and in each tier."""
    rows = []
    base = {kind: getattr(price, field_of(kind)) for kind in ALL_KINDS}
    tiers = [(tier["above"], {kind: Decimal(tier[kind]) for kind in ALL_KINDS if kind in tier}) for tier in price.tiers]
    for is_batch, kinds in ((False, KINDS), (True, BATCH_KINDS)):
        for above, rates in [(None, base), *tiers]:
            amounts = [rates.get(kind) for kind in kinds]
            if not is_batch or any(amount is not None for amount in amounts):
                rows.append({"is_batch": is_batch, "above": above, "rates": amounts})
    return rows


@register.simple_tag
def lifecycle_badge(model):
    """That a model's maker wants it no longer to be used."""
    return badge(model.get_lifecycle_display(), "warn", "clock")


@register.inclusion_tag("providers/_rate_field.html")
def rate_field(bound_field, currency):
    """A field for an amount per million tokens, with its unit, and its currency on the side where it is written."""
    return affix_field(bound_field, currency) | {"unit": _("per 1M")}


@register.inclusion_tag("providers/_rate_field.html")
def affix_field(bound_field, currency):
    """A field for an amount, with its currency on the side where it is written."""
    attrs = {"class": "input input--number"}
    if bound_field.errors:
        attrs["aria-describedby"] = f"{bound_field.auto_id}_error"
    if bound_field.form.errors:
        # The focus goes where something is to be mended.
        attrs["autofocus"] = bool(bound_field.errors)
    locale = formatting.reader_locale()
    return {
        "field": bound_field,
        "widget": bound_field.as_widget(attrs=attrs),
        "sign": get_currency_symbol(currency, locale=locale),
        "sign_leads": locale.currency_formats["standard"].pattern.startswith("\N{CURRENCY SIGN}"),
    }


@register.simple_tag
def credential_badge(state):
    """How a provider's credential is kept."""
    tone, mark = {"sealed": ("ok", "lock"), "needs_key": ("warn", "alert"), "none": ("plain", "")}[state]
    return badge(CredentialState(state).label, tone, mark)


@register.inclusion_tag("providers/_alerts.html")
def provider_alerts(organization, provider=None):
    """What providers, or one of them, refuse this server's accounts: for those who manage ``organization``."""
    alerts = open_alerts(organization)
    return {"organization": organization, "alerts": alerts.filter(provider=provider) if provider else alerts}
