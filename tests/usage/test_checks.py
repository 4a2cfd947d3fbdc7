"""Checks of the books, and the page of operations that asks for them."""

import datetime
import time

import pytest
from django.utils import timezone

from tests.factories import make_organization, make_request_log
from tests.usage.test_limit_alerts import EURO, limit, spend
from usage import ledger
from usage.checks import KEPT, run_check, start_check
from usage.models import BooksCheck, GatewayProcess, LedgerPeriod, SpendLease

URL = "/o/default/operations/"
HTMX = {"HX-Request": "true"}


def checked(organization):
    check = BooksCheck.objects.create(organization=organization)
    run_check(check.pk)
    check.refresh_from_db()
    return check


def test_a_check_compares_one_organization_s_books(workspace):
    spend(workspace, EURO)
    check = checked(workspace.organization)
    assert check.result["agree"] is True
    assert check.result["cost_nanos"] == {"rows": EURO, "rollups": EURO, "ledger": EURO}
    assert (check.days, check.days_done, check.ended_at is not None) == (1, 1, True)
    other = checked(make_organization())
    assert other.result["rows"] == 0


@pytest.mark.django_db(transaction=True)
def test_a_check_runs_beside_the_request_that_asked_for_it(alice_client, workspace):
    spend(workspace, EURO)
    shown = alice_client.post(f"{URL}check/", headers=HTMX).text
    assert "every 1s" in shown or "All accounts agree" in shown
    until = time.monotonic() + 10
    while "All accounts agree" not in (shown := alice_client.get(f"{URL}books/", headers=HTMX).text):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "every 1s" not in shown
    assert "1 request was compared" in shown


def test_two_who_ask_at_once_get_one_check(workspace, alice):
    running = BooksCheck.objects.create(organization=workspace.organization)
    assert start_check(organization=workspace.organization, actor=alice) == running
    BooksCheck.objects.update(seen_at=timezone.now() - datetime.timedelta(minutes=1))
    assert start_check(organization=workspace.organization, actor=alice) != running


def test_old_checks_are_forgotten(workspace, alice):
    ended = timezone.now()
    BooksCheck.objects.bulk_create(
        BooksCheck(organization=workspace.organization, uid=f"c{number}", ended_at=ended) for number in range(KEPT + 5)
    )
    start_check(organization=workspace.organization, actor=alice)
    assert BooksCheck.objects.count() == KEPT


def test_the_page_shows_what_a_check_found(alice_client, workspace):
    make_request_log(workspace)
    checked(workspace.organization)
    page = alice_client.get(URL).text
    assert "The accounts differ in" in page
    assert "Ledger of spending" in page
    assert "$0.00" in page
    assert "Sums by hour and day" in page


def test_the_page_says_that_a_check_broke_off_and_how_far_one_is(alice_client, workspace):
    check = BooksCheck.objects.create(organization=workspace.organization, days=30, days_done=7)
    page = alice_client.get(URL).text
    assert "7 of 30 days" in page
    assert "disabled" in page
    BooksCheck.objects.filter(pk=check.pk).update(seen_at=timezone.now() - datetime.timedelta(minutes=1))
    assert "The last check broke off." in alice_client.get(URL).text


@pytest.fixture
def processes(workspace):
    """One of each state, the first of which holds something."""
    now = timezone.now()
    for uid in ("living", "silent", "lost", "ended", "dead"):
        ledger.register(uid=f"gateway_{uid}", host="machine", pid=100)
    GatewayProcess.objects.filter(pk="gateway_silent").update(seen_at=now - datetime.timedelta(minutes=5))
    GatewayProcess.objects.filter(pk="gateway_lost").update(seen_at=now - datetime.timedelta(minutes=20))
    GatewayProcess.objects.filter(pk="gateway_ended").update(ended_at=now)
    ledger.close_process("gateway_dead", taken_over_by="gateway_living")
    limit(workspace.organization, 10 * EURO)
    spend(workspace, EURO)
    interval = LedgerPeriod.objects.get(scope="organization", period="month")
    for uid, nanos in (("gateway_living", 2 * EURO), ("gateway_lost", EURO)):
        SpendLease.objects.create(ledger_period=interval, process_id=uid, granted_nanos=nanos, remaining_nanos=nanos)
    LedgerPeriod.objects.filter(pk=interval.pk).update(leased_nanos=3 * EURO)
    ledger.mark_orphans()


def test_the_page_tells_processes_apart_and_what_they_hold(alice_client, processes):
    page = alice_client.get(URL).text
    for words in ("Lives", "Silent", "Lost", "Ended", "Died, taken over", "by 100", "100 on machine", "$2.00"):
        assert words in page
    assert "Set aside by lost processes" in page
    assert "Organization Default" in page
    state = alice_client.get(URL, headers=HTMX).text
    assert "<h1>" not in state
    assert "Lives" in state


def test_who_shares_the_server_sees_what_is_theirs(alice_client, charlie, charlie_client, processes):
    page = alice_client.get(URL).text
    assert "100 on machine" not in page
    assert "What it stands on" not in page
    assert "$2.00" in page
    assert "Ended" not in page
    theirs = charlie_client.get(f"/o/{charlie.last_workspace.organization.slug}/operations/").text
    assert "No process holds anything" in theirs
    assert "$2.00" not in theirs


def test_the_page_says_what_the_server_stands_on(alice_client, workspace, settings):
    page = alice_client.get(URL).text
    assert "SQLite" in page or "PostgreSQL" in page
    assert "Does not answer" not in page
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "Does not answer" in alice_client.get(URL).text


def test_the_page_says_that_processes_without_redis_enforce_a_share_each(alice_client, workspace, settings):
    assert "its share" not in alice_client.get(URL).text
    for number in range(4):
        GatewayProcess.objects.create(uid=str(number), host="elsewhere", pid=number)
    assert "each of 4 processes enforces its share of rate limits" in alice_client.get(URL).text
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "each of 4 processes" not in alice_client.get(URL).text


def test_ten_processes_cost_as_many_queries_as_one(alice_client, processes, django_assert_max_num_queries):
    for number in range(10):
        ledger.register(uid=f"more_{number}", host="machine", pid=number)
    with django_assert_max_num_queries(22):
        alice_client.get(URL)


def test_only_those_who_manage_see_operations(workspace, bob_client, charlie_client):
    for path in (URL, f"{URL}books/"):
        assert bob_client.get(path).status_code == 403
        assert charlie_client.get(path).status_code == 404
    assert bob_client.post(f"{URL}check/").status_code == 403
    assert charlie_client.post(f"{URL}check/").status_code == 404
    assert not BooksCheck.objects.exists()
