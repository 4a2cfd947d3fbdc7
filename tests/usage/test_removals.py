"""What somebody removes while somebody else writes of it, in transactions that are under way at the same time."""

import datetime
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from tests.gateway.records import closed, opened
from usage import increases, limit_alerts, spend_limits, webhooks
from usage.calendar import calendar_of
from usage.ledger import Key
from usage.models import LimitAlert, LimitIncrease, RateLimit, SpendLimit, Webhook, WebhookDelivery
from usage.rate_limits import remove_model_group, set_model_group, set_rate_limit
from usage.records import Record, write_batch

pytestmark = pytest.mark.django_db(transaction=True)
EURO = 10**9


def meanwhile(first, second):
    """What ``first`` and ``second`` return where ``second`` begins before the transaction of ``first`` has ended."""
    is_done = Event()

    def under_way():
        try:
            with transaction.atomic():
                result = first()
                is_done.set()
                # So long has the other to get in its way; it may have to wait for this to end.
                time.sleep(0.3)
            return result
        finally:
            is_done.set()
            connection.close()

    def beside():
        try:
            is_done.wait(10)
            return second()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(under_way), pool.submit(beside)]
        return [each.result(30) for each in running]


@pytest.fixture
def webhook(receiver, organization, alice):
    return webhooks.create_webhook(organization=organization, url=f"{receiver.url}/hook", actor=alice)[0]


@pytest.fixture
def limit(organization, workspace):
    """A limit that is passed, of which nobody was told yet."""
    limit = spend_limits.set_spend_limit(
        organization=organization,
        scope="organization",
        scope_id=organization.pk,
        period="month",
        amount_nanos=10 * EURO,
    )
    write_batch([Record(opened(workspace)[1], closed(cost_nanos=9 * EURO))])
    return limit


def refuse(organization):
    start, end = calendar_of(organization.time_zone).interval("month", timezone.now())
    return limit_alerts.note_refusal(Key(organization.pk, "organization", organization.pk, "month", start, end))


def test_a_webhook_that_is_deleted_while_it_is_told_goes_with_its_message(webhook, limit, alice):
    told, _ = meanwhile(limit_alerts.evaluate, lambda: webhooks.delete_webhook(webhook=webhook, actor=alice))
    assert told == 1
    assert LimitAlert.objects.count() == 1
    assert not Webhook.objects.exists()
    assert not WebhookDelivery.objects.exists()


def test_a_webhook_that_is_being_deleted_is_told_nothing_and_holds_no_alert_up(webhook, limit, organization, alice):
    _, told = meanwhile(lambda: webhooks.delete_webhook(webhook=webhook, actor=alice), limit_alerts.evaluate)
    assert told == 1
    assert [alert.threshold for alert in LimitAlert.objects.all()] == [80]
    assert not WebhookDelivery.objects.exists()
    assert refuse(organization)


def test_a_refusal_that_is_noted_while_a_webhook_is_deleted_is_kept(webhook, limit, organization, alice):
    _, is_new = meanwhile(lambda: webhooks.delete_webhook(webhook=webhook, actor=alice), lambda: refuse(organization))
    assert is_new
    assert LimitAlert.objects.get().threshold == 100


def test_a_limit_is_removed_while_one_of_those_that_are_told_is_deleted(webhook, limit, alice):
    limit_alerts.evaluate()
    meanwhile(
        lambda: webhooks.delete_webhook(webhook=webhook, actor=alice),
        lambda: spend_limits.remove_spend_limit(limit=limit, actor=alice),
    )
    assert not SpendLimit.objects.exists()
    assert not WebhookDelivery.objects.exists()


def test_a_webhook_that_is_disabled_while_it_is_told_is_sent_nothing(webhook, limit, alice):
    for first, second in ((0, 1), (1, 0)):
        Webhook.objects.update(disabled_at=None)
        LimitAlert.objects.all().delete()
        webhook.refresh_from_db()
        both = [limit_alerts.evaluate, lambda: webhooks.disable_webhook(webhook=webhook, actor=alice)]
        meanwhile(both[first], both[second])
        assert not WebhookDelivery.objects.filter(state="pending").exists()
        assert LimitAlert.objects.count() == 1


def test_a_webhook_that_is_deleted_while_somebody_changes_it_is_not_found(organization, alice, alice_client, receiver):
    for name in ("test", "rotate", "disable", "enable"):
        webhook = webhooks.create_webhook(organization=organization, url=f"{receiver.url}/{name}", actor=alice)[0]
        if name == "enable":
            webhooks.disable_webhook(webhook=webhook, actor=alice)
        address = reverse(f"usage:webhook_{name}", args=[organization.slug, webhook.uid])
        _, response = meanwhile(
            lambda webhook=webhook: webhooks.delete_webhook(webhook=webhook, actor=alice),
            lambda address=address: alice_client.post(address),
        )
        assert response.status_code == 404
    assert receiver.calls == []
    assert not WebhookDelivery.objects.exists()


def test_a_limit_that_is_removed_while_its_alert_is_raised_goes_with_it(webhook, limit, alice):
    def remove():
        spend_limits.remove_spend_limit(limit=limit, actor=alice)

    told, _ = meanwhile(limit_alerts.evaluate, remove)
    assert told == 1
    assert not SpendLimit.objects.exists()
    assert not LimitAlert.objects.exists()
    # Told that it is passed, then that this is over.
    assert list(WebhookDelivery.objects.order_by("pk").values_list("event", flat=True)) == [
        "spend_limit.threshold_passed",
        "spend_limit.resolved",
    ]


@pytest.mark.parametrize("notice", [lambda organization: limit_alerts.evaluate(), refuse])
def test_of_a_limit_that_is_being_removed_nothing_is_told(webhook, limit, organization, alice, notice):
    _, told = meanwhile(lambda: spend_limits.remove_spend_limit(limit=limit, actor=alice), lambda: notice(organization))
    assert not told
    assert not LimitAlert.objects.exists()
    assert not WebhookDelivery.objects.exists()


def test_an_alert_goes_by_the_amount_that_somebody_has_just_set(webhook, limit, organization):
    def raise_amount():
        spend_limits.set_spend_limit(
            organization=organization,
            scope="organization",
            scope_id=organization.pk,
            period="month",
            amount_nanos=100 * EURO,
        )

    _, told = meanwhile(raise_amount, limit_alerts.evaluate)
    assert told == 0
    assert not LimitAlert.objects.exists()


def ask(limit, user):
    return increases.request_increase(
        limit=limit,
        amount_nanos=EURO,
        until=timezone.now() + datetime.timedelta(days=2),
        reason="load test",
        requested_by=user,
    )


def test_more_of_a_limit_that_is_being_removed_is_refused_in_words(limit, alice, bob):
    wish = ask(limit, bob)

    def answers():
        for answer in (
            lambda: ask(limit, alice),
            lambda: increases.deny_increase(increase=wish, actor=alice),
            lambda: increases.approve_increase(increase=wish, amount_nanos=1, until=wish.until, actor=alice),
        ):
            with pytest.raises(ValidationError, match="has been removed meanwhile"):
                answer()

    meanwhile(lambda: spend_limits.remove_spend_limit(limit=limit, actor=alice), answers)
    assert not LimitIncrease.objects.exists()


def test_a_limit_that_is_removed_while_more_of_it_is_granted_goes_with_the_wish(limit, alice, bob):
    wish = ask(limit, bob)
    meanwhile(
        lambda: increases.approve_increase(increase=wish, amount_nanos=1, until=wish.until, actor=alice),
        lambda: spend_limits.remove_spend_limit(limit=limit, actor=alice),
    )
    assert not SpendLimit.objects.exists()
    assert not LimitIncrease.objects.exists()


def test_a_rate_of_a_group_that_is_being_removed_is_refused_in_words(organization, alice):
    group = set_model_group(organization=organization, name="small", patterns=["*-mini"])
    where = {"organization": organization, "scope": "organization", "scope_id": organization.pk}

    def limit():
        with pytest.raises(ValidationError, match="group"):
            set_rate_limit(**where, group=group, requests_per_minute=1)

    meanwhile(lambda: remove_model_group(group=group, actor=alice), limit)
    group = set_model_group(organization=organization, name="small", patterns=["*-mini"])
    meanwhile(
        lambda: set_rate_limit(**where, group=group, requests_per_minute=1),
        lambda: remove_model_group(group=group, actor=alice),
    )
    assert not RateLimit.objects.exists()
