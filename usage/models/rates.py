"""How much may be asked in a minute: limits of scopes, named groups of models, and tiers that bring both."""

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.ids import new_id
from console.models import Organization
from usage.models.limits import Scope


def new_rate_limit_id():
    return new_id("rate")


def new_model_group_id():
    return new_id("models")


class ModelGroup(models.Model):
    """Models that share a limit: a name for patterns of public names, ``*`` standing for any characters."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="model_groups")
    uid = models.CharField(max_length=40, unique=True, default=new_model_group_id, editable=False)
    name = models.CharField(_("name"), max_length=80)
    patterns = models.JSONField(_("models"), help_text="A list of public names or patterns of them.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                name="usage_modelgroup_name",
                violation_error_message=_("There is already a group of models with that name."),
            ),
        ]

    def __str__(self):
        return self.name


class Rates(models.Model):
    """The figures of a limit. ``None`` is no limit of that kind, zero lets nothing through."""

    requests_per_minute = models.PositiveBigIntegerField(_("requests a minute"), null=True, blank=True)
    input_tokens_per_minute = models.PositiveBigIntegerField(
        _("input tokens a minute"), null=True, blank=True, help_text="What is read from a cache is not counted."
    )
    output_tokens_per_minute = models.PositiveBigIntegerField(_("output tokens a minute"), null=True, blank=True)
    concurrent_requests = models.PositiveBigIntegerField(_("requests at the same time"), null=True, blank=True)

    FIGURES = (
        "requests_per_minute",
        "input_tokens_per_minute",
        "output_tokens_per_minute",
        "concurrent_requests",
    )

    class Meta:
        abstract = True


class RateLimit(Rates):
    """
    How much a scope may ask in a minute, of every model, one model or a group; ``usage.rate_limits`` sets it.

    Those of a workspace and a key hold beside those of the organization: they can only tighten. What it lets through at
    once is a minute's worth, and it fills up again all the time.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="rate_limits")
    uid = models.CharField(max_length=40, unique=True, default=new_rate_limit_id, editable=False)
    scope = models.CharField(max_length=12, choices=[choice for choice in Scope.choices if choice[0] != Scope.MEMBER])
    scope_id = models.BigIntegerField()
    model = models.CharField(
        _("model"), max_length=200, blank=True, help_text="Its public name; empty with no group: every model together."
    )
    group = models.ForeignKey(ModelGroup, models.CASCADE, null=True, blank=True, related_name="rate_limits")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "scope", "scope_id", "model"],
                condition=models.Q(group=None),
                name="usage_ratelimit_one_a_model",
                violation_error_message=_("There is already a rate limit for that."),
            ),
            models.UniqueConstraint(
                fields=["organization", "scope", "scope_id", "group"],
                condition=models.Q(group__isnull=False),
                name="usage_ratelimit_one_a_group",
                violation_error_message=_("There is already a rate limit for that."),
            ),
            models.CheckConstraint(
                condition=models.Q(model="") | models.Q(group=None),
                name="usage_ratelimit_model_or_group",
                violation_error_message=_("A rate limit is for one model or for one group."),
            ),
        ]

    def __str__(self):
        return f"{self.get_scope_display()}, {self.models_label}" if self.models_label else self.get_scope_display()

    @property
    def models_label(self):
        """The model or group that it is for; empty for every model."""
        return self.group.name if self.group_id else self.model


class UsageTier(models.Model):
    """
    A step of a ladder: what an organization that stands on it may spend in a month and ask in a minute.

    ``rates`` is a list of objects with ``models`` (patterns of public names that share the figures; empty for every
    model) and any of ``Rates.FIGURES``. Organizations rise to it by themselves from the step before once they have
    spent ``after_spent_nanos`` in all and ``after_days`` have passed since their first request; where neither is set,
    only somebody puts them there.
    """

    ladder = models.SlugField(max_length=40)
    step = models.PositiveSmallIntegerField()
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(_("name"), max_length=80)
    monthly_cap_nanos = models.BigIntegerField(null=True, blank=True, help_text="In the organization's currency.")
    rates = models.JSONField(default=list)
    after_spent_nanos = models.BigIntegerField(null=True, blank=True)
    after_days = models.PositiveIntegerField(null=True, blank=True)
    source = models.CharField(max_length=300, blank=True, help_text="Where its figures are published.")
    checked_on = models.DateField(null=True, blank=True)

    class Meta:
        ordering = ["ladder", "step"]
        constraints = [
            models.UniqueConstraint(fields=["ladder", "step"], name="usage_usagetier_step"),
        ]

    def __str__(self):
        return self.name

    @property
    def is_reached_by_rule(self):
        """Whether organizations rise to it by themselves."""
        return self.after_spent_nanos is not None or self.after_days is not None


class TierPlace(models.Model):
    """The tier that an organization stands on; without one, only its own limits hold."""

    organization = models.OneToOneField(Organization, models.CASCADE, related_name="tier_place")
    tier = models.ForeignKey(UsageTier, models.PROTECT, related_name="places")
    since = models.DateTimeField(default=timezone.now)
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    def __str__(self):
        return f"{self.tier} since {self.since:%Y-%m-%d}"
