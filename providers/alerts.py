"""Trouble with the accounts that this server has at providers: opened by failures, closed by the next success."""

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from console import audit
from console.revision import bump_revision
from providers.models import Provider, ProviderAlert


@transaction.atomic
def raise_alert(*, provider_id, kind, message, count=1):
    """Open an alert of ``kind``, or count on in the one that is open. A provider that is gone has none."""
    now = timezone.now()
    is_open = ProviderAlert.objects.filter(provider=provider_id, kind=kind, resolved_at=None)
    if is_open.update(count=F("count") + count, last_at=now, message=message[:500]):
        return
    provider = Provider.objects.current().filter(pk=provider_id).first()
    if provider is None:
        return
    try:
        with transaction.atomic():
            provider.alerts.create(kind=kind, message=message[:500], count=count, first_at=now, last_at=now)
    except IntegrityError:
        # Another process was quicker.
        is_open.update(count=F("count") + count, last_at=now)
        return
    audit.record(organization=provider.organization, actor=None, action="provider.alerted", target=provider, kind=kind)
    bump_revision()


@transaction.atomic
def resolve_alerts(*, provider_id):
    """Close every open alert of a provider, whose account works again; without one nothing changes."""
    if ProviderAlert.objects.filter(provider=provider_id, resolved_at=None).update(resolved_at=timezone.now()):
        provider = Provider.objects.get(pk=provider_id)
        audit.record(organization=provider.organization, actor=None, action="provider.recovered", target=provider)
        bump_revision()


def close_alerts(provider):
    """Take every open alert of a provider back, whose credential is another one now; the caller audits that."""
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
