import datetime
import re
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone, translation

from providers import credentials, queries, services
from providers.discovery import RemoteModel
from providers.forms import RateField, ticket
from providers.models import Provider, ProviderModel
from tests.factories import make_model, make_price, make_provider
from tests.providers.servers import model_list, serving

KEY = "sk-canary-0123456789abcdef"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def server():
    with serving({"/v1/models": model_list("alpha", "beta", context_window=4096)}) as server:
        yield server


@pytest.fixture
def provider(organization, server):
    return make_provider(
        organization, name="Lab", base_url=f"{server.origin}/v1", approved_private_origin=server.origin, credential=KEY
    )


def url(name, *objects):
    return reverse(f"providers:{name}", args=["default", *(getattr(each, "uid", each) for each in objects)])


def every_url(provider):
    model = make_model(provider)
    later = timezone.now() + datetime.timedelta(days=1)
    price = make_price(model, valid_from=later)
    yield from (url("provider_list"), url("provider_create"))
    for name in ("detail", "test", "edit", "credential", "disable", "enable", "delete"):
        yield url(f"provider_{name}", provider)
    yield url("model_create", provider)
    for name in ("model_rename", "model_disable", "model_enable", "model_delete", "price_create"):
        yield url(name, provider, model)
    yield url("price_withdraw", provider, model, price.pk)


# Who may ---------------------------------------------------------------------------------------------------------


def test_a_developer_may_not_and_a_stranger_finds_nothing(bob_client, charlie_client, client, provider):
    for address in every_url(provider):
        for method in ("get", "post"):
            if getattr(bob_client, method)(address).status_code == 405:
                continue
            assert getattr(bob_client, method)(address).status_code == 403, address
            assert getattr(charlie_client, method)(address).status_code == 404, address
            assert getattr(client, method)(address).status_code == 302, address
    assert Provider.objects.filter(pk=provider.pk, disabled_at=None).exists()


def test_what_belongs_to_another_provider_is_not_found(alice_client, organization, provider):
    other = make_model(make_provider(organization))
    assert alice_client.get(url("price_create", provider, other)).status_code == 404
    assert alice_client.post(url("model_delete", provider, other)).status_code == 404
    assert ProviderModel.objects.filter(pk=other.pk).exists()


def test_changes_are_posted(alice_client, provider):
    for name in ("provider_disable", "provider_enable", "provider_test"):
        assert alice_client.get(url(name, provider)).status_code == 405


# The list --------------------------------------------------------------------------------------------------------


def test_the_list_tells_each_providers_state(alice_client, organization):
    make_model(make_provider(organization, name="Good", credential=KEY))
    lost = make_provider(organization, name="Lost")
    lost.sealed_credential = credentials.VOID
    lost.save()
    make_provider(organization, name="Off", disabled_at=timezone.now())
    text = alice_client.get(url("provider_list")).text
    rows = re.findall(r"<tr>.*?</tr>", text, re.S)[1:]
    assert "Active" in rows[0]
    assert "…cdef" in rows[0]
    assert "1 not priced" in rows[0]
    assert "Needs key" in rows[1]
    assert "Disabled" in rows[2]
    assert KEY not in text


def test_an_empty_list_teaches_what_a_provider_is(alice_client, workspace):
    assert "No providers yet" in alice_client.get(url("provider_list")).text


def test_the_model_on_this_machine_alone_is_said_to_be_weak(alice_client, organization):
    make_provider(organization, kind="local", name="On this machine", base_url="http://127.0.0.1:8095/v1")
    assert "Only the small model on this machine answers so far" in alice_client.get(url("provider_list")).text
    make_provider(organization)
    assert "Only the small model" not in alice_client.get(url("provider_list")).text


def test_htmx_gets_the_table_alone(alice_client, provider):
    text = alice_client.get(url("provider_list"), headers=HTMX).text
    assert "<h1>" not in text
    assert "<tbody>" in text


def test_the_list_costs_the_same_for_many(alice_client, organization, django_assert_max_num_queries):
    for _ in range(8):
        for _ in range(3):
            make_model(provider := make_provider(organization, credential=KEY))
            make_price(provider.models.first())
    alice_client.get(url("provider_list"))
    with django_assert_max_num_queries(10):
        alice_client.get(url("provider_list"))


# Add and change --------------------------------------------------------------------------------------------------


def test_a_provider_is_added_and_its_page_tests_it(alice_client, organization):
    fields = {"kind": "anthropic", "name": "Claude", "base_url": "", "credential": KEY}
    response = alice_client.post(url("provider_create"), fields)
    provider = Provider.objects.get()
    assert response.status_code == 302
    assert response.url == url("provider_detail", provider)
    assert provider.base_url == "https://api.anthropic.com"
    assert credentials.unseal(provider).reveal() == KEY
    page = alice_client.get(response.url).text
    assert "submit, load" in page
    assert "submit, load" not in alice_client.get(response.url).text
    assert "Provider Claude added" in page
    assert KEY not in page


def test_htmx_is_sent_to_the_page_of_what_was_added(alice_client, organization):
    fields = {"kind": "openai", "name": "X", "base_url": "https://api.example.org/v1"}
    response = alice_client.post(url("provider_create"), fields, headers=HTMX)
    assert response["HX-Redirect"] == url("provider_detail", Provider.objects.get())


@pytest.mark.parametrize("address", ["http://localhost:11434/v1", "http://LOCALHOST:11434"])
def test_a_private_address_is_refused_with_what_the_operator_must_do(alice_client, organization, address):
    fields = {"kind": "openai", "name": "Ollama", "base_url": address, "credential": KEY}
    response = alice_client.post(url("provider_create"), fields)
    assert response.status_code == 422
    assert "COMPTOIR_ALLOWED_PRIVATE_ORIGINS=http://localhost:11434" in response.text
    assert KEY not in response.text
    assert not Provider.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"kind": "local"},
        {"kind": "nonsense"},
        {"base_url": "ftp://example.org"},
        {"base_url": "https://user:pw@example.org"},
        {"base_url": "https://169.254.169.254/"},
        {"base_url": "x" * 301},
        {"credential": "two words"},
        {"name": "Lab"},
    ],
)
def test_what_cannot_be_a_provider_is_refused_in_the_form(alice_client, provider, fields):
    fields = {"kind": "openai", "name": "New", "base_url": "https://api.example.org/v1"} | fields
    response = alice_client.post(url("provider_create"), fields)
    assert response.status_code == 422
    assert 'class="field__error"' in response.text
    assert "COMPTOIR_ALLOWED_PRIVATE_ORIGINS" not in response.text
    assert Provider.objects.count() == 1


def test_editing_voids_the_key_of_another_host_and_says_so(alice_client, provider):
    fields = {"name": "Moved", "base_url": "https://api.example.org/v1"}
    response = alice_client.post(url("provider_edit", provider), fields, follow=True)
    assert "<h1>Moved" in response.text
    assert "The key must be entered again." in response.text
    provider.refresh_from_db()
    assert provider.sealed_credential == credentials.VOID
    assert provider.kind == "openai"


def test_editing_refuses_a_private_address_too(alice_client, provider):
    response = alice_client.post(
        url("provider_edit", provider), {"name": "Lab", "base_url": "http://10.0.0.1:8000/v1"}, headers=HTMX
    )
    assert response.status_code == 422
    assert "COMPTOIR_ALLOWED_PRIVATE_ORIGINS=http://10.0.0.1:8000" in response.text
    provider.refresh_from_db()
    assert "127.0.0.1" in provider.base_url


def test_a_key_is_replaced_and_removed_and_never_shown(alice_client, provider):
    assert KEY not in alice_client.get(url("provider_credential", provider)).text
    response = alice_client.post(
        url("provider_credential", provider), {"credential": "sk-other-987654321"}, follow=True
    )
    assert "…4321" in response.text
    assert "sk-other" not in response.text
    response = alice_client.post(url("provider_credential", provider), {"remove": "1"}, headers=HTMX)
    assert response["HX-Trigger"] == "provider-changed"
    provider.refresh_from_db()
    assert provider.sealed_credential is None


def test_a_provider_is_disabled_enabled_and_deleted(alice_client, provider):
    alice_client.post(url("provider_disable", provider))
    provider.refresh_from_db()
    assert provider.disabled_at
    alice_client.post(url("provider_enable", provider))
    provider.refresh_from_db()
    assert not provider.disabled_at
    assert alice_client.post(url("provider_delete", provider), {"confirmation": "Lap"}).status_code == 422
    response = alice_client.post(url("provider_delete", provider), {"confirmation": "Lab"})
    assert response.url == url("provider_list")
    assert not Provider.objects.current().exists()
    assert url("provider_detail", provider) not in alice_client.get(url("provider_list")).text
    assert alice_client.get(url("provider_detail", provider)).status_code == 404


# Testing ---------------------------------------------------------------------------------------------------------


def test_the_test_tells_time_and_number_of_models(alice_client, provider):
    text = alice_client.post(url("provider_test", provider), headers=HTMX).text
    assert re.search(r"Connected in \d+.ms\.", text)
    assert "It lists 2 models." in text
    assert "<h1>" not in text
    page = alice_client.post(url("provider_test", provider)).text
    assert "It lists 2 models." in page
    assert "<h1>" in page


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {}, b"{}"), "The provider refused the key, with status 401."),
        (
            (404, {}, b"<script>alert(1)</script>"),
            "The address answers, with status 404, but not with a list of models.",
        ),
    ],
)
def test_the_test_tells_what_to_mend(alice_client, provider, server, answer, words):
    server.answers["/v1/models"] = answer
    text = alice_client.post(url("provider_test", provider), headers=HTMX).text
    assert words in text
    assert "alert(1)" not in text


def test_the_eleventh_test_within_a_minute_is_refused(alice_client, provider):
    for _ in range(services.TESTS_A_MINUTE):
        assert alice_client.post(url("provider_test", provider), headers=HTMX).status_code == 200
    assert alice_client.post(url("provider_test", provider), headers=HTMX).status_code == 429
    response = alice_client.post(url("provider_test", provider))
    assert response.status_code == 429
    assert "Too many tests within a minute." in response.text


# Models ----------------------------------------------------------------------------------------------------------


def test_the_provider_is_asked_for_its_list_once_the_dialog_stands(alice_client, provider, server):
    make_model(provider, "beta")
    page = alice_client.get(url("model_create", provider), headers=HTMX).text
    assert 'hx-trigger="load"' in page
    assert server.accepted == 0
    text = alice_client.post(url("model_create", provider), {"list": "1"}, headers=HTMX).text
    assert "<dialog" not in text
    assert "4,096 tokens of context" in text
    assert "Taken over already" in text
    assert text.count('name="model"') == 1


def test_models_are_taken_over_from_the_list_and_by_name(alice_client, provider):
    fields = {"model": [ticket(RemoteModel("alpha", 4096, None))], "names": "gamma\n\n delta \n"}
    response = alice_client.post(url("model_create", provider), fields, follow=True)
    assert "3 models taken over" in response.text
    models = {model.name: model.context_window for model in provider.models.all()}
    assert models == {"alpha": 4096, "gamma": None, "delta": None}


@pytest.mark.parametrize(
    "fields", [{}, {"names": "two words"}, {"model": ["nonsense"]}, {"model": ["[1, 2, 3]"]}, {"model": ['{"a": 1}']}]
)
def test_taking_over_nothing_is_refused(alice_client, provider, fields):
    assert alice_client.post(url("model_create", provider), fields).status_code == 422
    assert not provider.models.exists()


def test_a_model_is_renamed_disabled_enabled_and_removed(alice_client, provider):
    model = make_model(provider, "alpha")
    make_model(provider, "beta")
    assert alice_client.post(url("model_rename", provider, model), {"public_name": "beta"}).status_code == 422
    page = alice_client.post(url("model_rename", provider, model), {"public_name": "fast"}, follow=True).text
    assert "fast" in page
    for name, expected in (("model_disable", True), ("model_enable", False)):
        alice_client.post(url(name, provider, model))
        model.refresh_from_db()
        assert bool(model.disabled_at) == expected
    assert alice_client.get(url("model_delete", provider, model)).status_code == 200
    alice_client.post(url("model_delete", provider, model))
    assert not ProviderModel.objects.current().filter(pk=model.pk).exists()
    page = alice_client.get(url("provider_detail", provider)).text
    assert model.uid not in page
    assert "beta" in page
    [listed] = queries.providers_for_list(provider.organization)
    assert (listed.model_count, listed.unpriced_count) == (1, 1)
    assert alice_client.post(url("model_enable", provider, model)).status_code == 404


def test_the_page_shows_prices_as_they_are_now(alice_client, provider):
    model = make_model(provider, "alpha")
    make_price(model, input="0.075", output="1")
    make_price(model, input="9", output="9", valid_from=timezone.now() + datetime.timedelta(days=1))
    make_model(provider, "beta")
    text = alice_client.get(url("provider_detail", provider)).text
    assert "$0.075" in text
    assert "$1.00" in text
    assert "$9.00" not in text
    assert "Not priced" in text


def test_the_page_costs_the_same_for_many_models(alice_client, provider, django_assert_max_num_queries):
    for _ in range(20):
        model = make_model(provider)
        make_price(model)
        make_price(model, valid_from=timezone.now() + datetime.timedelta(days=1))
    with django_assert_max_num_queries(11):
        alice_client.get(url("provider_detail", provider))


def test_the_model_on_this_machine_is_shown_and_cannot_be_changed(alice_client, organization):
    local = make_provider(organization, kind="local", name="On this machine", base_url="http://127.0.0.1:8095/v1")
    model = make_model(local)
    page = alice_client.get(url("provider_detail", local)).text
    assert url("provider_edit", local) not in page
    assert url("model_create", local) not in page
    assert url("model_delete", local, model) not in page
    assert url("price_create", local, model) in page
    for name in ("provider_edit", "provider_credential", "provider_delete", "provider_disable", "model_create"):
        assert alice_client.post(url(name, local)).status_code == 404
    assert alice_client.post(url("model_delete", local, model)).status_code == 404
    assert alice_client.post(url("model_disable", local, model)).status_code == 302


def test_the_model_on_this_machine_stands_under_a_name_in_the_readers_language(alice_client, organization):
    local = make_provider(organization, kind="local", name="On this machine", base_url="http://127.0.0.1:8095/v1")
    for address in (url("provider_list"), url("provider_detail", local)):
        page = alice_client.get(address, headers={"Accept-Language": "es"}).text
        assert "En esta máquina" in page
        assert "On this machine" not in page


# Prices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount"),
    [("3", "3"), ("3.00", "3"), ("3,00", "3"), (" 0,075 ", "0.075"), ("1 000,5", "1000.5"), ("0", "0"), ("1e1", "10")],
)
def test_an_amount_may_be_written_with_point_or_comma(text, amount):
    assert RateField().clean(text) == Decimal(amount)


@pytest.mark.parametrize(
    "text", ["-1", "1,000.00", "1.000,00", "abc", "NaN", "Infinity", "0.0000001", "100000000", "€3"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValidationError):
        RateField().clean(text)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "1,250", "Write 1250 or 1.25."),
        ("en", "-12,000", "Write 12000 or 12."),
        ("fr", "1.250", "Écrire 1250 ou 1,25."),
        ("es", "3.075", "Se espera 3075 o 3,075."),
    ],
)
def test_an_amount_that_can_be_a_thousand_times_another_is_asked_about(language, text, words):
    with translation.override(language), pytest.raises(ValidationError, match=words):
        RateField().clean(text)


@pytest.mark.parametrize(
    ("language", "text", "amount"),
    [
        ("en", "1.250", "1.25"), ("fr", "1,250", "1.25"), ("es", "1,250", "1.25"),
        ("en", "0,125", "0.125"), ("fr", "0.125", "0.125"), ("en", "1,25", "1.25"), ("fr", "1.2500", "1.25"),
        ("en", "1 250", "1250"), ("fr", "1\u202f250,5", "1250.5"), ("es", "1\xa0250", "1250"),
    ],
)  # fmt: skip
def test_an_amount_that_can_be_read_in_one_way_is_taken_so(language, text, amount):
    with translation.override(language):
        assert RateField().clean(text) == Decimal(amount)


def test_an_optional_amount_of_spaces_is_none():
    assert RateField(required=False).clean("  ") is None


def test_a_price_below_zero_is_refused_in_plain_words(alice_client, provider):
    model = make_model(provider)
    fields = {"input_per_mtok": "-1", "output_per_mtok": "1,250"}
    response = alice_client.post(url("price_create", provider, model), fields)
    assert response.status_code == 422
    assert "A price cannot be below zero." in response.text
    assert "Write 1250 or 1.25." in response.text
    assert not model.prices.exists()


@pytest.mark.parametrize(("language", "amount"), [("en", "2.5"), ("fr", "2,5"), ("es", "2,5")])
def test_the_price_that_holds_is_offered_as_the_reader_writes_it(alice_client, provider, language, amount):
    model = make_model(provider)
    make_price(model, input="2.5", output="10")
    page = alice_client.get(url("price_create", provider, model), headers={"Accept-Language": language})
    assert f'value="{amount}"' in page.text


def test_a_price_is_set_and_stands_in_the_history(alice_client, alice, provider):
    model = make_model(provider)
    fields = {"input_per_mtok": "0,15", "output_per_mtok": "0.60", "cache_read_per_mtok": "0.075"}
    assert alice_client.post(url("price_create", provider, model), fields).status_code == 302
    price = model.prices.get()
    assert (price.input_per_mtok, price.cache_read_per_mtok, price.cache_write_per_mtok) == (
        Decimal("0.15"), Decimal("0.075"), None,
    )  # fmt: skip
    assert price.created_by == alice
    text = alice_client.get(url("price_create", provider, model)).text
    assert "Valid now" in text
    assert 'value="0.15"' in text


def test_a_later_price_begins_in_the_organizations_time_zone_and_can_be_withdrawn(alice_client, organization, provider):
    organization.time_zone = "Europe/Paris"
    organization.save()
    model = make_model(provider)
    year = timezone.now().year + 1
    fields = {"input_per_mtok": "1", "output_per_mtok": "2", "valid_from": f"{year}-07-01T00:00"}
    alice_client.post(url("price_create", provider, model), fields)
    price = model.prices.get()
    assert price.valid_from == datetime.datetime(year, 6, 30, 22, tzinfo=datetime.UTC)
    assert "Withdraw" in alice_client.get(url("price_create", provider, model)).text
    response = alice_client.post(url("price_withdraw", provider, model, price.pk), headers=HTMX)
    assert response["HX-Trigger"] == "provider-changed"
    assert not model.prices.exists()


def test_a_price_in_the_past_is_refused_and_one_that_began_stays(alice_client, provider):
    model = make_model(provider)
    fields = {"input_per_mtok": "1", "output_per_mtok": "2", "valid_from": "2020-01-01T00:00"}
    assert alice_client.post(url("price_create", provider, model), fields).status_code == 422
    price = make_price(model)
    assert alice_client.post(url("price_withdraw", provider, model, price.pk)).status_code == 422
    assert model.prices.get() == price


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>"])
def test_names_from_outside_are_shown_as_text(alice_client, organization, server, name):
    model_name = re.sub(r"\s", "/", name)
    server.answers["/v1/models"] = model_list(model_name)
    provider = make_provider(
        organization, name=name, base_url=f"{server.origin}/v1", approved_private_origin=server.origin
    )
    make_model(provider, model_name + "x")
    texts = [
        alice_client.get(url("provider_list")).text,
        alice_client.get(url("provider_detail", provider)).text,
        alice_client.post(url("model_create", provider), {"list": "1"}, headers=HTMX).text,
    ]
    for text in texts:
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "&lt;" in text
