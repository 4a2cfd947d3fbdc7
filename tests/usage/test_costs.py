from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.models import Price
from providers.tokens import TokenUsage
from usage.costs import CEILING_NANOS, Rates, cost_of, rates_of, terms_of

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
