"""Each kind of provider: what is known of it, how it is added by page and by command, and what it is sent."""

import datetime
import json
import re
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.urls import reverse

from providers import credentials, services
from providers.credentials import Secret
from providers.discovery import Finding, ask_for_models
from providers.endpoints import auth_headers, endpoint_url
from providers.models import Provider
from providers.presets import ADDABLE, FORMATS, PLACEHOLDER, PRESETS, preset_groups, preset_of, vertex_host
from tests.factories import make_provider

KEY = "sk-canary-0123456789abcdef"
BLANKS = {"resource": "my-resource", "region": "eu-west-3", "project": "my-project"}
ADDRESSES = {
    "openai-compatible": "https://llm.example.org/v1",
    "anthropic-compatible": "https://llm.example.org",
    "ikalas": "https://ikalas.example.org/api/v1",
}
PRIVATE_KEY = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
SERVICE_ACCOUNT = {
    "type": "service_account",
    "project_id": "my-project",
    "private_key_id": "0123456789abcdef",
    "private_key": PRIVATE_KEY,
    "client_email": "me@my-project.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
}
EXPECTED = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "azure": "https://my-resource.openai.azure.com/openai/v1",
    "foundry": "https://my-resource.services.ai.azure.com/anthropic",
    "bedrock": "https://bedrock-runtime.eu-west-3.amazonaws.com",
    "vertex": "https://eu-west3-aiplatform.googleapis.com/v1/projects/my-project/locations/eu-west3",
    "deepseek": "https://api.deepseek.com",
}
LOCAL = {"ollama", "vllm", "llama-cpp"}


def blanks_of(kind):
    """The values of a kind's blanks."""
    values = {blank.name: BLANKS[blank.name] for blank in PRESETS[kind].blanks}
    return values | ({"region": "eu-west3"} if kind == "vertex" else {})


# The data ----------------------------------------------------------------------------------------------------------


def test_every_provider_of_the_mission_has_a_preset():
    assert set(ADDABLE) >= {
        "openai", "anthropic", "ektos", "cloud-temple", "evolink", "ikalas", "mistral", "gemini", "azure", "foundry",
        "bedrock", "vertex", "openrouter", "groq", "deepseek", "ollama", "vllm", "llama-cpp", "openai-compatible",
        "anthropic-compatible",
    }  # fmt: skip
    assert "local" not in ADDABLE


@pytest.mark.parametrize("kind", PRESETS)
def test_a_preset_is_whole(kind):
    preset = PRESETS[kind]
    assert preset.kind == kind
    assert preset.dialect in ("openai", "anthropic")
    assert preset.auth in ("bearer", "x-api-key", "api-key", "aws", "google", "none")
    assert preset.endpoints.keys() <= set(FORMATS)
    assert {"openai": "chat_completions", "anthropic": "messages"}[preset.dialect] in preset.endpoints
    assert all(path.startswith("/") for path in preset.endpoints.values())
    assert datetime.date.fromisoformat(preset.checked)
    assert not preset.base_url.endswith("/")
    names = set(PLACEHOLDER.findall(preset.base_url)) - {"host"}
    assert names == {blank.name for blank in preset.blanks}
    assert all(re.fullmatch(blank.pattern, blank.example) for blank in preset.blanks)


def test_every_kind_stands_on_the_page_once():
    assert sorted(preset.kind for _heading, presets in preset_groups() for preset in presets) == sorted(ADDABLE)


def test_a_kind_at_an_address_of_its_own_is_any_service_of_that_shape():
    assert preset_of("openai", "https://api.openai.com/v1").max_tokens_field == "max_completion_tokens"
    assert preset_of("openai", "https://lab.example.org/v1").kind == "openai-compatible"
    assert preset_of("openai", "https://api.openai.com.example.org/v1").max_tokens_field == "max_tokens"
    assert preset_of("anthropic", "https://lab.example.org").kind == "anthropic-compatible"
    assert preset_of("groq", "https://proxy.example.org/v1").kind == "groq"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
    ],
)
def test_googles_host_follows_from_the_region(region, host):
    assert vertex_host(region) == host


# What is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("openai", {"authorization": f"Bearer {KEY}"}),
        ("anthropic", {"anthropic-version": "2023-06-01", "x-api-key": KEY}),
        ("foundry", {"anthropic-version": "2023-06-01", "x-api-key": KEY}),
        ("azure", {"api-key": KEY}),
        ("ikalas", {"authorization": f"Bearer {KEY}"}),
        ("bedrock", {"anthropic-version": "2023-06-01"}),
        ("vertex", {"anthropic-version": "2023-06-01"}),
        ("local", {}),
    ],
)
def test_a_credential_travels_as_its_kind_wants_it(kind, headers):
    assert auth_headers(PRESETS[kind], Secret(KEY)) == headers
    assert KEY not in str(auth_headers(PRESETS[kind], None))


def test_the_paths_of_a_kind_stand_under_its_address():
    ikalas = PRESETS["ikalas"]
    assert endpoint_url("openai", "https://x.example.org/api/v1", ikalas.endpoints["chat_completions"]).endswith(
        "/api/v1/conversation"
    )
    foundry = PRESETS["foundry"]
    address = foundry.fill({"resource": "acme"})
    assert endpoint_url("anthropic", address, foundry.endpoints["messages"]) == (
        "https://acme.services.ai.azure.com/anthropic/v1/messages"
    )


# Adding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ADDABLE)
def test_each_kind_is_added_by_the_command(organization, monkeypatch, kind):
    monkeypatch.setenv("THE_KEY", json.dumps(SERVICE_ACCOUNT) if kind == "vertex" else KEY)
    arguments = ["--kind", kind, "--name", "It", "--credential-env", "THE_KEY", "--model", "some-model"]
    for name, value in blanks_of(kind).items():
        arguments += [f"--{name}", value]
    if kind in ADDRESSES:
        arguments += ["--base-url", ADDRESSES[kind]]
    if kind in LOCAL:
        arguments.append("--allow-private")

    call_command("add_provider", *arguments)

    provider = Provider.objects.get()
    assert (provider.kind, provider.dialect) == (kind, PRESETS[kind].dialect)
    assert provider.base_url == EXPECTED.get(kind, ADDRESSES.get(kind, PRESETS[kind].base_url))
    assert provider.models.get().name == "some-model"
    sealed = credentials.unseal(provider).reveal()
    assert (json.loads(sealed) if kind == "vertex" else sealed) == (SERVICE_ACCOUNT if kind == "vertex" else KEY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["azure"], "needs --resource"),
        (["vertex"], "needs --project"),
        (["ikalas"], "needs --base-url"),
        (["openai-compatible"], "needs --base-url"),
        (["azure", "--resource", "evil.example.org/"], "is no resource"),
        (["bedrock", "--region", "Paris"], "is no region: one looks like eu-west-3"),
    ],
)
def test_the_command_says_what_a_kind_needs(organization, arguments, words):
    with pytest.raises(CommandError, match=words):
        call_command("add_provider", "--name", "It", "--kind", *arguments)
    assert not Provider.objects.exists()


def create_url():
    return reverse("providers:provider_create", args=["default"])


def test_the_page_first_asks_for_the_kind(alice_client, organization):
    page = alice_client.get(create_url()).text
    assert re.findall(r'href="\?kind=([\w-]+)"', page) == [
        preset.kind for _heading, presets in preset_groups() for preset in presets
    ]
    assert "<title>Add a provider" in page
    assert alice_client.get(create_url() + "?kind=local").text.count('href="?kind=') == len(ADDABLE)


@pytest.mark.parametrize("kind", ADDABLE)
def test_each_kind_has_a_form_and_is_added_by_it(alice_client, organization, settings, kind):
    page = alice_client.get(create_url() + f"?kind={kind}").text
    assert f'name="kind" value="{kind}"' in page
    fields = {"kind": kind, "name": "It", **blanks_of(kind)}
    for name in blanks_of(kind):
        assert f'name="{name}"' in page
    if kind in ADDRESSES:
        fields["base_url"] = ADDRESSES[kind]
    if kind == "vertex":
        fields["credential"] = json.dumps(SERVICE_ACCOUNT, indent=2)
    elif kind == "bedrock":
        fields |= {"way": "keys", "access_key_id": "AKIAEXAMPLE012345", "secret_access_key": KEY}
    else:
        fields["credential"] = KEY
    if kind in LOCAL:
        settings.ALLOWED_PRIVATE_ORIGINS = {f"http://{urlsplit(PRESETS[kind].base_url).netloc}"}

    response = alice_client.post(create_url(), fields)

    assert response.status_code == 302, response.text
    provider = Provider.objects.get()
    assert provider.base_url == EXPECTED.get(kind, ADDRESSES.get(kind, PRESETS[kind].base_url))
    secret = credentials.unseal(provider).reveal()
    if kind == "bedrock":
        assert json.loads(secret) == {"access_key_id": "AKIAEXAMPLE012345", "secret_access_key": KEY}
        assert provider.credential_hint == "2345"
    elif kind == "vertex":
        assert json.loads(secret) == SERVICE_ACCOUNT
        assert provider.credential_hint == "cdef"
    else:
        assert secret == KEY
    page = alice_client.get(response.url).text
    assert KEY not in page
    assert PRIVATE_KEY[100:130] not in page


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("azure", {}, "This field is required"),
        ("azure", {"resource": "x.evil.example.org/"}, "This is no name of that kind"),
        (
            "bedrock",
            {"region": "eu-west-3", "way": "keys", "access_key_id": "AKIA"},
            "Both parts of the key are needed",
        ),
        ("vertex", {"project": "my-project", "region": "global", "credential": "{}"}, "not the JSON key file"),
        ("vertex", {"project": "my-project", "region": "global", "credential": KEY}, "not the JSON key file"),
        ("ikalas", {}, "This field is required"),
        ("mistral", {"credential": "two words"}, "one line of visible characters"),
    ],
)
def test_what_a_kind_cannot_take_is_said_beside_its_field(alice_client, organization, kind, fields, words):
    response = alice_client.post(create_url(), {"kind": kind, "name": "It"} | fields)
    assert response.status_code == 422
    assert words in response.text
    assert not Provider.objects.exists()


def test_a_bedrock_api_key_is_taken_as_it_is(alice_client, organization):
    fields = {"kind": "bedrock", "name": "It", "region": "eu-west-3", "way": "api_key", "credential": KEY}
    alice_client.post(create_url(), fields | {"access_key_id": "left over"})
    assert credentials.unseal(Provider.objects.get()).reveal() == KEY


def test_a_key_pair_keeps_to_its_parts(organization, alice):
    provider = make_provider(organization, kind="bedrock", base_url=EXPECTED["bedrock"])
    for text in ('{"access_key_id": "a"}', '{"access_key_id": "a", "secret_access_key": 7}', '{"x": "y"}', "{", "{}"):
        with pytest.raises(ValidationError):
            services.set_credential(provider=provider, credential=text, actor=alice)


def test_another_address_stands_in_for_the_blanks(alice_client, organization):
    fields = {"kind": "azure", "name": "It", "base_url": "https://mine.privatelink.example.org/openai/v1"}
    assert alice_client.post(create_url(), fields).status_code == 302
    assert Provider.objects.get().base_url == fields["base_url"]


def test_a_key_file_is_replaced_and_the_old_one_never_shown(alice_client, organization):
    provider = make_provider(
        organization, kind="vertex", base_url=EXPECTED["vertex"], credential=json.dumps(SERVICE_ACCOUNT)
    )
    address = reverse("providers:provider_credential", args=["default", provider.uid])
    assert PRIVATE_KEY[100:130] not in alice_client.get(address).text
    other = SERVICE_ACCOUNT | {"client_email": "other@my-project.iam.gserviceaccount.com"}
    alice_client.post(address, {"credential": json.dumps(other)})
    provider.refresh_from_db()
    assert json.loads(credentials.unseal(provider).reveal()) == other
    assert alice_client.post(address, {"credential": ""}).status_code == 422


# A kind without a list of models -------------------------------------------------------------------------------------


def test_a_kind_without_a_list_is_not_called_and_the_catalogue_stands_in(alice_client, organization, alice):
    from tests.providers.test_catalog import make_entry

    make_entry("global.anthropic.claude-sonnet-9", "aws")
    make_entry("amazon.nova-9", "aws")
    provider = make_provider(organization, kind="bedrock", base_url=EXPECTED["bedrock"])

    found = ask_for_models(provider)

    assert found.finding == Finding.NO_LIST
    assert [model.name for model in found.models] == ["global.anthropic.claude-sonnet-9"]
    url = reverse("providers:model_create", args=["default", provider.uid])
    page = alice_client.post(url, {"list": "1"}, headers={"HX-Request": "true"}).text
    assert "has no list of models to ask for" in page
    assert "$3.00 in, $15.00 out" in page
    test = reverse("providers:provider_test", args=["default", provider.uid])
    assert "Nothing was sent." in alice_client.post(test).text
