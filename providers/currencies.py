"""The currencies that prices can be in."""

import functools

from babel.core import get_global
from babel.numbers import get_currency_name, list_currencies
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console import formatting


def validate_currency(code):
    """Refuse what is not the three letters of a currency."""
    if code not in _known():
        raise ValidationError(_("A currency is written with three letters, such as EUR."), code="currency")


@functools.cache
def _known():
    return frozenset(list_currencies())


@functools.cache
def current_currencies() -> tuple[str, ...]:
    """The currencies that are legal tender somewhere today, by their letters."""
    used = get_global("territory_currencies").values()
    return tuple(sorted({code for rows in used for code, _since, until, is_tender in rows if is_tender and not until}))


def labelled(code: str) -> str:
    """A currency's letters and its name in the reader's language."""
    return f"{code} – {get_currency_name(code, locale=formatting.reader_locale())}"


def choices_with(*codes: str | None, without: str = "") -> list[tuple[str, str]]:
    """What a form offers: the current currencies and ``codes``."""
    offered = {*current_currencies(), *filter(None, codes)} - {without}
    return [(code, labelled(code)) for code in sorted(offered)]
