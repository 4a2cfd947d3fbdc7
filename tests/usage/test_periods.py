"""Which instants a period holds, in zones whose days are odd."""

import datetime

import pytest

from usage.periods import Grain, PartDay, Period, Span

UTC = datetime.UTC


def at(text):
    return datetime.datetime.fromisoformat(text)


def test_seven_days_are_today_and_the_six_before_it_in_the_organizations_zone():
    period = Period.of(Span.WEEK, "Europe/Paris", now=at("2026-11-21T23:30:00+00:00"))

    assert (period.first, period.last) == (datetime.date(2026, 11, 16), datetime.date(2026, 11, 22))
    assert period.start == at("2026-11-15T23:00:00+00:00")
    assert period.end == at("2026-11-22T23:00:00+00:00")


def test_the_day_that_ends_summer_time_has_twenty_five_hours():
    period = Period.of(Span.TODAY, "Europe/Paris", now=at("2026-10-25T12:00:00+00:00"))

    assert len(period.steps()) == 25
    assert period.steps()[0] == at("2026-10-24T22:00:00+00:00")
    assert period.end == at("2026-10-25T23:00:00+00:00")


def test_the_day_that_begins_summer_time_has_twenty_three_hours():
    period = Period.of(Span.TODAY, "Europe/Paris", now=at("2026-03-29T12:00:00+00:00"))

    assert len(period.steps()) == 23


def test_a_day_whose_midnight_is_skipped_begins_at_its_first_instant():
    period = Period.of(Span.TODAY, "Africa/Cairo", now=at("2026-04-24T12:00:00+00:00"))

    assert period.start == at("2026-04-23T22:00:00+00:00")
    assert len(period.steps()) == 23


def test_today_in_a_half_hour_zone_begins_with_a_short_step():
    period = Period.of(Span.TODAY, "Asia/Kolkata", now=at("2026-11-21T12:00:00+00:00"))

    assert period.grain == Grain.HOUR
    assert period.steps()[:2] == [at("2026-11-20T18:30:00+00:00"), at("2026-11-20T19:00:00+00:00")]
    assert period.steps()[-1] == at("2026-11-21T18:00:00+00:00")


def test_a_past_day_in_a_half_hour_zone_has_no_hours():
    day = datetime.date(2026, 11, 3)
    period = Period.of(Span.CUSTOM, "Asia/Kolkata", first=day, last=day, now=at("2026-11-21T12:00:00+00:00"))

    assert period.grain == Grain.DAY


@pytest.mark.parametrize(
    ("days", "grain"), [(1, Grain.HOUR), (2, Grain.HOUR), (3, Grain.DAY), (92, Grain.DAY), (93, Grain.MONTH)]
)
def test_longer_periods_take_wider_steps(days, grain):
    first = datetime.date(2026, 1, 1)
    last = first + datetime.timedelta(days=days - 1)

    assert Period.of(Span.CUSTOM, "UTC", first=first, last=last).grain == grain


def test_a_year_by_months_begins_with_its_first_day():
    period = Period.of(Span.CUSTOM, "UTC", first=datetime.date(2025, 11, 20), last=datetime.date(2026, 11, 19))

    steps = period.steps()

    assert len(steps) == 13
    assert steps[0] == at("2025-11-20T00:00:00+00:00")
    assert period.step_of(at("2025-11-25T00:00:00+00:00")) == steps[0]
    assert period.step_of(at("2026-02-25T00:00:00+00:00")) == at("2026-02-01T00:00:00+00:00")


def test_a_week_is_compared_with_the_week_before():
    before = Period.of(Span.WEEK, "UTC", now=at("2026-11-21T12:00:00+00:00")).before()

    assert (before.first, before.last) == (datetime.date(2026, 11, 8), datetime.date(2026, 11, 14))


def test_a_month_is_compared_with_the_same_days_of_the_month_before():
    before = Period.of(Span.MONTH, "UTC", now=at("2026-11-21T12:00:00+00:00")).before()

    assert (before.first, before.last) == (datetime.date(2026, 10, 1), datetime.date(2026, 10, 21))


def test_the_last_of_march_is_compared_with_a_whole_february():
    before = Period.of(Span.MONTH, "UTC", now=at("2026-03-31T12:00:00+00:00")).before()

    assert (before.first, before.last) == (datetime.date(2026, 2, 1), datetime.date(2026, 2, 28))


def test_today_is_compared_with_yesterday_up_to_the_end_of_this_hour():
    before = Period.of(Span.TODAY, "Europe/Paris", now=at("2026-11-21T13:32:00+00:00")).before()

    assert isinstance(before, PartDay)
    assert before.start == at("2026-11-19T23:00:00+00:00")
    assert before.until == at("2026-11-20T14:00:00+00:00")


def test_today_in_a_half_hour_zone_is_compared_with_the_whole_of_yesterday():
    before = Period.of(Span.TODAY, "Asia/Kolkata", now=at("2026-11-21T12:00:00+00:00")).before()

    assert not isinstance(before, PartDay)
    assert before.first == before.last == datetime.date(2026, 11, 20)
