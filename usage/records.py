"""
Request rows: the only writer of ``RequestLog`` and, through ``usage.rollups``, of its sums.

A row is told in two halves, as the journal keeps them: ``Opened`` before the provider is called, ``Closed`` when the
request has ended. Writing the same rows again changes nothing.
"""

import datetime
from operator import itemgetter

import msgspec
from django.db import connection, transaction

from console.models import ApiKey
from providers.models import Price
from usage import ledger, rollups
from usage.costs import cost_of, rates_of
from usage.models import Outcome, RequestLog, UsageSource


class Opened(msgspec.Struct, array_like=True):
    """What is known of a request before its provider is called. New fields go to the end, with a default."""

    id: str
    started_us: int
    organization_id: int
    workspace_id: int
    api_key_id: int | None
    user_id: int | None
    source: str
    endpoint: str
    dialect: str
    stream: bool
    requested_model: str | None
    provider_id: int | None = None
    provider_model_id: int | None = None
    price_id: int | None = None
    upstream_model: str | None = None
    client: str | None = None
    client_retries: int | None = None
    input_estimate: int | None = None
    # What its cost was reserved from.
    leases: tuple[int, ...] = ()
    # Where its price is in another currency than the organization's.
    exchange_rate: int | None = None
    # How much was reserved in each of its leases.
    held_nanos: int = 0


class Closed(msgspec.Struct, array_like=True):
    """How a request ended. New fields go to the end, with a default."""

    outcome: str
    status: int | None
    duration_ms: int
    usage_source: str = "none"
    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nanos: int | None = None
    time_to_first_token_ms: int | None = None
    overhead_us: int | None = None
    attempts: int = 0
    response_model: str | None = None
    stop_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    upstream_request_id: str | None = None
    # Where another target than the one that was asked first has answered: what replaces the first half's.
    provider_id: int | None = None
    provider_model_id: int | None = None
    price_id: int | None = None
    upstream_model: str | None = None
    dropped: str | None = None
    exchange_rate: int | None = None


class Progress(msgspec.Struct, array_like=True):
    """How far a request has come, in the terms of ``Closed``. New fields go to the end, with a default."""

    elapsed_ms: int
    input_tokens: int | None
    output_tokens: int | None
    time_to_first_token_ms: int | None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    # Of the target that is being asked, where it is another than the first.
    provider_id: int | None = None
    provider_model_id: int | None = None
    price_id: int | None = None
    upstream_model: str | None = None
    exchange_rate: int | None = None


class Record(msgspec.Struct):
    """One request, both halves. ``closed.cost_nanos`` of an interrupted one is filled in when it is written."""

    opened: Opened
    closed: Closed


def interrupted(opened: Opened, progress: Progress | None) -> Record:
    """The record of a request whose process died: what its last progress mark knew, as an estimate."""
    progress = progress or Progress(0, opened.input_estimate, 0, None)
    closed = Closed(
        outcome=Outcome.INTERRUPTED,
        status=None,
        duration_ms=progress.elapsed_ms,
        usage_source=UsageSource.ESTIMATED,
        input_tokens=progress.input_tokens,
        cache_read_tokens=progress.cache_read_tokens,
        cache_write_tokens=progress.cache_write_tokens,
        cache_write_1h_tokens=progress.cache_write_1h_tokens,
        output_tokens=progress.output_tokens,
        time_to_first_token_ms=progress.time_to_first_token_ms,
        # At least: a second target is asked after the first.
        attempts=1 if progress.provider_id is None else 2,
        provider_id=progress.provider_id,
        provider_model_id=progress.provider_model_id,
        price_id=progress.price_id,
        upstream_model=progress.upstream_model,
        exchange_rate=progress.exchange_rate,
    )
    return Record(opened, closed)


NOT_KEPT = {"started_us", "input_estimate", "leases", "held_nanos"}
OPENED_COLUMNS = [name for name in Opened.__struct_fields__ if name not in NOT_KEPT]
# What the second half replaces, where another target than the first has answered.
ANSWERED_BY = ("provider_id", "provider_model_id", "price_id", "upstream_model", "exchange_rate")
CLOSED_COLUMNS = [name for name in Closed.__struct_fields__ if name not in ANSWERED_BY]
TABLE = RequestLog._meta.db_table
COLUMNS = [*OPENED_COLUMNS, *CLOSED_COLUMNS, "started_at"]
# What clients and providers wrote, and how much of it a row holds.
FOREIGN_TEXTS = (
    "requested_model", "upstream_model", "response_model", "client", "stop_reason", "error_code", "error_message",
    "upstream_request_id", "dropped",
)  # fmt: skip
LENGTHS = {name: RequestLog._meta.get_field(name).max_length for name in FOREIGN_TEXTS}


def write_batch(records: list[Record]) -> int:
    """
    Insert the rows that are not there yet, add them to the rollups and settle what they cost, in one transaction;
    return how many were new.

    Safe to repeat, and from several processes at once.
    """
    _price_interrupted(records)
    rows = {record.opened.id: _row(record) for record in records}
    with transaction.atomic():
        new = _insert(rows)
        rollups.add(new)
        ledger.add(new)
        _touch_keys(new)
    return len(new)


def _price_interrupted(records):
    """Compute the cost of records whose process could not, by what was fixed when their target was asked."""
    unpriced = [
        (record.closed, answered)
        for record in records
        if record.closed.outcome == Outcome.INTERRUPTED and record.closed.cost_nanos is None
        if (answered := _answered_by(record)).price_id
    ]
    if unpriced:
        prices = Price.objects.in_bulk({answered.price_id for _closed, answered in unpriced})
        for closed, answered in unpriced:
            if price := prices.get(answered.price_id):
                closed.cost_nanos = cost_of(closed, rates_of(price, exchange=answered.exchange_rate))


def _answered_by(record):
    """The half of a record that says which target it is that answers."""
    return record.opened if record.closed.provider_id is None else record.closed


def _row(record):
    """The record as a dict of columns, fit for every database: no NUL, nothing longer than its column."""
    opened, closed = record.opened, record.closed
    row = msgspec.structs.asdict(opened) | msgspec.structs.asdict(closed)
    answered = _answered_by(record)
    for name in ANSWERED_BY:
        row[name] = getattr(answered, name)
    row["started_at"] = datetime.datetime.fromtimestamp(record.opened.started_us / 1_000_000, datetime.UTC)
    for name, length in LENGTHS.items():
        value = row.get(name)
        if value is not None and (len(value) > length or "\0" in value):
            row[name] = value.replace("\0", "\N{REPLACEMENT CHARACTER}")[:length]
    return row


def _insert(rows):
    """Insert what is missing and return those rows."""
    if connection.vendor == "postgresql":
        return _insert_postgresql(rows)
    # SQLite: the transaction is immediate, so nobody else can insert between the question and the answer.
    known = set(RequestLog.objects.filter(pk__in=list(rows)).values_list("pk", flat=True))
    new = [row for row_id, row in rows.items() if row_id not in known]
    places = ", ".join(["%s"] * len(COLUMNS))
    adapt = connection.ops.adapt_datetimefield_value
    known = itemgetter(*COLUMNS[:-1])
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ({places})",  # noqa: S608 - names of our own
            [(*known(row), adapt(row["started_at"])) for row in new],
        )
    return new


def _insert_postgresql(rows):
    """COPY into a table of the transaction, then insert from it: whoever came first keeps the row."""
    columns = ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS arriving (LIKE {TABLE}) ON COMMIT DELETE ROWS")
        # COPY is the driver's own: its errors are not made Django's by themselves.
        with connection.wrap_database_errors, cursor.copy(f"COPY arriving ({columns}) FROM STDIN") as copy:
            for row in rows.values():
                copy.write_row([row[name] for name in COLUMNS])
        cursor.execute(
            f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM arriving ORDER BY id "  # noqa: S608 - as above
            "ON CONFLICT DO NOTHING RETURNING id"
        )
        return [rows[row_id] for (row_id,) in cursor.fetchall()]


def _touch_keys(rows):
    """Say when each key was last used."""
    latest = {}
    for row in rows:
        key = row["api_key_id"]
        if key is not None and (key not in latest or latest[key] < row["started_at"]):
            latest[key] = row["started_at"]
    for key, moment in sorted(latest.items()):
        ApiKey.objects.filter(pk=key).exclude(last_used_at__gte=moment).update(last_used_at=moment)
