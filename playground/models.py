"""A person asking: conversations with models, each seen by its author alone."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from console.ids import new_id
from console.models import Workspace
from playground import markdown
from providers.models import ModelRoute, ProviderModel
from usage.models import Outcome, UsageSource

ROW_COMES_WITHIN = timedelta(minutes=1)


def new_conversation_id():
    return new_id("conv")


def new_message_id():
    return new_id("msg")


class ConversationQuerySet(models.QuerySet):
    def seen_by(self, user, workspace):
        """What ``user`` may see in ``workspace``: their own conversations."""
        return self.filter(user=user, workspace=workspace)


class Conversation(models.Model):
    """
    A talk of one person with a model, in one workspace.

    ``parameters`` holds what the person set, by the names of ``playground.parameters``; what is absent is not sent.
    ``replaced_at`` marks the messages that an edit or a new answer replaced last and that can be brought back.
    """

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="conversations")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="conversations")
    uid = models.CharField(max_length=40, unique=True, default=new_conversation_id, editable=False)
    title = models.CharField(_("title"), max_length=80, blank=True)
    model = models.ForeignKey(ProviderModel, models.SET_NULL, null=True, related_name="+")
    route = models.ForeignKey(
        ModelRoute,
        models.SET_NULL,
        null=True,
        related_name="+",
        help_text="What was asked, where it was a route.",
    )
    system_prompt = models.TextField(_("system prompt"), blank=True)
    parameters = models.JSONField(default=dict)
    replaced_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["user", "workspace", "-updated_at"], name="playground_conversation_latest"
            ),  # the list
        ]

    def __str__(self):
        return self.title or self.uid

    def get_absolute_url(self):
        return reverse("playground:conversation", args=[self.workspace.slug, self.uid])

    @property
    def asked_uid(self):
        """The id of the route or the model that was asked last; empty where it is gone."""
        asked = self.route or self.model
        return asked.uid if asked else ""


class MessageQuerySet(models.QuerySet):
    def live(self):
        """The conversation as it stands, in order."""
        return self.filter(replaced_at=None).order_by("position")


class Message(models.Model):
    """
    What one side said. An answer keeps how its request ended, also where it failed and says nothing.

    A replaced message keeps its place (``position``) and the moment it was replaced, so that it can come back. The
    figures are those that the pipeline gave at the end; after a stop they are read from the request's row.
    """

    class Role(models.TextChoices):
        USER = "user", _("You")
        ASSISTANT = "assistant", _("Model")

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    uid = models.CharField(max_length=40, unique=True, default=new_message_id, editable=False)
    position = models.PositiveIntegerField()
    role = models.CharField(max_length=12, choices=Role)
    content = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    edited_at = models.DateTimeField(null=True, editable=False)
    replaced_at = models.DateTimeField(null=True, editable=False)

    model_name = models.CharField(max_length=200, blank=True)
    request_id = models.CharField(max_length=32, blank=True)
    outcome = models.CharField(max_length=20, choices=Outcome, blank=True)
    stop_reason = models.CharField(max_length=40, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    input_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    reasoning_tokens = models.BigIntegerField(null=True)
    usage_source = models.CharField(max_length=12, choices=UsageSource, blank=True)
    cost_nanos = models.BigIntegerField(null=True)
    time_to_first_token_ms = models.PositiveIntegerField(null=True)
    duration_ms = models.PositiveIntegerField(null=True)

    objects = MessageQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "position"],
                condition=models.Q(replaced_at=None),
                name="playground_message_one_a_position",
            ),
        ]

    def __str__(self):
        return f"{self.role} {self.position} of {self.conversation_id}"

    @property
    def is_answer(self):
        return self.role == self.Role.ASSISTANT

    @cached_property
    def html(self):
        """What the model wrote, as HTML that can do nothing."""
        return markdown.render(self.content)

    @property
    def waits_for_figures(self):
        """Whether its request's row, which knows what a stopped answer cost, may still come."""
        return bool(self.request_id and not self.usage_source) and timezone.now() - self.created_at < ROW_COMES_WITHIN

    @cached_property
    def total_tokens(self):
        """All tokens of the request; ``None`` where no count is known."""
        counts = [self.input_tokens, self.cache_read_tokens, self.cache_write_tokens, self.output_tokens]
        return sum(count or 0 for count in counts) if any(count is not None for count in counts) else None

    @property
    def tokens_per_second(self):
        """How fast the answer was written once it had begun; ``None`` where that cannot be told."""
        if not self.output_tokens or self.duration_ms is None or self.time_to_first_token_ms is None:
            return None
        writing_ms = self.duration_ms - self.time_to_first_token_ms
        return self.output_tokens * 1000 / writing_ms if writing_ms > 0 else None
