"""The command that scripts compare their own accounts with."""

import datetime
import io
import json
import random

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.factories import make_api_key, make_organization, make_request_log, make_workspace
from tests.gateway.records import closed, opened
from usage import books, ledger
from usage.models import LedgerPeriod, Outcome, RequestLog, SpendLease, UsageRollup
from usage.records import Record, write_batch
from usage.rollups import rebuild_rollups
from usage.ulid import least_id_at, moment_of, request_id

pytestmark = pytest.mark.django_db


def usage_total(*arguments):
    out = io.StringIO()
    call_command("usage_total", *arguments, stdout=out)
    return out.getvalue()


def in_json(*arguments):
    return json.loads(usage_total("--json", *arguments))


def request(workspace, *, moment=None, first=None, **fields):
    """Write a request as the drainer does: with its rollups and its ledger."""
    first = {} if first is None else first
    if moment is not None:
        number = int(moment.timestamp() * 1000) << 80 | random.getrandbits(80)
        ulid = number.to_bytes(16, "big")
        first |= {"ulid": ulid, "started_us": int(moment.timestamp() * 1_000_000)}
    write_batch([Record(opened(workspace, **first)[1], closed(**fields))])


def test_it_prints_one_object(workspace):
    request(workspace, cache_read_tokens=7, cache_write_tokens=2, cache_write_1h_tokens=3)
    request(workspace, outcome=Outcome.REFUSED, input_tokens=None, output_tokens=None, cost_nanos=None)

    assert in_json() == {
        "rows": 2,
        "outcomes": {"completed": 1, "refused": 1},
        "tokens": {"input": 12, "cache_read": 7, "cache_write": 5, "output": 8},
        "cost_nanos": {"rows": 156_000, "rollups": 156_000, "ledger": 156_000},
        "agree": True,
        "differences": [],
        "difference_count": 0,
    }


def test_it_narrows_to_a_workspace_and_a_key(workspace, organization):
    api_key = make_api_key(workspace, name="ci")
    request(workspace, first={"api_key_id": api_key.pk, "user_id": api_key.created_by_id})
    request(workspace)
    request(make_workspace(organization=organization))

    for arguments, rows in (((), 3), (("--workspace", "default"), 2), (("--workspace", "default", "--key", "ci"), 1)):
        total = in_json(*arguments)
        assert (total["rows"], total["agree"]) == (rows, True)
        assert set(total["cost_nanos"].values()) == {rows * 156_000}
    other = books.total(books.Asked(organization_id=make_organization().pk))
    assert (other["rows"], other["agree"]) == (0, True)


def test_it_names_where_the_rollups_differ(workspace):
    api_key = make_api_key(workspace, name="ci")
    request(
        workspace, moment=datetime.datetime(2026, 3, 4, 5, 6, tzinfo=datetime.UTC), first={"api_key_id": api_key.pk}
    )
    UsageRollup.objects.filter(width="day").update(output_tokens=9)

    total = in_json()
    assert total["agree"] is False
    assert total["differences"] == [
        {
            "account": "rollups",
            "organization": "default",
            "scope": "api_key",
            "name": "ci",
            "interval": "day",
            "start": "2026-03-04T00:00:00Z",
            "measure": "output_tokens",
            "expected": 8,
            "found": 9,
        }
    ]
    rebuild_rollups()
    assert in_json()["agree"] is True


def test_it_names_where_the_ledger_differs_and_what_it_lacks(workspace):
    request(workspace, moment=datetime.datetime(2026, 3, 4, 5, 6, tzinfo=datetime.UTC))
    LedgerPeriod.objects.filter(scope="workspace", period="month").update(settled_nanos=155_000)
    LedgerPeriod.objects.filter(scope="organization", period="day").delete()

    total = in_json()
    assert total["agree"] is False
    assert total["cost_nanos"] == {"rows": 156_000, "rollups": 156_000, "ledger": 156_000}
    found = {(each["account"], each["scope"], each["interval"], each["start"]): each for each in total["differences"]}
    assert found.keys() == {
        ("ledger", "workspace", "month", "2026-03-01T00:00:00Z"),
        ("ledger", "organization", "day", "2026-03-04T00:00:00Z"),
    }
    assert [(each["expected"], each["found"]) for each in found.values()] == [(156_000, 155_000), (156_000, 0)]
    assert in_json("--workspace", "default")["difference_count"] == 1
    assert "workspace default, month from 2026-03-01 00:00 UTC, cost_nanos: 0.000155000 stands there" in usage_total()


def test_it_names_an_interval_that_holds_not_what_its_leases_do(workspace):
    request(workspace)
    ledger.register(uid="one", host="here", pid=1)
    interval = LedgerPeriod.objects.get(scope="organization", period="month")
    SpendLease.objects.create(ledger_period=interval, process_id="one", granted_nanos=50, remaining_nanos=50)
    (difference,) = in_json()["differences"]
    assert (difference["account"], difference["measure"]) == ("leases", "held_nanos")
    assert (difference["expected"], difference["found"]) == (0, 50)
    LedgerPeriod.objects.filter(pk=interval.pk).update(leased_nanos=50)
    assert in_json()["agree"] is True
    SpendLease.objects.update(released_nanos=1)
    (difference,) = in_json()["differences"]
    assert (difference["measure"], difference["expected"], difference["found"]) == ("remaining_nanos", 49, 50)


def test_a_row_that_no_account_knows_is_a_difference_of_each(workspace):
    make_request_log(workspace)
    total = in_json()
    assert total["agree"] is False
    assert {each["account"] for each in total["differences"]} == {"ledger", "rollups"}


def test_the_list_of_differences_is_bounded_and_says_so(workspace):
    for _ in range(40):
        make_request_log(workspace, api_key=make_api_key(workspace))
    total = in_json()
    assert len(total["differences"]) == 100
    assert total["difference_count"] > 100
    assert usage_total().splitlines()[-1] == f"  and {total['difference_count'] - 100} more"


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Europe/Paris"])
def test_rows_of_a_year_agree_in_every_zone(workspace, zone):
    """Spread over a year, at quarters of hours too, which is where the days of some zones begin."""
    workspace.organization.time_zone = zone
    workspace.organization.save()
    rng = random.Random(5)
    key = make_api_key(workspace)
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for _ in range(40):
        moment = start + datetime.timedelta(minutes=15 * rng.randrange(4 * 24 * 365), microseconds=rng.choice([0, 1]))
        first = {"api_key_id": key.pk, "user_id": key.created_by_id} if rng.random() < 0.5 else {}
        request(workspace, moment=moment, first=first, cost_nanos=rng.randrange(10**6))
    total = in_json()
    assert (total["rows"], total["differences"]) == (40, [])


def test_it_tells_how_far_it_has_come(workspace):
    for day in (1, 2, 4):
        request(workspace, moment=datetime.datetime(2026, 5, day, 12, tzinfo=datetime.UTC))
    told = []
    books.total(on_day=lambda done, days: told.append((done, days)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_id_tells_when_it_was_made():
    now = timezone.now()
    assert abs(moment_of(least_id_at(now)) - now) < datetime.timedelta(milliseconds=2)
    assert moment_of(request_id(bytes(16))) == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def test_nothing_at_all_agrees():
    assert in_json()["agree"] is True


def test_the_pass_over_the_rows_is_a_query_a_day(workspace, django_assert_max_num_queries):
    for _ in range(20):
        request(workspace)
    with django_assert_max_num_queries(10):
        assert in_json()["agree"] is True
    assert RequestLog.objects.count() == 20


def test_without_json_it_is_a_line(workspace):
    request(workspace)
    assert usage_total() == (
        "1 requests; tokens: 12 input, 0 cache read, 0 cache write, 8 output; cost 0.000156000; "
        "rows, rollups, ledger and leases agree.\n"
    )


@pytest.mark.parametrize("arguments", [("--workspace", "nowhere"), ("--key", "nobody")])
def test_what_does_not_exist_is_an_error(arguments):
    with pytest.raises(CommandError):
        usage_total(*arguments)
