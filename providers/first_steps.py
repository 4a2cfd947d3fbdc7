"""What providers add to the first steps of a workspace."""

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from console.first_steps import Step, register
from console.models import Member


def has_provider(workspace):
    """Whether its organization has connected a provider beside the model of this machine."""
    return workspace.organization.providers.current().exclude(kind="local").exists()


def has_no_model(workspace):
    """Whether there is nothing yet that could answer."""
    models = workspace.organization.models.current()
    return not models.filter(disabled_at=None, provider__disabled_at=None).exists()


def add():
    """Register the first provider, for those who may connect one."""
    register(
        Step(
            30,
            _("Connect a provider"),
            has_provider,
            _("Anthropic, OpenAI or any compatible server."),
            _("Connect"),
            lambda workspace: reverse("providers:provider_list", args=[workspace.organization.slug]),
            role=Member.Role.ADMIN,
            leads=has_no_model,
        )
    )
