"""How the usage pages write counts and amounts."""

from decimal import Decimal

from babel.numbers import format_decimal
from django import template
from django.utils.html import format_html

from console import formatting
from usage.costs import EXCHANGE_SCALE, PER_NANO, RATE_SCALE

register = template.Library()
FAINT = '<span class="faint">{}</span>'


@register.filter
def count(number):
    """A whole number of a table; nothing stands back."""
    text = formatting.integer(number)
    return text if number else format_html(FAINT, text)


@register.simple_tag
def part(amount, total, currency):
    """A part of ``total`` with as many decimals as that has."""
    return formatting.money(amount, currency, extra_digits=2 if formatting.is_below_the_cent(total, currency) else 0)


@register.simple_tag
def measured(amount, measure, total, currency):
    """A value of the chart as its table writes it: money, a part of ``total``, or a count; nothing stands back."""
    if measure == "cost":
        text = formatting.NOTHING if amount is None else part(amount, total, currency)
    else:
        text = formatting.integer(amount)
    return text if amount else format_html(FAINT, text)


@register.filter
def rate(millionths):
    """A price per million tokens, kept in millionths: 3.00, and as many decimals as it has."""
    return format_decimal(Decimal(millionths) / RATE_SCALE, format="#,##0.00####", locale=formatting.reader_locale())


@register.filter
def exchange(rate):
    """An exchange rate, kept as ``usage.costs`` has it: 0.9231, with as many decimals as it has."""
    amount = Decimal(rate) / EXCHANGE_SCALE
    return format_decimal(amount, format="#,##0.0#########", locale=formatting.reader_locale())


@register.simple_tag
def exact(amount, finer=False):
    """
    A term of a cost, kept in 10⁻¹² of the currency, in groups of three decimals.

    Nine of them, or twelve where a term of the same table needs them (``finer``).
    """
    whole, below = divmod(amount, PER_NANO * formatting.NANOS)
    digits = f"{below:012d}"
    groups = [digits[place : place + 3] for place in range(0, 12 if finer else 9, 3)]
    point = formatting.reader_locale().number_symbols["latn"]["decimal"]
    return f"{formatting.integer(whole)}{point}{formatting.THIN.join(groups)}"


@register.filter
def span(milliseconds):
    """A part of a request's time: 0.7 ms, 641 ms, 10,298 ms: one unit, so that parts can be compared."""
    if milliseconds is None:
        return formatting.NOTHING
    if milliseconds < 100:
        text = format_decimal(milliseconds, format="0.0", locale=formatting.reader_locale())
    else:
        text = formatting.integer(round(milliseconds))
    return f"{text}{formatting.THIN}ms"


@register.filter
def decimal1(number):
    """One decimal: 78.8."""
    return format_decimal(number, format="#,##0.0", locale=formatting.reader_locale())
