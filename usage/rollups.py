"""The sums that dashboards read: kept with the rows, and the same when they are built again from them."""

import datetime
from contextlib import contextmanager
from zoneinfo import ZoneInfo

from django.db import connection, transaction

from console.models import Organization
from usage.models import Outcome, RequestLog, UsageRollup
from usage.ulid import least_id_at

KEYS = ["api_key_id", "user_id", "provider_model_id", "provider_id"]
DIMENSIONS = ["width", "start", "organization_id", "workspace_id", *KEYS, "source", "outcome", "usage_source"]
COUNTERS = [
    "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens", "cost_nanos", "duration_ms", "time_to_first_token_ms",
]  # fmt: skip
SUMS = ["requests", "unpriced_requests", *COUNTERS, "first_tokens"]
BATCH = 5_000
HOUR, DAY = UsageRollup.Width.HOUR.value, UsageRollup.Width.DAY.value


def add(rows):
    """
    Add request rows, given as dicts of columns, to their hours and days.

    Call it in the transaction that inserted them, with those rows alone.
    """
    if rows:
        _upsert(_sums(rows))


def rebuild_rollups():
    """Throw all rollups away and sum every request row again, in one transaction."""
    with transaction.atomic():
        _hold_writers()
        UsageRollup.objects.all().delete()
        for sums in _sums_of_rows():
            _upsert(sums)


def disagreements(since=None):
    """
    Where the rollups differ from the rows: a list of ``(dimensions, sums of rows, sums of rollups)``, empty when right.

    With ``since``, a UTC hour, the hours from then on; otherwise all hours and days, at the cost of a pass over every
    row. Both sides are read from one state of the database, and nobody waits for it.
    """
    with one_state():
        expected = {}
        for sums in _sums_of_rows(since):
            _merge(expected, sums)
        rollups = UsageRollup.objects.all()
        if since is not None:
            expected = {key: sums for key, sums in expected.items() if key[0] == HOUR}
            rollups = rollups.filter(width=HOUR, start__gte=since)
        stored = {
            tuple(row[: len(DIMENSIONS)]): list(row[len(DIMENSIONS) :])
            for row in rollups.values_list(*DIMENSIONS, *SUMS).iterator()
        }
    return [
        (dict(zip(DIMENSIONS, key, strict=True)), expected.get(key), stored.get(key))
        for key in sorted(expected.keys() | stored.keys(), key=str)
        if expected.get(key) != stored.get(key)
    ]


@contextmanager
def one_state():
    """Read from one state of the database, without a lock that a writer would wait for."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    else:
        # Not ``atomic``: with that every transaction on SQLite takes the writers' lock at once.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("COMMIT")


def _hold_writers():
    """
    Let no other transaction add to the rollups until this one ends.

    One that has inserted rows and waits here has not committed them, so they are in neither side. On SQLite the
    immediate transaction does the same.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {UsageRollup._meta.db_table} IN EXCLUSIVE MODE")


def _sums_of_rows(since=None):
    columns = ["organization_id", "workspace_id", *KEYS, "source", "outcome", "usage_source", "started_at", *COUNTERS]
    logs = RequestLog.objects.all()
    if since is not None:
        # By the primary key first: an id is made when the request comes in, which is a moment before it starts.
        logs = logs.filter(pk__gte=least_id_at(since - datetime.timedelta(minutes=10)), started_at__gte=since)
    batch = []
    for row in logs.values(*columns).iterator(chunk_size=BATCH):
        batch.append(row)
        if len(batch) == BATCH:
            yield _sums(batch)
            batch = []
    yield _sums(batch)


def _sums(rows):
    """``{dimensions: sums}`` of the rows, for both widths."""
    # By quarters of an hour first: every zone's days begin on one, and there are far fewer of them than rows.
    quarters = {}
    for row in rows:
        started = row["started_at"]
        key = (
            started.replace(minute=started.minute // 15 * 15, second=0, microsecond=0),
            row["organization_id"],
            row["workspace_id"],
            row["api_key_id"] or 0,
            row["user_id"] or 0,
            row["provider_model_id"] or 0,
            row["provider_id"] or 0,
            str(row["source"]),
            str(row["outcome"]),
            str(row["usage_source"]),
        )
        amounts = [
            1,
            # What never reached a provider costs nothing; only what did can be without a price.
            int(row["cost_nanos"] is None and row["outcome"] != Outcome.REFUSED),
            *[row[counter] or 0 for counter in COUNTERS],
            int(row["time_to_first_token_ms"] is not None),
        ]
        _merge(quarters, {key: amounts})
    zones = _zones({key[1] for key in quarters})
    sums = {}
    for (quarter, organization, *rest), amounts in quarters.items():
        hour, day = quarter.replace(minute=0), day_start(quarter, zones[organization])
        _merge(sums, {(HOUR, hour, organization, *rest): amounts})
        _merge(sums, {(DAY, day, organization, *rest): amounts})
    return sums


def day_start(moment, zone):
    """The first instant, in UTC, of the day that ``moment`` falls on in ``zone``."""
    local = moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return local.astimezone(datetime.UTC)


def _merge(into, sums):
    for key, amounts in sums.items():
        into[key] = [a + b for a, b in zip(into[key], amounts, strict=True)] if key in into else list(amounts)


def _zones(organization_ids):
    zones = Organization.objects.filter(pk__in=organization_ids).values_list("pk", "time_zone")
    # A row may outlive its organization; its days are then those of UTC.
    return dict.fromkeys(organization_ids, datetime.UTC) | {pk: ZoneInfo(name) for pk, name in zones}


def _upsert(sums):
    table = UsageRollup._meta.db_table
    columns = [*DIMENSIONS, *SUMS]
    query = (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(DIMENSIONS)}) DO UPDATE SET "
        + ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS)
    )
    adapt = connection.ops.adapt_datetimefield_value
    # In order of their keys, so that two processes never wait for each other crosswise.
    parameters = [[key[0], adapt(key[1]), *key[2:], *sums[key]] for key in sorted(sums)]
    with connection.cursor() as cursor:
        cursor.executemany(query, parameters)
