"""Money, tokens and time as the reader's language writes them."""

import re
from datetime import datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_compact_decimal, format_currency, format_decimal, get_currency_precision
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import get_language
from django.utils.translation import gettext as _

NANOS = 10**9
# Between a number and its unit, and between groups of digits below the cent.
THIN = "\N{NARROW NO-BREAK SPACE}"
NO_BREAK = "\N{NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
MILLION = 10**6


def reader_locale():
    """Babel's locale of the language that is active."""
    return Locale.parse(get_language() or "en", sep="-")


def money(nanos, currency, extra_digits=0):
    """
    An amount with the decimals of its currency and ``extra_digits`` more, such as €1,284.50.

    What is not zero is never written as zero: below the last decimal it reads "< €0.01". ``None`` is "not priced".
    """
    if nanos is None:
        return _("not priced")
    digits = get_currency_precision(currency) + extra_digits
    amount, least = abs(Decimal(nanos)) / NANOS, Decimal(1).scaleb(-digits)
    if not amount:
        return _currency(Decimal(0), currency, digits - extra_digits)
    sign = "" if nanos > 0 else "−"
    if amount < least:
        return f"{'<' if nanos > 0 else '>'}{THIN}{sign}{_currency(least, currency, digits)}"
    return sign + _currency(amount.quantize(least, ROUND_HALF_UP), currency, digits)


def is_below_the_cent(nanos, currency):
    """Whether an amount is something, and less than the smallest one with the currency's own decimals."""
    return nanos is not None and 0 < abs(nanos) < NANOS // 10 ** get_currency_precision(currency)


def money_total(nanos, currency):
    """A total: as ``money``, and below the cent with the two decimals more that single requests have."""
    return money(nanos, currency, extra_digits=2 if is_below_the_cent(nanos, currency) else 0)


def money_exact(nanos, currency):
    """All nine decimals as HTML, the part below the cent marked ``money__tail``, the nanos as the value."""
    if nanos is None:
        return _("not priced")
    digits = get_currency_precision(currency)
    cents = Decimal(abs(nanos)).scaleb(-9).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR)
    text = _currency(cents, currency, digits)
    point = reader_locale().number_symbols["latn"]["decimal"]
    below = f"{abs(nanos) % NANOS:09d}"
    tail = THIN.join([below[:3], below[3:6], below[6:]])[digits:]
    if digits:
        end = text.rindex(point) + 1 + digits
    else:
        end = max(place for place, sign in enumerate(text) if sign.isdigit()) + 1
        tail = point + tail
    return format_html(
        '<data class="money" value="{}">{}{}<span class="money__tail">{}</span>{}</data>',
        nanos,
        "−" if nanos < 0 else "",
        text[:end],
        tail,
        text[end:],
    )


def integer(number):
    """A whole number with its groups, 18,352; ``None`` is an en dash."""
    if number is None:
        return NOTHING
    locale = reader_locale()
    return _true_minus(format_decimal(number, locale=locale, group_separator=_groups(number, locale)))


def compact(number):
    """A count to be grasped: written out below a million, then 402.2M."""
    if number is None:
        return NOTHING
    if abs(number) < MILLION:
        return integer(number)
    unit = MILLION
    while abs(number) >= unit * 1000:
        unit *= 1000
    # Rounded here, since Babel chooses the unit before it rounds and would write 1000M.
    tenth = unit // 10
    rounded = (abs(number) + tenth // 2) // tenth * tenth * (1 if number > 0 else -1)
    text = format_compact_decimal(rounded, format_type="short", fraction_digits=1, locale=reader_locale())
    return _true_minus(text.replace("\N{NO-BREAK SPACE}", THIN))


def percent(share):
    """A share of one, 0.423, as 42.3 %; ``None`` is an en dash."""
    if share is None:
        return NOTHING
    locale = reader_locale()
    digits = "0.0" if abs(share) < 0.9995 else "0"
    text = _true_minus(format_decimal(Decimal(str(share)) * 100, format=digits, locale=locale))
    return f"{text}%" if locale.language == "en" else f"{text}{THIN}%"


def duration(milliseconds):
    """642 ms, 10.94 s, 3 min 20 s, 2 h 05 min; ``None`` is an en dash."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 1000:
        return f"{integer(round(milliseconds))}{THIN}ms"
    if milliseconds < 59_995:
        return f"{format_decimal(Decimal(milliseconds) / 1000, format='0.00', locale=reader_locale())}{THIN}s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {seconds}{THIN}s" if seconds else f"{minutes}{THIN}min"
    hours, minutes = divmod(minutes, 60)
    return f"{integer(hours)}{THIN}h {minutes:02d}{THIN}min" if minutes else f"{integer(hours)}{THIN}h"


def day(moment):
    """20 Nov 2026, of a date or an instant; ``None`` is an en dash."""
    if moment is None:
        return NOTHING
    return written_date(_local(moment), "d MMM y")


def short_day(moment):
    """20 Nov: where the year stands elsewhere, as on the axis of a chart."""
    return written_date(_local(moment), "d MMM")


def written_date(date, pattern):
    """A date by Babel's ``pattern``; the first of a month is 1er in French, which Babel does not know."""
    locale = reader_locale()
    if locale.language == "fr" and date.day == 1:
        pattern = re.sub(r"\bd\b", "d'er'", pattern)
    return format_date(date, pattern, locale=locale)


def month(moment):
    """November: the month's name as it stands alone."""
    return format_date(_local(moment), "LLLL", locale=reader_locale())


def clock(moment, seconds=False):
    """14:32 of an instant in the active time zone, and 14:32:08 ``with seconds``."""
    locale, local = reader_locale(), _local(moment)
    if seconds:
        return format_time(local, "HH:mm:ss", locale=locale)
    if locale.language == "fr":
        return format_time(local, f"H'{THIN}h{THIN}'mm", locale=locale)
    return format_time(local, "H:mm" if locale.language == "es" else "HH:mm", locale=locale)


def moment(instant):
    """20 Nov 2026, 14:32 in the active time zone; ``None`` is an en dash."""
    if instant is None:
        return NOTHING
    return f"{day(instant)}, {clock(instant)}"


def ago(instant, now=None):
    """
    How long since ``instant``, up to a day; then its date. A ``<time>`` whose title is the instant itself.

    A moment ahead of this clock by less than a minute is "just now"; further ahead it is written out.
    """
    if instant is None:
        return NOTHING
    seconds = ((now or timezone.now()) - instant).total_seconds()
    if -60 < seconds < 60:
        text = _("just now")
    elif 60 <= seconds < 3600:
        text = _("%(number)s min ago") % {"number": int(seconds // 60)}
    elif 3600 <= seconds < 86_400:
        text = _("%(number)s h ago") % {"number": int(seconds // 3600)}
    else:
        text = day(instant) if seconds > 0 else moment(instant)
    return format_html('<time datetime="{}" title="{}">{}</time>', instant.isoformat(), moment(instant), text)


def _currency(amount, currency, digits):
    locale = reader_locale()
    pattern = locale.currency_formats["standard"].pattern.replace(".00", "." + "0" * digits if digits else "")
    text = format_currency(
        amount,
        currency,
        format=pattern,
        locale=locale,
        currency_digits=False,
        group_separator=_groups(amount, locale),
    )
    # A currency without a sign of its own, as in KWD 1.250, which Babel writes without a space.
    return re.sub(r"(?<=[A-Z])(?=\d)", THIN, text).replace("\N{NO-BREAK SPACE}", THIN)


def _groups(number, locale):
    """Whether digits are grouped: Spanish leaves four of them together, and Babel does not know."""
    return locale.language != "es" or abs(number) >= 10_000


def _local(value):
    return timezone.localtime(value) if isinstance(value, datetime) and timezone.is_aware(value) else value


def _true_minus(text):
    return text.replace("-", "−")
