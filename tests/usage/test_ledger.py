import datetime
import random
from concurrent.futures import ThreadPoolExecutor
from zoneinfo import available_timezones

import pytest
from django.db import connection
from django.utils import timezone

from tests.books import ledger_differences
from tests.factories import make_api_key
from tests.gateway.records import closed, opened
from usage import ledger
from usage.calendar import Calendar, calendar_of
from usage.ledger import Ahead, Key, Want
from usage.models import GatewayProcess, LedgerPeriod, Scope, SpendLease, SpendLimit, SpendPeriod
from usage.records import Record, write_batch
from usage.spend_limits import set_spend_limit

EURO = 10**9


def interval(organization, scope=Scope.ORGANIZATION, scope_id=None, period="month"):
    start, end = calendar_of(organization.time_zone).interval(period, timezone.now())
    return Key(organization.pk, scope.value, scope_id or organization.pk, period, start, end)


def limit(organization, amount, scope=Scope.ORGANIZATION, scope_id=None, period="month", **fields):
    return set_spend_limit(
        organization=organization,
        scope=scope,
        scope_id=scope_id or organization.pk,
        period=period,
        amount_nanos=amount,
        **fields,
    )


def process(uid="one"):
    ledger.register(uid=uid, host="here", pid=1)
    return uid


def spend(workspace, cost, leases=(), **first):
    write_batch([Record(opened(workspace, leases=leases, **first)[1], closed(cost_nanos=cost))])


def book(key):
    return LedgerPeriod.objects.get(
        organization_id=key.organization_id, scope=key.scope, scope_id=key.scope_id, period=key.period, start=key.start
    )


@pytest.mark.parametrize("zone", random.Random(7).sample(sorted(available_timezones()), 60))
def test_every_instant_lies_in_one_interval_of_a_kind(zone):
    calendar = Calendar(zone)
    for period in SpendPeriod.values:
        moment = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
        start, end = calendar.interval(period, moment)
        while end.year < 2031:
            assert start <= moment < end
            following = calendar.interval(period, end)
            assert following[0] == end
            assert calendar.interval(period, end - datetime.timedelta(microseconds=1)) == (start, end)
            moment, (start, end) = end, following


def test_every_scope_and_period_of_a_request_is_settled_once(workspace):
    key = make_api_key(workspace)
    record = Record(opened(workspace, api_key_id=key.pk, user_id=key.created_by_id)[1], closed(cost_nanos=500))
    write_batch([record])
    write_batch([record])
    sums = LedgerPeriod.objects.values_list("scope", "scope_id", "period", "settled_nanos")
    scopes = {
        ("organization", workspace.organization_id),
        ("workspace", workspace.pk),
        ("api_key", key.pk),
        ("member", key.created_by_id),
    }
    assert set(sums) == {(*scope, period, 500) for scope in scopes for period in ("day", "week", "month")}
    assert ledger_differences() == []


def draw(uid, *keys, need=0, target=0, at_hand=0):
    """What a process gets that needs so much in each of ``keys``: the one that is short, and the first one's grant."""
    wants = [Want(keys, need)] if need else []
    short, grants = ledger.draw(uid, wants, {key: Ahead(at_hand, target, need) for key in keys})
    return (short[0] if short else None), grants[keys[0]]


def test_a_lease_is_never_more_than_what_is_left(workspace):
    organization = workspace.organization
    limit(organization, 100)
    key = interval(organization)
    short, grant = draw(process(), key, need=30, target=1_000)
    assert (short, grant.granted, grant.held, grant.is_tight) == (None, 30, 30, True)
    short, grant = draw("one", key, need=80)
    assert (short, grant.granted, grant.free, grant.others_idle) == (key, 30, 70, False)
    spend(workspace, 25, [grant.lease_id])
    assert (book(key).settled_nanos, book(key).leased_nanos) == (25, 5)
    ledger.give_back({grant.lease_id: 5})
    short, grant = draw("one", key, need=75)
    assert (short, grant.granted, grant.released, grant.free) == (None, 105, 5, 0)
    assert ledger_differences() == []


def test_a_request_takes_from_all_its_intervals_or_from_none(workspace):
    organization = workspace.organization
    limit(organization, 100)
    limit(organization, 10, scope=Scope.WORKSPACE, scope_id=workspace.pk)
    wide, narrow = interval(organization), interval(organization, Scope.WORKSPACE, workspace.pk)
    short, grants = ledger.draw(
        process(),
        [Want((wide, narrow), 8), Want((wide, narrow), 8), Want((wide,), 90)],
        {wide: Ahead(0, 0, 90), narrow: Ahead(2, 0, 8)},
    )
    assert short == [None, narrow, None]
    assert (grants[wide].held, grants[narrow].held) == (98, 6)


def test_a_slice_is_half_of_a_process_share_and_is_asked_back(workspace):
    organization = workspace.organization
    limit(organization, 1_000)
    key = interval(organization)
    process("one")
    process("two")
    _, first = draw("one", key, need=10, target=10_000)
    assert first.granted == 10 + 990 // 4
    assert ledger.recalled("one") == []
    short, second = draw("two", key, need=800)
    assert (short, second.granted, second.others, second.others_idle) == (key, 0, 257, True)
    assert ledger.recalled("one") == [first.lease_id]
    ledger.give_back({first.lease_id: 247})
    assert ledger.recalled("one") == []
    short, second = draw("two", key, need=800)
    assert (short, second.granted, second.held) == (None, 800, 810)


def test_no_limit_and_a_soft_one_need_no_lease(workspace):
    key = interval(workspace.organization)
    short, grant = draw(process(), key, need=5)
    assert (short, grant.amount) == (None, None)
    limit(workspace.organization, 1, is_hard=False)
    short, grant = draw("one", key, need=5)
    assert (short, grant.amount) == (None, None)
    assert not SpendLease.objects.exists()


def test_what_was_granted_on_top_counts_until_it_ends(workspace):
    row = limit(workspace.organization, 10)
    SpendLimit.objects.filter(pk=row.pk).update(
        raised_nanos=90, raised_until=timezone.now() + datetime.timedelta(hours=1)
    )
    key = interval(workspace.organization)
    assert draw(process(), key, need=100)[1].granted == 100
    SpendLimit.objects.update(raised_until=timezone.now())
    short, grant = draw("one", key, need=1)
    assert (short, grant.free) == (key, -90)


def test_what_a_dead_process_held_is_free_once_its_journal_is_drained(workspace):
    limit(workspace.organization, 100)
    key = interval(workspace.organization)
    _, grant = draw(process(), key, need=60)
    spend(workspace, 20, [grant.lease_id])
    ledger.close_process("one")
    ledger.close_process("one")
    assert (book(key).settled_nanos, book(key).leased_nanos) == (20, 0)
    lease = SpendLease.objects.get()
    assert (lease.state, lease.granted_nanos, lease.settled_nanos, lease.released_nanos) == ("closed", 60, 20, 40)
    assert ledger_differences() == []


def test_what_a_lost_process_held_stays_counted_until_it_is_seen_again(workspace):
    limit(workspace.organization, 100)
    key = interval(workspace.organization)
    draw(process(), key, need=60)
    GatewayProcess.objects.update(seen_at=timezone.now() - datetime.timedelta(minutes=16))
    assert ledger.mark_orphans() == 1
    assert SpendLease.objects.get(process="one").state == "orphaned"
    assert draw(process("two"), key, need=41)[0] == key
    ledger.renew("one")
    assert SpendLease.objects.get(process="one").state == "open"


def test_a_difference_is_found_and_named(workspace):
    spend(workspace, 500)
    LedgerPeriod.objects.filter(scope="workspace", period="day").update(settled_nanos=499)
    LedgerPeriod.objects.filter(scope="organization", period="day").delete()
    first, second = ledger_differences()
    assert (first["scope"], first["found"], first["expected"]) == ("workspace", 499, 500)
    assert (second["scope"], second["found"], second["expected"]) == ("organization", 0, 500)


@pytest.mark.django_db(transaction=True)
def test_many_processes_never_hold_more_than_there_is(workspace):
    organization = workspace.organization
    key_ids = [make_api_key(workspace).pk for _ in range(3)]
    limit(organization, 5_000)
    limit(organization, 3_500, scope=Scope.WORKSPACE, scope_id=workspace.pk)
    for key_id in key_ids:
        limit(organization, 1_500, scope=Scope.API_KEY, scope_id=key_id, period="day")
    month = interval(organization), interval(organization, Scope.WORKSPACE, workspace.pk)

    def run(number):
        rng = random.Random(number)
        uid = process(f"process-{number}")
        try:
            for _ in range(20):
                key_id = rng.choice(key_ids)
                key = interval(organization, Scope.API_KEY, key_id, "day")
                hold = rng.randint(50, 300)
                keys = (*month, key)
                (short,), grants = ledger.draw(
                    uid, [Want(keys, hold)], {each: Ahead(0, 2 * hold, 300) for each in keys}
                )
                if short is None:
                    spend(workspace, rng.randint(1, hold), [grants[each].lease_id for each in keys], api_key_id=key_id)
                ledger.give_back(dict(SpendLease.objects.filter(process=uid).values_list("pk", "remaining_nanos")))
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert ledger_differences() == []
    for row in SpendLimit.objects.all():
        interval_ = LedgerPeriod.objects.get(scope=row.scope, scope_id=row.scope_id, period=row.period)
        assert interval_.leased_nanos == 0
        assert 0 < interval_.settled_nanos <= row.amount_nanos
