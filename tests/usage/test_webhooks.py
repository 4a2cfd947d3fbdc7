"""Webhooks over real sockets: signed, guarded, tried again; and mail, to a real SMTP server."""

import datetime
import hashlib
import hmac
import json
import time

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from console.models import AuditEvent
from tests.usage.receivers import mail_server
from usage import deliveries, webhooks
from usage.deliveries import DELAYS, KEPT, delete_old, send_due
from usage.models import MailDelivery, Sweep, Webhook, WebhookDelivery
from usage.sweeps import sweep_alerts
from usage.webhooks import (
    create_webhook,
    delete_webhook,
    disable_webhook,
    enqueue,
    rotate_secret,
    send_test,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def webhook(receiver, organization, alice):
    webhook, secret = create_webhook(organization=organization, url=f"{receiver.url}/hook?token=a%20b", actor=alice)
    webhook.secret = secret
    return webhook


def signatures(call, *secrets):
    """What a receiver computes by docs/webhooks.md alone."""
    _path, headers, body = call
    signed = headers["comptoir-timestamp"].encode() + b"." + body
    return ",".join("v1=" + hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in secrets)


def due_now():
    WebhookDelivery.objects.filter(state="pending").update(next_attempt_at=timezone.now())


def test_a_message_arrives_signed_as_it_was_written(webhook, receiver):
    delivery = enqueue(webhook, "spend_limit.resolved", {"name": "Zoé"})
    assert send_due() == 1
    (call,) = receiver.calls
    path, headers, body = call
    assert path == "/hook?token=a%20b"
    assert headers["comptoir-signature"] == signatures(call, webhook.secret)
    assert headers["comptoir-event"] == "spend_limit.resolved"
    assert headers["comptoir-delivery"] == json.loads(body)["id"] == delivery.uid
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["comptoir-timestamp"]) - time.time()) < 10
    assert json.loads(body)["data"] == {"name": "Zoé"}
    delivery.refresh_from_db()
    assert (delivery.state, delivery.status, delivery.attempts, delivery.error) == ("delivered", 200, 1, "")
    assert send_due() == 0


def test_the_secret_stands_nowhere_but_sealed(webhook):
    webhook.refresh_from_db()
    assert webhook.secret.encode() not in bytes(webhook.sealed_secret)
    assert webhook.secret not in str(list(AuditEvent.objects.values()))


def test_the_path_and_the_token_of_an_address_stay_out_of_the_audit_log(webhook, receiver, alice):
    rotate_secret(webhook=webhook, actor=alice)
    delete_webhook(webhook=webhook, actor=alice)
    labels = AuditEvent.objects.filter(action__startswith="webhook.").values_list("target_label", flat=True)
    assert list(labels) == [receiver.url] * 3
    assert not [event for event in AuditEvent.objects.values() if "token" in str(event) or "hook?" in str(event)]


def test_after_a_rotation_both_secrets_sign_for_a_day(webhook, receiver, alice):
    new = rotate_secret(webhook=webhook, actor=alice)
    enqueue(webhook, "e", {})
    send_due()
    assert receiver.calls[0][1]["comptoir-signature"] == signatures(receiver.calls[0], new, webhook.secret)
    Webhook.objects.update(previous_until=timezone.now())
    enqueue(webhook, "e", {})
    send_due()
    assert receiver.calls[1][1]["comptoir-signature"] == signatures(receiver.calls[1], new)


def test_what_does_not_arrive_is_tried_again_and_then_given_up(webhook, receiver):
    receiver.status = 500
    delivery = enqueue(webhook, "e", {})
    for attempt, delay in enumerate([*DELAYS, None], start=1):
        before = timezone.now()
        assert send_due() == 0
        delivery.refresh_from_db()
        assert (delivery.attempts, delivery.error, delivery.status) == (attempt, "status", 500)
        if delay:
            assert delivery.state == "pending"
            assert before + delay <= delivery.next_attempt_at <= timezone.now() + delay
            assert send_due() == 0
            assert len(receiver.calls) == attempt
        due_now()
    assert delivery.state == "failed"
    send_due()
    assert len(receiver.calls) == len(DELAYS) + 1
    ids = {headers["comptoir-delivery"] for _path, headers, _body in receiver.calls}
    assert ids == {delivery.uid}


def test_a_receiver_that_comes_back_gets_everything_in_order(webhook, receiver):
    receiver.status = 503
    for number in range(3):
        enqueue(webhook, "e", {"number": number})
    send_due()
    assert len(receiver.calls) == 1
    receiver.status = 204
    due_now()
    assert send_due() == 3
    assert [json.loads(body)["data"]["number"] for _path, _headers, body in receiver.calls] == [0, 0, 1, 2]


def another(receiver, organization, alice, path):
    return create_webhook(organization=organization, url=f"{receiver.url}/{path}", actor=alice)[0]


def test_a_backlog_of_one_does_not_hold_up_another(webhook, receiver, organization, alice, monkeypatch):
    for _ in range(200):
        enqueue(webhook, "e", {})
    enqueue(another(receiver, organization, alice, "other"), "e", {})
    monkeypatch.setattr(deliveries, "SECONDS", 0.2)
    send_due()
    assert "/other" in [path for path, _headers, _body in receiver.calls[:2]]


def test_more_webhooks_than_are_called_at_once_take_turns(receiver, organization, alice, monkeypatch):
    monkeypatch.setattr(deliveries, "AT_ONCE", 1)
    monkeypatch.setattr(deliveries.random, "sample", lambda due, count: due[-count:])
    for name in ("one", "two"):
        webhook = another(receiver, organization, alice, name)
        for number in range(2):
            enqueue(webhook, "e", {"number": number})
    assert send_due() == 4
    told = [(path, json.loads(body)["data"]["number"]) for path, _headers, body in receiver.calls]
    assert told == [("/two", 0), ("/two", 1), ("/one", 0), ("/one", 1)]


@pytest.mark.parametrize("arrives", [True, False])
def test_one_that_is_deleted_while_it_is_called_leaves_the_others_their_results(
    webhook, receiver, organization, alice, monkeypatch, arrives
):
    other = enqueue(another(receiver, organization, alice, "other"), "e", {})
    enqueue(webhook, "e", {})
    receiver.status = 200 if arrives else 500
    claim = deliveries._claim_for_webhooks

    def deleted_after_it_was_claimed(failing):
        claimed = claim(failing)
        delete_webhook(webhook=webhook, actor=alice)
        return claimed

    monkeypatch.setattr(deliveries, "_claim_for_webhooks", deleted_after_it_was_claimed)
    send_due()
    assert len(receiver.calls) == 2
    assert list(WebhookDelivery.objects.values_list("pk", "status")) == [(other.pk, receiver.status)]


@pytest.mark.parametrize(("status", "state", "error"), [(500, "failed", "disabled"), (200, "delivered", "")])
def test_one_that_is_disabled_while_it_is_called_is_not_called_again(
    webhook, receiver, alice, monkeypatch, status, state, error
):
    delivery = enqueue(webhook, "e", {})
    receiver.status = status
    claim = deliveries._claim_for_webhooks

    def disabled_after_it_was_claimed(failing):
        claimed = claim(failing)
        disable_webhook(webhook=webhook, actor=alice)
        return claimed

    monkeypatch.setattr(deliveries, "_claim_for_webhooks", disabled_after_it_was_claimed)
    send_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.error, len(receiver.calls)) == (state, error, 1)


def test_a_message_that_cannot_be_sent_holds_nobody_up(webhook, receiver, organization, alice, client):
    other = enqueue(another(receiver, organization, alice, "other"), "e", {})
    delivery = enqueue(webhook, "zoé", {})
    assert send_due() == 1
    delivery.refresh_from_db()
    other.refresh_from_db()
    assert (delivery.state, delivery.error, delivery.attempts, other.state) == ("pending", "failed", 1, "delivered")
    client.force_login(alice)
    assert "Could not be sent" in client.get(webhook.get_absolute_url()).text


def test_a_redirect_is_not_followed(webhook, receiver):
    receiver.status, receiver.headers = 302, {"location": f"{receiver.url}/elsewhere"}
    delivery = enqueue(webhook, "e", {})
    send_due()
    delivery.refresh_from_db()
    assert (delivery.error, delivery.status) == ("redirect", 302)
    assert [path for path, _headers, _body in receiver.calls] == ["/hook?token=a%20b"]


def test_an_address_that_is_no_longer_allowed_is_not_called(webhook, receiver, settings):
    settings.ALLOWED_PRIVATE_ORIGINS = []
    delivery = enqueue(webhook, "e", {})
    send_due()
    delivery.refresh_from_db()
    assert (delivery.error, delivery.status, receiver.calls) == ("unreachable", None, [])


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://metadata.google.internal/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "http://hooks.example.org/",
        "https://user:password@hooks.example.org/",
        "https://hooks.example.org/#part",
        "https://hooks.example.org/?a b",
        "ftp://hooks.example.org/",
        "https://hooks.example.org/../x",
        "nonsense",
    ],
)
def test_an_address_that_no_message_may_go_to_is_refused(organization, alice, url):
    with pytest.raises(ValidationError):
        create_webhook(organization=organization, url=url, actor=alice)
    assert not Webhook.objects.exists()


def test_the_model_of_this_machine_takes_no_messages(organization, alice, settings):
    settings.LOCAL_MODEL_URL = "http://127.0.0.1:20123"
    with pytest.raises(ValidationError):
        create_webhook(organization=organization, url="http://127.0.0.1:20123/slots", actor=alice)


def test_a_name_that_leads_into_this_machine_is_found_at_connecting(organization, alice, monkeypatch):
    webhook, _secret = create_webhook(organization=organization, url="https://rebound.example.org/", actor=alice)
    monkeypatch.setattr("socket.getaddrinfo", lambda host, port, **_: [(2, 1, 6, "", ("127.0.0.1", port))])
    result = webhooks.send(enqueue(webhook, "e", {}))
    assert result == {"error": "unreachable"}


def test_a_slash_at_the_end_is_kept(organization, alice):
    webhook, _secret = create_webhook(organization=organization, url="https://Hooks.example.org:443/a/", actor=alice)
    assert webhook.url == "https://hooks.example.org/a/"
    with pytest.raises(ValidationError):
        create_webhook(organization=organization, url="https://hooks.example.org/a/", actor=alice)


def test_a_test_is_sent_at_once_and_not_again(webhook, receiver, alice):
    assert send_test(webhook=webhook, actor=alice).state == "delivered"
    receiver.status = 404
    delivery = send_test(webhook=webhook, actor=alice)
    assert (delivery.state, delivery.error, delivery.status) == ("failed", "status", 404)
    send_due()
    assert len(receiver.calls) == 2
    for _ in range(3):
        send_test(webhook=webhook, actor=alice)
    with pytest.raises(webhooks.TooManyTests):
        send_test(webhook=webhook, actor=alice)


def test_a_disabled_webhook_gets_nothing_and_a_deleted_one_is_gone(webhook, receiver, alice):
    delivery = enqueue(webhook, "e", {})
    disable_webhook(webhook=webhook, actor=alice)
    send_due()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.error, receiver.calls) == ("failed", "disabled", [])
    delete_webhook(webhook=webhook, actor=alice)
    assert not WebhookDelivery.objects.exists()
    actions = AuditEvent.objects.filter(action__startswith="webhook.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["webhook.created", "webhook.disabled", "webhook.deleted"]


def test_a_secret_of_another_key_ring_is_told_apart_from_a_dead_receiver(webhook, receiver, settings):
    settings.CREDENTIAL_KEYS = ["another key of more than thirty-two characters"]
    delivery = enqueue(webhook, "e", {})
    send_due()
    delivery.refresh_from_db()
    assert (delivery.error, receiver.calls) == ("secret", [])


def test_a_rewrap_moves_secrets_to_the_newest_key(webhook, receiver, settings, alice):
    from django.core.management import call_command

    rotate_secret(webhook=webhook, actor=alice)
    settings.CREDENTIAL_KEYS = ["another key of more than thirty-two characters", *settings.CREDENTIAL_KEYS]
    call_command("rewrap_credentials")
    settings.CREDENTIAL_KEYS = settings.CREDENTIAL_KEYS[:1]
    enqueue(webhook, "e", {})
    assert send_due() == 1


def test_old_messages_are_deleted_unless_they_wait(webhook):
    kept = enqueue(webhook, "e", {})
    enqueue(webhook, "e", {}, state="failed")
    WebhookDelivery.objects.update(created_at=timezone.now() - KEPT - datetime.timedelta(hours=1))
    enqueue(webhook, "e", {}, state="failed")
    assert delete_old() == 1
    assert WebhookDelivery.objects.filter(pk=kept.pk).exists()


def test_whoever_comes_first_sweeps(db):
    assert sweep_alerts()
    assert not sweep_alerts()
    assert not sweep_alerts(30)
    Sweep.objects.update(swept_at=timezone.now() - datetime.timedelta(seconds=20))
    assert not sweep_alerts(30)
    assert sweep_alerts()


# Mail ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mails(settings):
    with mail_server() as mails:
        backend = "django.core.mail.backends.smtp.EmailBackend"
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": mails.options}}
        settings.DEFAULT_FROM_EMAIL = "Comptoir <comptoir@example.org>"
        yield mails


def mail_to(user, organization, subject="An alert"):
    return MailDelivery.objects.create(organization=organization, user=user, subject=subject, body="Zoé: 80 %.\n")


def test_a_mail_arrives(mails, organization, alice):
    delivery = mail_to(alice, organization)
    assert send_due() == 1
    ((recipients, message),) = mails.messages
    assert recipients == [alice.email]
    assert (message["subject"], message["from"]) == ("An alert", "Comptoir <comptoir@example.org>")
    assert message["auto-submitted"] == "auto-generated"
    assert message.get_content().splitlines() == ["Zoé: 80 %."]
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("delivered", 1)
    assert send_due() == 0


def test_one_person_who_cannot_be_reached_holds_nobody_up(mails, organization, alice, bob):
    mails.refuses.add(alice.email)
    first, second = mail_to(alice, organization), mail_to(bob, organization)
    assert send_due() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, first.error, second.state) == ("pending", "SMTPRecipientsRefused", "delivered")
    MailDelivery.objects.update(next_attempt_at=timezone.now())
    mails.refuses.clear()
    assert send_due() == 1


def test_a_mail_that_cannot_be_written_holds_nobody_up(mails, organization, alice, bob):
    alice.email = "zoé@example.org"
    alice.save()
    first, second = mail_to(alice, organization), mail_to(bob, organization)
    assert send_due() == 1
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, first.attempts, bool(first.error), second.state) == ("pending", 1, True, "delivered")
    assert first.next_attempt_at > timezone.now()


def test_a_reader_who_is_deleted_while_a_mail_is_sent_is_forgotten(mails, organization, alice, bob, monkeypatch):
    mail_to(bob, organization)
    second = mail_to(alice, organization)
    write = deliveries._mail

    def deleted_meanwhile(delivery):
        MailDelivery.objects.filter(user=bob).delete()
        return write(delivery)

    monkeypatch.setattr(deliveries, "_mail", deleted_meanwhile)
    assert send_due() == 2
    assert list(MailDelivery.objects.values_list("pk", "state")) == [(second.pk, "delivered")]


def test_a_mail_server_that_has_trouble_is_left_alone_for_a_while(mails, organization, alice, bob):
    mails.is_busy = True
    mail_to(alice, organization)
    mail_to(bob, organization)
    assert send_due() == 0
    tries = MailDelivery.objects.values_list("attempts", "error")
    assert sorted(tries) == [(0, ""), (1, "SMTPConnectError")]
    mails.is_busy = False
    assert send_due() == 1


def test_an_old_mail_is_no_news_any_more(mails, organization, alice):
    delivery = mail_to(alice, organization)
    MailDelivery.objects.update(created_at=timezone.now() - datetime.timedelta(days=4))
    assert send_due() == 0
    delete_old()
    delivery.refresh_from_db()
    assert (delivery.state, mails.messages) == ("failed", [])
