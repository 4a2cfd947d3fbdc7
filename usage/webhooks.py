"""
Webhooks: programs of an organization's own that are told of alerts.

Each message is signed: HMAC-SHA-256 under the webhook's secret over ``timestamp.body``. docs/webhooks.md has what a
receiver must know. Addresses go through the guard of ``providers.origins``, at each connection, and redirects are
followed nowhere.
"""

import datetime
import hashlib
import hmac
import json
import re
import secrets
import time

import httpx
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import audit, sealing
from console.sealing import Secret
from providers.client import admin_client, post
from providers.origins import (
    ForbiddenAddress,
    InvalidBaseUrl,
    is_private_allowed,
    origin_of,
    origin_verdict,
    parse_base_url,
)
from usage.models import Webhook, WebhookDelivery
from usage.turns import take_turn

MOST = 20
TESTS_A_MINUTE = 5
# How long the secret before the last rotation signs too, so that receivers can change over.
OVERLAP = datetime.timedelta(hours=24)
ANSWER_SECONDS = 10
TEST = "webhook.test"
# What may follow the question mark of an address, as receivers' own tokens do.
QUERY = re.compile(r"[A-Za-z0-9._~%=&+:,/@-]{0,300}", re.ASCII)

EVENT_HEADER, DELIVERY_HEADER = "comptoir-event", "comptoir-delivery"
TIMESTAMP_HEADER, SIGNATURE_HEADER = "comptoir-timestamp", "comptoir-signature"


class TooManyTests(Exception):
    """The organization has tested its webhooks too often within a minute."""


# What people do to them ------------------------------------------------------------------------------------------


@transaction.atomic
def create_webhook(*, organization, url, actor) -> tuple[Webhook, str]:
    """
    A new webhook, and its secret, shown this once.

    Raises ``ValidationError``, of code ``private_origin`` where whoever runs the server must first allow the address.
    """
    take_turn(organization)
    if organization.webhooks.count() >= MOST:
        raise ValidationError(_("An organization has at most %(most)s webhooks.") % {"most": MOST})
    webhook = Webhook(organization=organization, url=checked_url(url), created_by=actor)
    secret = _new_secret()
    webhook.sealed_secret = _seal(secret, webhook)
    webhook.full_clean()
    webhook.save()
    _audit(webhook, actor, "webhook.created")
    return webhook, secret


@transaction.atomic
def rotate_secret(*, webhook, actor) -> str:
    """A new secret, shown this once; the one that it had signs beside it for a day. Raises ``Webhook.DoesNotExist``."""
    _hold(webhook)
    secret = _new_secret()
    webhook.sealed_previous, webhook.previous_until = webhook.sealed_secret, timezone.now() + OVERLAP
    webhook.sealed_secret = _seal(secret, webhook)
    webhook.save(update_fields=["sealed_secret", "sealed_previous", "previous_until"])
    _audit(webhook, actor, "webhook.secret_rotated")
    return secret


@transaction.atomic
def disable_webhook(*, webhook, actor):
    """Send it nothing until it is enabled again, nor what waits for it now. Raises ``Webhook.DoesNotExist``."""
    _hold(webhook)
    if webhook.disabled_at is None:
        webhook.disabled_at = timezone.now()
        webhook.save(update_fields=["disabled_at"])
        _give_up_waiting(webhook)
        _audit(webhook, actor, "webhook.disabled")


@transaction.atomic
def enable_webhook(*, webhook, actor):
    """Tell it of what happens from now on. Raises ``Webhook.DoesNotExist``."""
    _hold(webhook)
    if webhook.disabled_at is not None:
        webhook.disabled_at = None
        webhook.save(update_fields=["disabled_at"])
        _audit(webhook, actor, "webhook.enabled")


def _give_up_waiting(webhook):
    waiting = webhook.deliveries.filter(state=WebhookDelivery.State.PENDING)
    waiting.update(state=WebhookDelivery.State.FAILED, error="disabled")


@transaction.atomic
def delete_webhook(*, webhook, actor):
    """Forget it, its secret and what was sent to it; deleting twice changes nothing."""
    found = Webhook.objects.filter(pk=webhook.pk)
    # Whoever writes a message for it holds it: that one is there by now, and goes with it.
    if found.select_for_update().first() and found.delete()[0]:
        _audit(webhook, actor, "webhook.deleted")


def held(found):
    """
    The webhooks of the queryset ``found`` as they are now; none is changed or deleted before the transaction ends.

    Whoever writes messages for webhooks must hold them.
    """
    return found.select_for_update(no_key=True).order_by("pk")


def _hold(webhook):
    webhook.refresh_from_db(from_queryset=Webhook.objects.select_for_update(of=["self"]).select_related("organization"))


def send_test(*, webhook, actor) -> WebhookDelivery:
    """
    Send it a message that says it is a test, and wait for the answer; takes up to ten seconds.

    Raises ``TooManyTests`` and ``Webhook.DoesNotExist``. It is tried this once.
    """
    with transaction.atomic():
        take_turn(webhook.organization)
        _hold(webhook)
        of_organization = WebhookDelivery.objects.filter(webhook__organization=webhook.organization, event=TEST)
        since = timezone.now() - datetime.timedelta(minutes=1)
        if of_organization.filter(created_at__gt=since).count() >= TESTS_A_MINUTE:
            raise TooManyTests
        delivery = enqueue(webhook, TEST, {}, state=WebhookDelivery.State.FAILED, attempts=1)
        _audit(webhook, actor, "webhook.tested")
    result = send(delivery)
    record(delivery, result)
    return delivery


send_test.__test__ = False


def checked_url(text):
    """The address as it is stored and called; raises ``ValidationError``."""
    base, mark, query = text.strip().partition("?")
    try:
        parsed = parse_base_url(base)
    except InvalidBaseUrl as error:
        raise ValidationError({"url": str(error)}) from None
    if not QUERY.fullmatch(query):
        raise ValidationError({"url": _("What follows the question mark holds signs that no address has.")})
    if origin_verdict(parsed.origin, private_allowed=_is_private_allowed(base)):
        if origin_verdict(parsed.origin, private_allowed=True):
            raise ValidationError({"url": _("No message may be sent there: it belongs to this server or its host.")})
        message = _("Plain http and private addresses need the word of whoever runs this server.")
        raise ValidationError({"url": ValidationError(message, code="private_origin")})
    # A slash at the end is left out of a base URL; receivers may need it.
    slash = "/" if base.endswith("/") and parsed.path else ""
    return f"{parsed}{slash}{mark}{query}"


def _is_private_allowed(base):
    # The model of this machine is a private origin that providers alone may call.
    local = settings.LOCAL_MODEL_URL
    return is_private_allowed(base) and not (local and origin_of(base) == origin_of(local))


def _new_secret():
    return f"whsec_{secrets.token_urlsafe(32)}"


def _owned_by(webhook):
    return "\n".join(["comptoir webhook 1", webhook.organization.uid, webhook.uid]).encode()


def _bound_to(webhook):
    return _owned_by(webhook) + b"\n" + webhook.url.encode()


def _seal(secret, webhook):
    return sealing.seal(secret, owner=_owned_by(webhook), bound=_bound_to(webhook))


def _unseal(sealed, webhook) -> Secret:
    return sealing.unseal(sealed, owner=_owned_by(webhook), bound=_bound_to(webhook))


def rewrap(webhook) -> dict[str, bytes]:
    """The fields whose data key must change to the ring's newest key; raises ``sealing.Unreadable``."""
    return {
        field: sealing.rewrap(sealed, owner=_owned_by(webhook))
        for field in ("sealed_secret", "sealed_previous")
        if (sealed := getattr(webhook, field)) is not None and not sealing.is_on_newest_key(sealed)
    }


def _audit(webhook, actor, action, **details):
    audit.record(organization=webhook.organization, actor=actor, action=action, target=webhook, **details)


# Messages --------------------------------------------------------------------------------------------------------


def enqueue(webhook, event, data, **fields) -> WebhookDelivery:
    """Keep a message for ``webhook``, which must be ``held``, until it has arrived; ``usage.deliveries`` sends it."""
    delivery = WebhookDelivery(webhook=webhook, event=event, **fields)
    message = {
        "id": delivery.uid,
        "type": event,
        "created_at": delivery.created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "organization": {"id": webhook.organization.uid, "name": webhook.organization.name},
        "data": data,
    }
    delivery.body = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    delivery.save()
    return delivery


def signature(secret: Secret, timestamp: int, body: bytes) -> str:
    """The hexadecimal HMAC-SHA-256 of ``timestamp.body``."""
    return hmac.new(secret.reveal().encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def send(delivery) -> dict:
    """
    Make one attempt, of ten seconds at most, and say how it went, as the fields of a delivery.

    Touches no database: the webhook and its organization must be there. Any 2xx is a success.
    """
    webhook = delivery.webhook
    base = webhook.url.partition("?")[0]
    try:
        keys = [_unseal(webhook.sealed_secret, webhook)]
        if webhook.sealed_previous is not None and webhook.previous_until > timezone.now():
            keys.append(_unseal(webhook.sealed_previous, webhook))
    except sealing.Unreadable:
        return {"error": "secret"}
    body, timestamp = delivery.body.encode(), int(time.time())
    headers = {
        "content-type": "application/json",
        EVENT_HEADER: delivery.event,
        DELIVERY_HEADER: delivery.uid,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: ",".join(f"v1={signature(key, timestamp, body)}" for key in keys),
    }
    try:
        with admin_client(base, private_allowed=_is_private_allowed(base), seconds=ANSWER_SECONDS) as client:
            answer = post(client, webhook.url, headers, body)
    except httpx.TimeoutException:
        return {"error": "timeout"}
    except (httpx.TransportError, ForbiddenAddress, InvalidBaseUrl):
        # One word for all, so that nobody learns from it what listens where.
        return {"error": "unreachable"}
    arrived = 200 <= answer.status < 300
    error = "" if arrived else "redirect" if 300 <= answer.status < 400 else "status"
    return {"error": error, "status": answer.status, "duration_ms": answer.milliseconds}


def record(delivery, result, **later):
    """
    Write how an attempt went, and of one that failed what becomes of the message then.

    A message that was deleted meanwhile stays so, and one that was given up too, unless it has arrived.
    """
    fields = {
        "tried_at": timezone.now(),
        "error": result["error"],
        "status": result.get("status"),
        "duration_ms": result.get("duration_ms"),
        **later,
    }
    row = WebhookDelivery.objects.filter(pk=delivery.pk)
    if result["error"]:
        row = row.filter(state=delivery.state)
    else:
        fields["state"] = WebhookDelivery.State.DELIVERED
    for name, value in fields.items():
        setattr(delivery, name, value)
    row.update(**fields)
