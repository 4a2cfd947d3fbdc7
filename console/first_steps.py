"""What a new workspace should do next. Each package adds what it knows when it starts, so none asks to its right."""

from collections.abc import Callable
from dataclasses import dataclass

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from console.models import Member, Workspace

NEXT = 1


@dataclass(frozen=True)
class Step:
    """
    One line of the list. ``is_done``, ``url`` and ``leads`` are given the workspace.

    Steps stand in order of ``place``; one that ``leads`` comes right after the start, as others need it.
    """

    place: int
    title: Promise
    is_done: Callable[[Workspace], bool]
    text: Promise | str = ""
    action: Promise | str = ""
    url: Callable[[Workspace], str] | None = None
    role: str = Member.Role.DEVELOPER
    opens_dialog: bool = False
    leads: Callable[[Workspace], bool] | None = None


_steps = []


def register(step):
    """Add a step; called from an app's ``ready``."""
    _steps.append(step)


def steps_of(workspace, member):
    """The steps that ``member`` may take, as dictionaries for the template; one small query each."""
    return [
        {
            "title": step.title,
            "text": step.text,
            "action": step.action,
            "url": step.url(workspace) if step.url else "",
            "opens_dialog": step.opens_dialog,
            "is_done": step.is_done(workspace),
        }
        for step in sorted(_steps, key=lambda step: NEXT if step.leads and step.leads(workspace) else step.place)
        if member.may(step.role)
    ]


register(Step(0, _("Start the server"), lambda workspace: True))
register(
    Step(
        20,
        _("Create an API key"),
        lambda workspace: workspace.api_keys.exists(),
        _("For programs. It is shown once."),
        _("Create key"),
        lambda workspace: reverse("console:api_key_create", args=[workspace.slug]),
        opens_dialog=True,
    )
)
