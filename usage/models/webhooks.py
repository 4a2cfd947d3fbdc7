"""What is sent out of itself, by mail and to webhooks: kept until it has arrived or is given up."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.ids import new_id
from console.models import Organization
from providers.origins import origin_of


def new_webhook_id():
    return new_id("webhook")


def new_delivery_id():
    return new_id("delivery")


class Webhook(models.Model):
    """
    An address of somebody's program that is told of alerts, each message signed; ``usage.webhooks`` keeps it.

    The secret is sealed for the row; the one before it signs too until ``previous_until``.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="webhooks")
    uid = models.CharField(max_length=40, unique=True, default=new_webhook_id, editable=False)
    url = models.CharField(_("address"), max_length=500)
    sealed_secret = models.BinaryField(editable=False)
    sealed_previous = models.BinaryField(null=True, editable=False)
    previous_until = models.DateTimeField(null=True, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["created_at", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "url"],
                name="usage_webhook_address",
                violation_error_message=_("There is already a webhook with that address."),
            ),
        ]

    def __str__(self):
        # What follows may hold a receiver's own token, and this goes into the audit log.
        return origin_of(self.url.partition("?")[0])

    def get_absolute_url(self):
        return reverse("usage:webhook_detail", args=[self.organization.slug, self.uid])


class Delivery(models.Model):
    """
    One message to one receiver, tried until it arrives or the tries are used up.

    ``next_attempt_at`` is also the claim of whoever tries: it lies ahead while somebody does.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("Waiting")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Given up")

    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    tried_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        abstract = True


class WebhookDelivery(Delivery):
    """One message to one webhook: ``body`` is what is sent and signed, byte for byte."""

    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries")
    uid = models.CharField(max_length=40, unique=True, default=new_delivery_id, editable=False)
    event = models.CharField(max_length=60)
    body = models.TextField()
    status = models.PositiveSmallIntegerField(null=True, help_text="What the receiver answered last.")
    duration_ms = models.PositiveIntegerField(null=True)

    class Meta:
        indexes = [
            # the sweep
            models.Index(fields=["next_attempt_at"], condition=Q(state="pending"), name="usage_webhookdelivery_due"),
            models.Index(fields=["webhook", "-id"], name="usage_webhookdelivery_latest"),  # its page
        ]

    def __str__(self):
        return self.uid


class MailDelivery(Delivery):
    """One message to one person, in the language that they read."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    subject = models.CharField(max_length=200)
    body = models.TextField()

    class Meta:
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(state="pending"), name="usage_maildelivery_due"),
        ]

    def __str__(self):
        return self.subject


class Sweep(models.Model):
    """Periodic work that whoever comes first does, a worker or a web process, and when it was done last."""

    name = models.CharField(primary_key=True, max_length=40)
    swept_at = models.DateTimeField()

    def __str__(self):
        return self.name
