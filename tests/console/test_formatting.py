"""Money, tokens and time in three languages."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.utils import timezone, translation

from console import formatting

THIN = "\N{NARROW NO-BREAK SPACE}"
EURO = 10**9


def plain(text):
    """Narrow no-break spaces as ordinary ones, so that the tables below can be read."""
    return str(text).replace(THIN, " ")


@pytest.mark.parametrize(
    ("nanos", "english", "french", "spanish"),
    [
        (1284 * EURO + EURO // 2, "€1,284.50", "1 284,50 €", "1284,50 €"),
        (12_845 * EURO, "€12,845.00", "12 845,00 €", "12.845,00 €"),
        (0, "€0.00", "0,00 €", "0,00 €"),
        (10_000_000, "€0.01", "0,01 €", "0,01 €"),
        (9_999_999, "< €0.01", "< 0,01 €", "< 0,01 €"),
        (1, "< €0.01", "< 0,01 €", "< 0,01 €"),
        (15_000_000, "€0.02", "0,02 €", "0,02 €"),
        (-3 * EURO - EURO // 2, "−€3.50", "−3,50 €", "−3,50 €"),
        (-1, "> −€0.01", "> −0,01 €", "> −0,01 €"),
        (10**9 * EURO, "€1,000,000,000.00", "1 000 000 000,00 €", "1.000.000.000,00 €"),
        (None, "not priced", None, None),
    ],
)
def test_money_has_two_decimals_and_never_rounds_to_zero(nanos, english, french, spanish):
    for language, expected in (("en", english), ("fr", french), ("es", spanish)):
        if expected:
            with translation.override(language):
                assert plain(formatting.money(nanos, "EUR")) == expected


@pytest.mark.parametrize(
    ("nanos", "expected"),
    [(24_211_843, "€0.0242"), (100_000, "€0.0001"), (99_999, "< €0.0001"), (0, "€0.00"), (2 * EURO, "€2.0000")],
)
def test_one_request_alone_has_four_decimals(nanos, expected):
    assert plain(formatting.money(nanos, "EUR", extra_digits=2)) == expected


@pytest.mark.parametrize(("currency", "expected"), [("JPY", "¥1,285"), ("USD", "$1,284.50"), ("KWD", "KWD 1,284.500")])
def test_a_currency_brings_its_own_number_of_decimals(currency, expected):
    assert plain(formatting.money(1284 * EURO + EURO // 2, currency)) == expected


@pytest.mark.parametrize(
    ("nanos", "language", "expected"),
    [
        (24_211_843, "en", '€0.02<span class="money__tail">4 211 843</span>'),
        (24_211_843, "fr", '0,02<span class="money__tail">4 211 843</span> €'),
        (29_999_999, "en", '€0.02<span class="money__tail">9 999 999</span>'),
        (12_845_678_901_234, "es", '12.845,67<span class="money__tail">8 901 234</span> €'),
        (-EURO, "en", '−€1.00<span class="money__tail">0 000 000</span>'),
    ],
)
def test_the_exact_amount_shows_nine_decimals_and_cuts_none(nanos, language, expected):
    with translation.override(language):
        html = plain(formatting.money_exact(nanos, "EUR"))
    assert html == f'<data class="money" value="{nanos}">{expected}</data>'


def test_the_exact_amount_of_a_currency_without_cents_begins_its_tail_at_the_point():
    assert '¥1<span class="money__tail">.500 000 000</span>' in plain(formatting.money_exact(1_500_000_000, "JPY"))


def test_the_exact_amount_that_is_unknown_says_so():
    assert formatting.money_exact(None, "EUR") == "not priced"


@pytest.mark.parametrize(
    ("number", "english", "french", "spanish"),
    [
        (18_352, "18,352", "18 352", "18.352"),
        (1234, "1,234", "1 234", "1234"),
        (0, "0", "0", "0"),
        (-5, "−5", "−5", "−5"),
        (None, "–", "–", "–"),
    ],
)
def test_a_count_is_grouped_as_the_language_groups_it(number, english, french, spanish):
    for language, expected in (("en", english), ("fr", french), ("es", spanish)):
        with translation.override(language):
            assert plain(formatting.integer(number)) == expected


@pytest.mark.parametrize(
    ("number", "english", "french"),
    [
        (999_999, "999,999", "999 999"),
        (402_249_999, "402.2M", "402,2 M"),
        (12_349_999, "12.3M", "12,3 M"),
        (999_999_950, "1B", "1 Md"),
        (2_000_000, "2M", "2 M"),
        (-402_200_000, "−402.2M", "−402,2 M"),
        (None, "–", "–"),
    ],
)
def test_a_large_count_is_shortened_once(number, english, french):
    assert plain(formatting.compact(number)) == english
    with translation.override("fr"):
        assert plain(formatting.compact(number)) == french


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        (None, "–"),
        (0, "0 ms"),
        (642, "642 ms"),
        (10_940, "10.94 s"),
        (59_996, "1 min"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 05 min"),
    ],
)
def test_a_duration_has_the_unit_of_its_size(milliseconds, expected):
    assert plain(formatting.duration(milliseconds)) == expected


@pytest.mark.parametrize(("share", "expected"), [(None, "–"), (0.423, "42.3%"), (1, "100%"), (0, "0.0%")])
def test_a_share_is_a_percentage(share, expected):
    assert plain(formatting.percent(share)) == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [("en", "20 Nov 2026, 14:32"), ("fr", "20 nov. 2026, 14 h 32"), ("es", "20 nov 2026, 14:32")],
)
def test_an_instant_is_written_in_the_active_zone(language, expected):
    with translation.override(language), timezone.override("Europe/Paris"):
        assert plain(formatting.moment(datetime(2026, 11, 20, 13, 32, tzinfo=UTC))) == expected


@pytest.mark.parametrize(("language", "expected"), [("en", "1 Dec"), ("fr", "1er déc."), ("es", "1 dic")])
def test_the_first_of_a_month_is_an_ordinal_in_french(language, expected):
    with translation.override(language):
        assert formatting.short_day(date(2026, 12, 1)) == expected
        assert formatting.day(date(2026, 12, 1)) == f"{expected} 2026"
        assert not formatting.day(date(2026, 12, 11)).startswith("11er")


def test_a_day_is_the_days_own_whatever_the_zone():
    with timezone.override("America/Los_Angeles"):
        assert formatting.day(date(2026, 11, 20)) == "20 Nov 2026"


NOW = datetime(2026, 11, 20, 14, 32, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (timedelta(seconds=5), "just now"),
        (timedelta(seconds=-5), "just now"),
        (timedelta(minutes=38), "38 min ago"),
        (timedelta(hours=5), "5 h ago"),
        (timedelta(days=3), "17 Nov 2026"),
        (timedelta(minutes=-10), "20 Nov 2026, 14:42"),
    ],
)
def test_time_is_relative_up_to_a_day_with_the_instant_in_the_title(before, expected):
    html = formatting.ago(NOW - before, now=NOW)
    assert f">{expected}</time>" in html
    assert f'title="{formatting.moment(NOW - before)}"' in html
