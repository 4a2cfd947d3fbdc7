"""Plain makers of what tests need, with defaults; each returns a saved object."""

import datetime
import itertools
import secrets
from decimal import Decimal

from django.conf import settings
from django.utils import timezone

from console import api_keys
from console.models import ApiKey, Member, Organization, User, Workspace
from providers.models import Price, Provider, ProviderModel
from usage.models import Outcome, RequestLog, Source, UsageSource

PASSWORD = "correct horse battery"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_numbers = itertools.count(1)


def make_user(email=None, *, password=PASSWORD, **fields):
    """A person who signs in with ``PASSWORD``."""
    number = next(_numbers)
    return User.objects.create_user(email or f"person{number}@example.org", password, **fields)


def make_organization(*owners, **fields):
    """An organization whose owners are ``owners``."""
    number = next(_numbers)
    fields = {"name": f"Organization {number}", "slug": f"organization-{number}"} | fields
    organization = Organization.objects.create(**fields)
    for owner in owners:
        make_member(organization, owner, Member.Role.OWNER)
    return organization


def make_member(organization, user, role=Member.Role.DEVELOPER):
    return Member.objects.create(organization=organization, user=user, role=role)


def make_workspace(*owners, organization=None, **fields):
    """A workspace of ``organization``, by default of a new one that ``owners`` own."""
    number = next(_numbers)
    fields = {"name": f"Workspace {number}", "slug": f"workspace-{number}"} | fields
    return Workspace.objects.create(organization=organization or make_organization(*owners), **fields)


def make_api_key(workspace, *, secret=None, **fields):
    """A key of ``workspace``; its secret stands in the attribute ``secret`` of the returned object alone."""
    secret = secret or api_keys.new_secret()
    owner = User.objects.filter(memberships__organization=workspace.organization).order_by("memberships__pk").first()
    fields = {"name": f"Key {next(_numbers)}", "created_by": owner} | fields
    api_key = ApiKey.objects.create(
        workspace=workspace, digest=api_keys.digest(secret, settings.API_KEY_PEPPER), hint=secret[-4:], **fields
    )
    api_key.secret = secret
    return api_key


def make_provider(organization, *, credential=None, **fields):
    """An OpenAI-compatible provider, with its credential sealed where one is given."""
    number = next(_numbers)
    fields = {
        "kind": "openai",
        "name": f"Provider {number}",
        "base_url": f"https://provider{number}.example.org/v1",
    } | fields
    provider = Provider.objects.create(organization=organization, **fields)
    if credential:
        from providers import credentials

        provider.sealed_credential = credentials.seal(credential, provider=provider)
        provider.credential_hint = credential[-4:]
        provider.save(update_fields=["sealed_credential", "credential_hint"])
    return provider


def make_model(provider, name=None, **fields):
    """A model that ``provider`` sells; clients ask for it by the same name."""
    name = name or f"model-{next(_numbers)}"
    fields = {"public_name": name} | fields
    return ProviderModel.objects.create(organization=provider.organization, provider=provider, name=name, **fields)


def make_price(provider_model, *, input="3", output="15", **fields):
    """A price per million tokens, valid from the beginning of 2020 by default."""
    fields = {"valid_from": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)} | fields
    return Price.objects.create(
        provider_model=provider_model, input_per_mtok=Decimal(input), output_per_mtok=Decimal(output), **fields
    )


def make_request_log(workspace, *, api_key=None, provider_model=None, started_at=None, **fields):
    """A completed plain request of 100 tokens in and 20 out that cost 0.0006; no rollup is touched."""
    started_at = started_at or timezone.now()
    fields = {
        "id": request_id_at(started_at),
        "organization": workspace.organization,
        "provider": provider_model.provider if provider_model else None,
        "source": Source.API,
        "endpoint": "chat_completions",
        "dialect": "openai",
        "stream": False,
        "requested_model": provider_model.public_name if provider_model else "model",
        "upstream_model": provider_model.name if provider_model else "model",
        "response_model": provider_model.name if provider_model else "model",
        "outcome": Outcome.COMPLETED,
        "status": 200,
        "stop_reason": "stop",
        "input_tokens": 100,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "cache_write_1h_tokens": 0,
        "output_tokens": 20,
        "reasoning_tokens": 0,
        "usage_source": UsageSource.REPORTED,
        "cost_nanos": 600_000,
        "duration_ms": 642,
        "time_to_first_token_ms": 120,
        "overhead_us": 250,
        "attempts": 1,
    } | fields
    return RequestLog.objects.create(
        workspace=workspace, api_key=api_key, provider_model=provider_model, started_at=started_at, **fields
    )


def request_id_at(moment):
    """An id as the gateway gives it to a request that began at ``moment``."""
    number = int(moment.timestamp() * 1000) << 80 | secrets.randbits(80)
    return "req_" + "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
