"""What the pages of limits read about rates and tiers."""

import datetime
import fnmatch
from collections import Counter
from dataclasses import dataclass

from django.db.models import Count, Q, Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from providers.models import ModelRoute, ProviderModel
from usage import rate_limits
from usage.limit_queries import DANGER, WARN
from usage.models import ModelGroup, Outcome, RateLimit, RequestLog, Scope, TierPlace, UsageTier
from usage.ulid import least_id_at

LABELS = [_("Requests / min"), _("Input tokens / min"), _("Output tokens / min"), _("At once")]
SCOPES = {scope.value: place for place, scope in enumerate(Scope)}
LATELY = datetime.timedelta(minutes=1)
# An id is made a moment before the request's beginning is written down.
SLACK = datetime.timedelta(seconds=5)


@dataclass
class Figure:
    """
    One figure of a rate; ``holds`` is false where one above is lower for the same models.

    ``used`` is how much of it requests took in the last minute; ``None`` where that is not what it counts. Of the
    figures that apply to somebody, the one of which most is used ``binds``.
    """

    value: int | None
    holds: bool = True
    used: int | None = None
    binds: bool = False

    @property
    def share(self):
        return self.used / self.value if self.value else 1.0

    @property
    def percent(self):
        """The width of the meter, for its attribute."""
        return f"{min(self.share, 1.0) * 100:.2f}%"

    @property
    def tone(self):
        return "danger" if self.share >= DANGER else "warn" if self.share >= WARN else ""


@dataclass(frozen=True)
class Rate:
    """A line of the table: whose, for which models, and its figures; ``limit`` is ``None`` for those of a tier."""

    subject: object
    models: str
    figures: list[Figure]
    limit: RateLimit | None = None
    tier: UsageTier | None = None

    @property
    def labelled(self):
        """The figures, each with what it is called where the table has no head."""
        return zip(LABELS, self.figures, strict=True)


def rate_limits_of(organization, keys, beneath):
    """The rate limits of ``keys``, pairs of scope and id, and those ``beneath``, in one query: the widest first."""
    for scope, scope_id in keys:
        beneath |= Q(scope=scope, scope_id=scope_id)
    limits = RateLimit.objects.filter(beneath, organization=organization).select_related("group", "changed_by")
    return sorted(limits, key=lambda limit: (SCOPES[limit.scope], limit.scope_id, limit.models_label))


def place_of(organization):
    """Where an organization stands, with its tier; ``None`` for one without."""
    return TierPlace.objects.filter(organization=organization).select_related("tier", "changed_by").first()


def rates(organization, place, limits, subjects, now=None):
    """
    The lines of ``limits`` whose subjects are known, those of the tier before them, with what was used in the last
    minute; three queries for all.
    """
    rules = rate_limits.current_rules(organization)
    own = rules.get((Scope.ORGANIZATION.value, organization.pk), ())
    used = _Used(organization, now or timezone.now())
    found = []
    if place and (Scope.ORGANIZATION.value, organization.pk) in subjects:
        subject = subjects[Scope.ORGANIZATION.value, organization.pk]
        of_tier = {rule.label: rule for rule in own if rule.id.startswith("tier.")}
        for rate in place.tier.rates:
            models = ", ".join(rate.get("models") or ())
            amounts = used.by(of_tier.get(models))
            figures = [Figure(rate.get(name), used=amounts[name]) for name in RateLimit.FIGURES]
            found.append(Rate(subject, models, figures, tier=place.tier))
    by_id = {rule.id: rule for of_scope in rules.values() for rule in of_scope}
    for limit in limits:
        subject, rule = subjects.get((limit.scope, limit.scope_id)), by_id.get(limit.uid)
        if subject is None or rule is None:
            continue
        over = () if limit.scope == Scope.ORGANIZATION else own
        if limit.scope == Scope.API_KEY:
            over = (*own, *rules.get((Scope.WORKSPACE.value, subject.workspace.pk), ()))
        amounts = used.by(rule)
        figures = [
            Figure(
                getattr(limit, name),
                getattr(limit, name) is None or rate_limits.is_binding(limit, name, over),
                amounts[name],
            )
            for name in RateLimit.FIGURES
        ]
        found.append(Rate(subject, limit.models_label, figures, limit=limit))
    return found


def mark_what_binds(found, keys):
    """Of the figures that apply to ``keys``, pairs of scope and id, mark the one of which most was used lately."""
    figures = [
        figure
        for rate in found
        if rate.subject.key in keys
        for figure in rate.figures
        if figure.value is not None and figure.holds and figure.used is not None and (figure.used or not figure.value)
    ]
    if figures:
        max(figures, key=lambda figure: figure.share).binds = True


class _Used:
    """
    What requests that began within the last minute took of limits, as far as they have ended and are written down.

    A request that was refused counts nowhere; what was read from a cache is free.
    """

    def __init__(self, organization, now):
        since = now - LATELY
        rows = RequestLog.objects.filter(
            pk__gte=least_id_at(since - SLACK), started_at__gte=since, organization=organization
        ).exclude(outcome=Outcome.REFUSED)
        names = ("requested_model", "provider_model__public_name")
        prompts = ("input_tokens", "cache_write_tokens", "cache_write_1h_tokens")
        sums = {name: Sum(name, default=0) for name in (*prompts, "output_tokens")}
        found = rows.order_by().values_list("workspace", "api_key", *names).annotate(requests=Count("pk"), **sums)
        self._by_scope = {}
        for workspace, key, asked, answered, requests, *prompt, written in found:
            scopes = (Scope.ORGANIZATION, organization.pk), (Scope.WORKSPACE, workspace), (Scope.API_KEY, key)
            model = frozenset({asked, answered} - {None})
            for scope, scope_id in scopes:
                of_scope = self._by_scope.setdefault((scope.value, scope_id), {})
                of_scope.setdefault(model, Counter()).update(requests=requests, input=sum(prompt), output=written)

    def by(self, rule):
        """``{figure: how much was used}`` of a rule; ``None`` for requests at the same time, and for no rule."""
        if rule is None:
            return dict.fromkeys(RateLimit.FIGURES)
        used = Counter()
        for names, counts in self._by_scope.get((rule.scope, rule.scope_id), {}).items():
            if rule.covers(names):
                used += counts
        return dict(zip(RateLimit.FIGURES, (used["requests"], used["input"], used["output"], None), strict=True))


def groups_of(organization):
    """The organization's groups of models, by name."""
    return list(ModelGroup.objects.filter(organization=organization).order_by("name"))


def mark_what_matches_nothing(organization, groups):
    """Give each group ``unmatched``, those of its patterns that no model or route has a name for; two queries."""
    names = model_names(organization) if groups else []
    for group in groups:
        group.unmatched = [
            pattern for pattern in group.patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
        ]


def unmatched(group) -> list[str]:
    """The patterns of a group that no model or route has a name for."""
    mark_what_matches_nothing(group.organization, [group])
    return group.unmatched


def is_known(organization, name):
    """Whether clients of the organization can ask for ``name``: that of a model, or of a route."""
    return name in model_names(organization)


def model_names(organization):
    """What clients of the organization ask for, models and routes, by name."""
    models = ProviderModel.objects.filter(organization=organization, removed_at=None, provider__removed_at=None)
    routes = ModelRoute.objects.filter(organization=organization)
    return sorted({*models.values_list("public_name", flat=True), *routes.values_list("name", flat=True)})
