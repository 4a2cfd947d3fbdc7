import datetime
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from tests.factories import make_api_key, make_model, make_price, make_provider
from tests.gateway.records import closed, opened
from usage.models import RequestLog, UsageRollup
from usage.records import COLUMNS, Progress, Record, interrupted, write_batch
from usage.rollups import SUMS, disagreements, rebuild_rollups


def record(workspace, started=None, second=None, **first):
    if started is not None:
        first["started_us"] = int(started.timestamp() * 1_000_000)
    return Record(opened(workspace, **first)[1], second or closed())


def rollups():
    return sorted(UsageRollup.objects.values_list("width", "start", "api_key_id", "outcome", *SUMS))


def test_every_column_of_the_table_is_written():
    assert sorted(COLUMNS) == sorted(field.column for field in RequestLog._meta.fields)


def test_writing_again_changes_nothing(workspace):
    records = [record(workspace) for _ in range(5)]
    assert write_batch(records) == 5
    before = rollups()
    assert write_batch([*records, record(workspace, second=closed(outcome="refused", cost_nanos=0))]) == 1
    assert RequestLog.objects.count() == 6
    assert [row for row in rollups() if row[3] == "completed"] == before


def test_a_row_holds_what_its_halves_say(workspace):
    moment = datetime.datetime(2026, 11, 20, 14, 32, 7, 214_000, datetime.UTC)
    row = record(workspace, moment, closed(time_to_first_token_ms=120, stop_reason="stop"), client="Python SDK")
    write_batch([row])
    log = RequestLog.objects.get(pk=row.opened.id)
    assert log.started_at == moment
    assert (log.input_tokens, log.output_tokens, log.cost_nanos) == (12, 8, 156_000)
    assert (log.client, log.stop_reason, log.time_to_first_token_ms) == ("Python SDK", "stop", 120)
    assert (log.cache_read_tokens, log.reasoning_tokens) == (None, None)


def test_hostile_texts_are_made_to_fit(workspace):
    row = record(workspace, second=closed(error_message="\0" * 900, response_model="x" * 900), requested_model="a\0b")
    write_batch([row])
    log = RequestLog.objects.get(pk=row.opened.id)
    assert (len(log.error_message), len(log.response_model), log.requested_model) == (500, 200, "a�b")


def test_an_interrupted_request_costs_what_its_price_was_at_admission(workspace):
    model = make_model(make_provider(workspace.organization))
    price = make_price(model, input="3", output="15")
    row = interrupted(opened(workspace, price_id=price.pk)[1], Progress(1000, 100, 10, 5))
    write_batch([row])
    assert RequestLog.objects.get(pk=row.opened.id).cost_nanos == 450_000


def test_an_interrupted_request_that_went_elsewhere_costs_what_it_does_there(workspace):
    provider = make_provider(workspace.organization)
    elsewhere = make_model(provider)
    first, second = make_price(make_model(provider), input="3"), make_price(elsewhere, input="1", output="5")
    progress = Progress(
        1000, 100, 10, 5, provider_id=provider.pk, provider_model_id=elsewhere.pk, price_id=second.pk,
        upstream_model="other",
    )  # fmt: skip
    write_batch([row := interrupted(opened(workspace, price_id=first.pk, upstream_model="asked")[1], progress)])
    log = RequestLog.objects.get(pk=row.opened.id)
    assert log.cost_nanos == 100 * 1000 + 10 * 5000
    assert (log.price_id, log.provider_model_id, log.upstream_model) == (second.pk, elsewhere.pk, "other")
    unpriced = interrupted(opened(workspace, price_id=first.pk)[1], Progress(1000, 100, 10, 5, provider_id=provider.pk))
    write_batch([unpriced])
    assert RequestLog.objects.get(pk=unpriced.opened.id).cost_nanos is None


def test_a_refused_request_is_not_an_unpriced_one(workspace):
    write_batch([record(workspace, second=closed(outcome="refused", usage_source="none", cost_nanos=0))])
    write_batch([record(workspace, second=closed(cost_nanos=None))])
    day = UsageRollup.objects.filter(width="day")
    assert day.get(outcome="refused").unpriced_requests == 0
    assert day.get(outcome="completed").unpriced_requests == 1


def test_a_key_says_when_it_was_last_used_and_never_goes_back(workspace):
    key = make_api_key(workspace)
    late = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
    write_batch([record(workspace, late, api_key_id=key.pk)])
    write_batch([record(workspace, late - datetime.timedelta(hours=1), api_key_id=key.pk)])
    key.refresh_from_db()
    assert key.last_used_at == late


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"])
def test_rollups_built_again_from_the_rows_are_the_same(workspace, zone):
    workspace.organization.time_zone = zone
    workspace.organization.save()
    chance = random.Random(zone)
    start = datetime.datetime(2026, 10, 24, 12, tzinfo=datetime.UTC)
    for _ in range(6):
        write_batch(
            [
                record(
                    workspace,
                    start + datetime.timedelta(seconds=chance.randrange(3 * 86400)),
                    closed(
                        outcome=chance.choice(["completed", "upstream_error", "refused"]),
                        cost_nanos=chance.choice([None, 0, 10**9]),
                        time_to_first_token_ms=chance.choice([None, 0, 500]),
                    ),
                    api_key_id=chance.choice([None, 1, 2]),
                )
                for _ in range(40)
            ]
        )
    live = rollups()
    assert disagreements() == []
    rebuild_rollups()
    assert rollups() == live
    UsageRollup.objects.filter(pk=UsageRollup.objects.first().pk).update(requests=10**6)
    assert len(disagreements()) == 1


@pytest.mark.django_db(transaction=True)
def test_the_last_hours_can_be_compared_alone(workspace):
    now = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)
    for hours in (0, 1, 30, 400):
        write_batch([record(workspace, now - datetime.timedelta(hours=hours))])
    assert disagreements(now - datetime.timedelta(hours=48)) == disagreements() == []
    UsageRollup.objects.filter(width="hour", start=now - datetime.timedelta(hours=400)).update(requests=7)
    assert disagreements(now - datetime.timedelta(hours=48)) == []
    UsageRollup.objects.filter(width="hour", start=now - datetime.timedelta(hours=30)).update(requests=7)
    ((dimensions, rows, rollups),) = disagreements(now - datetime.timedelta(hours=48))
    assert dimensions["start"] == now - datetime.timedelta(hours=30)
    assert (rows[0], rollups[0]) == (1, 7)


def test_a_day_begins_at_midnight_where_the_organization_is(workspace):
    workspace.organization.time_zone = "Asia/Kolkata"
    workspace.organization.save()
    before, after = (datetime.datetime(2026, 11, 20, 18, minute, 59, tzinfo=datetime.UTC) for minute in (29, 30))
    write_batch([record(workspace, before), record(workspace, after)])
    days = UsageRollup.objects.filter(width="day").order_by("start").values_list("start", flat=True)
    assert [day.strftime("%d %H:%M") for day in days] == ["19 18:30", "20 18:30"]
    assert UsageRollup.objects.get(width="hour").requests == 2


@pytest.mark.django_db(transaction=True)
def test_writers_at_the_same_time_count_each_request_once(workspace):
    records = [record(workspace) for _ in range(300)]
    parts = [records[start : start + 100] for start in (0, 50, 100, 150, 200)] * 2

    def write(part):
        try:
            return write_batch(part)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, parts)) == 300
    assert RequestLog.objects.count() == 300
    assert disagreements() == []
