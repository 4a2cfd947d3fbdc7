from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from console.models import AuditEvent
from console.revision import current_revision
from providers import credentials
from providers.models import Price, Provider
from providers.services import delete_provider
from tests.factories import make_organization, make_provider

OLD, NEW = "an older key of at least thirty-two characters", "the newer key of at least thirty-two characters"


def add_provider(*arguments):
    call_command("add_provider", "--kind", "openai", "--name", "mock", *arguments)


def test_it_prints_just_the_id_of_what_it_made(organization, capsys, monkeypatch):
    monkeypatch.setenv("MOCK_KEY", "sk-mock-0123456789")
    before = current_revision()
    add_provider(
        "--base-url", "http://127.0.0.1:9999/v1", "--allow-private", "--credential-env", "MOCK_KEY",
        "--model", "m1", "--model", "m2", "--input-per-mtok", "3", "--output-per-mtok", "15,00",
    )  # fmt: skip
    provider = Provider.objects.get()
    assert capsys.readouterr().out == f"{provider.uid}\n"
    assert provider.organization == organization
    assert provider.approved_private_origin == "http://127.0.0.1:9999"
    assert credentials.unseal(provider).reveal() == "sk-mock-0123456789"
    assert provider.credential_hint == "6789"
    assert [model.public_name for model in provider.models.all()] == ["m1", "m2"]
    assert {(price.input_per_mtok, price.output_per_mtok) for price in Price.objects.all()} == {
        (Decimal(3), Decimal(15))
    }
    assert current_revision() > before
    created = AuditEvent.objects.get(action="provider.created")
    assert created.actor_label == "command line"
    assert created.details["approved_private_origin"] == "http://127.0.0.1:9999"
    assert not AuditEvent.objects.filter(details__icontains="sk-mock").exists()


def test_the_maker_of_a_kind_needs_no_base_url(organization):
    call_command("add_provider", "--kind", "anthropic", "--name", "Anthropic")
    assert Provider.objects.get().base_url == "https://api.anthropic.com"


def test_a_private_address_needs_the_word_of_the_operator(organization):
    with pytest.raises(CommandError, match="need the word of whoever runs this server") as refused:
        add_provider("--base-url", "http://127.0.0.1:9999/v1")
    assert "--allow-private" in str(refused.value)
    assert "COMPTOIR_ALLOWED_PRIVATE_ORIGINS" in str(refused.value)
    assert not Provider.objects.exists()


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/v1", "http://metadata.google.internal/v1", "https://100.100.100.200"]
)
def test_no_word_lets_a_provider_stand_at_a_metadata_service(organization, url):
    with pytest.raises(CommandError, match="No provider may stand at this address"):
        add_provider("--base-url", url, "--allow-private")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--base-url", "https://user:pw@example.org/v1"],
        ["--credential-env", "NOT_SET_ANYWHERE"],
        ["--input-per-mtok", "3"],
        ["--input-per-mtok", "-3", "--output-per-mtok", "3"],
        ["--input-per-mtok", "1,250", "--output-per-mtok", "3"],
        ["--input-per-mtok", "nan", "--output-per-mtok", "3"],
        ["--model", "two words"],
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(organization, arguments):
    with pytest.raises(CommandError):
        add_provider(*arguments)
    assert not Provider.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_name_is_taken_once(organization):
    add_provider()
    with pytest.raises(CommandError, match="already has a provider with that name"):
        add_provider()


def test_the_name_of_a_deleted_provider_is_free(organization):
    add_provider()
    delete_provider(provider=Provider.objects.get(), actor=None)
    add_provider()
    assert Provider.objects.current().count() == 1


def test_of_two_organizations_one_must_be_named(organization):
    other = make_organization(slug="other")
    with pytest.raises(CommandError, match="--organization"):
        add_provider()
    add_provider("--organization", "other")
    assert Provider.objects.get().organization == other


def test_rewrapping_lets_an_old_key_go_and_can_be_repeated(organization, settings, capsys):
    settings.CREDENTIAL_KEYS = [OLD]
    providers = [make_provider(organization, credential=f"sk-{number}") for number in range(3)]
    settings.CREDENTIAL_KEYS = [NEW, OLD]

    call_command("rewrap_credentials", "--dry-run")
    assert "3  older key" in capsys.readouterr().out
    call_command("rewrap_credentials")
    assert "3  newest key" in capsys.readouterr().out
    call_command("rewrap_credentials")

    settings.CREDENTIAL_KEYS = [NEW]
    for number, provider in enumerate(providers):
        provider.refresh_from_db()
        assert credentials.unseal(provider).reveal() == f"sk-{number}"


def test_rewrapping_names_what_it_cannot_open_and_does_the_rest(organization, settings, capsys):
    settings.CREDENTIAL_KEYS = ["a key that nobody has any more, thirty-two"]
    make_provider(organization, name="Lost", credential="sk-lost")
    settings.CREDENTIAL_KEYS = [OLD]
    kept = make_provider(organization, name="Kept", credential="sk-kept")
    settings.CREDENTIAL_KEYS = [NEW, OLD]

    with pytest.raises(CommandError, match="1 could not be rewrapped"):
        call_command("rewrap_credentials")

    assert "Lost of Default" in capsys.readouterr().err
    settings.CREDENTIAL_KEYS = [NEW]
    kept.refresh_from_db()
    assert credentials.unseal(kept).reveal() == "sk-kept"
