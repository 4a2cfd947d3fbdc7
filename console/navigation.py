"""What the sidebar shows: the pages of a workspace and its organization, and the workspaces to switch to."""

from dataclasses import dataclass

from django.conf import settings
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise, SimpleLazyObject
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from console.models import Member, Workspace

LANGUAGE_NAMES = {"en": "English", "fr": "Français", "es": "Español"}


@dataclass(frozen=True)
class Page:
    """An entry of the sidebar. A view marks it as current with ``section``; ``g`` and then ``key`` go to it."""

    section: str
    url_name: str
    label: Promise
    icon: str
    key: str = ""

    def url(self, slug):
        try:
            return reverse(self.url_name, args=[slug])
        except NoReverseMatch:
            return None


WORKSPACE_PAGES = [
    Page("home", "console:home", _("Home"), "home", "h"),
    Page("playground", "playground:start", _("Playground"), "playground", "p"),
    Page("requests", "usage:request_list", _("Requests"), "requests", "r"),
    Page("usage", "usage:dashboard", _("Usage"), "usage", "u"),
    Page("limits", "usage:limit_list", _("Limits"), "limits", "l"),
    Page("keys", "console:api_key_list", _("API keys"), "key", "k"),
]
ORGANIZATION_PAGES = [
    Page("providers", "providers:provider_list", _("Providers"), "providers"),
    Page("routes", "providers:route_list", _("Routes"), "routes"),
    Page("workspaces", "console:workspace_list", _("Workspaces"), "workspaces"),
    Page("alerts", "usage:alert_list", _("Alerts"), "bell"),
    Page("operations", "operations", _("Operations"), "terminal"),
]

_counts = {}


def register_count(section, count):
    """Show beside ``section`` how much ``count(member)`` says waits for those who manage; one query a page."""
    _counts[section] = count


def waiting(section, member):
    """How much waits for ``member`` on the pages of ``section``."""
    count = _counts.get(section)
    return count(member) if count and member and member.may(Member.Role.ADMIN) else 0


def navigation(request):
    """The reader's place, lazily: a page without a sidebar costs no query."""
    context = {
        "LANGUAGE_CODE": get_language(),
        "languages": [(code, LANGUAGE_NAMES[code]) for code, _name in settings.LANGUAGES],
    }
    member, workspace = getattr(request, "member", None), getattr(request, "workspace", None)
    if member is None:
        return context
    manages = member.may(Member.Role.ADMIN)
    groups = []
    if workspace:
        groups.append(("", _entries(WORKSPACE_PAGES, workspace.slug)))
    if manages:
        groups.append((_("Organization"), _entries(ORGANIZATION_PAGES, member.organization.slug)))
    return context | {
        "workspace": workspace,
        "organization": member.organization,
        "member": member,
        "manages": manages,
        "navigation_groups": groups,
        "switches": SimpleLazyObject(lambda: list(_workspaces_of(request.user))),
    }


def section_url(workspace, section):
    """The page of ``workspace`` that stands where ``section`` stands in another: its home where there is none."""
    page = next((page for page in WORKSPACE_PAGES if page.section == section), WORKSPACE_PAGES[0])
    return page.url(workspace.slug) or workspace.get_absolute_url()


def _workspaces_of(user):
    workspaces = Workspace.objects.filter(organization__members__user=user).select_related("organization")
    return workspaces.order_by("organization__name", "organization_id", "created_at", "pk")


def _entries(pages, slug):
    return [(page, url) for page in pages if (url := page.url(slug))]
