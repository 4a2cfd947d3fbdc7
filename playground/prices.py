"""What a model costs, in the few words that stand under its name."""

from decimal import Decimal

from babel.numbers import format_currency, get_currency_precision
from django.utils import timezone
from django.utils.translation import gettext as _

from console.formatting import reader_locale


def hint(model):
    """Such as "$3 in, $15 out per million", in the price's currency; reads the prefetched prices of ``model``."""
    now = timezone.now()
    price = next((price for price in model.prices.all() if price.valid_from <= now), None)
    if price is None:
        return _("not priced")
    return _("%(input)s in, %(output)s out per million") % {
        "input": rate(price.input_per_mtok, price.currency),
        "output": rate(price.output_per_mtok, price.currency),
    }


def rate(amount, currency):
    """A rate with all its digits: €3, €0.15, €0.075."""
    amount = Decimal(amount)
    digits = max(0, -amount.normalize().as_tuple().exponent)
    if digits:
        digits = max(digits, get_currency_precision(currency))
    locale = reader_locale()
    pattern = locale.currency_formats["standard"].pattern.replace(".00", "." + "0" * digits if digits else "")
    return format_currency(amount, currency, format=pattern, locale=locale, currency_digits=False)
