"""Who is told when of what was spent."""

import datetime
import json

import pytest
from django.utils import timezone

from tests.factories import make_api_key, make_organization, make_user, make_workspace
from tests.gateway.records import closed, opened
from usage import limit_alerts
from usage.calendar import calendar_of
from usage.ledger import Key
from usage.limit_alerts import evaluate, note_refusal, open_alerts
from usage.models import LedgerPeriod, LimitAlert, MailDelivery, Scope, WebhookDelivery
from usage.records import Record, write_batch
from usage.spend_limits import remove_spend_limit, set_spend_limit
from usage.webhooks import create_webhook

EURO = 10**9


def limit(organization, amount, scope=Scope.ORGANIZATION, scope_id=None, period="month", **fields):
    return set_spend_limit(
        organization=organization,
        scope=scope,
        scope_id=scope_id or organization.pk,
        period=period,
        amount_nanos=amount,
        **fields,
    )


def spend(workspace, cost, **first):
    write_batch([Record(opened(workspace, **first)[1], closed(cost_nanos=cost))])


def alerts():
    """Every alert's threshold, and whether it is open."""
    return [(alert.threshold, alert.resolved_at is None) for alert in LimitAlert.objects.order_by("threshold")]


def events():
    return [json.loads(body) for body in WebhookDelivery.objects.order_by("pk").values_list("body", flat=True)]


@pytest.fixture
def webhook(organization, alice):
    return create_webhook(organization=organization, url="https://hooks.example.org/", actor=alice)[0]


@pytest.fixture
def mailing(settings):
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


def test_a_threshold_is_told_once_a_period(workspace, webhook):
    row = limit(workspace.organization, 10 * EURO, thresholds=[50, 80])
    spend(workspace, 4_999_999_999)
    assert evaluate() == 0
    spend(workspace, 1)
    assert evaluate() == 1
    assert evaluate() == 0
    (event,) = events()
    assert event["type"] == "spend_limit.threshold_passed"
    assert event["organization"] == {"id": workspace.organization.uid, "name": "Default"}
    data = event["data"]
    assert data["limit"] == {
        "id": row.uid,
        "scope": "organization",
        "scope_id": workspace.organization.uid,
        "scope_name": "Default",
        "period": "month",
        "hard": True,
    }
    assert (data["threshold_percent"], data["spent"], data["amount"]) == (50, "5.000000000", "10.000000000")
    assert (data["spent_nanos"], data["amount_nanos"], data["currency"]) == (5 * EURO, 10 * EURO, "USD")
    assert datetime.datetime.fromisoformat(data["period_end"]) > timezone.now()


def test_several_thresholds_at_once_are_one_message_of_the_highest(workspace, webhook):
    limit(workspace.organization, 10 * EURO, thresholds=[50, 80], is_hard=False)
    spend(workspace, 9 * EURO)
    evaluate()
    assert alerts() == [(50, True), (80, True)]
    assert [event["data"]["threshold_percent"] for event in events()] == [80]


def test_a_hard_limit_that_is_used_up_is_told_whatever_was_chosen(workspace, webhook):
    limit(workspace.organization, 10 * EURO, thresholds=[50])
    spend(workspace, 10 * EURO)
    evaluate()
    assert alerts() == [(50, True), (100, True)]
    assert [event["type"] for event in events()] == ["spend_limit.refusing"]


def test_a_limit_that_refuses_before_all_is_spent_is_told_at_once(workspace, webhook):
    organization = workspace.organization
    limit(organization, 10 * EURO, thresholds=[50])
    spend(workspace, 4 * EURO)
    start, end = calendar_of("UTC").interval("month", timezone.now())
    key = Key(organization.pk, "organization", organization.pk, "month", start, end)
    assert note_refusal(key)
    assert not note_refusal(key)
    # Nothing of it is over: what is left is as little as it was.
    assert evaluate() == 0
    assert alerts() == [(100, True)]
    assert [(event["type"], event["data"]["spent"]) for event in events()] == [("spend_limit.refusing", "4.000000000")]


def test_one_that_refused_too_large_a_request_is_told_again_when_nothing_is_left(workspace, webhook, mailing):
    organization = workspace.organization
    limit(organization, 10 * EURO, thresholds=[50])
    spend(workspace, EURO)
    start, end = calendar_of("UTC").interval("month", timezone.now())
    note_refusal(Key(organization.pk, "organization", organization.pk, "month", start, end))
    assert MailDelivery.objects.get().subject == (
        "Organization Default was refused a request: it may cost more than is left of $10.00 a month"
    )
    spend(workspace, 9 * EURO)
    assert evaluate() == 1
    assert evaluate() == 0
    told = [(event["type"], *map(event["data"].get, ("because", "threshold_percent", "spent"))) for event in events()]
    assert told == [
        ("spend_limit.refusing", "too_little_left", None, "1.000000000"),
        ("spend_limit.refusing", "all_spent", 100, "10.000000000"),
    ]


def test_too_large_a_request_hides_no_threshold(workspace, webhook):
    organization = workspace.organization
    limit(organization, 10 * EURO, thresholds=[50, 80])
    start, end = calendar_of("UTC").interval("month", timezone.now())
    note_refusal(Key(organization.pk, "organization", organization.pk, "month", start, end))
    spend(workspace, 9 * EURO)
    assert evaluate() == 1
    told = [(event["type"], event["data"]["threshold_percent"]) for event in events()]
    assert told == [("spend_limit.refusing", None), ("spend_limit.threshold_passed", 80)]


def test_a_refusal_by_a_limit_that_nobody_spent_under_is_told(workspace, webhook):
    limit(workspace.organization, 0)
    start, end = calendar_of("UTC").interval("month", timezone.now())
    assert evaluate() == 0
    assert note_refusal(Key(workspace.organization_id, "organization", workspace.organization_id, "month", start, end))
    assert LedgerPeriod.objects.get().settled_nanos == 0
    # A soft one refuses nothing, and one that is gone neither.
    limit(workspace.organization, 0, is_hard=False)
    assert not note_refusal(
        Key(workspace.organization_id, "organization", workspace.organization_id, "month", start, end)
    )


def test_what_was_raised_is_resolved_and_told_again_when_it_is_passed_again(workspace, webhook):
    limit(workspace.organization, 10 * EURO, thresholds=[80])
    spend(workspace, 10 * EURO)
    evaluate()
    limit(workspace.organization, 12 * EURO, thresholds=[80])
    assert evaluate() == 1
    assert alerts() == [(80, True), (100, False)]
    spend(workspace, 2 * EURO)
    assert evaluate() == 1
    assert alerts() == [(80, True), (100, True)]
    told = [(event["type"], event["data"].get("because"), event["data"]["amount"]) for event in events()]
    assert told == [
        ("spend_limit.refusing", "all_spent", "10.000000000"),
        ("spend_limit.resolved", "amount_raised", "12.000000000"),
        ("spend_limit.refusing", "all_spent", "12.000000000"),
    ]


def test_a_new_period_resolves_what_the_last_one_passed(workspace, webhook):
    limit(workspace.organization, 10 * EURO, period="day", thresholds=[50])
    spend(workspace, 10 * EURO)
    evaluate()
    assert evaluate(timezone.now() + datetime.timedelta(days=1)) == 1
    assert alerts() == [(50, False), (100, False)]
    last = events()[-1]
    assert (last["type"], last["data"]["because"]) == ("spend_limit.resolved", "period_ended")
    assert last["data"]["threshold_percent"] == 100


def test_a_limit_that_is_removed_ends_its_alerts(workspace, webhook, alice):
    row = limit(workspace.organization, EURO)
    spend(workspace, EURO)
    evaluate()
    remove_spend_limit(limit=row, actor=alice)
    assert [event["data"].get("because") for event in events()] == ["all_spent", "limit_removed"]
    assert evaluate() == 0


def test_those_who_manage_are_mailed_and_whom_the_limit_is_of(workspace, alice, bob, mailing):
    organization = workspace.organization
    mine, others = make_api_key(workspace, name="ci", created_by=bob), make_api_key(workspace, created_by=alice)
    limit(organization, EURO, Scope.API_KEY, mine.pk)
    spend(workspace, EURO, api_key_id=mine.pk, user_id=bob.pk)
    evaluate()
    assert sorted(MailDelivery.objects.values_list("user__email", flat=True)) == [alice.email, bob.email]
    MailDelivery.objects.all().delete()
    limit(organization, EURO, Scope.API_KEY, others.pk)
    limit(organization, EURO, Scope.MEMBER, bob.pk, period="day")
    spend(workspace, EURO, api_key_id=others.pk, user_id=alice.pk)
    evaluate()
    # Bob's own of today was passed with his key; the other key is no matter of his.
    subjects = dict(MailDelivery.objects.values_list("user__email", "subject"))
    assert subjects[bob.email] == "Member Bob has used up $1.00 a day: requests are refused"
    assert subjects[alice.email] == "2 spend alerts of Default"


def test_a_mail_speaks_its_reader_s_language_and_names_what_counts(workspace, alice, mailing, settings):
    settings.PUBLIC_URL = "https://ai.example.org"
    alice.language = "fr"
    alice.save()
    limit(workspace.organization, 10 * EURO, Scope.WORKSPACE, workspace.pk, is_hard=False, thresholds=[80])
    spend(workspace, 8_500_000_000)
    evaluate()
    mail = MailDelivery.objects.get(user=alice)
    assert mail.subject == "L’espace de travail default a dépensé 80\u202f% de 10,00\u202f$US par mois"
    assert "8,50\u202f$US" in mail.body
    assert "https://ai.example.org/o/default/alerts/" in mail.body


def test_a_name_with_a_line_break_stays_within_its_header(workspace, mailing):
    workspace.name = "two\r\nBcc: all@example.org"
    workspace.save()
    limit(workspace.organization, EURO, Scope.WORKSPACE, workspace.pk)
    spend(workspace, EURO)
    evaluate()
    subject = MailDelivery.objects.get().subject
    assert "\n" not in subject
    assert "\r" not in subject


def test_without_a_mail_server_nothing_waits_to_be_mailed(workspace):
    limit(workspace.organization, EURO)
    spend(workspace, EURO)
    assert evaluate() == 1
    assert not MailDelivery.objects.exists()


def test_a_member_sees_what_is_theirs_and_an_administrator_all(workspace, alice, bob):
    organization = workspace.organization
    mine, others = make_api_key(workspace, created_by=bob), make_api_key(workspace, created_by=alice)
    limit(organization, EURO)
    limit(organization, EURO, Scope.WORKSPACE, workspace.pk)
    limit(organization, EURO, Scope.API_KEY, mine.pk)
    limit(organization, EURO, Scope.API_KEY, others.pk)
    spend(workspace, EURO, api_key_id=mine.pk)
    spend(workspace, EURO, api_key_id=others.pk)
    evaluate()
    member = organization.members.get(user=bob)
    assert sorted(alert.spend_limit.scope for alert in open_alerts(member, workspace)) == ["api_key", "workspace"]
    assert len(open_alerts(organization.members.get(user=alice), workspace)) == 4


def test_ten_limits_cost_as_many_queries_as_one_to_look_at(workspace, django_assert_num_queries):
    def count(number):
        for _ in range(number):
            limit(workspace.organization, 100 * EURO, Scope.API_KEY, make_api_key(workspace).pk)
        with django_assert_num_queries(2):
            evaluate()

    spend(workspace, EURO)
    count(1)
    count(9)


def test_another_organization_is_told_nothing(workspace, webhook):
    stranger = make_workspace(organization=make_organization(make_user("dora@example.org")))
    limit(stranger.organization, EURO)
    spend(stranger, EURO)
    assert evaluate() == 1
    assert not WebhookDelivery.objects.exists()
    assert not limit_alerts.alerts_for_list(workspace.organization).exists()
