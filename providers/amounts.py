"""Amounts as people write them."""

import re
from decimal import Decimal, InvalidOperation

THOUSANDS_OR_THOUSANDTHS = re.compile(r"([0-9]*[1-9][0-9]*)([.,])([0-9]{3})")


class AmbiguousAmount(ValueError):
    """An amount that is a thousand times another, as the reader takes its sign; ``args`` are both readings."""


def parse_amount(text, decimal_sign="."):
    """
    The amount that ``text`` is, with a point or a comma before its decimals and spaces between its groups.

    Raises ``AmbiguousAmount`` for such as 1,250 where ``decimal_sign`` is a point, and ``ValueError`` for no number.
    """
    text = "".join(text.split())
    found = THOUSANDS_OR_THOUSANDTHS.fullmatch(text.lstrip("+-"))
    if found and found[2] != decimal_sign:
        whole, _sign, three = found.groups()
        raise AmbiguousAmount(whole + three, f"{whole}{decimal_sign}{three}".rstrip("0").rstrip(decimal_sign))
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
