"""Adding providers in clouds: what their credentials are, and what a server needs that has no library for them."""

import json

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from providers import credentials, services
from providers.adapters import extras
from tests.upstream.vertex import VertexUpstream

BASE_URLS = {
    "bedrock": "https://bedrock-runtime.eu-west-3.amazonaws.com",
    "vertex": "https://europe-west1-aiplatform.googleapis.com/v1/projects/mine/locations/europe-west1",
}

TOKEN_URI = "https://oauth2.googleapis.com/token"


def create(organization, actor, kind, credential=None):
    return services.create_provider(
        organization=organization, kind=kind, name=kind, base_url=BASE_URLS[kind], credential=credential, actor=actor
    )


@pytest.mark.parametrize("kind", BASE_URLS)
def test_without_its_library_a_cloud_is_not_added_and_it_is_said_what_to_do(organization, alice, kind, monkeypatch):
    monkeypatch.setitem(extras.MODULES, kind, ("no_such_library.module",))
    with pytest.raises(ValidationError) as refused:
        create(organization, alice, kind)
    assert f"COMPTOIR_EXTRAS={kind}" in refused.value.messages[0]
    assert not organization.providers.exists()


@pytest.mark.parametrize("kind", BASE_URLS)
def test_the_page_says_it_before_and_after_anything_is_typed(alice_client, organization, kind, monkeypatch):
    address = reverse("providers:provider_create", args=[organization.slug])
    assert "COMPTOIR_EXTRAS" not in alice_client.get(address, {"kind": kind}).text
    monkeypatch.setitem(extras.MODULES, kind, ("no_such_library.module",))
    assert alice_client.get(address, {"kind": kind}).text.count(f"COMPTOIR_EXTRAS={kind}") == 1
    region = {"bedrock": "eu-west-3", "vertex": "europe-west1"}[kind]
    typed = {"kind": kind, "name": "Cloud", "region": region, "project": "mine-one", "base_url": BASE_URLS[kind]}
    refused = alice_client.post(address, typed)
    assert refused.status_code == 422
    assert refused.text.count(f"COMPTOIR_EXTRAS={kind}") == 1


def test_the_key_file_of_a_service_account_is_sealed_whole(organization, alice):
    key_file = json.loads(VertexUpstream().credential_json(token_uri=TOKEN_URI))
    provider = create(organization, alice, "vertex", json.dumps(key_file, indent=2))
    assert json.loads(credentials.unseal(provider).reveal()) == key_file
    assert provider.credential_hint == key_file["private_key_id"][-4:]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "authorized_user"},
        {"type": "external_account"},
        {"private_key": "-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----\n"},
        {"token_uri": "https://user@oauth2.googleapis.com/token"},
        {"token_uri": None},
    ],
    ids=repr,
)
def test_what_is_no_key_file_is_not_taken(organization, alice, change):
    with pytest.raises(ValidationError) as refused:
        create(organization, alice, "vertex", VertexUpstream().credential_json(**{"token_uri": TOKEN_URI} | change))
    assert "credential" in refused.value.message_dict
