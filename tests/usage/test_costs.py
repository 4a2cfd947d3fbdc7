import datetime
from decimal import Decimal
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.models import ExchangeRate, Price
from providers.tokens import TokenUsage
from usage.costs import (
    CEILING_NANOS,
    EXCHANGE_SCALE,
    PER_NANO,
    Rates,
    applied,
    cost_of,
    exchange_of,
    most_of,
    rates_of,
    rates_over_time,
    terms_of,
)

PRICE = Price(
    input_per_mtok=Decimal("3"),
    output_per_mtok=Decimal("15"),
    cache_read_per_mtok=Decimal("0.30"),
    cache_write_per_mtok=Decimal("3.75"),
    cache_write_1h_per_mtok=Decimal("6"),
)
counts = st.none() | st.integers(0, 10**9)
usages = st.builds(TokenUsage, counts, counts, counts, counts, counts, counts)
exchanges = st.none() | st.integers(1, 10**18 - 1)
rates = st.builds(Rates, st.none(), *[st.integers(0, 10**14)] * 5, exchange=exchanges)


def test_a_cost_is_tokens_times_price_to_the_nano():
    usage = TokenUsage(1284, 14208, 2048, 0, 812, 356)
    assert cost_of(usage, rates_of(PRICE)) == 27_974_400


def test_no_price_is_no_cost():
    assert cost_of(TokenUsage(1, 1, 1, 1, 1), None) is None


def test_a_cache_rate_that_is_not_set_is_the_rate_of_the_input():
    price = Price(input_per_mtok=Decimal("3"), output_per_mtok=Decimal("15"))
    assert cost_of(TokenUsage(100, 100, 100, 100, 0), rates_of(price)) == cost_of(TokenUsage(400), rates_of(price))


@pytest.mark.parametrize(("per_mtok", "tokens", "nanos"), [("0.000499", 1, 0), ("0.0005", 1, 1), ("0.000001", 500, 1)])
def test_half_a_nano_is_rounded_up_and_once_a_request(per_mtok, tokens, nanos):
    price = Price(input_per_mtok=Decimal(per_mtok), output_per_mtok=Decimal(0))
    assert cost_of(TokenUsage(tokens), rates_of(price)) == nanos


@given(usages, rates)
def test_the_terms_of_a_cost_add_up_to_it(usage, rates):
    total = sum(term.amount for term in terms_of(usage, rates))
    if rates.exchange is not None:
        total = Fraction(total * rates.exchange, EXCHANGE_SCALE)
    assert cost_of(usage, rates) == min(floor(Fraction(total, PER_NANO) + Fraction(1, 2)), CEILING_NANOS) >= 0


@given(usages, rates, st.sampled_from(["input", "cache_read", "cache_write", "cache_write_1h", "output"]))
def test_more_tokens_never_cost_less(usage, rates, kind):
    import msgspec

    more = msgspec.structs.replace(usage, **{f"{kind}_tokens": (getattr(usage, f"{kind}_tokens") or 0) + 1})
    assert cost_of(more, rates) >= cost_of(usage, rates)


TIERED = Price(
    input_per_mtok=Decimal("3"),
    output_per_mtok=Decimal("15"),
    cache_read_per_mtok=Decimal("0.30"),
    tiers=[
        {"above": 200_000, "input": "6", "output": "22.5", "cache_read": "0.6"},
        {"above": 1_000_000, "input": "12", "output": "45"},
    ],
)


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (TokenUsage(200_000, 0, 0, 0, 100), 600_000_000 + 1_500_000),
        (TokenUsage(200_001, 0, 0, 0, 100), 1_200_006_000 + 2_250_000),
        # What was read from the cache counts as input, and the whole request changes its rates.
        (TokenUsage(100, 200_000, 0, 0, 100), 600_000 + 120_000_000 + 2_250_000),
        (TokenUsage(1, 200_000, None, None, None), 6_000 + 120_000_000),
        (TokenUsage(1_000_001), 12_000_012_000),
        # A tier without a cache rate charges its input rate.
        (TokenUsage(0, 1_000_001), 12_000_012_000),
        (TokenUsage(None, None, None, None, 100), 1_500_000),
    ],
)
def test_a_request_past_a_tier_takes_its_rates_altogether(usage, nanos):
    rates = rates_of(TIERED)
    assert cost_of(usage, rates) == nanos
    assert sum(term.amount for term in terms_of(usage, rates)) == nanos * 1000


def test_the_tier_that_applies_is_told():
    rates = rates_of(TIERED)
    assert [applied(TokenUsage(count), rates)[0] for count in (200_000, 200_001, 1_000_001)] == [
        None,
        200_000,
        1_000_000,
    ]


def test_the_order_in_which_tiers_were_written_does_not_matter():
    backwards = Price(input_per_mtok=Decimal("3"), output_per_mtok=Decimal("15"), tiers=TIERED.tiers[::-1])
    assert cost_of(TokenUsage(1_000_001), rates_of(backwards)) == 12_000_012_000


def test_a_batch_takes_its_own_rates_and_else_those_of_a_plain_request():
    price = Price(
        input_per_mtok=Decimal("3"),
        output_per_mtok=Decimal("15"),
        cache_read_per_mtok=Decimal("0.3"),
        batch_input_per_mtok=Decimal("1.5"),
        tiers=[{"above": 1000, "input": "6", "output": "30", "batch_output": "15"}],
    )
    assert rates_of(price, batch=True)[:6] == (None, 1_500_000, 300_000, 1_500_000, 1_500_000, 15_000_000)
    assert rates_of(price, batch=True).tiers[0][1][:6] == (None, 6_000_000, 6_000_000, 6_000_000, 6_000_000, 15_000_000)
    assert rates_of(price)[:6] == (None, 3_000_000, 300_000, 3_000_000, 3_000_000, 15_000_000)


# Other currencies ------------------------------------------------------------------------------------------------


def test_what_is_priced_in_another_currency_is_converted_before_it_is_rounded():
    usage = TokenUsage(1284, 14208, 2048, 0, 812, 356)
    euro = exchange_of(ExchangeRate(rate=Decimal("0.9231")))

    # 0.0279744 dollars × 0.9231 = 0.02582316864 euros: rounding first would be off by nothing here, and below by much.
    assert cost_of(usage, rates_of(PRICE, exchange=euro)) == 25_823_169

    cheap = rates_of(Price(input_per_mtok=Decimal("0.0004"), output_per_mtok=Decimal(0)), exchange=16_000 * 10**10)
    assert cost_of(TokenUsage(1), cheap) == 6_400


def test_a_tier_is_converted_at_the_same_rate_as_the_rest():
    rates = rates_of(TIERED, exchange=2 * EXCHANGE_SCALE)

    for tokens in (1, 200_000, 200_001, 1_000_001):
        assert cost_of(TokenUsage(tokens), rates) == 2 * cost_of(TokenUsage(tokens), rates_of(TIERED))


def test_an_exchange_rate_keeps_its_ten_decimals():
    assert exchange_of(ExchangeRate(rate=Decimal("0.0000187654"))) == 187_654
    assert exchange_of(ExchangeRate(rate=Decimal("0.0000000001"))) == 1


@given(usages, rates, st.lists(st.tuples(st.integers(0, 10**9), rates), max_size=2))
def test_no_request_costs_more_than_the_most_that_was_held_for_it(usage, rates, tiers):
    rates = rates._replace(tiers=tuple(sorted(tiers, key=lambda tier: -tier[0])))
    most = most_of(rates, sum(count or 0 for count in usage_input(usage)), usage.output_tokens or 0)

    assert cost_of(usage, rates) <= most <= CEILING_NANOS


def usage_input(usage):
    return usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens


def at(day):
    return datetime.datetime(2026, 5, day, tzinfo=datetime.UTC)


def price_from(day, currency, amount):
    return Price(currency=currency, valid_from=at(day), input_per_mtok=Decimal(amount), output_per_mtok=Decimal(0))


def charged_on(prices, exchanges):
    """What a million tokens cost at the noon of each day of a week of which the organization counts in euros."""
    history = rates_over_time(prices, "EUR", exchanges)
    assert [moment for moment, _rates in history] == sorted((moment for moment, _rates in history), reverse=True)

    def rates_at(moment):
        return next((rates for since, rates in history if since <= moment), None)

    noons = [at(day).timestamp() + 43_200 for day in range(1, 8)]
    return [nanos and nanos / 10**9 for nanos in (cost_of(TokenUsage(10**6), rates_at(noon)) for noon in noons)]


def test_a_price_in_the_organizations_currency_needs_no_rate():
    assert charged_on([price_from(2, "EUR", 3)], {}) == [None, 3, 3, 3, 3, 3, 3]
    assert rates_over_time([price_from(2, "EUR", 3)], "EUR", {})[0][1].exchange is None


def test_each_moment_has_the_price_and_the_rate_of_that_moment():
    prices = [price_from(5, "USD", 10), price_from(2, "USD", 1)]
    rates = [(at(6).timestamp(), 3 * EXCHANGE_SCALE), (at(3).timestamp(), 2 * EXCHANGE_SCALE)]

    # Of the 2nd there is a price and no rate: it is not priced, which is not the same as free.
    assert charged_on(prices, {"USD": rates}) == [None, None, 2, 2, 20, 30, 30]


def test_a_rate_of_another_currency_makes_no_price():
    assert charged_on([price_from(1, "USD", 1)], {"GBP": [(at(1).timestamp(), EXCHANGE_SCALE)]}) == [None] * 7


def test_a_price_may_leave_the_currency_of_the_one_before():
    prices = [price_from(6, "EUR", 5), price_from(4, "USD", 4), price_from(1, "EUR", 1)]
    rates = [(at(1).timestamp(), 2 * EXCHANGE_SCALE)]

    assert charged_on(prices, {"USD": rates}) == [1, 1, 1, 8, 8, 5, 5]
