"""The pages of alerts and webhooks."""

import pytest
from django.urls import reverse
from django.utils import timezone

from console.models import AuditEvent
from tests.factories import make_api_key
from tests.usage.test_limit_alerts import EURO, limit, spend
from usage.limit_alerts import evaluate
from usage.models import LimitAlert, MailDelivery, Scope, Webhook
from usage.webhooks import create_webhook, enqueue

HTMX = {"HX-Request": "true"}


def url(name, *arguments, slug="default"):
    return reverse(f"usage:{name}", args=[slug, *arguments])


@pytest.fixture
def webhook(organization, alice):
    return create_webhook(organization=organization, url="https://hooks.example.org/", actor=alice)[0]


def test_the_list_names_the_limit_what_was_spent_and_whether_it_is_over(alice_client, workspace):
    limit(workspace.organization, 10 * EURO, Scope.WORKSPACE, workspace.pk, thresholds=[80], is_hard=False)
    limit(workspace.organization, 5 * EURO)
    spend(workspace, 8 * EURO)
    evaluate()
    page = alice_client.get(url("alert_list")).text
    assert "Workspace default" in page
    assert "80% reached" in page
    assert "Organization Default" in page
    assert "100%: requests are refused" in page
    assert "$8.00" in page
    assert "3 open alerts" in page
    LimitAlert.objects.update(resolved_at=timezone.now())
    page = alice_client.get(url("alert_list"), headers=HTMX).text
    assert "0 open alerts" in page
    assert "<h1>" not in page


def test_a_limit_of_some_cents_is_written_as_finely_as_requests_are(alice_client, workspace, settings):
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    limit(workspace.organization, EURO // 50, thresholds=[50])
    spend(workspace, 15_700_000)
    evaluate()
    page = alice_client.get(url("alert_list")).text
    assert "$0.0157" in page
    assert "$0.0200" in page
    callout = alice_client.get(url("spend_alerts"), headers=HTMX).text
    assert "$0.0157 of $0.0200 are spent" in callout
    mail = MailDelivery.objects.get()
    assert mail.subject == "Organization Default has spent 50% of $0.0200 a month"
    assert "Spent: $0.0157 of $0.0200." in mail.body


def test_the_list_says_whether_anybody_can_be_mailed(alice_client, workspace, settings):
    assert "EMAIL_URL" in alice_client.get(url("alert_list")).text
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    assert "EMAIL_URL" not in alice_client.get(url("alert_list")).text


def test_ten_alerts_cost_as_many_queries_as_one(alice_client, workspace, django_assert_max_num_queries):
    for _ in range(10):
        key = make_api_key(workspace)
        limit(workspace.organization, EURO, Scope.API_KEY, key.pk)
        spend(workspace, EURO, api_key_id=key.pk)
    evaluate()
    with django_assert_max_num_queries(14):
        assert alice_client.get(url("alert_list")).text.count("requests are refused") == 10


def test_home_shows_what_is_open_to_those_whom_it_concerns(alice_client, bob_client, workspace, bob):
    key = make_api_key(workspace, created_by=bob, name="ci")
    limit(workspace.organization, 20 * EURO, thresholds=[50])
    limit(workspace.organization, 10 * EURO, Scope.API_KEY, key.pk)
    spend(workspace, 10 * EURO, api_key_id=key.pk)
    evaluate()
    shown = bob_client.get(url("spend_alerts"), headers=HTMX).text
    assert "Key ci of workspace default: the spend limit refuses requests." in shown
    assert "Organization" not in shown
    shown = alice_client.get(url("spend_alerts"), headers=HTMX).text
    assert "Organization Default: 50% of the spend limit is reached." in shown
    assert url("spend_alerts") in alice_client.get("/w/default/").text
    assert url("spend_alerts") in alice_client.get(url("limit_list")).text
    assert alice_client.get(url("spend_alerts")).status_code == 302


def test_without_alerts_home_shows_none(alice_client, workspace):
    shown = alice_client.get(url("spend_alerts"), headers=HTMX).text
    assert "callout" not in shown
    assert "hidden" in shown


@pytest.mark.parametrize("name", ["alert_list", "webhook_list", "webhook_create"])
def test_only_those_who_manage_see_alerts_and_webhooks(name, workspace, alice_client, bob_client, charlie_client):
    assert alice_client.get(url(name)).status_code == 200
    assert bob_client.get(url(name)).status_code == 403
    assert charlie_client.get(url(name)).status_code == 404


@pytest.mark.parametrize("name", ["webhook_detail", "webhook_rotate", "webhook_delete"])
def test_a_webhook_is_its_organization_s_alone(name, webhook, workspace, alice_client, bob_client, charlie_client):
    assert alice_client.get(url(name, webhook.uid)).status_code == 200
    assert bob_client.get(url(name, webhook.uid)).status_code == 403
    assert charlie_client.get(url(name, webhook.uid)).status_code == 404
    assert charlie_client.get(url(name, webhook.uid, slug="elsewhere")).status_code == 404


@pytest.mark.parametrize("name", ["test", "rotate", "disable", "enable", "delete"])
def test_a_stranger_changes_no_webhook(name, webhook, workspace, bob_client, charlie_client):
    assert bob_client.post(url(f"webhook_{name}", webhook.uid)).status_code == 403
    assert charlie_client.post(url(f"webhook_{name}", webhook.uid)).status_code == 404
    assert AuditEvent.objects.filter(action__startswith="webhook.").count() == 1


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_a_secret_is_shown_when_it_is_made_and_never_again(alice_client, workspace, headers):
    shown = alice_client.post(url("webhook_create"), {"url": "https://hooks.example.org/x"}, headers=headers).text
    webhook = Webhook.objects.get()
    assert shown.count("whsec_") >= 1
    assert "whsec_" not in alice_client.get(webhook.get_absolute_url()).text
    again = alice_client.post(url("webhook_rotate", webhook.uid), headers=headers).text
    assert "whsec_" in again
    assert "with the one before as well" in again


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://hooks.example.org/", "COMPTOIR_ALLOWED_PRIVATE_ORIGINS=http://hooks.example.org:80"),
        ("https://169.254.169.254/", "No message may be sent there"),
        ("nonsense", "Write the address as https://host/path"),
        ("", "This field is required."),
    ],
)
def test_a_wrong_address_is_refused_with_a_reason(alice_client, workspace, address, words):
    response = alice_client.post(url("webhook_create"), {"url": address})
    assert response.status_code == 422
    assert words in response.text
    assert not Webhook.objects.exists()


def test_a_test_shows_how_it_went(alice_client, workspace, alice, receiver):
    webhook, _secret = create_webhook(organization=workspace.organization, url=f"{receiver.url}/", actor=alice)
    page = alice_client.post(url("webhook_test", webhook.uid), headers=HTMX).text
    assert "The test arrived: answered 200" in page
    assert "webhook.test" in page
    receiver.status = 500
    page = alice_client.post(url("webhook_test", webhook.uid)).text
    assert "It answered 500" in page
    assert "Did not arrive" in page
    assert "Given up" not in page
    for _ in range(3):
        alice_client.post(url("webhook_test", webhook.uid))
    assert alice_client.post(url("webhook_test", webhook.uid)).status_code == 429


def test_a_webhook_is_disabled_enabled_and_deleted(alice_client, workspace, webhook):
    alice_client.post(url("webhook_disable", webhook.uid))
    assert "Disabled" in alice_client.get(url("webhook_list")).text
    assert alice_client.post(url("webhook_enable", webhook.uid), headers=HTMX)["HX-Trigger"] == "webhook-changed"
    assert Webhook.objects.get().disabled_at is None
    assert alice_client.post(url("webhook_delete", webhook.uid), headers=HTMX)["HX-Redirect"] == url("webhook_list")
    assert "No webhooks yet" in alice_client.get(url("webhook_list")).text


def test_every_state_of_a_message_has_words(alice_client, workspace, webhook, django_assert_max_num_queries):
    enqueue(webhook, "e", {})
    enqueue(webhook, "e", {}, state="delivered", status=204, attempts=1)
    for error in ("status", "redirect", "timeout", "unreachable", "secret", "disabled"):
        enqueue(webhook, "e", {}, state="failed", error=error, status=500, attempts=8)
    with django_assert_max_num_queries(9):
        page = alice_client.get(webhook.get_absolute_url()).text
    for words in ("Not tried yet", "Answered 204", "Took too long", "not followed", "Not reached", "rotate it"):
        assert words in page
    with django_assert_max_num_queries(9):
        assert "The webhook was disabled" in alice_client.get(url("webhook_list")).text
