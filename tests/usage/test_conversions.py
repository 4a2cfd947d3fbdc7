"""Costs of what is priced in another currency: written with their rate, explained with it, changed by no other."""

import datetime
import random
from collections import Counter
from decimal import Decimal

import pytest
from django.utils import timezone

from gateway.calls import Call, Caller
from gateway.metering import Meter
from gateway.snapshot import load
from providers.exchange_rates import set_exchange_rate
from providers.formats import chat_completions
from providers.models import ExchangeRate
from providers.services import set_price
from providers.tokens import TokenUsage
from tests.factories import make_model, make_price, make_provider, make_request_log
from tests.gateway.records import opened
from tests.usage.test_requests import detail_url, words
from usage import explain
from usage.costs import EXCHANGE_SCALE, cost_of, rates_of
from usage.models import RequestLog
from usage.records import Progress, Record, interrupted, write_batch
from usage.rollups import disagreements

THIN = "\N{NARROW NO-BREAK SPACE}"
HALF = EXCHANGE_SCALE // 2


@pytest.fixture
def abroad(organization):
    """A model whose provider bills in pounds; the organization counts in dollars."""
    return make_model(make_provider(organization, name="Abroad", currency="GBP"), "model-abroad")


def past_rate(organization, rate, day, from_currency="GBP"):
    moment = datetime.datetime(2026, 5, day, tzinfo=datetime.UTC)
    return ExchangeRate.objects.create(
        organization=organization, from_currency=from_currency, rate=Decimal(rate), valid_from=moment
    )


def converted(workspace, model, exchange=HALF, **fields):
    price = make_price(model)
    price.refresh_from_db()
    fields = {"input_tokens": 1_284, "output_tokens": 812} | fields
    log = make_request_log(workspace, provider_model=model, price=price, exchange_rate=exchange, **fields)
    log.cost_nanos = cost_of(log, rates_of(price, exchange=exchange))
    log.save()
    return log


# Written ---------------------------------------------------------------------------------------------------------


def test_a_request_that_was_interrupted_costs_what_its_rate_was_at_admission(workspace, abroad):
    price = make_price(abroad, input="3", output="15")
    past_rate(workspace.organization, "7", 1)
    row = interrupted(opened(workspace, price_id=price.pk, exchange_rate=HALF)[1], Progress(1000, 100, 10, 5))
    write_batch([row])

    log = RequestLog.objects.get(pk=row.opened.id)
    assert (log.cost_nanos, log.exchange_rate) == (450_000 // 2, HALF)
    assert not disagreements()


def test_a_request_that_was_interrupted_elsewhere_costs_what_the_rate_is_there(workspace, abroad, organization):
    home, there = make_price(make_model(make_provider(organization))), make_price(abroad)
    first = opened(workspace, price_id=home.pk)[1]
    progress = Progress(
        1000, 100, 10, 5, provider_id=abroad.provider_id, provider_model_id=abroad.pk, price_id=there.pk,
        exchange_rate=HALF,
    )  # fmt: skip
    write_batch([row := interrupted(first, progress)])
    log = RequestLog.objects.get(pk=row.opened.id)
    assert (log.cost_nanos, log.exchange_rate, log.price) == (225_000, HALF, there)

    first = opened(workspace, price_id=there.pk, exchange_rate=HALF)[1]
    progress = Progress(1000, 100, 10, 5, provider_id=home.provider_model.provider_id, price_id=home.pk)
    write_batch([row := interrupted(first, progress)])
    log = RequestLog.objects.get(pk=row.opened.id)
    assert (log.cost_nanos, log.exchange_rate, log.price) == (450_000, None, home)


# In memory -------------------------------------------------------------------------------------------------------


def test_targets_have_the_rate_of_their_moment(workspace, abroad, organization):
    make_price(abroad)
    make_price(make_model(make_provider(organization), "home"))
    make_price(make_model(make_provider(organization, currency="SEK"), "no-rate"))
    past_rate(organization, "9", 1)
    now = timezone.now()
    current = ExchangeRate.objects.create(
        organization=organization, from_currency="GBP", rate=Decimal("1.25"),
        valid_from=now - datetime.timedelta(minutes=30),
    )  # fmt: skip
    coming = set_exchange_rate(
        organization=organization, from_currency="GBP", rate=Decimal("1.5"), actor=None,
        valid_from=now + datetime.timedelta(days=1),
    )  # fmt: skip
    routes = load(1).routes[organization.pk]

    def exchange(name, moment):
        rates = routes[name].targets[0].rates_at(moment.timestamp())
        return rates and rates.exchange

    assert exchange("model-abroad", current.valid_from - datetime.timedelta(minutes=1)) == 9 * EXCHANGE_SCALE
    assert exchange("model-abroad", now) == 12_500_000_000
    assert exchange("model-abroad", coming.valid_from) == 15_000_000_000
    assert exchange("home", now) is None
    assert routes["home"].targets[0].rates_at(now.timestamp())
    assert routes["no-rate"].targets[0].rates_at(now.timestamp()) is None


def test_rates_of_years_do_not_burden_the_snapshot(abroad, organization):
    make_price(abroad)
    for day in range(1, 30):
        past_rate(organization, day, day)
    [target] = load(1).routes[organization.pk]["model-abroad"].targets
    assert [rates and rates.exchange for _since, rates in target.prices] == [29 * EXCHANGE_SCALE, None]


def admitted(workspace, target):
    """A stream that has begun, with the price and the rate of this moment."""
    caller = Caller(workspace.organization_id, "org_1", workspace.pk, "wrkspc_1", None, None, "api")
    call = Call(format=chat_completions, caller=caller, fields={}, model="model-abroad", stream=True)
    meter = Meter(call, lambda call: 100, 100)
    meter.ask(target, target.rates_at(call.received_at))
    meter.dispatch()
    return meter, call.opened(meter.target, meter.rates, 100)


def test_what_changes_under_a_thousand_streams_changes_none_of_them(workspace, organization, abroad):
    make_price(abroad, input="1", output="2")
    past_rate(organization, "0.5", 1)
    streams, expected = [], {}
    for step in range(1, 5):
        [target] = load(step).routes[organization.pk]["model-abroad"].targets
        streams += [admitted(workspace, target) for _ in range(250)]
        rates = streams[-1][0].rates
        expected[rates.price_id, rates.exchange] = round((100 * step + 10 * 2 * step) * 1000 * step / 2)
        set_price(model=abroad, input_per_mtok=Decimal(step + 1), output_per_mtok=Decimal(2 * step + 2), actor=None)
        rate = Decimal(step + 1) / 2
        set_exchange_rate(organization=organization, from_currency="GBP", rate=rate, actor=None)
    random.Random(7).shuffle(streams)
    for meter, _opened in streams:
        meter.saw_usage(TokenUsage(100, output_tokens=10))
        meter.completed()
    write_batch([Record(opened, meter.closed()) for meter, opened in streams])

    found = Counter(RequestLog.objects.values_list("price_id", "exchange_rate", "cost_nanos"))
    assert found == {(*fixed, nanos): 250 for fixed, nanos in expected.items()}
    assert len(expected) == 4
    assert all(explain.cost(log).agrees for log in RequestLog.objects.select_related("price", "organization")[::50])
    assert not disagreements()


# Explained -------------------------------------------------------------------------------------------------------


def text_of(client, log):
    return words(client.get(detail_url(log)).text).replace(THIN, " ").replace("\N{NO-BREAK SPACE}", " ")


def test_the_rate_stands_among_the_terms(alice_client, workspace, organization, abroad):
    past_rate(organization, "1.0832", 3)
    log = converted(workspace, abroad, 10_832_000_000)

    text = text_of(alice_client, log)

    assert "GBP per million GBP" in text
    assert "Input, not cached 1,284 × 3.00 0.003 852 000" in text
    assert "Sum 2,096 0.016 032 000" in text
    assert "USD for one GBP × 1.0832" in text
    assert log.cost_nanos == 17_365_862
    assert "Cost, rounded once to 10⁻⁹ $0.01 7 365 862" in text
    assert "Converted at the exchange rate valid from" in text
    assert "do not come to what was charged" not in text


def test_a_later_rate_changes_nothing_of_what_was(alice_client, workspace, organization, abroad):
    past_rate(organization, "0.5", 3)
    log = converted(workspace, abroad)
    before = text_of(alice_client, log)

    set_exchange_rate(organization=organization, from_currency="GBP", rate=Decimal(7), actor=None)
    assert text_of(alice_client, log) == before
    abroad.provider.currency = "JPY"
    abroad.provider.save()
    assert text_of(alice_client, log) == before
    log.refresh_from_db()
    assert (log.cost_nanos, log.exchange_rate) == (16_032_000 // 2, HALF)


def test_a_rate_that_cannot_be_found_any_more_is_still_shown(alice_client, workspace, abroad):
    text = text_of(alice_client, converted(workspace, abroad))
    assert "USD for one GBP × 0.5 " in text
    assert "Converted at" not in text


def test_a_request_whose_currency_had_no_rate_says_so_and_not_that_it_had_no_price(
    alice_client, bob_client, workspace, abroad
):
    make_price(abroad)
    log = make_request_log(workspace, provider_model=abroad, cost_nanos=None)

    text = text_of(alice_client, log)

    assert "not priced there was no exchange rate" in text
    assert "The model is priced in GBP, and there was no exchange rate from it to USD" in text
    assert "Set exchange rates" in text
    assert "Set exchange rates" not in text_of(bob_client, log)
    home = make_request_log(workspace, provider_model=make_model(abroad.provider), cost_nanos=None)
    assert "The model had no price when the request was made" in text_of(alice_client, home)


def test_a_request_in_the_organizations_currency_shows_no_rate(alice_client, workspace, organization):
    log = converted(workspace, make_model(make_provider(organization)), None)

    text = text_of(alice_client, log)

    assert "USD per million USD" in text
    assert "for one" not in text
    assert "Converted" not in text
