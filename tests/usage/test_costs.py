from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.models import Price
from providers.tokens import TokenUsage
from usage.costs import CEILING_NANOS, Rates, applied, cost_of, rates_of, terms_of

PRICE = Price(
    input_per_mtok=Decimal("3"),
    output_per_mtok=Decimal("15"),
    cache_read_per_mtok=Decimal("0.30"),
    cache_write_per_mtok=Decimal("3.75"),
    cache_write_1h_per_mtok=Decimal("6"),
)
counts = st.none() | st.integers(0, 10**9)
usages = st.builds(TokenUsage, counts, counts, counts, counts, counts, counts)
rates = st.builds(Rates, st.none(), *[st.integers(0, 10**14)] * 5)


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
    assert cost_of(usage, rates) == min((total + 500) // 1000, CEILING_NANOS) >= 0


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
