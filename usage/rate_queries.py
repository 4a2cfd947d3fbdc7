"""What the pages of limits read about rates and tiers."""

import fnmatch
from dataclasses import dataclass

from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers.models import ModelRoute, ProviderModel
from usage import rate_limits
from usage.models import ModelGroup, RateLimit, Scope, TierPlace, UsageTier

LABELS = [_("Requests / min"), _("Input tokens / min"), _("Output tokens / min"), _("At once")]
SCOPES = {scope.value: place for place, scope in enumerate(Scope)}


@dataclass(frozen=True)
class Figure:
    """One figure of a rate; ``holds`` is false where one above is lower for the same models."""

    value: int | None
    holds: bool = True


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


def rates(organization, place, limits, subjects):
    """The lines of ``limits`` whose subjects are known, those of the tier before them; two queries for all."""
    rules = rate_limits.current_rules(organization)
    own = rules.get((Scope.ORGANIZATION.value, organization.pk), ())
    found = []
    if place and (Scope.ORGANIZATION.value, organization.pk) in subjects:
        subject = subjects[Scope.ORGANIZATION.value, organization.pk]
        for rate in place.tier.rates:
            figures = [Figure(rate.get(name)) for name in RateLimit.FIGURES]
            found.append(Rate(subject, ", ".join(rate.get("models") or ()), figures, tier=place.tier))
    for limit in limits:
        subject = subjects.get((limit.scope, limit.scope_id))
        if subject is None:
            continue
        over = () if limit.scope == Scope.ORGANIZATION else own
        if limit.scope == Scope.API_KEY:
            over = (*own, *rules.get((Scope.WORKSPACE.value, subject.workspace.pk), ()))
        figures = [
            Figure(getattr(limit, name), getattr(limit, name) is None or rate_limits.is_binding(limit, name, over))
            for name in RateLimit.FIGURES
        ]
        found.append(Rate(subject, limit.models_label, figures, limit=limit))
    return found


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
