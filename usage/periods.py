"""The span that a usage page speaks of: calendar days of the organization, and the steps that its chart takes."""

import datetime
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.db.models import TextChoices
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from usage.calendar import first_instant

LONGEST_DAYS = 731
LONGEST_BY_DAY = 92


class Span(TextChoices):
    """What a reader may ask for."""

    TODAY = "today", _("Today")
    WEEK = "7d", _("7 days")
    FORTNIGHT = "14d", _("14 days")
    MONTH = "month", _("Month")
    CUSTOM = "custom", _("Custom")


class Grain(TextChoices):
    """How wide one step of the chart is."""

    HOUR = "hour", _("hour")
    DAY = "day", _("day")
    MONTH = "month", _("month")


@dataclass(frozen=True)
class Period:
    """Whole days from ``first`` to ``last``, both within, as ``zone`` counts them; the last may be still running."""

    span: str
    first: datetime.date
    last: datetime.date
    zone: ZoneInfo
    now: datetime.datetime

    @classmethod
    def of(cls, span, zone_name, *, first=None, last=None, now=None):
        """The period that ``span`` names today in the zone; ``first`` and ``last`` for ``Span.CUSTOM`` alone."""
        zone = ZoneInfo(zone_name)
        now = now or timezone.now()
        today = now.astimezone(zone).date()
        if span == Span.CUSTOM:
            return cls(span, first, last, zone, now)
        days = {Span.TODAY: 1, Span.WEEK: 7, Span.FORTNIGHT: 14, Span.MONTH: today.day}[span]
        return cls(span, today - datetime.timedelta(days=days - 1), today, zone, now)

    @property
    def days(self):
        return (self.last - self.first).days + 1

    @property
    def start(self):
        return first_instant(self.first, self.zone)

    @property
    def end(self):
        """The first instant that no longer belongs to it."""
        return first_instant(self.last + datetime.timedelta(days=1), self.zone)

    @property
    def today(self):
        return self.now.astimezone(self.zone).date()

    @property
    def is_running(self):
        return self.first <= self.today <= self.last

    @property
    def on_the_hour(self):
        """Whether its days begin and end where UTC hours do; in India, say, they do not."""
        return self.start.minute == self.end.minute == 0

    @property
    def grain(self):
        """Hours for one or two days, where hourly sums can tell them; days for a quarter; months beyond."""
        if self.days <= 2 and (self.on_the_hour or self.first == self.last == self.today):
            return Grain.HOUR
        return Grain.DAY if self.days <= LONGEST_BY_DAY else Grain.MONTH

    def steps(self):
        """The first instant of each step of the chart, in order."""
        if self.grain == Grain.HOUR:
            # In half-hour zones the first step is short: the rest of the UTC hour in which the day began.
            whole = (self.start + datetime.timedelta(minutes=59)).replace(minute=0)
            hours = int((self.end - whole) / datetime.timedelta(hours=1) + 0.99)
            steps = [whole + datetime.timedelta(hours=n) for n in range(hours)]
            return steps if whole == self.start else [self.start, *steps]
        days = [self.first + datetime.timedelta(days=n) for n in range(self.days)]
        if self.grain == Grain.MONTH:
            days = [day for day in days if day.day == 1 or day == self.first]
        return [first_instant(day, self.zone) for day in days]

    def step_of(self, start):
        """The step into which the sums of the rollup that begins at ``start`` belong."""
        if self.grain == Grain.HOUR:
            return max(start, self.start)
        day = start.astimezone(self.zone).date()
        if self.grain == Grain.MONTH:
            day = max(day.replace(day=1), self.first)
        return first_instant(day, self.zone)

    def before(self):
        """
        What to compare with: the same number of days just before, or the same days of the month before.

        For today it is yesterday, up to the end of this hour of the day where hourly sums can tell that.
        """
        one = datetime.timedelta(days=1)
        if self.span == Span.MONTH:
            last_of_month = self.first - one
            first = last_of_month.replace(day=1)
            last = min(first + one * (self.days - 1), last_of_month)
        else:
            first, last = self.first - one * self.days, self.first - one
        period = Period(Span.CUSTOM, first, last, self.zone, self.now)
        if self.span == Span.TODAY and period.on_the_hour:
            local = self.now.astimezone(self.zone)
            until = datetime.datetime.combine(last, datetime.time(local.hour), self.zone).astimezone(datetime.UTC)
            return PartDay(Span.CUSTOM, first, last, self.zone, self.now, until + datetime.timedelta(hours=1))
        return period


@dataclass(frozen=True)
class PartDay(Period):
    """One day up to the instant ``until``, which stands on an hour."""

    until: datetime.datetime
