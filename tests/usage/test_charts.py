"""Figures that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.charts import add_up, change, failure_change, share_text, shares
from usage.queries import Sums

CENT = 10_000_000


def test_the_largest_row_takes_the_remainder():
    assert add_up([5_004_000_000, 3_004_000_000, 2_004_000_000], CENT) == [5_010_000_000, 3_000_000_000, 2_000_000_000]


def test_what_is_less_than_a_cent_stays_exact():
    assert add_up([5_000_000_000, 4_000_000], CENT) == [5_000_000_000, 4_000_000]


def test_many_small_rows_make_up_their_total():
    shown = add_up([6_000_000] * 10, CENT)

    assert sum(amount for amount in shown if amount >= CENT) == 6 * CENT


def test_what_has_no_price_stays_without():
    assert add_up([None, 1_500_000_000], CENT) == [None, 1_500_000_000]


@given(st.lists(st.integers(0, 10**12), max_size=40))
def test_rounded_rows_always_add_up_and_stay_near(amounts):
    shown = add_up(amounts, CENT)
    total = sum(amounts)

    assert sum(amount for amount in shown if amount >= CENT) == (
        0 if total < CENT else (total + CENT // 2) // CENT * CENT
    )
    assert all(abs(near - amount) <= 1.5 * CENT for near, amount in zip(shown, amounts, strict=True))
    assert all(near >= 0 for near in shown)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_shares_add_up_to_one(amounts):
    found = shares(amounts)

    assert found == [None] * len(amounts) if not sum(amounts) else round(sum(found), 3) == 1


def test_a_share_that_is_something_is_not_written_as_nothing():
    assert share_text(0, 3) == "<\N{NARROW NO-BREAK SPACE}0.1%"
    assert share_text(0, 0) == "0.0%"


@pytest.mark.parametrize(
    ("now", "before", "text"), [(109, 100, "+9.0%"), (90, 100, "−10.0%"), (100, 100, "0.0%"), (5, 0, None)]
)
def test_a_change_is_a_part_of_what_was_before(now, before, text):
    assert change(now, before) == text


def test_fewer_failures_are_good():
    now = Sums(requests=1000, outcomes={"completed": 998, "timeout": 2})
    before = Sums(requests=1000, outcomes={"completed": 997, "upstream_error": 3})

    assert failure_change(now, before) == ("−0.10", "good")


def test_a_refusal_is_not_a_failure():
    assert Sums(requests=2, outcomes={"completed": 1, "refused": 1}).failed == 0
