"""Providers that bill in other currencies than the organization counts in, over real sockets."""

import pytest

from tests.api import OPENAI, Api
from tests.upstream import Script

MAKE = """
from console.models import Organization
from decimal import Decimal
from providers import routes, services
from providers.discovery import RemoteModel
from providers.exchange_rates import set_exchange_rate
organization = Organization.objects.get()
def make(name, currency):
    provider = services.create_provider(
        organization=organization, kind="openai", name=name, base_url="{url}", credential="sk-upstream",
        currency=currency, actor=None, allow_private=True,
    )
    model, = services.take_over_models(provider=provider, models=[RemoteModel(name)], actor=None, priced=False)
    services.set_price(model=model, input_per_mtok=Decimal(3), output_per_mtok=Decimal(15), actor=None)
    return model
home, away, nowhere = make("fx-home", ""), make("fx-away", "CHF"), make("fx-nowhere", "NOK")
set_exchange_rate(organization=organization, from_currency="CHF", rate=Decimal("1.25"), actor=None)
targets = [(home, 1), (away, 1)]
routes.create_route(organization=organization, name="fx-abroad", strategy="ordered", targets=targets, actor=None)
"""
USED = Script(input_tokens=100, chunks=8)
IN_FRANCS = 100 * 3000 + 8 * 15_000


@pytest.fixture(scope="module")
def api(running_upstream, shared_server):
    shared_server.manage("shell", "-v", "0", "-c", MAKE.format(url=running_upstream.url))
    api = Api(shared_server, shared_server.api_key, OPENAI)
    yield api
    api.close()


def cost_and_rate(api, answer):
    row = api.row(answer)
    return row["cost_nanos"], row["exchange_rate"]


def test_a_cost_is_in_the_organizations_currency_and_keeps_its_rate_when_that_changes(api, upstream):
    upstream.play("fx-away", USED, Script(input_tokens=100, chunks=8, delay=0.4), USED)
    before = api.ask("fx-away")
    assert cost_and_rate(api, before) == (IN_FRANCS * 5 // 4, 12_500_000_000)

    with api.streaming("fx-away", stream_options={"include_usage": True}) as during:
        api.server.manage("set_exchange_rate", "--from", "CHF", "--rate", "2")
        during.read()
    assert cost_and_rate(api, during) == (IN_FRANCS * 5 // 4, 12_500_000_000)

    assert cost_and_rate(api, api.ask("fx-away")) == (IN_FRANCS * 2, 20_000_000_000)
    assert cost_and_rate(api, before) == (IN_FRANCS * 5 // 4, 12_500_000_000)


def test_the_rate_is_that_of_who_answered(api, upstream):
    upstream.play("fx-home", USED, Script.refuse(500))
    upstream.play("fx-away", USED)
    assert cost_and_rate(api, api.ask("fx-abroad")) == (IN_FRANCS, None)

    answer = api.ask("fx-abroad")

    row = api.row(answer)
    assert row["upstream_model"] == "fx-away"
    assert (row["cost_nanos"], row["exchange_rate"]) == (IN_FRANCS * 2, 20_000_000_000)


def test_without_a_rate_it_is_not_priced_and_not_free(api, upstream):
    upstream.play("fx-nowhere", USED)
    row = api.row(api.ask("fx-nowhere"))
    assert (row["cost_nanos"], row["exchange_rate"], row["price_id"]) == (None, None, None)
    assert (row["input_tokens"], row["output_tokens"]) == (100, 8)
