"""What the usage page draws: rows by model or key that add up, and the chart's own table of steps."""

from dataclasses import dataclass, field, replace

from babel.dates import format_date
from babel.numbers import format_decimal, get_currency_precision
from django.utils.translation import gettext as _

from console import formatting
from usage.models import Source
from usage.periods import Grain, PartDay, Span
from usage.queries import NOBODY, OTHER, PLAYGROUND, Sums

MOST_SERIES = 9
OTHER_SERIES = 10
# Up to here each bar has its label, and the month need not be said again.
LONGEST_BARE_DAYS = 14


@dataclass(frozen=True)
class Entity:
    """A model or a key as a reader knows it: its name, its colour and the filter that shows it alone."""

    key: object
    name: str
    series: int
    note: str = ""
    filter: tuple = ()


@dataclass
class Row:
    """One line of the breakdown; ``cost`` is rounded so that the lines add up to their total."""

    entity: Entity
    sums: Sums
    cost: int | None = None
    share: float | None = None
    share_text: str = formatting.NOTHING

    @property
    def bar(self):
        """The width of its share as an SVG attribute."""
        return f"{(self.share or 0) * 100:.1f}%"


@dataclass
class Step:
    """One step of the chart: its name in full and on the axis, and one value for each series."""

    start: object
    title: str
    label: str
    cells: list = field(default_factory=list)
    total: object = None
    is_running: bool = False
    is_ahead: bool = False


@dataclass
class Cell:
    """A value to draw, and as it is written: rounded so that a step's cells add up."""

    value: int
    shown: int | None


def add_up(amounts, unit):
    """
    Round each amount to ``unit`` so that they add up to their rounded total.

    The largest takes the remainder; where that is more than one unit, the next ones take one each. ``None`` stays,
    and what is less than a unit stays exact, to be written "< €0.01", unless the total needs it.
    """
    known = [amount or 0 for amount in amounts]
    units = _adding_up(known, [0 if amount < unit else _nearest(amount, unit) for amount in [*known, sum(known)]])
    return [None if amount is None else number * unit or amount for amount, number in zip(amounts, units, strict=True)]


def shares(amounts):
    """What part of the whole each amount is, in thousandths that add up to one; ``None`` where the whole is nothing."""
    total = sum(amounts)
    if not total:
        return [None] * len(amounts)
    thousands = [amount * 1000 for amount in amounts]
    units = _adding_up(thousands, [_nearest(amount, total) for amount in [*thousands, sum(thousands)]])
    return [number / 1000 for number in units]


def _nearest(amount, unit):
    return (amount + unit // 2) // unit


def _adding_up(amounts, rounded):
    """How many units each amount is so that they add up; ``rounded`` is each for itself, and last their total."""
    *units, total = rounded
    remainder = total - sum(units)
    largest_first = sorted(range(len(amounts)), key=amounts.__getitem__, reverse=True)
    for place in largest_first[: abs(remainder)]:
        units[place] += 1 if remainder > 0 else -1
    return units


def share_text(share, amount):
    """A share as it is written; what is something is never written as nothing."""
    if share == 0 and amount:
        return f"<{formatting.THIN}{formatting.percent(0.001)}"
    return formatting.percent(share)


def smallest_unit(total, currency):
    """The nanos of the smallest amount that lists write: a cent, or a hundredth of it where all is less than one."""
    digits = get_currency_precision(currency) + (2 if formatting.is_below_the_cent(total, currency) else 0)
    return formatting.NANOS // 10**digits


def entities(by, keys, models):
    """``{key: Entity}`` of all that usage may be counted under; colours follow the order of creation."""
    if by == "model":
        named = {model.pk: _model_entity(model) for model in models}
        return named | {NOBODY: Entity(NOBODY, _("No model"), OTHER_SERIES, _("refused before one was found"))}
    named = {key.pk: _key_entity(key, number) for number, key in enumerate(keys, start=1)}
    return named | {
        PLAYGROUND: Entity(PLAYGROUND, _("Playground"), 1, filter=("source", Source.PLAYGROUND.value)),
        NOBODY: Entity(NOBODY, _("No key"), OTHER_SERIES),
    }


def _model_entity(model):
    note = model.provider.shown_name
    if model.removed_at:
        note = _("%(provider)s, removed") % {"provider": note}
    return Entity(model.pk, model.public_name, model.series, note, ("model", model.uid))


def _key_entity(key, number):
    # The playground came first: it has the first colour.
    note = "" if key.status == key.Status.ACTIVE else str(key.status.label).lower()
    return Entity(key.pk, key.name, number % 9 + 1, note, ("key", key.uid))


def _named(found, by, key):
    gone = _("Deleted model") if by == "model" else _("Deleted key")
    return found.get(key) or Entity(key, gone, OTHER_SERIES)


def breakdown(sums, by, measure, known, currency):
    """The rows of the table, largest by ``measure`` first, and their total as a row of its own."""
    rows = [Row(_named(known, by, key), entity_sums) for key, entity_sums in sums.items()]
    rows.sort(key=lambda row: (-row.sums.measure(measure), -row.sums.requests, row.entity.name))
    _recolour(rows)
    total = Row(Entity("total", _("Total"), OTHER_SERIES), sum_of(sums.values()))
    for row, cost, share in zip(
        rows,
        add_up([row.sums.cost for row in rows], smallest_unit(total.sums.cost, currency)),
        shares([row.sums.measure(measure) for row in rows]),
        strict=True,
    ):
        row.cost = cost
        if share is not None and not (measure == "cost" and cost is None):
            row.share, row.share_text = share, share_text(share, row.sums.measure(measure))
    total.cost = total.sums.cost
    if total.sums.measure(measure):
        total.share, total.share_text = 1.0, formatting.percent(1.0)
    return rows, total


def sum_of(many):
    """One ``Sums`` of many."""
    total = Sums()
    for sums in many:
        total.merge(sums)
    return total


def _recolour(rows):
    """
    Give each row that the chart shows for itself a colour of its own, and "other" to the rest.

    There are as many colours as such rows: where two have the same, the one that was there first keeps it.
    """
    coloured = [row for row in rows if row.entity.series != OTHER_SERIES]
    shown, rest = coloured[:MOST_SERIES], coloured[MOST_SERIES:]
    free = sorted(set(range(1, OTHER_SERIES)) - {row.entity.series for row in shown})
    taken = set()
    for row in sorted(shown, key=lambda row: _order(row.entity)):
        if row.entity.series in taken:
            row.entity = replace(row.entity, series=free.pop(0))
        taken.add(row.entity.series)
    for row in rest:
        row.entity = replace(row.entity, series=OTHER_SERIES)


def _order(entity):
    """The order of creation; the playground came first."""
    return entity.key if isinstance(entity.key, int) else 0


def leading(rows):
    """The entities of a breakdown that the chart shows each for itself: the largest, and one other if it is alone."""
    others = [row for row in rows if row.entity.series == OTHER_SERIES]
    return [row.entity.key for row in rows if row.entity.series != OTHER_SERIES or len(others) == 1]


def chart(period, sums, rows, measure, currency):
    """
    The chart's series, as entities, and its steps; what has no colour of its own is "others".

    ``rows`` are those of the breakdown: their order is the order of the stack.
    """
    shown = set(leading(rows))
    series = [row.entity for row in rows if row.entity.key in shown]
    if len(rows) > len(series):
        name = _("%(count)d others") % {"count": len(rows) - len(series)}
        series.append(Entity(OTHER, name, OTHER_SERIES))
    starts = period.steps()
    unit = smallest_unit(sum_of(row.sums for row in rows).cost, currency)
    steps = []
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else period.end
        found = [sums.get((start, entity.key)) or Sums() for entity in series]
        step = Step(start, *_titles(period, start, number), is_running=start <= period.now < end)
        step.is_ahead = start > period.now
        shown = [each.cost if measure == "cost" else each.measure(measure) for each in found]
        if measure == "cost":
            step.total = sum_of(found).cost
            shown = add_up(shown, unit)
        else:
            step.total = sum(shown)
        step.cells = [Cell(each.measure(measure), text) for each, text in zip(found, shown, strict=True)]
        steps.append(step)
    return series, steps


def _titles(period, start, number):
    """The full name of a step, and its short one for the axis."""
    locale = formatting.reader_locale()
    local = start.astimezone(period.zone)
    if period.grain == Grain.HOUR:
        clock = formatting.clock(local)
        title = f"{weekday(local)}, {clock}"
        twin = local.replace(fold=not local.fold)
        if twin.utcoffset() != local.utcoffset() and twin.replace(fold=0) == local.replace(fold=0):
            title += f" {local.tzname()}"  # the hour that the end of summer time repeats
        return title, formatting.short_day(local.date()) if period.days > 1 and local.hour == 0 else clock
    if period.grain == Grain.MONTH:
        return month(local.date()), format_date(local, "LLL" if number and local.month != 1 else "LLL y", locale=locale)
    with_month = number == 0 or local.day == 1 or local.date() == period.today or period.days > LONGEST_BARE_DAYS
    return weekday(local), formatting.short_day(local.date()) if with_month else format_date(local, "d", locale=locale)


def weekday(date):
    """Sunday 8 November."""
    is_spanish = formatting.reader_locale().language == "es"
    return formatting.written_date(date, "EEEE d 'de' MMMM" if is_spanish else "EEEE d MMMM")


def month(date):
    """November 2026."""
    locale = formatting.reader_locale()
    return format_date(date, "LLLL 'de' y" if locale.language == "es" else "LLLL y", locale=locale)


def span_name(first, last):
    """8 Nov to 21 Nov 2026; one day alone is named once."""
    if first == last:
        return formatting.day(first)
    begin = formatting.short_day(first) if first.year == last.year else formatting.day(first)
    return _("%(first)s to %(last)s") % {"first": begin, "last": formatting.day(last)}


def change(now, before):
    """By what part ``now`` differs from ``before``, such as +9.2%; ``None`` where there was nothing before."""
    if not before:
        return None
    text = formatting.percent((now - before) / before)
    return f"+{text}" if now > before else text


def failure_share(sums):
    """0.38%: two decimals, since what matters here is small; ``None`` of no requests."""
    return _fine_percent(sums.failed / sums.requests) if sums.requests else None


def failure_change(now, before):
    """The difference of both shares in points, and whether it is ``good``, ``bad`` or neither."""
    if not now.requests or not before.requests:
        return None, ""
    points = round((now.failed / now.requests - before.failed / before.requests) * 100, 2)
    text = format_decimal(abs(points), format="0.00", locale=formatting.reader_locale())
    sign, tone = {True: ("+", "bad"), False: ("−", "good")}[points > 0] if points else ("", "")
    return f"{sign}{text}", tone


def _fine_percent(share):
    locale = formatting.reader_locale()
    text = format_decimal(share * 100, format="0.00" if share < 0.9995 else "0", locale=locale)
    return f"{text}%" if locale.language == "en" else f"{text}{formatting.THIN}%"


def before_name(period):
    """What the comparison speaks of: yesterday, the part of yesterday that has passed today, or its days."""
    before = period.before()
    if period.span != Span.TODAY:
        return span_name(before.first, before.last)
    if isinstance(before, PartDay) and before.until < before.end:
        return _("yesterday until %(time)s") % {"time": formatting.clock(before.until)}
    return _("yesterday")
