"""Two who set the same at once: one sets it, the other changes it or is told in words."""

import pytest
from django.core.exceptions import ValidationError

from console.models import AuditEvent
from tests.usage.test_removals import EURO, meanwhile
from usage.models import ModelGroup, RateLimit, SpendLimit, TierPlace, Webhook
from usage.rate_limits import (
    promote_organizations,
    put_on_tier,
    remove_rate_limit,
    set_model_group,
    set_rate_limit,
    set_tier,
)
from usage.spend_limits import remove_spend_limit, set_spend_limit
from usage.webhooks import create_webhook

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_spend_limit(organization):
    where = {"organization": organization, "scope": "organization", "scope_id": organization.pk, "period": "month"}
    first, second = meanwhile(
        lambda: set_spend_limit(**where, amount_nanos=5 * EURO), lambda: set_spend_limit(**where, amount_nanos=6 * EURO)
    )
    assert first == second == SpendLimit.objects.get()
    assert SpendLimit.objects.get().amount_nanos == 6 * EURO
    actions = (
        AuditEvent.objects.filter(action__startswith="spend_limit").order_by("pk").values_list("action", flat=True)
    )
    assert list(actions) == ["spend_limit.set", "spend_limit.changed"]


def test_a_rate_limit_and_its_group(organization):
    where = {"organization": organization, "scope": "organization", "scope_id": organization.pk}
    groups = [
        lambda: set_model_group(organization=organization, name="small", patterns=["a"]),
        lambda: set_model_group(organization=organization, name="small", patterns=["b"]),
    ]
    first, second = meanwhile(*groups)
    assert first == second == ModelGroup.objects.get()
    assert ModelGroup.objects.get().patterns == ["b"]
    first, second = meanwhile(
        lambda: set_rate_limit(**where, group=first, requests_per_minute=5),
        lambda: set_rate_limit(**where, group=first, output_tokens_per_minute=6),
    )
    limit = RateLimit.objects.get()
    assert first == second == limit
    assert (limit.requests_per_minute, limit.output_tokens_per_minute) == (5, 6)
    meanwhile(lambda: remove_rate_limit(limit=limit), lambda: remove_rate_limit(limit=limit))
    assert AuditEvent.objects.filter(action="rate_limit.removed").count() == 1


def test_a_webhook(organization, alice):
    def create():
        return create_webhook(organization=organization, url="https://hooks.example.org/", actor=alice)

    def again():
        with pytest.raises(ValidationError, match="already a webhook"):
            create()

    meanwhile(create, again)
    assert Webhook.objects.count() == 1


def test_a_tier_and_the_limit_that_it_brings(organization, alice):
    rates = [{"requests_per_minute": 10}]
    fields = {"rates": rates, "monthly_cap_nanos": EURO, "after_spent_nanos": 0}
    first, second = (set_tier(ladder="own", step=i, slug=name, name=name, **fields) for i, name in ((1, "a"), (2, "b")))
    meanwhile(
        lambda: put_on_tier(organization=organization, tier=first),
        lambda: put_on_tier(organization=organization, tier=first),
    )
    assert TierPlace.objects.get().tier == first
    limit = SpendLimit.objects.get()
    meanwhile(
        promote_organizations,
        lambda: put_on_tier(organization=organization, tier=first),
    )
    assert TierPlace.objects.get().tier == first
    # The cap takes the place of what is removed, whoever sets it at that moment.
    where = {"organization": organization, "scope": "organization", "scope_id": organization.pk, "period": "month"}
    meanwhile(lambda: remove_spend_limit(limit=limit), lambda: set_spend_limit(**where, amount_nanos=7))
    assert SpendLimit.objects.get().amount_nanos == 7
    meanwhile(lambda: set_spend_limit(**where, amount_nanos=8), lambda: remove_spend_limit(limit=limit))
    assert SpendLimit.objects.get().amount_nanos == EURO
