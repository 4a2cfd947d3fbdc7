"""How the pages of limits write money fields, days and the states of what they show."""

import datetime

from babel.numbers import get_currency_precision, get_currency_symbol
from django import template
from django.utils import timezone
from django.utils.translation import gettext_lazy, pgettext_lazy

from console import formatting
from console.templatetags.console import badge
from usage.limit_alerts import written
from usage.models import LimitIncrease, Scope, SpendLease, SpendPeriod

register = template.Library()

EACH = {
    (Scope.ORGANIZATION, SpendPeriod.DAY): gettext_lazy("Organization, each day"),
    (Scope.ORGANIZATION, SpendPeriod.WEEK): gettext_lazy("Organization, each week"),
    (Scope.ORGANIZATION, SpendPeriod.MONTH): gettext_lazy("Organization, each month"),
    (Scope.WORKSPACE, SpendPeriod.DAY): gettext_lazy("Workspace, each day"),
    (Scope.WORKSPACE, SpendPeriod.WEEK): gettext_lazy("Workspace, each week"),
    (Scope.WORKSPACE, SpendPeriod.MONTH): gettext_lazy("Workspace, each month"),
    (Scope.API_KEY, SpendPeriod.DAY): gettext_lazy("API key, each day"),
    (Scope.API_KEY, SpendPeriod.WEEK): gettext_lazy("API key, each week"),
    (Scope.API_KEY, SpendPeriod.MONTH): gettext_lazy("API key, each month"),
    (Scope.MEMBER, SpendPeriod.DAY): gettext_lazy("Member, each day"),
    (Scope.MEMBER, SpendPeriod.WEEK): gettext_lazy("Member, each week"),
    (Scope.MEMBER, SpendPeriod.MONTH): gettext_lazy("Member, each month"),
}
A_PERIOD = {
    SpendPeriod.DAY: gettext_lazy("a day"),
    SpendPeriod.WEEK: gettext_lazy("a week"),
    SpendPeriod.MONTH: gettext_lazy("a month"),
}
LEASES = {
    SpendLease.State.OPEN: (gettext_lazy("Set aside"), "ok", "check"),
    SpendLease.State.CLOSED: (gettext_lazy("Returned"), "plain", ""),
    SpendLease.State.ORPHANED: (gettext_lazy("Orphaned"), "warn", "alert"),
}
WISHES = {
    LimitIncrease.State.PENDING: (gettext_lazy("Waiting"), "warn", "clock"),
    LimitIncrease.State.APPROVED: (pgettext_lazy("wish", "Approved"), "ok", "check"),
    LimitIncrease.State.DENIED: (pgettext_lazy("wish", "Denied"), "plain", "close"),
}
DAYS = {"en": "EEEE d MMMM", "fr": "EEEE d MMMM", "es": "EEEE d 'de' MMMM"}


@register.filter
def each(limit):
    """Whose limit it is and in what: API key, each month."""
    return EACH[limit.scope, limit.period]


@register.filter
def a_period(limit):
    """A month, as it stands behind an amount."""
    return A_PERIOD[limit.period]


@register.filter
def weekday(instant):
    """Saturday 28 November."""
    language = formatting.reader_locale().language
    return formatting.written_date(timezone.localtime(instant), DAYS.get(language, DAYS["en"]))


@register.filter
def short_day(instant):
    """28 Nov."""
    return formatting.short_day(instant)


@register.filter
def last_day(until):
    """The day at whose end something ends, as it was chosen: 25 Nov 2026, of an instant at which it is over."""
    return formatting.day(until - datetime.timedelta(microseconds=1)) if until else formatting.NOTHING


@register.filter
def is_today(instant):
    return timezone.localdate(instant) == timezone.localdate()


@register.simple_tag
def limit_money(standing, nanos, currency):
    """An amount of a limit as its card writes it: as finely as single requests where the limit is below one unit."""
    return written(nanos, standing.amount, currency)


@register.filter
def wish_money(nanos, currency):
    """An amount that somebody has typed: rounded nowhere where it is below one unit and no whole number of cents."""
    cent = formatting.NANOS // 10 ** get_currency_precision(currency)
    is_fine = nanos and nanos < formatting.NANOS and nanos % cent
    return formatting.money(nanos, currency, extra_digits=2 if is_fine else 0)


@register.simple_tag
def beside_limit(nanos, amount_nanos, currency):
    """A sum beside a limit, as finely as the limit is written."""
    return written(nanos, amount_nanos, currency)


@register.simple_tag
def left_money(standing, currency):
    """What is left, such that the amounts beside it add up as they are written; never more than there is."""
    digits = get_currency_precision(currency) + (2 if 0 < standing.amount < formatting.NANOS else 0)
    unit = 10 ** (9 - digits)
    parts = [standing.settled, standing.held]
    if standing.amount % unit == 0 and all(not part or part >= unit for part in parts):
        # Half a unit up, as the parts are written.
        shown = sum((part + unit // 2) // unit * unit for part in parts)
        return limit_money(standing, standing.amount - shown, currency)
    return limit_money(standing, standing.left, currency)


@register.simple_tag
def lease_state(lease):
    """What became of what a process drew, as a badge."""
    return badge(*LEASES[lease.state])


@register.simple_tag
def wish_state(increase):
    """What became of a wish, as a badge."""
    return badge(*WISHES[increase.state])


@register.simple_tag
def threshold_list(limit):
    """80 % and 100 %, as far as somebody is told."""
    space = "" if formatting.reader_locale().language == "en" else formatting.THIN
    return ", ".join(f"{percent}{space}%" for percent in limit.thresholds)


@register.inclusion_tag("usage/_money_field.html")
def money_field(bound_field, currency, after="", hint=""):
    """A field for an amount with its currency on the side where it is written, and ``after`` behind it."""
    attrs = {"class": "input input--number"}
    if bound_field.form.errors:
        attrs["autofocus"] = bool(bound_field.errors)
    note = "error" if bound_field.errors else "hint" if hint else ""
    if note:
        attrs["aria-describedby"] = f"{bound_field.auto_id}_{note}"
    locale = formatting.reader_locale()
    return {
        "field": bound_field,
        "widget": bound_field.as_widget(attrs=attrs),
        "sign": get_currency_symbol(currency, locale=locale),
        "sign_leads": locale.currency_formats["standard"].pattern.startswith("\N{CURRENCY SIGN}"),
        "after": after,
        "hint": hint,
    }
