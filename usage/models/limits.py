"""What may be spent: limits, the ledger of what was, and what processes hold of it for requests to come."""

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.ids import new_id
from console.models import Organization


def new_limit_id():
    return new_id("limit")


def new_increase_id():
    return new_id("increase")


class Scope(models.TextChoices):
    """Whose spending is meant; ``scope_id`` beside it is the key of that row, of a member its user's."""

    ORGANIZATION = "organization", _("Organization")
    WORKSPACE = "workspace", _("Workspace")
    API_KEY = "api_key", _("API key")
    MEMBER = "member", _("Member")


class SpendPeriod(models.TextChoices):
    """How long a limit's interval is, in the organization's time zone; weeks begin on Monday."""

    DAY = "day", _("Day")
    WEEK = "week", _("Week")
    MONTH = "month", _("Month")


class SpendLimit(models.Model):
    """
    How much a scope may spend in each of its periods; ``usage.spend_limits`` sets it.

    A hard one refuses what could pass it, a soft one only says so. Zero refuses all; no row is no limit.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="spend_limits")
    uid = models.CharField(max_length=40, unique=True, default=new_limit_id, editable=False)
    scope = models.CharField(max_length=12, choices=Scope)
    scope_id = models.BigIntegerField()
    period = models.CharField(_("period"), max_length=5, choices=SpendPeriod)
    amount_nanos = models.BigIntegerField(_("amount"))
    is_hard = models.BooleanField(_("refuse requests above it"), default=True)
    allows_unpriced = models.BooleanField(
        _("let models without a price pass"), default=False, help_text="What has no price is then not counted."
    )
    thresholds = models.JSONField(default=list, help_text="Percentages at which somebody is told, lowest first.")
    raised_nanos = models.BigIntegerField(default=0, help_text="Granted on top until raised_until.")
    raised_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "scope", "scope_id", "period"],
                name="usage_spendlimit_one_a_period",
                violation_error_message=_("There is already a limit for that period."),
            ),
            models.CheckConstraint(
                condition=models.Q(amount_nanos__gte=0, raised_nanos__gte=0),
                name="usage_spendlimit_not_negative",
                violation_error_message=_("A limit is zero or more."),
            ),
        ]

    def __str__(self):
        return f"{self.get_scope_display()}, {self.get_period_display()}"

    def amount_at(self, moment):
        """What may be spent at ``moment``, in nanos, with what was granted on top."""
        return self.amount_nanos + (self.raised_nanos if self.raised_until and moment < self.raised_until else 0)


class LedgerPeriod(models.Model):
    """
    What one scope spent in one interval ``[start, end)``: the ledger, the only truth about spending.

    ``usage.ledger`` alone writes it. ``settled_nanos`` is the cost of the scope's request rows that came in within the
    interval; ``leased_nanos`` what processes hold for requests that are under way or to come, and the sum of
    ``remaining_nanos`` of its leases. Under a hard limit both together never pass it but by what a provider charged
    beyond the most that a request could cost.
    """

    organization = models.ForeignKey(
        Organization, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    scope = models.CharField(max_length=12, choices=Scope)
    scope_id = models.BigIntegerField()
    period = models.CharField(max_length=5, choices=SpendPeriod)
    start = models.DateTimeField()
    end = models.DateTimeField()
    settled_nanos = models.BigIntegerField(default=0)
    leased_nanos = models.BigIntegerField(default=0)
    recalled_at = models.DateTimeField(null=True, help_text="When a process last asked the others for what lies idle.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "scope", "scope_id", "period", "start"], name="usage_ledgerperiod_interval"
            ),
        ]

    def __str__(self):
        return f"{self.scope} {self.scope_id}, {self.period} of {self.start:%Y-%m-%d}"


class GatewayProcess(models.Model):
    """A process that answers calls, as far as the ledger knows: it says so each minute while it lives."""

    uid = models.CharField(primary_key=True, max_length=40)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)
    taken_over_by = models.CharField(max_length=40, blank=True, help_text="Who drained its journal after its death.")

    def __str__(self):
        return f"{self.pid} on {self.host}"


class SpendLease(models.Model):
    """
    What one process holds of one ledger period. The sums are of the lease's whole life.

    ``granted - settled - released = remaining``, never below zero: what a provider charged beyond the most that was
    reserved is settled in the interval alone.
    """

    class State(models.TextChoices):
        OPEN = "open", _("Held")
        CLOSED = "closed", _("Returned")
        ORPHANED = "orphaned", _("Orphaned")

    ledger_period = models.ForeignKey(LedgerPeriod, models.CASCADE, related_name="leases")
    process = models.ForeignKey(GatewayProcess, models.CASCADE, related_name="leases")
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    granted_nanos = models.BigIntegerField(default=0)
    settled_nanos = models.BigIntegerField(default=0)
    released_nanos = models.BigIntegerField(default=0)
    remaining_nanos = models.BigIntegerField(default=0)
    has_idle = models.BooleanField(default=False, help_text="Whether more was granted than requests had asked for.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    changed_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["ledger_period", "process"], name="usage_spendlease_one_a_process"),
        ]

    def __str__(self):
        return f"{self.process_id} of {self.ledger_period_id}"


class LimitIncrease(models.Model):
    """
    A member's wish for a higher limit, and what became of it.

    ``amount_nanos`` and ``until`` are what was asked for, ``granted_nanos`` and ``granted_until`` what was approved.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("Waiting")
        APPROVED = "approved", _("Approved")
        DENIED = "denied", _("Denied")

    spend_limit = models.ForeignKey(SpendLimit, models.CASCADE, related_name="increases")
    uid = models.CharField(max_length=40, unique=True, default=new_increase_id, editable=False)
    amount_nanos = models.BigIntegerField(_("how much more"))
    until = models.DateTimeField(_("until"))
    reason = models.CharField(_("reason"), max_length=300)
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    requested_at = models.DateTimeField(default=timezone.now, editable=False)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True, editable=False)
    answer = models.CharField(_("answer"), max_length=300, blank=True)
    granted_nanos = models.BigIntegerField(null=True)
    granted_until = models.DateTimeField(null=True)

    def __str__(self):
        return self.uid


class LimitAlert(models.Model):
    """A threshold that was passed, once a period; resolved when the amount was raised or the period ended."""

    spend_limit = models.ForeignKey(SpendLimit, models.CASCADE, related_name="alerts")
    ledger_period = models.ForeignKey(LedgerPeriod, models.CASCADE, related_name="alerts")
    threshold = models.PositiveSmallIntegerField()
    spent_nanos = models.BigIntegerField()
    amount_nanos = models.BigIntegerField()
    raised_at = models.DateTimeField(default=timezone.now, editable=False)
    resolved_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["spend_limit", "ledger_period", "threshold"], name="usage_limitalert_once_a_period"
            ),
        ]

    def __str__(self):
        return f"{self.threshold} % of {self.spend_limit_id}"
