"""The entry of this machine's own model among the providers. The server alone writes it; pages show it."""

from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from console import audit
from console.revision import bump_revision
from providers.local import CONTEXT_WINDOW, MODEL
from providers.models import Price, Provider, ProviderModel

NAME = "On this machine"


@transaction.atomic
def register_local_model(*, organization, url):
    """
    Offer the model that listens at ``url`` to ``organization``, at a price of zero; without a ``url``, withdraw it.

    Repeating it changes nothing.
    """
    provider = Provider.objects.current().filter(organization=organization, kind="local").first()
    if provider is None:
        if url:
            _record(_create(organization, f"{url}/v1"), "provider.created")
    elif not url:
        if provider.disabled_at is None:
            provider.disabled_at = timezone.now()
            provider.save(update_fields=["disabled_at"])
            _record(provider, "provider.disabled")
    elif provider.disabled_at or provider.base_url != f"{url}/v1":
        action = "provider.enabled" if provider.disabled_at else "provider.updated"
        provider.base_url, provider.disabled_at, provider.renewed_at = f"{url}/v1", None, timezone.now()
        provider.save(update_fields=["base_url", "disabled_at", "renewed_at"])
        _record(provider, action)


def _create(organization, base_url):
    taken = set(organization.providers.current().values_list("name", flat=True))
    name = next(name for name in (NAME, *(f"{NAME} {n}" for n in range(2, len(taken) + 3))) if name not in taken)
    provider = Provider(organization=organization, kind="local", name=name, base_url=base_url)
    provider.full_clean()
    provider.save()
    # Where a person has given the name to another model, that one keeps it.
    if not organization.models.current().filter(public_name=MODEL).exists():
        model = ProviderModel(
            organization=organization,
            provider=provider,
            name=MODEL,
            public_name=MODEL,
            context_window=CONTEXT_WINDOW,
            series=organization.models.count() % 9 + 1,
        )
        model.full_clean()
        model.save()
        # Known to cost nothing, unlike a model whose price nobody has entered.
        Price.objects.create(provider_model=model, input_per_mtok=Decimal(0), output_per_mtok=Decimal(0))
    return provider


def _record(provider, action):
    audit.record(
        organization=provider.organization, actor=None, action=action, target=provider, base_url=provider.base_url
    )
    bump_revision()
