"""Whose usage is meant, as commands name it."""

from django.core.management.base import CommandError

from console.models import ApiKey, Member, Organization, Workspace
from usage.models import Scope


def add_arguments(parser, *scopes):
    """Let a command ask for just one of ``scopes``."""
    group = parser.add_mutually_exclusive_group(required=True)
    if Scope.ORGANIZATION in scopes:
        group.add_argument("--organization", nargs="?", const="", metavar="SLUG", help="the only one without a name")
    if Scope.WORKSPACE in scopes:
        group.add_argument("--workspace", metavar="SLUG")
    if Scope.API_KEY in scopes:
        group.add_argument("--key", metavar="NAME", help="the name of an API key that is not revoked")
    if Scope.MEMBER in scopes:
        group.add_argument("--member", metavar="EMAIL")


def chosen(options):
    """
    ``(organization, scope, scope_id)`` of what was asked for; raises ``CommandError`` where there is none, or several.
    """
    if (slug := options.get("organization")) is not None:
        found = Organization.objects.filter(slug=slug) if slug else Organization.objects.all()
        organization = _only(found, "organization", slug)
        return organization, Scope.ORGANIZATION, organization.pk
    if slug := options.get("workspace"):
        workspace = _only(Workspace.objects.select_related("organization").filter(slug=slug), "workspace", slug)
        return workspace.organization, Scope.WORKSPACE, workspace.pk
    if name := options.get("key"):
        keys = ApiKey.objects.select_related("workspace__organization").filter(name=name, revoked_at=None)
        key = _only(keys, "API key", name)
        return key.workspace.organization, Scope.API_KEY, key.pk
    email = options["member"]
    members = Member.objects.select_related("organization").filter(user__email=email.strip().lower())
    member = _only(members, "member", email)
    return member.organization, Scope.MEMBER, member.user_id


def _only(found, kind, name):
    rows = list(found[:2])
    if not rows:
        raise CommandError(f"There is no {kind} {name!r}." if name else f"There is no {kind}.")
    if len(rows) > 1:
        raise CommandError(f"There are several of {kind} {name!r}." if name else f"There are several; name the {kind}.")
    return rows[0]
