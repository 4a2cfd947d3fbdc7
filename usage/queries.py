"""What the usage pages read: sums of rollups, and request rows by their id. Each function is one query."""

from dataclasses import dataclass, field

from django.db.models import Case, F, Sum, Value, When
from django.utils import timezone

from console.models import ApiKey
from providers.models import ProviderModel
from usage.models import Outcome, RequestLog, Source, StoredResponse, UsageRollup
from usage.periods import Grain, PartDay

FAILED = {Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT, Outcome.INTERRUPTED}
SUMS = (
    "requests",
    "unpriced_requests",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "cost_nanos",
    "time_to_first_token_ms",
    "first_tokens",
)
COUNTS = (
    "requests",
    "unpriced_requests",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "cost_nanos",
    "time_to_first_token_ms",
    "first_tokens",
)
DIMENSIONS = {"model": ("provider_model_id",), "key": ("api_key_id", "source")}
OTHER = "other"
PLAYGROUND = "playground"
NOBODY = "none"


@dataclass
class Sums:
    """Added-up usage. Token kinds are disjoint; ``cache_write_tokens`` holds those of both lifetimes."""

    requests: int = 0
    unpriced_requests: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    time_to_first_token_ms: int = 0
    first_tokens: int = 0
    outcomes: dict = field(default_factory=dict)
    usage_sources: dict = field(default_factory=dict)

    def add(self, row):
        """Take in one row of ``values(…)`` with the sums of ``SUMS``."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + row[name])
        self.cache_write_tokens += row["cache_write_1h_tokens"]
        outcome = row.get("outcome")
        if outcome:
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + row["requests"]
            source = row.get("usage_source")
            if source and outcome != Outcome.REFUSED:
                self.usage_sources[source] = self.usage_sources.get(source, 0) + row["requests"]

    def merge(self, other):
        """Add another ``Sums``."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.outcomes, other.outcomes), (self.usage_sources, other.usage_sources)):
            for name, requests in theirs.items():
                mine[name] = mine.get(name, 0) + requests

    @property
    def prompt_tokens(self):
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def tokens(self):
        return self.prompt_tokens + self.output_tokens

    @property
    def failed(self):
        return sum(self.outcomes.get(outcome, 0) for outcome in FAILED)

    @property
    def completed(self):
        return self.outcomes.get(Outcome.COMPLETED, 0)

    @property
    def refused(self):
        return self.outcomes.get(Outcome.REFUSED, 0)

    @property
    def cost(self):
        """Nanos, or ``None`` where no request that could cost something had a price."""
        priced = self.requests - self.refused - self.unpriced_requests
        return None if self.unpriced_requests and priced <= 0 else self.cost_nanos

    @property
    def mean_first_token_ms(self):
        return self.time_to_first_token_ms / self.first_tokens if self.first_tokens else None

    def measure(self, name):
        """One of ``cost``, ``tokens``, ``requests`` as a plain number."""
        return {"cost": self.cost_nanos, "tokens": self.tokens, "requests": self.requests}[name]


def rollups(workspace, period, *, api_key=None, provider_model=None, source="", hours=False):
    """The rollup rows of the period under the page's filters; ``hours`` asks for hourly ones."""
    end = period.until if isinstance(period, PartDay) else period.end
    hours = hours or isinstance(period, PartDay)
    found = UsageRollup.objects.filter(
        workspace=workspace,
        width=UsageRollup.Width.HOUR if hours else UsageRollup.Width.DAY,
        start__gte=period.start,
        start__lt=end,
    )
    if api_key is not None:
        found = found.filter(api_key_id=api_key.pk)
    if provider_model is not None:
        found = found.filter(provider_model_id=provider_model.pk)
    if source:
        found = found.filter(source=source)
    return found


def sums_by_entity(found, by):
    """``{entity: Sums}`` over the rollup rows ``found``, with outcomes and provenance."""
    sums = {}
    for row in _summed(found, *DIMENSIONS[by], "outcome", "usage_source"):
        sums.setdefault(_entity(by, row[DIMENSIONS[by][0]], row.get("source")), Sums()).add(row)
    return sums


def series_sums(workspace, period, by, leading, **filters):
    """
    ``{(step, entity): Sums}`` for the chart; steps without use are absent.

    Entities that are not ``leading`` are summed as ``OTHER`` by the database. Where the chart has hours it reads
    hourly rollups.
    """
    leading = set(leading)
    hourly = period.grain == Grain.HOUR
    found = rollups(workspace, period, hours=hourly, **filters)
    name, *more = DIMENSIONS[by]
    ids = [key for key in leading if isinstance(key, int)]
    entity_id = Case(When(**{f"{name}__in": [*ids, 0]}, then=F(name)), default=Value(-1))
    sums, steps = {}, {}
    for row in _summed(found.annotate(entity_id=entity_id), "start", "entity_id", *more, "outcome"):
        start = row["start"]
        if start not in steps:
            steps[start] = period.step_of(start)
        entity = _entity(by, row["entity_id"], row.get("source"))
        sums.setdefault((steps[start], entity if entity in leading else OTHER), Sums()).add(row)
    if hourly and not period.on_the_hour:
        _add_first_step(sums, period, sums_by_entity(rollups(workspace, period, **filters), by), leading)
    return sums


def _add_first_step(sums, period, day, leading):
    """Where the day began within a UTC hour: what the whole hours do not hold fell into the rest of that one."""
    for entity in [*leading, OTHER]:
        rest = Sums()
        for key, whole in day.items():
            if key == entity or (entity == OTHER and key not in leading):
                rest.merge(whole)
        for count in COUNTS:
            later = sum(getattr(hour, count) for (_, key), hour in sums.items() if key == entity)
            setattr(rest, count, getattr(rest, count) - later)
        if rest.requests > 0:
            sums[period.start, entity] = rest


def _entity(by, entity_id, source):
    """What a row is counted under: an object's primary key, ``OTHER``, ``PLAYGROUND`` or ``NOBODY``."""
    if entity_id:
        return OTHER if entity_id < 0 else entity_id
    return PLAYGROUND if by == "key" and source == Source.PLAYGROUND else NOBODY


def total_of(found):
    """The ``Sums`` of all rollup rows in ``found``."""
    total = Sums()
    for row in _summed(found, "outcome", "usage_source"):
        total.add(row)
    return total


def _summed(found, *names):
    return found.order_by().values(*names).annotate(**{name: Sum(name) for name in SUMS})


def key_choices(workspace):
    """Every key the workspace ever had, oldest first: the order that gives each its colour."""
    return list(ApiKey.objects.filter(workspace=workspace).order_by("created_at", "pk"))


def model_choices(workspace):
    """Every model the workspace's organization ever had, with its provider."""
    return list(ProviderModel.objects.filter(organization=workspace.organization_id).select_related("provider"))


def has_requests(workspace):
    """Whether a request was ever made here."""
    return RequestLog.objects.filter(workspace=workspace).exists()


def requests_of(workspace, *, api_key=None, provider_model=None, source="", outcome="", endpoint="", dialect=""):
    """Request rows, newest first, as one row of the list shows them."""
    found = RequestLog.objects.filter(workspace=workspace)
    if api_key is not None:
        found = found.filter(api_key=api_key)
    if provider_model is not None:
        found = found.filter(provider_model=provider_model)
    if source:
        found = found.filter(source=source)
    if outcome:
        found = found.filter(outcome=outcome)
    if endpoint:
        found = found.filter(endpoint=endpoint)
    if dialect:
        found = found.filter(dialect=dialect)
    return found.order_by("-id")


def stored_until(log):
    """When the response to a request will be deleted; ``None`` where nothing of it is stored."""
    kept = StoredResponse.objects.filter(
        pk=log.pk.replace("req_", "resp_", 1), workspace=log.workspace_id, expires_at__gt=timezone.now()
    )
    return kept.values_list("expires_at", flat=True).first()


def key_spends(workspace, period):
    """``{api key id: Sums}`` of the period, for keys alone."""
    sums = {}
    for row in _summed(rollups(workspace, period).exclude(api_key_id=0), "api_key_id"):
        sums[row["api_key_id"]] = Sums()
        sums[row["api_key_id"]].add(row)
    return sums
