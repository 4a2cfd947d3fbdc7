"""Who may see what: the first line of every view. A stranger gets the 404 of an unknown id."""

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils import timezone

from console.models import Member, Organization, Workspace


def get_workspace(request, slug, role=Member.Role.DEVELOPER):
    """
    The workspace that ``request.user`` may enter, with its organization.

    Sets ``request.workspace`` and ``request.member``, which the sidebar reads, and activates the organization's time
    zone. Raises ``Http404`` for a stranger and ``PermissionDenied`` for a member without ``role``.
    """
    workspace = Workspace.objects.select_related("organization").filter(slug=slug).first()
    request.member = _member(request, workspace.organization_id if workspace else None, role)
    request.workspace = workspace
    if request.user.last_workspace_id != workspace.pk:
        request.user.last_workspace = workspace
        request.user.save(update_fields=["last_workspace"])
    return workspace


def get_organization(request, slug, role=Member.Role.ADMIN):
    """The organization that ``request.user`` may manage; errors and side effects as ``get_workspace``."""
    organization = Organization.objects.filter(slug=slug).first()
    request.member = _member(request, organization.pk if organization else None, role)
    last = request.user.last_workspace
    request.workspace = (
        last
        if last and last.organization_id == organization.pk
        else organization.workspaces.order_by("created_at").first()
    )
    return organization


def _member(request, organization_id, role):
    member = (
        Member.objects.select_related("organization").filter(organization_id=organization_id, user=request.user).first()
    )
    if member is None:
        raise Http404
    if not member.may(role):
        raise PermissionDenied
    timezone.activate(member.organization.time_zone)
    return member
