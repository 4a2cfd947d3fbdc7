"""What people do to keys and workspaces; each change with its audit event."""

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify

from console import api_keys, audit
from console.models import ApiKey, Workspace
from console.revision import bump_revision


@transaction.atomic
def create_api_key(*, workspace, name, created_by, expires_at=None):
    """
    A new active key of ``workspace``: the pair of the stored object and its secret, shown this once.

    Raises ``ValidationError`` where an active key has that name.
    """
    secret = api_keys.new_secret()
    api_key = ApiKey(
        workspace=workspace,
        name=name,
        created_by=created_by,
        expires_at=expires_at,
        digest=api_keys.digest(secret, settings.API_KEY_PEPPER),
        hint=secret[-4:],
    )
    api_key.full_clean()
    api_key.save()
    _changed(api_key, created_by, "api_key.created", expires_at=expires_at.isoformat() if expires_at else None)
    return api_key, secret


@transaction.atomic
def rename_api_key(*, api_key, name, actor):
    """Raises ``ValidationError`` where another active key of the workspace has that name."""
    before, api_key.name = api_key.name, name
    api_key.full_clean()
    api_key.save(update_fields=["name"])
    _changed(api_key, actor, "api_key.renamed", before=before, after=name)


@transaction.atomic
def disable_api_key(*, api_key, actor):
    """Refuse the key until it is enabled again; disabling twice changes nothing."""
    if api_key.disabled_at is None and api_key.revoked_at is None:
        api_key.disabled_at = timezone.now()
        api_key.save(update_fields=["disabled_at"])
        _changed(api_key, actor, "api_key.disabled")


@transaction.atomic
def enable_api_key(*, api_key, actor):
    """Let a disabled key work again."""
    if api_key.disabled_at is not None and api_key.revoked_at is None:
        api_key.disabled_at = None
        api_key.save(update_fields=["disabled_at"])
        _changed(api_key, actor, "api_key.enabled")


@transaction.atomic
def revoke_api_key(*, api_key, actor):
    """Refuse the key for ever."""
    if api_key.revoked_at is None:
        api_key.revoked_at = timezone.now()
        api_key.save(update_fields=["revoked_at"])
        _changed(api_key, actor, "api_key.revoked")


@transaction.atomic
def create_workspace(*, organization, name, actor):
    """A new workspace; its slug is made from its name. Raises ``ValidationError`` where the name is taken."""
    workspace = Workspace(
        organization=organization,
        name=name,
        slug=free_slug(Workspace, name),
        series=organization.workspaces.count() % 9 + 1,
    )
    workspace.full_clean()
    workspace.save()
    audit.record(organization=organization, actor=actor, action="workspace.created", target=workspace)
    return workspace


@transaction.atomic
def rename_workspace(*, workspace, name, actor):
    """Give another name; the address keeps its slug."""
    before, workspace.name = workspace.name, name
    workspace.full_clean()
    workspace.save(update_fields=["name"])
    audit.record(
        organization=workspace.organization, actor=actor, action="workspace.renamed", target=workspace, before=before
    )


def free_slug(model, name):
    """A slug of ``name`` that no row of ``model`` has yet."""
    stem = slugify(name)[:50] or model._meta.model_name
    slug, number = stem, 1
    while model.objects.filter(slug=slug).exists():
        number += 1
        slug = f"{stem}-{number}"
    return slug


def _changed(api_key, actor, action, **details):
    audit.record(organization=api_key.workspace.organization, actor=actor, action=action, target=api_key, **details)
    bump_revision()
