import copy
import json
import logging
import pickle

import pytest

from console.sealing import HEAD
from providers import credentials
from providers.credentials import CredentialUnreadable, Secret
from tests.factories import make_organization, make_provider

TEXT = "sk-canary-4c1f0e9d"


@pytest.fixture
def provider(organization):
    return make_provider(organization, base_url="https://api.example.org/v1", credential=TEXT)


def test_what_was_sealed_comes_back(provider):
    provider.refresh_from_db()
    assert credentials.unseal(provider).reveal() == TEXT


def test_a_provider_without_a_credential_has_none(organization):
    assert credentials.unseal(make_provider(organization)) is None


def test_the_sealed_form_holds_nothing_of_the_text_and_never_repeats(provider):
    again = credentials.seal(TEXT, provider=provider)
    assert TEXT.encode() not in bytes(provider.sealed_credential)
    assert again != provider.sealed_credential
    assert len(set(again)) > 60


def test_a_path_may_change_but_not_the_origin(provider):
    provider.base_url = "https://api.example.org:443/v2"
    assert credentials.unseal(provider).reveal() == TEXT
    for url in ("https://evil.example.org/v1", "http://api.example.org/v1", "https://api.example.org:8443/v1"):
        provider.base_url = url
        with pytest.raises(CredentialUnreadable):
            credentials.unseal(provider)


def test_a_credential_moved_to_another_row_cannot_be_opened(provider, organization):
    sibling = make_provider(organization, base_url=provider.base_url)
    stranger = make_provider(make_organization(), base_url=provider.base_url)
    for other in (sibling, stranger):
        other.sealed_credential = provider.sealed_credential
        with pytest.raises(CredentialUnreadable):
            credentials.unseal(other)


def test_no_bit_of_the_envelope_can_be_changed(provider):
    sealed = bytes(provider.sealed_credential)
    for position in range(len(sealed)):
        for bit in (1, 128):
            provider.sealed_credential = sealed[:position] + bytes([sealed[position] ^ bit]) + sealed[position + 1 :]
            with pytest.raises(CredentialUnreadable):
                credentials.unseal(provider)


def test_no_part_of_the_envelope_can_be_cut_off(provider):
    sealed = bytes(provider.sealed_credential)
    for length in range(len(sealed)):
        provider.sealed_credential = sealed[:length]
        with pytest.raises(CredentialUnreadable):
            credentials.unseal(provider)


def test_halves_of_two_envelopes_do_not_fit(provider):
    other = credentials.seal("another", provider=provider)
    provider.sealed_credential = bytes(provider.sealed_credential)[:HEAD] + other[HEAD:]
    with pytest.raises(CredentialUnreadable):
        credentials.unseal(provider)


def test_another_ring_opens_nothing(provider, settings):
    settings.CREDENTIAL_KEYS = ["another key of at least thirty-two characters"]
    with pytest.raises(CredentialUnreadable):
        credentials.unseal(provider)


def test_a_rewrap_changes_the_wrapping_alone_and_lets_the_old_key_go(provider, settings):
    old, new = settings.CREDENTIAL_KEYS, ["a new key of at least thirty-two characters"]
    sealed = bytes(provider.sealed_credential)
    settings.CREDENTIAL_KEYS = new + old
    assert credentials.unseal(provider).reveal() == TEXT
    assert not credentials.is_on_newest_key(sealed)

    provider.sealed_credential = credentials.rewrap(provider)

    assert provider.sealed_credential[HEAD:] == sealed[HEAD:]
    assert credentials.is_on_newest_key(provider.sealed_credential)
    settings.CREDENTIAL_KEYS = new
    assert credentials.unseal(provider).reveal() == TEXT


@pytest.mark.parametrize(
    "shown",
    [
        repr, str, "{}".format, "{:>20}".format, lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: str([secret]), lambda secret: json.dumps({"key": secret}, default=str),
        lambda secret: pickle.dumps(secret).decode("latin-1"),
        lambda secret: pickle.loads(pickle.dumps(secret)).reveal(),
        lambda secret: logging.makeLogRecord({"msg": "key %s", "args": (secret,)}).getMessage(),
    ],
)  # fmt: skip
def test_a_secret_never_shows_itself(shown):
    text = shown(Secret(TEXT))
    assert TEXT not in text
    assert "***" in text


def test_a_secret_has_no_attributes_to_list_and_is_not_json():
    with pytest.raises(TypeError):
        vars(Secret(TEXT))
    with pytest.raises(TypeError):
        json.dumps(Secret(TEXT))


def test_a_copy_of_a_secret_still_reveals_it():
    assert copy.deepcopy(Secret(TEXT)).reveal() == TEXT
    assert Secret(TEXT) == Secret(TEXT) != Secret("other")


def test_an_unreadable_credential_says_whose_it_is_and_nothing_of_it(provider):
    provider.base_url = "https://evil.example.org"
    with pytest.raises(CredentialUnreadable) as caught:
        credentials.unseal(provider)
    assert provider.uid in str(caught.value)
    assert TEXT not in repr(caught.value)
