"""A model's own page: what it can do, what it costs whole, and what the catalogue says of both."""

import re
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from console.models import AuditEvent
from console.revision import current_revision
from providers import services
from providers.models import ProviderModel
from providers.rates import validate_tiers
from tests.factories import make_model, make_price, make_provider
from tests.providers.test_catalog import make_entry

HTMX = {"HX-Request": "true"}


@pytest.fixture
def provider(organization):
    return make_provider(organization, kind="anthropic", base_url="https://api.anthropic.com", name="Claude")


@pytest.fixture
def model(provider):
    return make_model(provider, "claude-sonnet-9", catalog_model=make_entry())


def url(name, model):
    return reverse(f"providers:{name}", args=["default", model.provider.uid, model.uid])


def words(html):
    """The text of a page's main part, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split('id="main"')[-1]))


def test_only_who_manages_the_organization_sees_it(bob_client, charlie_client, client, model):
    for name in ("model_detail", "model_edit"):
        assert bob_client.get(url(name, model)).status_code == 403
        assert charlie_client.get(url(name, model)).status_code == 404
        assert client.get(url(name, model)).status_code == 302
    assert bob_client.post(url("price_from_catalog", model)).status_code == 403
    assert charlie_client.post(url("price_from_catalog", model)).status_code == 404
    assert not model.prices.exists()


def test_the_page_shows_what_is_known(alice_client, model):
    services.describe_model(
        model=model, context_window=200_000, max_output_tokens=64_000, capabilities=["tools", "chat"],
        lifecycle="deprecated", catalog_name="claude-sonnet-9", follows_catalog=True, actor=None,
    )  # fmt: skip
    services.use_catalog_price(model=model, actor=None)

    text = words(alice_client.get(url("model_detail", model)).text)

    assert "Context window 200,000" in text
    assert "Longest answer 64,000" in text
    assert "Type Language model" in text
    assert "Lifecycle Deprecated" in text
    assert "claude-sonnet-9 , followed" in text
    assert "Chat Tools" in text
    assert "Plain $3.00 $15.00 $0.30 – –" in text
    assert "Above 200,000 tokens of input $6.00 $22.50 – – –" in text
    assert "In a batch $1.50 – – – –" in text
    assert "From the catalogue: genai-prices 0.0.1." in text
    assert "one of your own" not in text


def test_a_model_of_which_nothing_is_known_says_so(alice_client, provider):
    text = words(alice_client.get(url("model_detail", make_model(provider))).text)
    assert "Context window Not known" in text
    assert "it may be asked for anything" in text
    assert "Not priced Its tokens are counted and have no cost. That is not the same as free." in text


def test_the_page_takes_a_fixed_number_of_queries(alice_client, model, django_assert_max_num_queries):
    for day in range(1, 6):
        make_price(model, valid_from=f"2026-0{day}-01T00:00:00Z")
    with django_assert_max_num_queries(10):
        alice_client.get(url("model_detail", model))


def test_htmx_gets_what_changes_alone(alice_client, model):
    html = alice_client.get(url("model_detail", model), headers=HTMX).text
    assert "<h1>" in html
    assert "<html" not in html


# Describing --------------------------------------------------------------------------------------------------------


def test_what_a_model_can_do_is_changed(alice_client, model):
    before = current_revision()
    fields = {
        "context_window": "1000", "max_output_tokens": "", "capabilities": ["reasoning", "embeddings"],
        "lifecycle": "retired", "catalog_name": "", "follows_catalog": "on",
    }  # fmt: skip
    response = alice_client.post(url("model_edit", model), fields, headers=HTMX)

    assert response["HX-Trigger"] == "provider-changed"
    model.refresh_from_db()
    assert (model.context_window, model.max_output_tokens, model.lifecycle) == (1000, None, "retired")
    assert model.capabilities == ["embeddings", "reasoning"]
    assert (model.catalog_model, model.follows_catalog) == (None, False)
    assert current_revision() > before
    assert AuditEvent.objects.get(action="model.described").details["capabilities"] == ["embeddings", "reasoning"]


def test_an_entry_of_the_catalogue_is_chosen_by_name(alice_client, organization):
    entry = make_entry("gpt-9", "openai")
    azure = make_provider(organization, kind="azure", base_url="https://acme.openai.azure.com/openai/v1")
    deployment = make_model(azure, "our-deployment")
    page = alice_client.get(url("model_edit", deployment)).text
    assert '<option value="gpt-9">' in page
    fields = {"lifecycle": "active", "catalog_name": "gpt-9", "follows_catalog": "on"}

    alice_client.post(url("model_edit", deployment), fields)

    deployment.refresh_from_db()
    assert (deployment.catalog_model, deployment.follows_catalog) == (entry, True)


@pytest.mark.parametrize(
    "fields",
    [{"catalog_name": "nobody"}, {"context_window": "0"}, {"capabilities": ["flying"]}, {"lifecycle": "odd"}],
)
def test_what_cannot_be_said_of_a_model_is_refused(alice_client, model, fields):
    response = alice_client.post(url("model_edit", model), {"lifecycle": "active"} | fields)
    assert response.status_code == 422
    assert ProviderModel.objects.get(pk=model.pk).catalog_model == model.catalog_model


def test_an_entry_of_another_seller_is_none_of_this_model(model):
    make_entry("gpt-9", "openai")
    with pytest.raises(ValidationError):
        services.describe_model(
            model=model, context_window=None, max_output_tokens=None, capabilities=[], lifecycle="active",
            catalog_name="gpt-9", follows_catalog=False, actor=None,
        )  # fmt: skip


# Prices ------------------------------------------------------------------------------------------------------------


def price_fields(**fields):
    return {"input_per_mtok": "3", "output_per_mtok": "15"} | fields


def test_a_price_is_set_with_tiers_and_batch_rates(alice_client, model):
    fields = price_fields(
        batch_input_per_mtok="1.5", tier0_above="200000", tier0_input="6", tier0_output="22,5", tier0_batch_output="11"
    )
    assert alice_client.post(url("price_create", model), fields).status_code == 302
    price = model.prices.get()
    assert (price.batch_input_per_mtok, price.source) == (Decimal("1.5"), "")
    assert price.tiers == [{"above": 200_000, "input": "6", "output": "22.5", "batch_output": "11"}]


def test_the_form_shows_every_tier_and_room_for_one_more(alice_client, model):
    make_price(model, tiers=[{"above": 200_000, "input": "6", "output": "22.5", "cache_read": "0.6"}])
    page = alice_client.get(url("price_create", model)).text
    assert re.search(r'name="tier0_above" value="200000"', page)
    assert re.search(r'name="tier0_cache_read" value="0.6"', page)
    assert 'name="tier1_above"' in page
    assert 'name="tier2_above"' not in page
    fields = price_fields(
        tier0_above="200000", tier0_input="6", tier0_output="22.5", tier1_above="500000", tier1_input="7",
        tier1_output="23",
    )  # fmt: skip
    alice_client.post(url("price_create", model), fields)
    assert [tier["above"] for tier in model.prices.first().tiers] == [200_000, 500_000]


def test_a_tier_that_is_emptied_is_gone(alice_client, model):
    make_price(model, tiers=[{"above": 200_000, "input": "6", "output": "22.5"}])
    alice_client.post(url("price_create", model), price_fields(tier0_above="", tier1_above=""))
    assert model.prices.first().tiers == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tier0_above": "1000"}, "A tier has a rate for input and for output."),
        ({"tier0_input": "1", "tier0_output": "2"}, "Say above how many tokens these rates apply."),
        ({"tier0_above": "0", "tier0_input": "1", "tier0_output": "2"}, "greater than or equal to 1"),
        (
            {"tier0_above": "9", "tier0_input": "1", "tier0_output": "2", "tier1_above": "9", "tier1_input": "1",
             "tier1_output": "2"},
            "Another tier begins there.",
        ),
        ({"batch_input_per_mtok": "-1"}, "A price cannot be below zero."),
    ],
)  # fmt: skip
def test_a_tier_that_cannot_be_is_said_beside_its_field(alice_client, model, fields, sentence):
    response = alice_client.post(url("price_create", model), price_fields(**fields))
    assert response.status_code == 422
    assert sentence in response.text
    assert not model.prices.exists()


def test_the_catalogues_price_stands_beside_and_is_taken_by_a_button(alice_client, model):
    make_price(model, input="2", output="8")
    page = words(alice_client.get(url("price_create", model)).text)
    assert "The catalogue says $3.00 in, $15.00 out. It has tiers too." in page
    assert "one of your own" in words(alice_client.get(url("model_detail", model)).text)
    assert "not the catalogue’s" in alice_client.get(provider_url(model)).text

    assert alice_client.post(url("price_from_catalog", model)).status_code == 302

    price = model.prices.first()
    assert (price.input_per_mtok, price.cache_read_per_mtok, price.source) == (3, Decimal("0.3"), "genai-prices 0.0.1")
    assert "not the catalogue’s" not in alice_client.get(provider_url(model)).text


def provider_url(model):
    return reverse("providers:provider_detail", args=["default", model.provider.uid])


def test_in_another_currency_one_types_what_one_pays(alice_client, model):
    model.provider.currency = "EUR"
    model.provider.save()
    page = alice_client.get(url("price_create", model)).text
    assert "That is in USD and yours are in EUR: type what you pay." in words(page)
    assert "Use the catalogue’s price" not in page
    assert "Yours are in EUR: type what you pay." in words(alice_client.get(url("model_detail", model)).text)
    response = alice_client.post(url("price_from_catalog", model))
    assert response.status_code == 422
    assert "prices are in USD" in response.text
    assert not model.prices.exists()


def test_a_model_without_a_price_in_the_catalogue_has_none_to_take(alice_client, provider):
    model = make_model(provider, "mine")
    assert alice_client.post(url("price_from_catalog", model)).status_code == 422
    assert not model.prices.exists()


@pytest.mark.parametrize(
    "tiers",
    [
        {},
        [{}],
        [{"above": 10, "input": "1"}],
        [{"above": "10", "input": "1", "output": "1"}],
        [{"above": True, "input": "1", "output": "1"}],
        [{"above": 0, "input": "1", "output": "1"}],
        [{"above": 10, "input": "-1", "output": "1"}],
        [{"above": 10, "input": 1, "output": "1"}],
        [{"above": 10, "input": "1", "output": "NaN"}],
        [{"above": 10, "input": "1", "output": "0.0000001"}],
        [{"above": 10, "input": "1", "output": "1", "other": "1"}],
        [{"above": 10, "input": "1", "output": "1"}, {"above": 10, "input": "1", "output": "1"}],
        [{"above": number, "input": "1", "output": "1"} for number in range(1, 7)],
    ],
)
def test_what_is_no_list_of_tiers_is_refused(tiers):
    with pytest.raises(ValidationError):
        validate_tiers(tiers)


# Timeouts ----------------------------------------------------------------------------------------------------------


def test_timeouts_are_set_and_left_to_the_server(alice_client, provider):
    edit = reverse("providers:provider_edit", args=["default", provider.uid])
    fields = {"name": "Claude", "base_url": provider.base_url, "connect_timeout_s": "3", "idle_timeout_s": ""}
    alice_client.post(edit, fields | {"first_byte_timeout_s": "45"})
    provider.refresh_from_db()
    assert (provider.connect_timeout_s, provider.first_byte_timeout_s, provider.idle_timeout_s) == (3, 45, None)
    shown = words(alice_client.get(reverse("providers:provider_detail", args=["default", provider.uid])).text)
    assert "To connect: 3 s To the first byte: 45 s" in shown
    assert AuditEvent.objects.get(action="provider.updated").details["after"]["connect_timeout_s"] == 3
    assert alice_client.post(edit, fields | {"connect_timeout_s": "0"}).status_code == 422
    alice_client.post(edit, fields | {"connect_timeout_s": ""})
    provider.refresh_from_db()
    assert provider.connect_timeout_s is None
