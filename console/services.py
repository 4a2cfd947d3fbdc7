"""What people do to keys and workspaces; each change with its audit event."""

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify

from console import api_keys, audit
from console.models import ApiKey, Flavour, Workspace
from console.revision import bump_revision


@transaction.atomic
def create_api_key(*, workspace, name, created_by, expires_at=None, flavour="", stores_responses=True):
    """
    A new active key of ``workspace``: the pair of the stored object and its secret, shown this once.

    ``flavour`` is a ``Flavour``, or empty for the workspace's; responses are stored where the workspace stores any and
    ``stores_responses`` is true. Raises ``ValidationError`` where an active key has that name.
    """
    secret = api_keys.new_secret()
    api_key = ApiKey(
        workspace=workspace,
        name=name,
        created_by=created_by,
        expires_at=expires_at,
        flavour=flavour,
        stores_responses=stores_responses,
        digest=api_keys.digest(secret, settings.API_KEY_PEPPER),
        hint=secret[-4:],
    )
    api_key.full_clean()
    api_key.save()
    details = {
        "expires_at": expires_at.isoformat() if expires_at else None,
        "flavour": flavour,
        "stores_responses": stores_responses,
    }
    _changed(api_key, created_by, "api_key.created", **details)
    return api_key, secret


@transaction.atomic
def edit_api_key(*, api_key, name, flavour, actor, stores_responses=None):
    """
    Give the key a name, a ``Flavour``, empty for the workspace's, and say whether its responses may be stored.

    ``None`` leaves that as it is. Raises ``ValidationError`` where another active key of the workspace has that name.
    """
    before = api_key.name, api_key.flavour, api_key.stores_responses
    api_key.name, api_key.flavour = name, flavour
    api_key.stores_responses = before[2] if stores_responses is None else stores_responses
    api_key.full_clean()
    api_key.save(update_fields=["name", "flavour", "stores_responses"])
    if before[0] != name:
        _changed(api_key, actor, "api_key.renamed", before=before[0], after=name)
    if before[1] != flavour:
        _changed(api_key, actor, "api_key.flavour_changed", before=before[1], after=flavour)
    if before[2] != api_key.stores_responses:
        after = api_key.stores_responses
        _changed(api_key, actor, "api_key.stores_responses_changed", before=before[2], after=after)


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
def create_workspace(*, organization, name, actor, flavour=Flavour.OPENAI, stores_responses=True):
    """A new workspace; its slug is made from its name. Raises ``ValidationError`` where the name is taken."""
    workspace = Workspace(
        organization=organization,
        name=name,
        flavour=flavour,
        stores_responses=stores_responses,
        slug=free_slug(Workspace, name),
        series=organization.workspaces.count() % 9 + 1,
    )
    workspace.full_clean()
    workspace.save()
    audit.record(organization=organization, actor=actor, action="workspace.created", target=workspace)
    return workspace


@transaction.atomic
def edit_workspace(*, workspace, name, flavour, actor, stores_responses=None):
    """
    Give a name and the ``Flavour`` of all keys that have none of their own; the address keeps its slug.

    ``stores_responses`` says whether any key's responses may be stored; ``None`` leaves that as it is. What is stored
    already stays until it expires. Raises ``ValidationError`` where the name is taken.
    """
    before = workspace.name, workspace.flavour, workspace.stores_responses
    workspace.name, workspace.flavour = name, flavour
    workspace.stores_responses = before[2] if stores_responses is None else stores_responses
    workspace.full_clean()
    workspace.save(update_fields=["name", "flavour", "stores_responses"])
    told = {"organization": workspace.organization, "actor": actor, "target": workspace}
    if before[0] != name:
        audit.record(**told, action="workspace.renamed", before=before[0])
    if before[1] != flavour:
        audit.record(**told, action="workspace.flavour_changed", before=before[1], after=flavour)
        bump_revision()
    if before[2] != workspace.stores_responses:
        after = workspace.stores_responses
        audit.record(**told, action="workspace.stores_responses_changed", before=before[2], after=after)
        bump_revision()


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
