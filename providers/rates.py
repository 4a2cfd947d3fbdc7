"""The rates of a price, and of its tiers: what a million tokens of each kind cost, as decimal texts in JSON."""

from decimal import Decimal, InvalidOperation

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
# Of requests that a batch sends, which most makers sell for less.
BATCH_KINDS = tuple(f"batch_{kind}" for kind in KINDS)
ALL_KINDS = KINDS + BATCH_KINDS
MOST_TIERS = 5


def field_of(kind: str) -> str:
    """The field of a ``Price`` that has the rate of ``kind``."""
    return f"{kind}_per_mtok"


def rate(text: object) -> Decimal | None:
    """A rate from its text, ``None`` where it is none: of at most eight digits and six decimals, not below zero."""
    if not isinstance(text, str):
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    if not amount.is_finite() or not 0 <= amount < 10**8 or amount != round(amount, 6):
        return None
    return amount


def text_of(amount: Decimal) -> str:
    """A rate as it is written into JSON: without needless zeros or an exponent."""
    return f"{amount.normalize():f}"


def validate_tiers(value):
    """
    Refuse what is no list of tiers such as ``{"above": 200000, "input": "6", "output": "22.5"}``.

    Each begins above a number of input tokens that is larger than the one before, and has at least the two rates that
    a price must have.
    """
    if not isinstance(value, list) or len(value) > MOST_TIERS:
        raise ValidationError(_("A price has at most five tiers."))
    before = 0
    for tier in value:
        if not isinstance(tier, dict) or not {"above", "input", "output"} <= tier.keys() <= {"above", *ALL_KINDS}:
            raise ValidationError(_("A tier has a number of tokens above which it applies, and its rates."))
        above = tier["above"]
        if type(above) is not int or not before < above < 10**9:
            raise ValidationError(_("Each tier begins above more tokens than the one before."))
        if any(rate(text) is None for kind, text in tier.items() if kind != "above"):
            raise ValidationError(_("A rate is an amount from 0 on with at most six decimals."))
        before = above
