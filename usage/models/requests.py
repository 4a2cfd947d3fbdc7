"""One row a request, and the sums of those rows that dashboards read."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from console.models import ApiKey, Organization, User, Workspace
from providers.models import Price, Provider, ProviderModel


class Source(models.TextChoices):
    """Where a request came from."""

    API = "api", _("API")
    PLAYGROUND = "playground", _("Playground")


class Outcome(models.TextChoices):
    """How a request ended."""

    COMPLETED = "completed", _("Completed")
    UPSTREAM_ERROR = "upstream_error", _("Provider failed")
    CLIENT_CANCELLED = "client_cancelled", _("Cancelled by the client")
    TIMEOUT = "timeout", _("Timed out")
    INTERRUPTED = "interrupted", _("Interrupted here")
    REFUSED = "refused", _("Refused")


class UsageSource(models.TextChoices):
    """How token counts are known; the interface calls it provenance."""

    REPORTED = "reported", _("Reported by the provider")
    COUNTED = "counted", _("Counted here")
    ESTIMATED = "estimated", _("Estimated")
    NONE = "none", _("Unknown")


class RequestLog(models.Model):
    """
    One accepted request, written once by ``usage.records``: the operations log and the accounting record in one row.

    Its foreign keys carry no database constraint: history outlives what it speaks of, and no row can block a drain.
    ``id`` is ``req_`` and a ULID, so its order is the order in time. Token counters are disjoint (``reasoning_tokens``
    is a part of ``output_tokens``); ``None`` is unknown. ``cost_nanos`` is ``None`` where the model had no price.
    ``exchange_rate`` is what its price's currency was worth in the organization's, where that is another.
    """

    id = models.CharField(primary_key=True, max_length=32)
    organization = models.ForeignKey(
        Organization, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    workspace = models.ForeignKey(Workspace, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    api_key = models.ForeignKey(
        ApiKey, models.DO_NOTHING, db_constraint=False, null=True, related_name="+", db_index=False
    )
    user = models.ForeignKey(User, models.DO_NOTHING, db_constraint=False, null=True, related_name="+", db_index=False)
    provider = models.ForeignKey(
        Provider, models.DO_NOTHING, db_constraint=False, null=True, related_name="+", db_index=False
    )
    provider_model = models.ForeignKey(
        ProviderModel, models.DO_NOTHING, db_constraint=False, null=True, related_name="+", db_index=False
    )
    price = models.ForeignKey(
        Price, models.DO_NOTHING, db_constraint=False, null=True, related_name="+", db_index=False
    )

    source = models.CharField(max_length=12, choices=Source)
    endpoint = models.CharField(max_length=40)
    dialect = models.CharField(max_length=12)
    stream = models.BooleanField()
    requested_model = models.CharField(max_length=200, null=True)
    upstream_model = models.CharField(max_length=200, null=True)
    response_model = models.CharField(max_length=200, null=True)

    outcome = models.CharField(max_length=20, choices=Outcome)
    status = models.PositiveSmallIntegerField(null=True, help_text="The HTTP status that the client was given.")
    error_code = models.CharField(max_length=60, null=True)
    error_message = models.CharField(max_length=500, null=True)
    stop_reason = models.CharField(max_length=40, null=True)

    input_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    cache_write_1h_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    reasoning_tokens = models.BigIntegerField(null=True)
    usage_source = models.CharField(max_length=12, choices=UsageSource)
    cost_nanos = models.BigIntegerField(null=True)
    exchange_rate = models.BigIntegerField(null=True, help_text="In 10⁻¹⁰, as usage.costs has it.")

    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    time_to_first_token_ms = models.PositiveIntegerField(null=True)
    overhead_us = models.PositiveIntegerField(null=True, help_text="Spent here before the provider was called.")
    attempts = models.PositiveSmallIntegerField(default=0)
    client = models.CharField(max_length=200, null=True, help_text="Its User-Agent.")
    client_retries = models.PositiveSmallIntegerField(null=True)
    upstream_request_id = models.CharField(max_length=200, null=True)
    dropped = models.CharField(max_length=300, null=True, help_text="Fields that the provider could not be told.")

    class Meta:
        indexes = [
            models.Index(fields=["workspace", "-id"], name="usage_requestlog_workspace"),  # the request list
            models.Index(fields=["api_key", "-id"], name="usage_requestlog_api_key"),  # the list, by key
        ]

    def __str__(self):
        return self.id


class UsageRollup(models.Model):
    """
    The sums of request rows that share an interval and every dimension; kept by ``usage.rollups``.

    ``start`` is the interval's first instant: a UTC hour, or a day in the organization's time zone. A dimension that
    does not apply is 0 or empty, so that one unique constraint holds. Sums skip unknown counts.
    """

    class Width(models.TextChoices):
        HOUR = "hour"
        DAY = "day"

    width = models.CharField(max_length=4, choices=Width)
    start = models.DateTimeField()
    organization = models.ForeignKey(
        Organization, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    workspace = models.ForeignKey(Workspace, models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    api_key_id = models.BigIntegerField(default=0)
    user_id = models.BigIntegerField(default=0)
    provider_model_id = models.BigIntegerField(default=0)
    provider_id = models.BigIntegerField(default=0)
    source = models.CharField(max_length=12, choices=Source)
    outcome = models.CharField(max_length=20, choices=Outcome)
    usage_source = models.CharField(max_length=12, choices=UsageSource)

    requests = models.BigIntegerField()
    unpriced_requests = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    cache_write_1h_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost_nanos = models.BigIntegerField()
    duration_ms = models.BigIntegerField()
    time_to_first_token_ms = models.BigIntegerField()
    first_tokens = models.BigIntegerField(help_text="How many requests time_to_first_token_ms sums.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "workspace", "width", "start", "api_key_id", "user_id", "provider_model_id", "provider_id",
                    "source", "outcome", "usage_source", "organization",
                ],
                name="usage_usagerollup_dimensions",
            ),
        ]  # fmt: skip
        indexes = [models.Index(fields=["organization", "width", "start"], name="usage_usagerollup_org")]

    def __str__(self):
        return f"{self.width} {self.start:%Y-%m-%d %H:%M} of {self.workspace_id}"
