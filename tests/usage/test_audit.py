"""Whatever is done to limits, alerts and webhooks stands in the audit log, with who did it and whose limit it was."""

import datetime

import pytest
from django.core.management import call_command
from django.utils import timezone

from console.models import AuditEvent
from tests.factories import make_api_key, make_organization
from tests.gateway.records import closed, opened
from usage import increases, ledger, limit_alerts, rate_limits, spend_limits, webhooks
from usage.ledger import Ahead, Key, Want
from usage.models import LedgerPeriod, SpendLease
from usage.records import Record, write_batch

pytestmark = pytest.mark.django_db
EURO = 10**9


def events(*names):
    """``(who, what)`` of every event since ``names`` were last asked for, oldest first, with these details."""
    found = AuditEvent.objects.order_by("pk")
    told = [(e.actor_label, e.action, *(e.details.get(name) for name in names)) for e in found]
    found.delete()
    return told


@pytest.fixture
def key(workspace):
    key = make_api_key(workspace, name="ci")
    AuditEvent.objects.all().delete()
    return key


def limit(key, actor=None, period="month", **fields):
    return spend_limits.set_spend_limit(
        organization=key.workspace.organization,
        scope="api_key",
        scope_id=key.pk,
        period=period,
        actor=actor,
        **{"amount_nanos": 10 * EURO} | fields,
    )


def test_what_a_limit_was_and_is(key, alice):
    limit(key, alice)
    limit(key, amount_nanos=5 * EURO, is_hard=False, allows_unpriced=True, thresholds=[50])
    changed = AuditEvent.objects.get(action="spend_limit.changed").details
    was = {"amount_nanos": 10 * EURO, "is_hard": True, "allows_unpriced": False, "thresholds": [80, 100]}
    becomes = {"amount_nanos": 5 * EURO, "is_hard": False, "allows_unpriced": True, "thresholds": [50]}
    assert (changed["before"], changed["after"]) == (was, becomes)
    call_command("set_spend_limit", "--key", "ci", "--period", "month", "--remove")
    assert AuditEvent.objects.latest("pk").details["before"] == becomes
    # The limit and the key may be gone when somebody reads it.
    whose = (key.uid, "ci", "month")
    assert events("of_uid", "of_name", "period") == [
        ("alice@example.org", "spend_limit.set", *whose),
        ("command line", "spend_limit.changed", *whose),
        ("command line", "spend_limit.removed", *whose),
    ]


def test_who_asked_for_more_and_what_became_of_it(key, alice, bob):
    found = limit(key)
    events()
    more = {"amount_nanos": EURO, "until": timezone.now() + datetime.timedelta(days=3)}
    for answer in ("approve", "deny"):
        wish = increases.request_increase(limit=found, reason="load test", requested_by=bob, **more)
        if answer == "approve":
            increases.approve_increase(increase=wish, actor=alice, **more | {"amount_nanos": 7})
        else:
            increases.deny_increase(increase=wish, actor=alice)
    assert events("limit", "asked_nanos", "amount_nanos") == [
        ("bob@example.org", "limit_increase.requested", found.uid, None, EURO),
        ("alice@example.org", "limit_increase.approved", found.uid, EURO, 7),
        ("bob@example.org", "limit_increase.requested", found.uid, None, EURO),
        ("alice@example.org", "limit_increase.denied", found.uid, EURO, None),
    ]


def test_alerts_and_how_they_ended(key, workspace, alice):
    """The server does that by itself: it is nobody's doing."""

    def spend(cost):
        write_batch([Record(opened(workspace, api_key_id=key.pk)[1], closed(cost_nanos=cost))])
        limit_alerts.evaluate()

    limit(key, thresholds=[80])
    spend(8 * EURO)
    spend(2 * EURO)
    limit(key, amount_nanos=100 * EURO)
    limit_alerts.evaluate()
    limit_alerts.evaluate()
    told = [event for event in events("of_name", "because", "threshold_percent") if event[1].startswith("spend_alert")]
    assert told == [
        ("server", "spend_alert.raised", "ci", "", 80),
        ("server", "spend_alert.raised", "ci", "all_spent", 100),
        ("server", "spend_alert.resolved", "ci", "amount_raised", 100),
    ]


def test_what_was_released_of_a_lost_process(key, workspace, alice):
    found = limit(key)
    start = timezone.now() - datetime.timedelta(hours=1)
    interval = Key(found.organization_id, "api_key", key.pk, "month", start, start + datetime.timedelta(days=20))
    ledger.register(uid="one", host="machine", pid=1)
    ledger.draw("one", [Want((interval,), EURO)], {interval: Ahead(0, 0, EURO)})
    SpendLease.objects.update(state="orphaned")
    events()
    ledger.release_orphan(lease=SpendLease.objects.get(), actor=alice)
    assert LedgerPeriod.objects.get().leased_nanos == 0
    assert events("amount_nanos") == [("alice@example.org", "spend_lease.released", EURO)]


def test_rates_and_groups(key, organization, workspace, alice):
    group = rate_limits.set_model_group(organization=organization, name="small", patterns=["*-mini"], actor=alice)
    rate_limits.set_model_group(organization=organization, name="small", patterns=["*-tiny"], actor=alice)
    where = {"organization": organization, "scope": "workspace", "scope_id": workspace.pk, "group": group}
    rate = rate_limits.set_rate_limit(**where, requests_per_minute=5, actor=alice)
    rate_limits.set_rate_limit(**where, requests_per_minute=4, actor=alice)
    rate_limits.remove_rate_limit(limit=rate, actor=alice)
    rate_limits.remove_model_group(group=group, actor=alice)
    assert events("of_name", "models") == [
        ("alice@example.org", "model_group.created", None, None),
        ("alice@example.org", "model_group.changed", None, None),
        ("alice@example.org", "rate_limit.set", workspace.name, "small"),
        ("alice@example.org", "rate_limit.changed", workspace.name, "small"),
        ("alice@example.org", "rate_limit.removed", workspace.name, "small"),
        ("alice@example.org", "model_group.removed", None, None),
    ]


def test_a_tier_that_was_reached_by_the_rule_is_nobody_s_doing(key, organization, alice):
    rates = [{"requests_per_minute": 10}]
    first = rate_limits.set_tier(ladder="own", step=1, slug="one", name="One", rates=rates)
    fields = {"rates": rates, "monthly_cap_nanos": EURO, "after_spent_nanos": 0}
    rate_limits.set_tier(ladder="own", step=2, slug="two", name="Two", **fields)
    rate_limits.put_on_tier(organization=organization, tier=first, actor=alice)
    rate_limits.promote_organizations()
    rate_limits.take_off_tier(organization=organization, actor=alice)
    assert events() == [
        ("alice@example.org", "tier.changed"),
        ("server", "spend_limit.set"),
        ("server", "tier.changed"),
        ("alice@example.org", "spend_limit.removed"),
        ("alice@example.org", "tier.changed"),
    ]


def test_what_a_tier_is_stands_with_those_on_its_ladder(key, organization, alice):
    elsewhere = make_organization()
    AuditEvent.objects.all().delete()
    rates = [{"requests_per_minute": 10}]
    first = rate_limits.set_tier(ladder="own", step=1, slug="one", name="One", rates=rates)
    other = rate_limits.set_tier(ladder="other", step=1, slug="other", name="Other", rates=rates)
    rate_limits.put_on_tier(organization=organization, tier=first, actor=alice)
    rate_limits.put_on_tier(organization=elsewhere, tier=other)
    events()
    rate_limits.set_tier(ladder="own", step=1, slug="one", name="One", rates=[{"requests_per_minute": 20}])
    second = rate_limits.set_tier(ladder="own", step=2, slug="two", name="Two", rates=rates)
    rate_limits.set_rule(tier=second, after_spent_nanos=EURO, after_days=7)
    assert {event.organization for event in AuditEvent.objects.all()} == {organization}
    changed, added, ruled = AuditEvent.objects.order_by("pk")
    assert (changed.details["before"]["rates"], changed.details["after"]["rates"][0]) == (
        rates,
        {"requests_per_minute": 20},
    )
    assert (added.details["tier"], added.details["before"]) == ("two", None)
    assert (ruled.details["before"]["after_days"], ruled.details["after"]["after_days"]) == (None, 7)


def test_webhooks(key, organization, alice, receiver):
    webhook, _secret = webhooks.create_webhook(organization=organization, url=f"{receiver.url}/hook", actor=alice)
    webhooks.send_test(webhook=webhook, actor=alice)
    webhooks.rotate_secret(webhook=webhook, actor=alice)
    # What changes nothing is no event.
    for _ in range(2):
        webhooks.disable_webhook(webhook=webhook, actor=alice)
    for _ in range(2):
        webhooks.enable_webhook(webhook=webhook, actor=alice)
    for _ in range(2):
        webhooks.delete_webhook(webhook=webhook, actor=alice)
    did = ("created", "tested", "secret_rotated", "disabled", "enabled", "deleted")
    assert events() == [("alice@example.org", f"webhook.{what}") for what in did]
