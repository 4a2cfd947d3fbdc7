"""Days, weeks and months as an organization's time zone counts them, told by instants in UTC."""

import datetime
import functools
from zoneinfo import ZoneInfo


def first_instant(day, zone):
    """The instant in UTC at which ``day`` begins in ``zone``; right also where the clocks skip midnight."""
    return datetime.datetime.combine(day, datetime.time(), zone).astimezone(datetime.UTC)


class Calendar:
    """The intervals of one zone: half-open, without a gap, each instant in just one of a kind."""

    def __init__(self, zone_name):
        self.zone = ZoneInfo(zone_name)
        self._latest = {}

    def interval(self, period, moment):
        """The first instant of the day, week or month that ``moment``, an aware datetime, falls on, and the next's."""
        latest = self._latest.get(period)
        if latest is None or not latest[0] <= moment < latest[1]:
            first, following = _days(period, moment.astimezone(self.zone).date())
            latest = self._latest[period] = first_instant(first, self.zone), first_instant(following, self.zone)
        return latest


@functools.cache
def calendar_of(zone_name) -> Calendar:
    """The calendar of a zone, one a process."""
    return Calendar(zone_name)


def _days(period, day):
    if period == "day":
        return day, day + datetime.timedelta(days=1)
    if period == "week":
        monday = day - datetime.timedelta(days=day.weekday())
        return monday, monday + datetime.timedelta(days=7)
    first = day.replace(day=1)
    return first, (first + datetime.timedelta(days=31)).replace(day=1)
