"""What the first start makes of an empty database, and what the next ones leave alone."""

import json
import stat
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from config.up import ROOT, comptoir
from console import bootstrap
from console.api_keys import digest
from console.models import ApiKey, Member, Organization, User
from gateway.management.commands import prepare
from providers.local_model import register_local_model
from providers.models import Price, Provider, ProviderModel
from tests import factories


@pytest.fixture
def first_start(settings, tmp_path, db):
    settings.FIRST_SIGN_IN_FILE = tmp_path / "secrets" / "first_sign_in"
    settings.OWNER_EMAIL, settings.OWNER_PASSWORD = "owner@localhost", None
    settings.FIRST_CURRENCY, settings.FIRST_TIME_ZONE = "EUR", "Europe/Paris"

    def run():
        return list(prepare.first_start())

    run.sign_in_file = settings.FIRST_SIGN_IN_FILE
    return run


def test_it_makes_an_organization_a_workspace_and_their_owner(first_start):
    first_start()
    organization = Organization.objects.get()
    assert (organization.name, organization.slug) == ("Default", "default")
    assert (organization.currency, organization.time_zone) == ("EUR", "Europe/Paris")
    assert [workspace.slug for workspace in organization.workspaces.all()] == ["default"]
    member = Member.objects.get()
    assert (member.user.email, member.role) == ("owner@localhost", Member.Role.OWNER)


def test_the_made_up_password_waits_in_a_private_file_and_is_right(first_start):
    first_start()
    assert stat.S_IMODE(first_start.sign_in_file.stat().st_mode) == 0o600
    shown = json.loads(first_start.sign_in_file.read_text())
    assert len(shown["password"]) == 19
    assert User.objects.get(email=shown["email"]).check_password(shown["password"])


def test_a_given_password_is_taken_and_written_nowhere(first_start, settings):
    settings.OWNER_PASSWORD = "correct horse battery staple"
    first_start()
    assert User.objects.get().check_password("correct horse battery staple")
    assert settings.OWNER_PASSWORD not in first_start.sign_in_file.read_text()


def test_the_second_start_changes_nothing(first_start):
    first_start()
    before = User.objects.get().password
    first_start.sign_in_file.unlink()
    assert first_start() == []
    assert User.objects.get().password == before
    assert Organization.objects.count() == 1
    assert not first_start.sign_in_file.exists()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [("FIRST_CURRENCY", "EURO", "COMPTOIR_CURRENCY"), ("FIRST_TIME_ZONE", "Paris", "COMPTOIR_TIME_ZONE")],
)
def test_a_value_that_cannot_be_is_named_in_one_line_and_nothing_is_made(first_start, settings, setting, value, named):
    setattr(settings, setting, value)
    with pytest.raises(CommandError, match=named):
        call_command("prepare")
    assert not Organization.objects.exists()


def test_an_address_that_cannot_be_is_refused(first_start, settings):
    settings.OWNER_EMAIL = "somebody"
    with pytest.raises(CommandError, match="mail"):
        call_command("prepare")
    assert not Organization.objects.exists()


def test_the_time_zone_is_the_machines(monkeypatch):
    monkeypatch.setenv("TZ", ":America/Mexico_City")
    assert bootstrap.machine_time_zone() == "America/Mexico_City"
    monkeypatch.setenv("TZ", "Etc/UTC")
    assert bootstrap.machine_time_zone() in bootstrap.zoneinfo.available_timezones()


# The model of this machine ---------------------------------------------------------------------------------------


def test_the_local_model_is_offered_for_nothing(organization):
    register_local_model(organization=organization, url="http://127.0.0.1:21111")
    provider = Provider.objects.get()
    assert (provider.name, provider.kind) == ("On this machine", "local")
    assert provider.base_url == "http://127.0.0.1:21111/v1"
    model = ProviderModel.objects.get()
    assert (model.name, model.public_name) == ("smollm2-135m-instruct", "smollm2-135m-instruct")
    assert model.context_window == 8192
    price = Price.objects.get()
    assert (price.input_per_mtok, price.output_per_mtok) == (0, 0)
    assert price.valid_from <= timezone.now()


def test_a_start_like_the_last_one_writes_nothing(organization, django_assert_max_num_queries):
    register_local_model(organization=organization, url="http://127.0.0.1:21111")
    events = organization.audit_events.count()
    with django_assert_max_num_queries(3):
        register_local_model(organization=organization, url="http://127.0.0.1:21111")
    assert organization.audit_events.count() == events


def test_it_is_withdrawn_without_the_model_and_offered_again_with_it(organization):
    register_local_model(organization=organization, url="http://127.0.0.1:21111")
    register_local_model(organization=organization, url="")
    assert Provider.objects.get().disabled_at
    register_local_model(organization=organization, url="http://127.0.0.1:21112")
    provider = Provider.objects.get()
    assert provider.disabled_at is None
    assert provider.base_url == "http://127.0.0.1:21112/v1"
    assert Price.objects.count() == 1


def test_names_that_people_gave_stay_theirs(organization):
    provider = factories.make_provider(organization, name="On this machine")
    factories.make_model(provider, "smollm2-135m-instruct")
    register_local_model(organization=organization, url="http://127.0.0.1:21111")
    assert Provider.objects.get(kind="local").name == "On this machine 2"
    assert ProviderModel.objects.get().provider == provider


# Keys from the command line --------------------------------------------------------------------------------------


def create_api_key(*arguments):
    output = StringIO()
    call_command("create_api_key", *arguments, stdout=output)
    return output.getvalue()


def test_a_key_is_printed_and_nothing_else(workspace, settings):
    output = create_api_key("--workspace", workspace.slug, "--name", "ci")
    assert output.startswith("sk-comptoir-")
    assert output.count("\n") == 1
    api_key = ApiKey.objects.get()
    assert bytes(api_key.digest) == digest(output.strip(), settings.API_KEY_PEPPER)
    assert (api_key.name, api_key.created_by, api_key.expires_at) == ("ci", None, None)


@pytest.mark.parametrize(("given", "days"), [("30d", 30), ("2w", 14), ("48h", 2)])
def test_a_key_may_expire(workspace, given, days):
    create_api_key("--workspace", workspace.slug, "--name", "ci", "--expires", given)
    left = ApiKey.objects.get().expires_at - timezone.now()
    assert abs(left.total_seconds() - days * 86_400) < 60


@pytest.mark.parametrize(
    ("workspace_slug", "name", "expires", "said"),
    [
        ("nowhere", "ci", "30d", "no workspace 'nowhere'"),
        ("default", "ci", "soon", "30d"),
        ("default", "ci", "0d", "30d"),
        ("default", "taken", "30d", "already has a key .* choose another --name, or revoke it"),
        ("default", " ", "30d", "blank"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(workspace, workspace_slug, name, expires, said):
    factories.make_api_key(workspace, name="taken")
    with pytest.raises(CommandError, match=said) as refused:
        create_api_key("--workspace", workspace_slug, "--name", name, "--expires", expires)
    assert "\n" not in str(refused.value)


def test_the_command_is_told_with_the_folder_that_it_is_for():
    assert comptoir(ROOT / "var") == "./comptoir"
    assert comptoir(Path("/srv/my data")) == "COMPTOIR_DATA='/srv/my data' ./comptoir"
