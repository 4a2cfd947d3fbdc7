"""What a web process does beside its calls."""

import time

import pytest
from django.utils import timezone
from prometheus_client import REGISTRY

from gateway.housekeeping import Housekeeping
from tests.usage.test_limit_alerts import EURO, limit, spend
from usage import ledger
from usage.calendar import calendar_of
from usage.ledger import Key
from usage.models import GatewayProcess, LimitAlert, MailDelivery, SpendLease, Sweep
from usage.webhooks import create_webhook, enqueue

pytestmark = pytest.mark.django_db(transaction=True)


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def housekeeping(monkeypatch):
    monkeypatch.setattr("gateway.housekeeping.INTERVAL", 0.02)
    kept = Housekeeping("gateway_one")
    yield kept
    kept._stop.set()
    kept._thread.join(10)


def test_without_a_worker_alerts_are_raised_even_so(workspace, housekeeping):
    limit(workspace.organization, EURO)
    spend(workspace, EURO)
    housekeeping.start()
    until(lambda: LimitAlert.objects.exists())


def test_a_worker_comes_first(workspace, housekeeping):
    Sweep.objects.create(name="alerts", swept_at=timezone.now())
    limit(workspace.organization, EURO)
    spend(workspace, EURO)
    housekeeping.start()
    time.sleep(0.3)
    assert not LimitAlert.objects.exists()


def test_a_refusal_is_told_once_however_many_follow(workspace, housekeeping, django_assert_max_num_queries):
    organization = workspace.organization
    limit(organization, EURO)
    start, end = calendar_of("UTC").interval("month", timezone.now())
    key = Key(organization.pk, "organization", organization.pk, "month", start, end)
    housekeeping.refused(key)
    housekeeping.start()
    until(lambda: LimitAlert.objects.filter(threshold=100).exists())
    for _ in range(1000):
        housekeeping.refused(key)
    assert not housekeeping._refused


def test_a_process_says_that_it_lives_and_that_it_ends(db, housekeeping):
    housekeeping.start()
    until(lambda: GatewayProcess.objects.filter(pk="gateway_one", ended_at=None).exists())
    housekeeping.stop()
    until(lambda: GatewayProcess.objects.get().ended_at is not None)


def test_one_that_holds_something_ends_when_that_is_returned(workspace, housekeeping):
    housekeeping.start()
    until(lambda: GatewayProcess.objects.exists())
    spend(workspace, EURO)
    interval = ledger.LedgerPeriod.objects.first()
    SpendLease.objects.create(ledger_period=interval, process_id="gateway_one")
    housekeeping.stop()
    housekeeping._thread.join(10)
    assert GatewayProcess.objects.get().ended_at is None
    ledger.close_process("gateway_one", taken_over_by="gateway_two")
    process = GatewayProcess.objects.get()
    assert process.ended_at is not None
    assert process.taken_over_by == "gateway_two"


def test_it_tells_a_scrape_how_many_messages_wait(organization, alice, housekeeping):
    Sweep.objects.create(name="alerts", swept_at=timezone.now())
    for state in ("pending", "pending", "failed"):
        MailDelivery.objects.create(organization=organization, user=alice, subject="An alert", body="", state=state)
    webhook, _secret = create_webhook(organization=organization, url="https://hooks.example.org/", actor=alice)
    enqueue(webhook, "e", {})
    housekeeping.start()
    waiting = "comptoir_deliveries_waiting"
    until(lambda: REGISTRY.get_sample_value(waiting, {"kind": "mail"}) == 2)
    until(lambda: REGISTRY.get_sample_value(waiting, {"kind": "webhook"}) == 1)
