"""Providers that bill in another currency: what their prices are in, and the rates that make costs of them."""

import datetime
import re
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from console.models import AuditEvent
from console.revision import current_revision
from providers import queries, services
from providers.discovery import RemoteModel
from providers.exchange_rates import current_rates, rates_from, set_exchange_rate, withdraw_exchange_rate
from providers.models import ExchangeRate, Provider
from tests.factories import make_model, make_organization, make_price, make_provider
from tests.providers.test_catalog import make_entry

HTMX = {"HX-Request": "true"}


@pytest.fixture
def euros(organization):
    organization.currency = "EUR"
    organization.save()
    return organization


@pytest.fixture
def dollars(euros):
    """A provider of an organization that counts in euros, which bills in dollars."""
    return make_provider(euros, kind="anthropic", base_url="https://api.anthropic.com", name="Claude", currency="USD")


def set_rate(organization, rate="0.9231", from_currency="USD", **fields):
    fields = {"actor": None} | fields
    return set_exchange_rate(organization=organization, from_currency=from_currency, rate=Decimal(rate), **fields)


def past_rate(organization, rate, days, from_currency="USD"):
    return ExchangeRate.objects.create(
        organization=organization, from_currency=from_currency, rate=Decimal(rate),
        valid_from=timezone.now() - datetime.timedelta(days=days),
    )  # fmt: skip


def url(name, *more, **query):
    address = reverse(f"providers:{name}", args=["default", *more])
    return address + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")


def words(html):
    """The text of a page's main part, without markup."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split('id="main"')[-1]))
    return text.replace("\N{NO-BREAK SPACE}", " ")


# Currencies ------------------------------------------------------------------------------------------------------


def test_a_provider_bills_in_the_organizations_currency_where_nothing_else_is_said(euros, alice):
    provider = services.create_provider(
        organization=euros, kind="openai", name="Lab", base_url="https://llm.example.org/v1", actor=alice
    )
    model = make_model(provider)
    price = services.set_price(model=model, input_per_mtok=Decimal(1), output_per_mtok=Decimal(2), actor=alice)

    assert (provider.currency, price.currency) == ("EUR", "EUR")
    assert AuditEvent.objects.get(action="price.set").details["currency"] == "EUR"


def test_what_the_catalogue_knows_stays_in_its_currency_at_a_provider_of_that_currency(dollars, alice):
    make_entry()
    [model] = services.take_over_models(provider=dollars, models=[RemoteModel("claude-sonnet-9")], actor=alice)

    assert [(price.currency, price.input_per_mtok) for price in model.prices.all()] == [("USD", Decimal(3))]


def test_prices_stay_in_the_currency_that_they_were_set_in(dollars, alice):
    model = make_model(dollars)
    make_price(model)
    services.update_provider(provider=dollars, name="Claude", base_url=dollars.base_url, currency="GBP", actor=alice)
    services.set_price(model=model, input_per_mtok=Decimal(2), output_per_mtok=Decimal(9), actor=alice)

    assert [price.currency for price in model.prices.all()] == ["GBP", "USD"]
    change = AuditEvent.objects.get(action="provider.updated").details
    assert (change["before"]["currency"], change["after"]["currency"]) == ("USD", "GBP")


def test_what_is_no_currency_is_refused(euros, alice):
    fields = {"kind": "openai", "name": "Lab", "base_url": "https://llm.example.org/v1", "actor": alice}
    with pytest.raises(ValidationError) as refused:
        services.create_provider(organization=euros, currency="EU", **fields)
    assert "currency" in refused.value.error_dict
    with pytest.raises(ValidationError) as refused:
        set_rate(euros, from_currency="ABC")
    assert "from_currency" in refused.value.error_dict


# Rates -----------------------------------------------------------------------------------------------------------


def test_a_rate_is_set_with_its_source_and_tells_the_gateway(euros, alice):
    before = current_revision()
    rate = set_rate(euros, actor=alice, source="European Central Bank")

    assert current_rates(euros) == {"USD": rate}
    assert (rate.rate, rate.created_by, rate.source) == (Decimal("0.9231"), alice, "European Central Bank")
    assert current_revision() > before
    event = AuditEvent.objects.get(action="exchange_rate.set")
    assert (event.actor, event.details["rate"], event.target_uid) == (alice, "0.9231", rate.uid)
    assert str(rate) == f"USD → EUR from {timezone.now():%Y-%m-%d}"


@pytest.mark.parametrize("rate", ["0", "-1", "0.00000000001", "100000000", "NaN", "Infinity"])
def test_a_rate_is_a_positive_number_of_ten_decimals_at_most(euros, rate):
    with pytest.raises(ValidationError):
        set_rate(euros, rate)
    assert not ExchangeRate.objects.exists()


def test_there_is_no_rate_of_a_currency_to_itself(euros):
    with pytest.raises(ValidationError, match="own currency"):
        set_rate(euros, from_currency="EUR")


def test_a_rate_begins_now_or_later_and_only_one_at_a_moment(euros):
    tomorrow = timezone.now() + datetime.timedelta(days=1)
    with pytest.raises(ValidationError, match="now or later"):
        set_rate(euros, valid_from=timezone.now() - datetime.timedelta(hours=1))
    set_rate(euros, valid_from=tomorrow)
    with pytest.raises(ValidationError, match="Another rate begins"):
        set_rate(euros, "1", valid_from=tomorrow)
    set_rate(euros, "0.01", "JPY", valid_from=tomorrow)


def test_the_newest_rate_that_has_begun_is_the_one(euros):
    past_rate(euros, "1", 9)
    past_rate(euros, "2", 5)
    past_rate(euros, "0.01", 5, "JPY")
    past_rate(make_organization(currency="EUR"), "7", 1)
    coming = set_rate(euros, "3", valid_from=timezone.now() + datetime.timedelta(days=1))

    assert {code: rate.rate for code, rate in current_rates(euros).items()} == {"USD": 2, "JPY": Decimal("0.01")}
    found = rates_from(timezone.now()).filter(organization=euros, from_currency="USD")
    assert [rate.rate for rate in found] == [coming.rate, 2]
    found = rates_from(timezone.now() - datetime.timedelta(days=6)).filter(organization=euros, from_currency="USD")
    assert [rate.rate for rate in found] == [3, 2, 1]


def test_only_a_rate_that_has_not_begun_can_be_withdrawn(euros, alice):
    with pytest.raises(ValidationError, match="has begun"):
        withdraw_exchange_rate(exchange_rate=set_rate(euros), actor=alice)
    coming = set_rate(euros, valid_from=timezone.now() + datetime.timedelta(days=1))
    withdraw_exchange_rate(exchange_rate=coming, actor=alice)

    assert ExchangeRate.objects.count() == 1
    assert AuditEvent.objects.get(action="exchange_rate.withdrawn").target_uid == coming.uid


# The command -----------------------------------------------------------------------------------------------------


def test_the_command_sets_a_rate(euros, capsys):
    call_command("set_exchange_rate", "--from", "usd", "--rate", "0.92310", "--source", "Bank")

    rate = ExchangeRate.objects.get()
    assert capsys.readouterr().out.startswith("1 USD = 0.9231 EUR from ")
    assert (rate.organization, rate.from_currency, rate.rate, rate.source) == (euros, "USD", Decimal("0.9231"), "Bank")


def test_the_commands_moments_are_in_the_organizations_time_zone(euros):
    euros.time_zone = "Europe/Paris"
    euros.save()
    call_command("set_exchange_rate", "--from", "USD", "--rate", "1", "--valid-from", "2099-07-01T00:00")
    call_command("set_exchange_rate", "--from", "USD", "--rate", "1", "--valid-from", "2099-07-01T00:00Z")

    moments = sorted(rate.valid_from.isoformat() for rate in ExchangeRate.objects.all())
    assert moments == ["2099-06-30T22:00:00+00:00", "2099-07-01T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "USD", "--rate", "much"], "'much' is not a rate"),
        (["--from", "USD", "--rate", "0"], "greater than or equal to"),
        (["--from", "EUR", "--rate", "1"], "own currency"),
        (["--from", "USD", "--rate", "1", "--valid-from", "soon"], "'soon' is not a moment"),
        (["--from", "USD", "--rate", "1", "--valid-from", "2020-01-01"], "now or later"),
        (["--from", "USD", "--rate", "1", "--organization", "nobody"], "There is no organization 'nobody'"),
    ],
)
def test_the_command_says_what_is_wrong(euros, arguments, words):
    with pytest.raises(CommandError, match=words):
        call_command("set_exchange_rate", *arguments)
    assert not ExchangeRate.objects.exists()


def test_the_command_asks_which_organization_where_there_are_several(euros):
    make_organization()
    with pytest.raises(CommandError, match="Name the organization"):
        call_command("set_exchange_rate", "--from", "USD", "--rate", "1")


def test_a_provider_of_another_currency_is_added_by_command(euros):
    call_command("add_provider", "--kind", "anthropic", "--name", "Anthropic", "--currency", "usd")
    assert Provider.objects.get().currency == "USD"


# Pages -----------------------------------------------------------------------------------------------------------


def test_only_who_manages_the_organization_sees_and_sets_rates(bob_client, charlie_client, client, euros):
    coming = set_rate(euros, valid_from=timezone.now() + datetime.timedelta(days=1))
    addresses = [url("exchange_rate_list"), url("exchange_rate_create")]
    for address in addresses:
        assert bob_client.get(address).status_code == 403
        assert charlie_client.get(address).status_code == 404
        assert client.get(address).status_code == 302
    for sent in ((url("exchange_rate_create"), {"from_currency": "USD", "rate": "2"}),):
        assert bob_client.post(*sent).status_code == 403
        assert charlie_client.post(*sent).status_code == 404
    assert bob_client.post(url("exchange_rate_withdraw", coming.uid)).status_code == 403
    assert charlie_client.post(url("exchange_rate_withdraw", coming.uid)).status_code == 404
    assert ExchangeRate.objects.get() == coming


def test_a_rate_of_another_organization_cannot_be_withdrawn_here(alice_client, euros):
    theirs = set_rate(make_organization(currency="EUR"), valid_from=timezone.now() + datetime.timedelta(days=1))
    assert alice_client.post(url("exchange_rate_withdraw", theirs.uid)).status_code == 404


def test_the_list_shows_what_is_valid_what_comes_and_what_was(alice_client, alice, euros, dollars):
    make_price(make_model(dollars))
    past_rate(euros, "0.9", 5)
    past_rate(euros, "0.0000187654", 3, "IDR")
    set_rate(euros, actor=alice, source="European Central Bank")
    set_rate(euros, "0.95", valid_from=timezone.now() + datetime.timedelta(days=1))

    text = words(alice_client.get(url("exchange_rate_list")).text)

    assert "1 USD = 0.95 EUR Coming Withdraw" in text
    assert re.search(r"1 USD = 0\.9231 EUR Valid now .{5,40} European Central Bank, Alice\S* 1 ", text), text
    assert "1 USD = 0.9 EUR Past" in text
    assert "1 IDR = 0.0000187654 EUR Valid now" in text
    assert "There is no exchange rate" not in text


def test_a_currency_without_a_rate_is_named_with_what_mends_it(alice_client, euros, dollars):
    model = make_model(dollars)
    make_price(model)

    text = words(alice_client.get(url("exchange_rate_list")).text)
    assert "There is no exchange rate from USD to EUR." in text
    assert "./comptoir manage set_exchange_rate --from USD --rate RATE --organization default" in text
    for address in (
        url("provider_detail", dollars.uid),
        url("model_detail", dollars.uid, model.uid),
        url("price_create", dollars.uid, model.uid),
    ):
        page = alice_client.get(address).text
        assert "There is no exchange rate from USD to EUR." in words(page)
        assert url("exchange_rate_create", **{"from": "USD"}) in page
    assert "Not priced no rate for USD" in words(alice_client.get(url("provider_detail", dollars.uid)).text)
    assert "1 not priced" in words(alice_client.get(url("provider_list")).text)

    set_rate(euros)

    text = words(alice_client.get(url("provider_detail", dollars.uid)).text)
    assert "There is no exchange rate" not in text
    assert "$3.00 $15.00" in text
    assert "Prices in USD, 1 USD = 0.9231 EUR" in text.replace(" ,", ",")
    assert "not priced" not in words(alice_client.get(url("provider_list")).text)
    text = words(alice_client.get(url("model_detail", dollars.uid, model.uid)).text)
    assert "A cost is converted at 1 USD = 0.9231 EUR." in text
    text = words(alice_client.get(url("price_create", dollars.uid, model.uid)).text)
    assert "Prices are in USD, costs in EUR: now 1 USD = 0.9231 EUR." in text


def test_a_rate_that_only_begins_tomorrow_prices_nothing_today(euros, dollars):
    make_price(make_model(dollars))
    set_rate(euros, valid_from=timezone.now() + datetime.timedelta(days=1))

    assert queries.providers_for_list(euros)[0].unpriced_count == 1
    assert queries.models_with_prices(dollars)[0].lacks_rate


def test_a_rate_is_set_on_the_page(alice_client, alice, euros, dollars):
    make_price(make_model(dollars))
    form = alice_client.get(url("exchange_rate_create")).text
    assert re.search(r'<option value="USD" selected>USD – US Dollar</option>', form)
    assert 'value="EUR"' not in form

    fields = {"from_currency": "USD", "rate": "0,9231", "source": "Bank", "valid_from": ""}
    response = alice_client.post(url("exchange_rate_create"), fields, headers=HTMX)

    assert response.headers["HX-Trigger"] == "provider-changed"
    rate = ExchangeRate.objects.get()
    assert (rate.rate, rate.source, rate.created_by) == (Decimal("0.9231"), "Bank", alice)
    again = alice_client.post(url("exchange_rate_create"), fields | {"rate": "0.95"})
    assert again.status_code == 302
    assert again.url == url("exchange_rate_list")
    assert ExchangeRate.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rate": "0"}, "A rate is more than zero."),
        ({"rate": ""}, "This field is required."),
        ({"rate": "1,083"}, "Write 1083 or 1.083."),
        ({"rate": "much"}, "Write an amount such as"),
        ({"rate": "1", "from_currency": "EUR"}, "Select a valid choice."),
        ({"rate": "1", "valid_from": "2020-01-01T00:00"}, "A rate begins now or later"),
    ],
)
def test_what_is_wrong_with_a_rate_stands_beside_its_field(alice_client, euros, fields, sentence):
    response = alice_client.post(url("exchange_rate_create"), {"from_currency": "USD"} | fields)

    assert response.status_code == 422
    assert sentence in words(response.text)
    assert not ExchangeRate.objects.exists()


def test_a_coming_rate_is_withdrawn_on_the_page_and_one_that_has_begun_is_not(alice_client, euros):
    coming = set_rate(euros, valid_from=timezone.now() + datetime.timedelta(days=1))
    alice_client.post(url("exchange_rate_withdraw", coming.uid))
    assert not ExchangeRate.objects.exists()

    begun = set_rate(euros)
    response = alice_client.post(url("exchange_rate_withdraw", begun.uid), follow=True)
    assert "This rate has begun. Set another one instead." in response.text
    assert ExchangeRate.objects.get() == begun


def test_the_list_costs_the_same_for_many(alice_client, euros, django_assert_max_num_queries):
    for number in range(60):
        past_rate(euros, number + 1, number, ("USD", "JPY", "GBP")[number % 3])
        make_price(make_model(make_provider(euros, currency="CHF")))
    alice_client.get(url("exchange_rate_list"))
    with django_assert_max_num_queries(12):
        page = alice_client.get(url("exchange_rate_list")).text
    assert page.count('<th scope="row">') == 50
    assert "1 of 2" in words(page)
    assert words(alice_client.get(url("exchange_rate_list", page=2)).text).count("Past") == 10


def test_an_organization_without_foreign_prices_needs_none(alice_client, organization):
    make_price(make_model(make_provider(organization)))
    assert "None is needed as long as every provider bills in USD." in words(
        alice_client.get(url("exchange_rate_list")).text
    )


# The pages of providers ------------------------------------------------------------------------------------------


def test_a_provider_is_added_with_the_currency_that_it_bills_in(alice_client, euros):
    form = alice_client.get(url("provider_create", kind="anthropic")).text
    assert '<option value="EUR" selected>' in form
    assert "Prices in EUR, those of the catalogue in USD" in words(form)
    fields = {"kind": "anthropic", "name": "Claude", "credential": "sk-ant-0123456789", "currency": "USD"}
    alice_client.post(url("provider_create"), fields)
    provider = Provider.objects.get()
    assert provider.currency == "USD"

    page = alice_client.get(url("model_create", provider.uid)).text
    assert "What the catalogue has a price for gets that price" in words(page)
    fields = {"name": "Claude", "base_url": provider.base_url, "currency": "EUR"}
    alice_client.post(url("provider_edit", provider.uid), fields)
    provider.refresh_from_db()
    assert provider.currency == "EUR"
    page = alice_client.get(url("model_create", provider.uid)).text
    assert "The catalogue’s prices are in USD and this provider’s in EUR" in words(page)


def test_the_price_form_writes_the_providers_currency_and_the_history_each_its_own(alice_client, euros, dollars):
    model = make_model(dollars)
    make_price(model, input="3", output="15")
    dollars.currency = "GBP"
    dollars.save()

    page = alice_client.get(url("price_create", dollars.uid, model.uid)).text

    assert "$3.00 $15.00" in words(page)
    assert page.count("£") >= 10
    # Three dollars are no beginning for an amount in pounds.
    assert 'value="3"' not in page
