"""What usage adds to the first steps of a workspace."""

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from console.first_steps import Step, register
from usage.models import Outcome, RequestLog


def has_answer(workspace):
    """Whether a model has ever answered a request of the workspace."""
    return RequestLog.objects.filter(workspace=workspace, outcome=Outcome.COMPLETED).exists()


def add():
    """Register the first answer, between the start and the first key."""
    register(
        Step(
            10,
            _("Get a first answer"),
            has_answer,
            _("In the browser, from any model that is connected."),
            _("Try a prompt"),
            lambda workspace: reverse("playground:start", args=[workspace.slug]),
        )
    )
