"""
Sends what is due: messages to webhooks and mails, each tried until it has arrived or the tries are used up.

A delivery is claimed before it is tried, so that two processes never try it at once; one that was claimed by a process
that died is tried again. A message can arrive twice and is known by its id.
"""

import datetime
import random
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parseaddr

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, mailers
from django.db.models import F, Min
from django.utils import timezone

from usage import webhooks
from usage.models import MailDelivery, WebhookDelivery

log = structlog.get_logger(__name__)

# How long to wait after each try that failed: given up after the eighth, two days later.
DELAYS = [datetime.timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 360, 720, 1440)]
CLAIM = datetime.timedelta(minutes=2)
KEPT = datetime.timedelta(days=30)
# A mail that could not be sent for so long, as the server had no mail server meanwhile, is no news any more.
STALE = datetime.timedelta(days=3)
# One sweep takes no longer, so that the next alerts need not wait for receivers that hang.
SECONDS = 30
AT_ONCE = 8
MAILS = 50
# What the mail server has against one message alone.
OF_ONE_MAIL = (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)


def send_due() -> int:
    """Try all that is due, for half a minute at most; return how many messages arrived."""
    until = time.monotonic() + SECONDS
    return _send_mails(until) + _send_to_webhooks(until)


def can_mail() -> bool:
    """Whether this server has a mail server to send by."""
    return "default" in settings.MAILERS


def count_waiting() -> dict[str, int]:
    """How many messages have not arrived and are not given up, by how they go; two short queries."""
    kinds = {"webhook": WebhookDelivery, "mail": MailDelivery}
    return {kind: model.objects.filter(state=model.State.PENDING).count() for kind, model in kinds.items()}


def delete_old() -> int:
    """Delete what has arrived, or was given up, a month ago; return how many."""
    now = timezone.now()
    waiting = MailDelivery.objects.filter(state=MailDelivery.State.PENDING, created_at__lt=now - STALE)
    waiting.update(state=MailDelivery.State.FAILED)
    return sum(
        model.objects.filter(created_at__lt=now - KEPT).exclude(state=model.State.PENDING).delete()[0]
        for model in (WebhookDelivery, MailDelivery)
    )


def _send_to_webhooks(until):
    """One message of each webhook at a time; one that fails is left alone until its next try is due."""
    arrived, failing = 0, set()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
        while time.monotonic() < until and (claimed := _claim_for_webhooks(failing)):
            for delivery, result in zip(claimed, pool.map(_try, claimed), strict=True):
                later = {}
                if result["error"]:
                    failing.add(delivery.webhook_id)
                    later = _later(delivery)
                    log.info(
                        "webhook not reached",
                        webhook=delivery.webhook.uid,
                        delivery=delivery.uid,
                        attempts=delivery.attempts,
                        error=result["error"],
                        status=result.get("status"),
                    )
                else:
                    arrived += 1
                webhooks.record(delivery, result, **later)
    return arrived


def _try(delivery):
    try:
        return webhooks.send(delivery)
    except Exception as error:
        # The edge of this message: what the others met must be written. Its words could hold the address.
        log.error("webhook not tried", delivery=delivery.uid, error=type(error).__name__)
        return {"error": "failed"}


def _claim_for_webhooks(failing):
    """The first message of some webhooks, drawn by lot, so that no backlog and no receiver that hangs comes first."""
    due = WebhookDelivery.objects.filter(
        state=WebhookDelivery.State.PENDING, next_attempt_at__lte=timezone.now(), webhook__disabled_at=None
    ).exclude(webhook__in=failing)
    first = list(due.order_by().values("webhook").annotate(first=Min("pk")).values_list("first", flat=True))
    drawn = random.sample(first, min(AT_ONCE, len(first)))
    found = WebhookDelivery.objects.filter(pk__in=drawn).select_related("webhook__organization")
    return [delivery for delivery in found.order_by("pk") if _claim(delivery)]


def _send_mails(until):
    if not can_mail():
        return 0
    now = timezone.now()
    due = MailDelivery.objects.filter(
        state=MailDelivery.State.PENDING, next_attempt_at__lte=now, created_at__gt=now - STALE
    )
    arrived, mailer = 0, None
    try:
        for delivery in due.select_related("user").order_by("pk")[:MAILS]:
            if time.monotonic() > until or not _claim(delivery):
                continue
            try:
                if mailer is None:
                    mailer = mailers.default
                    mailer.open()
                mailer.send_messages([_mail(delivery)])
            except Exception as error:
                # The edge of this mail, which may hold what no mail can. The server's own words could hold what it was
                # sent.
                name = type(error).__name__
                log.warning("mail not sent", delivery=delivery.pk, attempts=delivery.attempts, error=name)
                _record_mail(delivery, error=name, **_later(delivery))
                if isinstance(error, OSError) and not isinstance(error, OF_ONE_MAIL):
                    # It is the mail server that has trouble; the others wait for the next sweep.
                    break
            else:
                arrived += 1
                _record_mail(delivery, error="", state=MailDelivery.State.DELIVERED)
    finally:
        if mailer is not None:
            mailer.close()
    return arrived


def _mail(delivery):
    # The same id at each try: a mail that was taken twice is shown once.
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return EmailMessage(
        delivery.subject,
        delivery.body,
        settings.DEFAULT_FROM_EMAIL,
        [delivery.user.email],
        headers={
            "Auto-Submitted": "auto-generated",
            "Message-ID": f"<comptoir.{delivery.pk}.{int(delivery.created_at.timestamp())}@{domain}>",
        },
    )


def _record_mail(delivery, **fields):
    # Its reader may have been deleted meanwhile, and their mails with them.
    MailDelivery.objects.filter(pk=delivery.pk).update(tried_at=timezone.now(), **fields)


def _claim(delivery):
    """Count a try that is about to be made; ``False`` where somebody else makes it."""
    model, ahead = type(delivery), timezone.now() + CLAIM
    mine = model.objects.filter(pk=delivery.pk, state=delivery.state, next_attempt_at=delivery.next_attempt_at).update(
        next_attempt_at=ahead, attempts=F("attempts") + 1
    )
    delivery.next_attempt_at = ahead
    delivery.attempts += 1
    return bool(mine)


def _later(delivery):
    """When a message that failed is tried again, or that it is given up: the fields that say so."""
    if delivery.attempts > len(DELAYS):
        return {"state": delivery.State.FAILED}
    return {"next_attempt_at": timezone.now() + DELAYS[delivery.attempts - 1]}
