"""Asking a provider which models it sells: one call, for "Test connection" and for taking models over."""

import json
from dataclasses import dataclass

import httpx
from django.db import models
from django.utils.translation import gettext_lazy as _

from providers import credentials
from providers.catalog.lookup import names_of
from providers.client import admin_client, fetch
from providers.credentials import CredentialUnreadable
from providers.endpoints import auth_headers, endpoint_url
from providers.models import Provider
from providers.origins import ForbiddenAddress, InvalidBaseUrl, is_private_allowed

MOST_MODELS = 2_000
# What the OpenAI-compatible servers at large call the length of their context.
CONTEXT_FIELDS = ("context_window", "context_length", "max_model_len", "max_context_length", "max_input_tokens")
OUTPUT_FIELDS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


class Finding(models.TextChoices):
    """What a provider's answer was. All network failures are one, so that no port can be told from another."""

    ANSWERED = "answered", _("Connected")
    UNREACHABLE = "unreachable", _("Could not be reached")
    CREDENTIAL_REFUSED = "credential_refused", _("Credential refused")
    CREDENTIAL_UNREADABLE = "credential_unreadable", _("Credential must be entered again")
    UNEXPECTED = "unexpected", _("Unexpected answer")
    NO_LIST = "no_list", _("Has no list of models")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model as the provider's list has it."""

    name: str
    context_window: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """What came of asking; ``models`` is empty unless the provider answered with a list."""

    finding: Finding
    models: tuple[RemoteModel, ...] = ()
    milliseconds: int | None = None
    status: int | None = None

    @property
    def answered(self):
        return self.finding == Finding.ANSWERED


def ask_for_models(provider: Provider) -> Discovery:
    """
    Call the provider's model list; takes up to ten seconds and raises nothing.

    A kind that has no such list, or one that only signed requests can read, is not called: what the catalogue knows of
    it stands in.
    """
    try:
        secret = credentials.unseal(provider)
    except CredentialUnreadable:
        return Discovery(Finding.CREDENTIAL_UNREADABLE)
    path = provider.preset.endpoints.get("models")
    if path is None:
        return Discovery(Finding.NO_LIST, _from_catalog(provider))
    try:
        private_allowed = is_private_allowed(provider.base_url, provider.approved_private_origin)
        url = endpoint_url(provider.dialect, provider.base_url, path)
        if provider.dialect == "anthropic":
            url += "?limit=1000"
        with admin_client(provider.base_url, private_allowed=private_allowed) as client:
            answer = fetch(client, url, auth_headers(provider.preset, secret))
    except (httpx.HTTPError, ForbiddenAddress, InvalidBaseUrl):
        return Discovery(Finding.UNREACHABLE)
    if answer.status in {401, 403}:
        return Discovery(Finding.CREDENTIAL_REFUSED, status=answer.status)
    found = read_models(answer.body) if answer.status == 200 else None
    if found is None:
        return Discovery(Finding.UNEXPECTED, status=answer.status)
    return Discovery(Finding.ANSWERED, found, answer.milliseconds, answer.status)


def _from_catalog(provider):
    """The models that the catalogue knows of a seller, of those that its kind can call."""
    names = names_of(provider)
    if provider.dialect == "anthropic":
        names = [name for name in names if "claude" in name]
    return tuple(RemoteModel(name) for name in names[:MOST_MODELS])


def read_models(body: bytes) -> tuple[RemoteModel, ...] | None:
    """The models of a list in either dialect, by name; ``None`` where the body is no such list."""
    try:
        listed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(listed, dict):
        listed = listed.get("data")
    if not isinstance(listed, list):
        return None
    found = {}
    for item in listed:
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(name, str):
            name = name.removeprefix("models/")  # Google writes its names so, and takes them without
        if isinstance(name, str) and is_model_name(name):
            found.setdefault(name, RemoteModel(name, _whole(item, CONTEXT_FIELDS), _whole(item, OUTPUT_FIELDS)))
    return tuple(sorted(found.values(), key=lambda model: model.name.lower())[:MOST_MODELS])


def is_model_name(text: str) -> bool:
    """Whether ``text`` can name a model: visible, without spaces, at most 200 characters."""
    return 0 < len(text) <= 200 and text.isprintable() and not any(character.isspace() for character in text)


def _whole(item, fields):
    for field in fields:
        value = item.get(field)
        if type(value) is int and 0 < value < 2**31:
            return value
    return None
