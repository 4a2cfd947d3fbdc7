"""What becomes of a provider's alert: of failures and answers that were got with what it was before, nothing."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway.alerts import Alerts
from providers import services
from providers.errors import OwnAccount
from providers.models import ProviderAlert
from tests.factories import make_provider

pytestmark = pytest.mark.django_db(transaction=True)
WRONG_KEY = OwnAccount("Wrong key.", status=401)
FORBIDDEN = OwnAccount("Not this model.", status=403)


@pytest.fixture
def provider(organization):
    return make_provider(organization, credential="sk-first-0123456789")


def target_of(provider, model=1):
    return SimpleNamespace(provider_id=provider.pk, provider_model_id=model, renewed_at=provider.renewed_at)


def meet(*met):
    """Let a process meet pairs of a target and its error, or ``None`` for an answer, and end."""
    open_alerts = ProviderAlert.objects.filter(resolved_at=None)
    alerts = Alerts(
        SimpleNamespace(current=SimpleNamespace(alerting=set(open_alerts.values_list("provider", flat=True))))
    )

    async def run():
        alerts.start()
        for target, error in met:
            alerts.failed(target, error) if error else alerts.succeeded(target)
        await alerts.stop()

    asyncio.run(run())
    return list(open_alerts.values_list("kind", "count"))


def test_a_refused_account_alerts_until_it_answers(provider):
    target = target_of(provider)
    assert meet((target, WRONG_KEY), (target, WRONG_KEY)) == [("credential", 2)]
    assert meet((target, WRONG_KEY)) == [("credential", 3)]
    assert meet((target, None)) == []


def test_what_is_refused_with_the_old_credential_says_nothing_of_the_new_one(provider, alice):
    before = target_of(provider)
    services.set_credential(provider=provider, credential="sk-another-0123456789", actor=alice)
    assert meet((before, WRONG_KEY)) == []
    assert meet((target_of(provider), WRONG_KEY)) == [("credential", 1)]
    # Nor does it count on in the alert of the new one.
    assert meet((before, WRONG_KEY)) == [("credential", 1)]


def test_an_answer_to_the_old_credential_takes_no_alert_of_the_new_one_back(provider, alice):
    before = target_of(provider)
    services.set_credential(provider=provider, credential="sk-another-0123456789", actor=alice)
    meet((target_of(provider), WRONG_KEY))
    assert meet((before, None)) == [("credential", 1)]
    assert meet((target_of(provider), None)) == []


def test_a_model_that_the_old_credential_might_not_use_is_not_waited_for(provider, alice):
    one, other = target_of(provider, 1), target_of(provider, 2)
    alerts = Alerts(SimpleNamespace(current=SimpleNamespace(alerting={provider.pk})))
    alerts.failed(one, FORBIDDEN)
    alerts.succeeded(other)
    assert not alerts._recovered
    services.set_credential(provider=provider, credential="sk-another-0123456789", actor=alice)
    alerts.succeeded(target_of(provider, 2))
    assert len(alerts._recovered) == 1
