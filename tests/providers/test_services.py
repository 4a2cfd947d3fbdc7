import datetime
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from console.models import AuditEvent
from console.revision import current_revision
from providers import credentials, services
from providers.credentials import CredentialUnreadable
from providers.discovery import Finding, RemoteModel, read_models
from providers.models import Price, Provider, ProviderModel
from tests.factories import make_model, make_organization, make_price, make_provider
from tests.providers.servers import model_list, serving

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
def changed(organization):
    """How many audit events and revisions came since."""
    events, revision = AuditEvent.objects.count(), current_revision()
    return lambda: (AuditEvent.objects.count() - events, current_revision() - revision)


def create(organization, actor, **fields):
    fields = {"kind": "openai", "name": "Example", "base_url": "https://api.example.org/v1"} | fields
    return services.create_provider(organization=organization, actor=actor, **fields)


def test_a_provider_is_stored_with_its_credential_sealed(organization, alice, changed):
    provider = create(organization, alice, credential=KEY, base_url="HTTPS://API.Example.org/v1/")
    provider.refresh_from_db()
    assert provider.base_url == "https://api.example.org/v1"
    assert credentials.unseal(provider).reveal() == KEY
    assert provider.credential_hint == "cdef"
    assert changed() == (2, 2)
    assert not any("canary" in str(event.details) for event in AuditEvent.objects.all())


@pytest.mark.parametrize(
    "text", ["https://api.anthropic.com", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/"]
)
def test_both_spellings_of_an_anthropic_address_mean_the_same(organization, alice, text):
    assert create(organization, alice, kind="anthropic", base_url=text).base_url == "https://api.anthropic.com"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://localhost:11434/v1", "private_origin"),
        ("https://192.168.1.10/v1", "private_origin"),
        ("http://api.example.org/v1", "private_origin"),
        ("http://ollama:11434/v1", "private_origin"),
        ("https://169.254.169.254/v1", "never"),
        ("http://metadata.google.internal/v1", "never"),
        ("https://0.0.0.0/", "never"),
    ],
)
def test_an_address_is_refused_with_the_reason_that_leads_on(organization, alice, url, code):
    with pytest.raises(ValidationError) as caught:
        create(organization, alice, base_url=url)
    assert [error.code for error in caught.value.error_dict["base_url"]] == [code]
    assert not Provider.objects.exists()


def test_an_origin_in_the_settings_may_be_private(organization, alice, settings):
    settings.ALLOWED_PRIVATE_ORIGINS = ["http://localhost:11434"]
    assert create(organization, alice, base_url="http://localhost:11434/v1").base_url == "http://localhost:11434/v1"


def test_a_private_address_may_be_given_without_a_dot_in_its_name(organization):
    provider = create(organization, None, base_url="http://ollama:11434/v1", allow_private=True)
    assert provider.approved_private_origin == "http://ollama:11434"


def test_two_providers_of_an_organization_cannot_share_a_name(organization, alice):
    create(organization, alice)
    with pytest.raises(ValidationError, match="already has a provider with that name"):
        create(organization, alice)
    create(make_organization(), alice)


def test_another_path_keeps_the_credential_and_another_origin_voids_it(organization, alice):
    provider = create(organization, alice, credential=KEY)
    services.update_provider(provider=provider, name="Example", base_url="https://api.example.org/v2", actor=alice)
    assert credentials.unseal(provider).reveal() == KEY

    services.update_provider(provider=provider, name="Example", base_url="https://evil.example.org/v1", actor=alice)
    provider.refresh_from_db()
    with pytest.raises(CredentialUnreadable):
        credentials.unseal(provider)
    assert provider.credential_hint == ""
    assert AuditEvent.objects.filter(action="provider.updated").latest("pk").details["credential_voided"]

    services.remove_credential(provider=provider, actor=alice)
    assert credentials.unseal(provider) is None


def test_another_origin_may_bring_its_own_credential(organization, alice):
    provider = create(organization, alice, credential=KEY)
    services.update_provider(
        provider=provider,
        name="Example",
        base_url="https://other.example.org/v1",
        credential="new-one-000",
        actor=alice,
    )
    assert credentials.unseal(provider).reveal() == "new-one-000"


def test_another_origin_ends_the_word_of_the_operator(organization, alice):
    provider = create(organization, None, base_url="http://10.0.0.1:8000/v1", allow_private=True)
    with pytest.raises(ValidationError):
        services.update_provider(provider=provider, name="Example", base_url="http://10.0.0.2:8000/v1", actor=alice)
    provider.refresh_from_db()
    services.update_provider(provider=provider, name="Renamed", base_url="http://10.0.0.1:8000/v2", actor=alice)
    assert provider.approved_private_origin == "http://10.0.0.1:8000"
    services.update_provider(provider=provider, name="Renamed", base_url="https://api.example.org", actor=alice)
    assert provider.approved_private_origin == ""


@pytest.mark.parametrize("credential", ["two words", "line\nbreak", "naïve", "tab\there", "x" * 4001])
def test_a_credential_that_no_header_can_carry_is_refused(organization, alice, credential):
    with pytest.raises(ValidationError, match="one line"):
        create(organization, alice, credential=credential)
    assert not Provider.objects.exists()


def test_a_short_credential_leaves_no_hint(organization, alice):
    assert create(organization, alice, credential="secret").credential_hint == ""


def test_a_credential_can_be_replaced_and_removed(organization, alice, changed):
    provider = make_provider(organization, credential=KEY)
    services.set_credential(provider=provider, credential="another-credential", actor=alice)
    assert credentials.unseal(provider).reveal() == "another-credential"
    services.remove_credential(provider=provider, actor=alice)
    services.remove_credential(provider=provider, actor=alice)
    assert credentials.unseal(provider) is None
    assert changed() == (2, 2)


def test_disabling_and_enabling_twice_change_once(organization, alice, changed):
    provider = make_provider(organization)
    for service in (services.disable_provider, services.enable_provider):
        service(provider=provider, actor=alice)
        service(provider=provider, actor=alice)
    assert provider.disabled_at is None
    assert changed() == (2, 2)


def test_deleting_takes_the_models_and_leaves_names_prices_and_an_event(organization, alice, changed):
    provider = make_provider(organization, name="Gone")
    make_price(make_model(provider, "m"))
    services.delete_provider(provider=provider, actor=alice)
    services.delete_provider(provider=provider, actor=alice)
    assert not Provider.objects.current().exists()
    assert not ProviderModel.objects.current().exists()
    assert str(Price.objects.get().provider_model) == "m"
    event = AuditEvent.objects.get()
    assert (event.action, event.target_label, event.details["models"]) == ("provider.deleted", "Gone", ["m"])
    assert changed() == (1, 1)


def test_a_deleted_providers_credential_is_erased(organization, alice):
    provider = make_provider(organization, credential=KEY)
    services.delete_provider(provider=provider, actor=alice)
    provider.refresh_from_db()
    assert (provider.sealed_credential, provider.credential_hint) == (None, "")


def test_who_still_holds_a_deleted_provider_cannot_bring_anything_back(organization, alice):
    provider = make_provider(organization, credential=KEY)
    services.delete_provider(provider=Provider.objects.get(), actor=alice)
    for change in (
        lambda: services.update_provider(provider=provider, name="New", base_url=provider.base_url, actor=alice),
        lambda: services.set_credential(provider=provider, credential=KEY, actor=alice),
        lambda: services.take_over_models(provider=provider, models=[RemoteModel("m")], actor=alice),
    ):
        with pytest.raises(ValidationError, match="has been deleted"):
            change()
    services.disable_provider(provider=provider, actor=alice)
    row = Provider.objects.get()
    assert row.removed_at
    assert row.sealed_credential is None
    assert not ProviderModel.objects.exists()


def test_what_was_removed_gives_its_names_back(organization, alice):
    provider = create(organization, alice)
    [model] = services.take_over_models(provider=provider, models=[RemoteModel("m")], actor=alice)
    services.remove_model(model=model, actor=alice)
    services.remove_model(model=model, actor=alice)
    [again] = services.take_over_models(provider=provider, models=[RemoteModel("m")], actor=alice)
    assert again.public_name == "m"
    assert again.pk != model.pk
    services.delete_provider(provider=provider, actor=alice)
    second = create(organization, alice, name=provider.name)
    [third] = services.take_over_models(provider=second, models=[RemoteModel("m")], actor=alice)
    assert third.public_name == "m"
    assert AuditEvent.objects.filter(action="model.removed").count() == 1
    assert ProviderModel.objects.filter(public_name="m").count() == 3


def test_the_model_on_this_machine_is_the_servers_own(organization, alice):
    local = make_provider(organization, kind="local", base_url="http://127.0.0.1:8095/v1")
    for change in (
        lambda: services.update_provider(provider=local, name="Mine", base_url="https://evil.example.org", actor=alice),
        lambda: services.set_credential(provider=local, credential=KEY, actor=alice),
        lambda: services.delete_provider(provider=local, actor=alice),
        lambda: services.disable_provider(provider=local, actor=alice),
        lambda: services.remove_model(model=make_model(local), actor=alice),
    ):
        with pytest.raises(ValidationError, match="itself manages"):
            change()


# Asking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def provider(organization, server):
    return make_provider(
        organization, base_url=f"{server.origin}/v1", approved_private_origin=server.origin, credential=KEY
    )


def test_a_test_asks_an_openai_shaped_server_for_its_models(provider, server, alice):
    server.answers["/v1/models"] = model_list("b", "a", context_window=4096)
    result = services.test_connection(provider=provider, actor=alice)
    assert result.finding == Finding.ANSWERED
    assert result.models == (RemoteModel("a", 4096), RemoteModel("b", 4096))
    assert result.milliseconds >= 0
    [(method, path, headers)] = server.requests
    assert (method, path, headers["authorization"]) == ("GET", "/v1/models", f"Bearer {KEY}")


def test_a_test_asks_an_anthropic_shaped_server_in_its_way(organization, server, alice):
    provider = make_provider(
        organization, kind="anthropic", base_url=server.origin, approved_private_origin=server.origin, credential=KEY
    )
    server.answers["/v1/models"] = model_list("claude", max_input_tokens=200_000, max_tokens=64_000)
    result = services.test_connection(provider=provider, actor=alice)
    assert result.models == (RemoteModel("claude", 200_000, 64_000),)
    [(_, path, headers)] = server.requests
    assert path == "/v1/models?limit=1000"
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers


def test_a_provider_that_answers_a_test_is_renewed_and_one_that_does_not_is_not(provider, server, alice):
    before, revision = provider.renewed_at, current_revision()
    server.answers["/v1/models"] = (500, {}, b"{}")
    services.test_connection(provider=provider, actor=alice)
    provider.refresh_from_db()
    assert (provider.renewed_at, current_revision()) == (before, revision)
    server.answers["/v1/models"] = model_list("m")
    services.test_connection(provider=provider, actor=alice)
    provider.refresh_from_db()
    assert provider.renewed_at > before
    assert current_revision() > revision


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        ((401, {}, b"{}"), Finding.CREDENTIAL_REFUSED),
        ((403, {}, b"{}"), Finding.CREDENTIAL_REFUSED),
        ((404, {}, b"{}"), Finding.UNEXPECTED),
        ((500, {}, b"{}"), Finding.UNEXPECTED),
        ((302, {"Location": "https://evil.example.org"}, b""), Finding.UNEXPECTED),
        ((200, {}, b"<html>"), Finding.UNEXPECTED),
        ((200, {}, b"[" * 100_000), Finding.UNEXPECTED),
        ((200, {}, b'{"data": 1}'), Finding.UNEXPECTED),
        ((200, {"Content-Encoding": "gzip"}, b"..."), Finding.UNREACHABLE),
        ((200, {}, b"x" * 5_000_000), Finding.UNREACHABLE),
    ],
)
def test_what_went_wrong_is_said_as_far_as_it_helps(provider, server, alice, answer, finding):
    server.answers["/v1/models"] = answer
    result = services.test_connection(provider=provider, actor=alice)
    assert result.finding == finding
    assert result.models == ()


def test_every_failure_of_the_network_looks_the_same(organization, alice):
    results = set()
    for url, approved in (
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1"),  # closed
        ("http://127.0.0.1:1/v1", ""),  # not approved
        ("https://10.255.255.1/v1", ""),  # private
        ("https://localhost:1/v1", ""),
        ("https://169.254.169.254/v1", "https://169.254.169.254:443"),
        ("https://nowhere.invalid/v1", ""),
    ):
        provider = make_provider(organization, base_url=url, approved_private_origin=approved)
        results.add(services.test_connection(provider=provider, actor=alice))
    assert len(results) == 1
    assert results.pop().finding == Finding.UNREACHABLE


def test_a_credential_that_cannot_be_opened_is_not_sent(provider, server, alice, settings):
    settings.CREDENTIAL_KEYS = ["another key of at least thirty-two characters"]
    assert services.test_connection(provider=provider, actor=alice).finding == Finding.CREDENTIAL_UNREADABLE
    assert server.accepted == 0


def test_an_organization_may_ask_ten_times_a_minute(provider, server, alice):
    server.answers["/v1/models"] = model_list("m")
    for _ in range(services.TESTS_A_MINUTE):
        services.test_connection(provider=provider, actor=alice)
    with pytest.raises(services.TooManyTests):
        services.test_connection(provider=provider, actor=alice)
    assert len(server.requests) == services.TESTS_A_MINUTE
    AuditEvent.objects.update(created_at=timezone.now() - datetime.timedelta(seconds=61))
    services.test_connection(provider=provider, actor=alice)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"data": []}', []),
        (b'[{"id": "a"}]', ["a"]),
        (b'{"data": [{"id": "a"}, {"id": "a"}, {"id": ""}, {"id": 3}, {}, null]}', ["a"]),
        (b'{"data": [{"id": "two words"}, {"id": "\\u0000"}, {"id": "b"}]}', ["b"]),
        (b'{"data": [{"id": "@cf/meta/llama-3:8b"}, {"id": "\\u00e9t\\u00e9"}]}', ["@cf/meta/llama-3:8b", "été"]),
        (b'{"data": [{"id": "' + b"x" * 201 + b'"}]}', []),
    ],
)  # fmt: skip
def test_of_a_list_what_can_name_a_model_is_read(body, names):
    assert [model.name for model in read_models(body)] == names


@pytest.mark.parametrize("value", ["true", "-1", "0", "1.5", '"8192"', "99999999999", "null"])
def test_a_context_that_is_no_count_is_left_unknown(value):
    [model] = read_models(f'{{"data": [{{"id": "a", "context_window": {value}}}]}}'.encode())
    assert model.context_window is None


# Models ----------------------------------------------------------------------------------------------------------


def take_over(provider, actor, *names):
    return services.take_over_models(provider=provider, models=[RemoteModel(name) for name in names], actor=actor)


def test_models_are_offered_under_their_own_names_and_in_colours_of_their_own(organization, alice, changed):
    made = take_over(make_provider(organization), alice, "a", "b", "a")
    assert [(model.name, model.public_name, model.series) for model in made] == [("a", "a", 1), ("b", "b", 2)]
    assert changed() == (2, 2)


def test_a_name_that_is_taken_gets_the_providers_in_front(organization, alice):
    first, second, third = (make_provider(organization, name=name) for name in ("One", "Chez Zoé", "chez-zoe"))
    take_over(first, alice, "llama")
    assert [model.public_name for model in take_over(second, alice, "llama")] == ["chez-zoe/llama"]
    assert [model.public_name for model in take_over(third, alice, "llama")] == ["chez-zoe/llama-2"]
    assert take_over(second, alice, "llama") == []
    assert [model.public_name for model in take_over(make_provider(make_organization()), alice, "llama")] == ["llama"]


def test_a_name_with_spaces_names_no_model(organization, alice):
    with pytest.raises(ValidationError):
        take_over(make_provider(organization), alice, "fine", "two words")
    assert not ProviderModel.objects.exists()


def test_a_model_is_renamed_unless_the_name_is_taken(organization, alice, changed):
    provider = make_provider(organization)
    model, _other = make_model(provider, "a"), make_model(provider, "b")
    services.rename_model(model=model, public_name="fast", actor=alice)
    services.rename_model(model=model, public_name="fast", actor=alice)
    assert changed() == (1, 1)
    for name in ("b", "two words", "", "x" * 201):
        with pytest.raises(ValidationError):
            services.rename_model(model=model, public_name=name, actor=alice)
    model.refresh_from_db()
    assert model.public_name == "fast"
    assert model.name == "a"


def test_a_model_is_disabled_enabled_and_removed(organization, alice, changed):
    model = make_model(make_provider(organization))
    services.disable_model(model=model, actor=alice)
    services.disable_model(model=model, actor=alice)
    services.enable_model(model=model, actor=alice)
    services.enable_model(model=model, actor=alice)
    services.remove_model(model=model, actor=alice)
    assert not ProviderModel.objects.current().exists()
    assert changed() == (3, 3)


# Prices ----------------------------------------------------------------------------------------------------------


def test_a_price_is_a_new_row_from_now_on(organization, alice, changed):
    model = make_model(make_provider(organization))
    make_price(model)
    price = services.set_price(model=model, input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"), actor=alice)
    assert model.prices.count() == 2
    assert model.prices.first() == price
    assert price.cache_read_per_mtok is None
    assert changed() == (1, 1)
    assert AuditEvent.objects.get(action="price.set").details["input_per_mtok"] == "0.15"


def test_a_price_may_begin_later_and_be_withdrawn_until_then(organization, alice, changed):
    model = make_model(make_provider(organization))
    later = timezone.now() + datetime.timedelta(days=3)
    price = services.set_price(
        model=model, input_per_mtok=Decimal(1), output_per_mtok=Decimal(2), valid_from=later, actor=alice
    )
    services.withdraw_price(price=price, actor=alice)
    assert not model.prices.exists()
    assert changed() == (2, 2)
    with pytest.raises(ValidationError):
        services.withdraw_price(price=make_price(model), actor=alice)


def test_two_prices_cannot_begin_at_one_moment(organization, alice):
    model = make_model(make_provider(organization))
    later = timezone.now() + datetime.timedelta(days=3)
    rates = {"input_per_mtok": Decimal(1), "output_per_mtok": Decimal(2)}
    services.set_price(model=model, valid_from=later, actor=alice, **rates)
    with pytest.raises(ValidationError, match="begins at that moment"):
        services.set_price(model=model, valid_from=later, actor=alice, **rates)


def test_no_price_is_changed_for_what_was_served(organization, alice):
    model = make_model(make_provider(organization))
    yesterday = timezone.now() - datetime.timedelta(days=1)
    with pytest.raises(ValidationError, match="now or later"):
        services.set_price(
            model=model, input_per_mtok=Decimal(1), output_per_mtok=Decimal(2), valid_from=yesterday, actor=alice
        )


@pytest.mark.parametrize(
    "rates", [("-1", "1"), ("1", "-0.000001"), ("100000000", "1"), ("0.0000001", "1"), ("NaN", "1")]
)
def test_a_price_that_is_none_is_refused(organization, alice, rates):
    model = make_model(make_provider(organization))
    with pytest.raises(ValidationError):
        services.set_price(
            model=model, input_per_mtok=Decimal(rates[0]), output_per_mtok=Decimal(rates[1]), actor=alice
        )
    assert not model.prices.exists()


def test_a_change_without_its_audit_event_is_not_made(organization, alice, monkeypatch):
    provider = make_provider(organization)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(models.query.QuerySet, "create", fail)
    with pytest.raises(OSError, match="disk full"):
        services.disable_provider(provider=provider, actor=alice)
    provider.refresh_from_db()
    assert provider.disabled_at is None
