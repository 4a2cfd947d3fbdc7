"""Trouble with the accounts that this server has at providers: opened by failures, closed by the next success."""

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from console import audit
from console.revision import bump_revision
from providers.models import Provider, ProviderAlert


@transaction.atomic
def raise_alert(*, provider_id, kind, message, count=1, renewed_at=None):
    """
    Open an alert of ``kind``, or count on in the one that is open. A provider that is gone has none.

    Nor has one that was renewed after ``renewed_at``, where that is given: what was met then is of no use any more.
    """
    now = timezone.now()
    # Locked, so that whoever renews it meanwhile also finds the alert.
    provider = Provider.objects.current().select_for_update().filter(pk=provider_id).first()
    if provider is None or (renewed_at is not None and provider.renewed_at != renewed_at):
        return
    is_open = provider.alerts.filter(kind=kind, resolved_at=None)
    if is_open.update(count=F("count") + count, last_at=now, message=message[:500]):
        return
    try:
        with transaction.atomic():
            provider.alerts.create(kind=kind, message=message[:500], count=count, first_at=now, last_at=now)
    except IntegrityError:
        # Another process was quicker.
        is_open.update(count=F("count") + count, last_at=now)
        return
    audit.record(
        organization=provider.organization,
        actor=None,
        is_unattended=True,
        action="provider.alerted",
        target=provider,
        kind=kind,
    )
    bump_revision()


@transaction.atomic
def resolve_alerts(*, provider_id, renewed_at):
    """
    Close every open alert of a provider, whose account works again; without one nothing changes.

    Nothing changes either where it was renewed after ``renewed_at``: the answer was got with what it was before.
    """
    provider = Provider.objects.select_for_update().filter(pk=provider_id, renewed_at=renewed_at).first()
    if provider and provider.alerts.filter(resolved_at=None).update(resolved_at=timezone.now()):
        audit.record(
            organization=provider.organization,
            actor=None,
            is_unattended=True,
            action="provider.recovered",
            target=provider,
        )
        bump_revision()


def close_alerts(provider):
    """Take every open alert of a provider back, as something may have mended it; the caller audits what."""
    provider.alerts.filter(resolved_at=None).update(resolved_at=timezone.now())


def open_alerts(organization):
    """The alerts that an administrator should see, the latest first, each with its provider."""
    alerts = ProviderAlert.objects.filter(
        provider__organization=organization,
        provider__removed_at=None,
        provider__disabled_at=None,
        resolved_at=None,
    )
    return alerts.select_related("provider")
