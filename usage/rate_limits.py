"""
Setting how much may be asked in a minute, and moving organizations between tiers.

Each change is audited, known to every process within a second, and safe to repeat.
"""

import datetime
import fnmatch
import tomllib
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Case, F, Min, OuterRef, Sum, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import audit
from console.formatting import NANOS
from console.models import ApiKey, Workspace
from console.revision import bump_revision
from usage import limit_alerts
from usage.models import (
    LedgerPeriod,
    ModelGroup,
    RateLimit,
    Scope,
    SpendLimit,
    SpendPeriod,
    TierPlace,
    UsageRollup,
    UsageTier,
)
from usage.spend_limits import remove_spend_limit, set_spend_limit
from usage.turns import take_turn

FIGURES = RateLimit.FIGURES
PRESETS = Path(__file__).with_name("tier_presets.toml")
# How the presets name the figures.
SHORT_NAMES = {
    "requests": "requests_per_minute",
    "input": "input_tokens_per_minute",
    "output": "output_tokens_per_minute",
    "concurrent": "concurrent_requests",
}
# What the presets know of a tier, beside its slug.
PUBLISHED = ("ladder", "step", "name", "monthly_cap_nanos", "rates", "source", "checked_on")
# No figure is larger: what claims more is a slip of the keyboard.
MOST = 10**12


class Rule(NamedTuple):
    """
    One limit as a request meets it: whose it is, with its name, for which models, and its figures.

    None of ``patterns`` is all models.
    """

    id: str
    scope: str
    scope_id: int
    patterns: tuple[str, ...]
    label: str
    requests: int | None
    input_tokens: int | None
    output_tokens: int | None
    concurrent: int | None
    name: str = ""

    def covers(self, names) -> bool:
        """Whether it is for a model that goes by ``names``."""
        return not self.patterns or any(
            fnmatch.fnmatchcase(name, pattern) for name in names for pattern in self.patterns
        )


# Limits ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def set_rate_limit(*, organization, scope, scope_id, model="", group=None, actor=None, **figures) -> RateLimit:
    """
    Let a scope ask for so much in a minute of every model, one model or a group of them.

    ``figures`` are any of ``FIGURES``; those that are not named stay as they are, ``None`` lifts one. Raises
    ``ValidationError`` for what is no limit, and for one of a workspace or key above what stands over it.
    """
    take_turn(organization)
    if group is not None and not ModelGroup.objects.filter(pk=group.pk).exists():
        raise ValidationError(_("The group of models has been removed meanwhile."))
    where = {"organization": organization, "scope": scope, "scope_id": scope_id, "model": model, "group": group}
    limit = RateLimit.objects.filter(**where).first()
    action = "rate_limit.changed" if limit else "rate_limit.set"
    limit = limit or RateLimit(**where)
    before = {name: getattr(limit, name) for name in FIGURES}
    for name, figure in figures.items():
        if name not in FIGURES:
            raise TypeError(name)
        setattr(limit, name, figure)
    limit.changed_at, limit.changed_by = timezone.now(), actor
    _require_sense(limit)
    limit.full_clean()
    _require_tighter(limit)
    limit.save()
    after = {name: getattr(limit, name) for name in FIGURES}
    audit.record(
        organization=organization,
        actor=actor,
        action=action,
        target=limit,
        **limit_alerts.of(limit),
        models=str(limit.models_label),
        before=before,
        after=after,
    )
    bump_revision()
    return limit


@transaction.atomic
def remove_rate_limit(*, limit, actor=None):
    """Let the limit's scope ask without it; removing it twice changes nothing."""
    take_turn(limit.organization)
    if not RateLimit.objects.filter(pk=limit.pk).exists():
        return
    audit.record(
        organization=limit.organization,
        actor=actor,
        action="rate_limit.removed",
        target=limit,
        **limit_alerts.of(limit),
        models=str(limit.models_label),
        before={name: getattr(limit, name) for name in FIGURES},
    )
    RateLimit.objects.filter(pk=limit.pk).delete()
    bump_revision()


def is_binding(limit, figure, rules) -> bool:
    """Whether a figure of ``limit`` can hold anybody back, given all ``rules`` of the scopes above it."""
    value = getattr(limit, figure)
    return value is not None and all(value < over for over in _figures_over(limit, figure, rules))


def rules_over(limit) -> list[Rule]:
    """The rules of the scopes above that of ``limit``: of the organization, and of a key's workspace."""
    if limit.scope == Scope.ORGANIZATION:
        return []
    found = list(current_rules(limit.organization).get((Scope.ORGANIZATION.value, limit.organization_id), ()))
    if limit.scope == Scope.API_KEY:
        workspace_id = ApiKey.objects.filter(pk=limit.scope_id).values_list("workspace", flat=True).first()
        found += current_rules(limit.organization).get((Scope.WORKSPACE.value, workspace_id), ())
    return found


def _require_sense(limit):
    if all(getattr(limit, name) is None for name in FIGURES):
        raise ValidationError(_("A rate limit needs at least one figure."))
    for name in FIGURES:
        value = getattr(limit, name)
        if value is not None and not 0 <= value <= MOST:
            raise ValidationError({name: _("A limit is a whole number from 0 to 1,000,000,000,000.")})
    if not _is_of(limit):
        raise ValidationError(_("There is nothing of that organization to limit."))


def _is_of(limit):
    """Whether what is limited belongs to the organization."""
    organization_id, scope_id = limit.organization_id, limit.scope_id
    if limit.group is not None and limit.group.organization_id != organization_id:
        return False
    match limit.scope:
        case Scope.ORGANIZATION:
            return scope_id == organization_id
        case Scope.WORKSPACE:
            return Workspace.objects.filter(pk=scope_id, organization=organization_id).exists()
        case Scope.API_KEY:
            return ApiKey.objects.filter(pk=scope_id, workspace__organization=organization_id).exists()
    return False


def _require_tighter(limit):
    """Refuse a figure that could hold nobody back, as a scope above has a lower one for all of the same models."""
    rules = rules_over(limit)
    wrong = {}
    for name in FIGURES:
        value = getattr(limit, name)
        over = min(_figures_over(limit, name, rules), default=None)
        if value is not None and over is not None and value > over:
            wrong[name] = _("Above this stands a limit of %(over)s, which holds for it too: it can only be tightened.")
            wrong[name] = ValidationError(wrong[name], params={"over": over})
    if wrong:
        raise ValidationError(wrong)


def _figures_over(limit, figure, rules):
    """The figures of that kind in ``rules`` that hold for every model of ``limit``."""
    short = next(short for short, name in SHORT_NAMES.items() if name == figure)
    field = {"input": "input_tokens", "output": "output_tokens"}.get(short, short)
    patterns = tuple(limit.group.patterns) if limit.group_id else (limit.model,) if limit.model else ()
    for rule in rules:
        value = getattr(rule, field)
        if value is not None and (not rule.patterns or (patterns and all(rule.covers([p]) for p in patterns))):
            yield value


# Groups ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def set_model_group(*, organization, name, patterns, actor=None) -> ModelGroup:
    """Have ``name`` stand for the models whose public names match one of ``patterns``, whatever it was before."""
    patterns = [pattern.strip() for pattern in patterns if pattern.strip()]
    if not patterns:
        raise ValidationError(_("A group needs a model, or a pattern such as claude-opus-4*."))
    take_turn(organization)
    group = ModelGroup.objects.filter(organization=organization, name=name.strip()).first()
    action = "model_group.changed" if group else "model_group.created"
    group = group or ModelGroup(organization=organization, name=name.strip())
    before, group.patterns = group.patterns, patterns
    group.full_clean()
    group.save()
    audit.record(
        organization=organization, actor=actor, action=action, target=group, before=before, after=group.patterns
    )
    bump_revision()
    return group


@transaction.atomic
def remove_model_group(*, group, actor=None):
    """Forget a group, and the limits that are for it; removing it twice changes nothing."""
    take_turn(group.organization)
    if not ModelGroup.objects.filter(pk=group.pk).exists():
        return
    audit.record(
        organization=group.organization, actor=actor, action="model_group.removed", target=group, before=group.patterns
    )
    ModelGroup.objects.filter(pk=group.pk).delete()
    bump_revision()


# Tiers -----------------------------------------------------------------------------------------------------------


def presets() -> list[UsageTier]:
    """Every published tier, not saved."""
    with PRESETS.open("rb") as file:
        ladders = tomllib.load(file)
    return [
        UsageTier(
            ladder=ladder,
            step=step,
            slug=told["slug"],
            name=told["name"],
            monthly_cap_nanos=told["monthly_cap"] * NANOS if "monthly_cap" in told else None,
            rates=[
                {"models": rate.get("models", []), **{SHORT_NAMES[k]: rate[k] for k in SHORT_NAMES if k in rate}}
                for rate in told["rates"]
            ],
            source=known["source"],
            checked_on=known["checked"],
        )
        for ladder, known in sorted(ladders.items())
        for step, told in enumerate(known["steps"], start=1)
    ]


@transaction.atomic
def install_presets():
    """Have every published tier at hand; a rule that somebody has set for rising stays."""
    for tier in presets():
        defaults = {name: getattr(tier, name) for name in PUBLISHED}
        UsageTier.objects.update_or_create(slug=tier.slug, defaults=defaults)


@transaction.atomic
def set_tier(*, ladder, step, slug, name, rates, monthly_cap_nanos=None, after_spent_nanos=None, after_days=None):
    """A step of a ladder of one's own, whatever it was before. Raises ``ValidationError`` for rates that are none."""
    for rate in rates if isinstance(rates, list) else [rates]:
        if not isinstance(rate, dict):
            raise ValidationError({"rates": _("Each entry has models, a list, and at least one figure.")})
        figures = {name: rate[name] for name in FIGURES if name in rate}
        known = rate.keys() <= {"models", *FIGURES} and isinstance(rate.get("models", []), list)
        if not known or not figures or any(type(v) is not int or not 0 <= v <= MOST for v in figures.values()):
            raise ValidationError({"rates": _("Each entry has models, a list, and at least one figure.")})
    tier = UsageTier.objects.filter(slug=slug).first() or UsageTier(slug=slug)
    before = _told(tier) if tier.pk else None
    tier.ladder, tier.step, tier.name, tier.rates = ladder, step, name, rates
    tier.monthly_cap_nanos, tier.after_spent_nanos, tier.after_days = monthly_cap_nanos, after_spent_nanos, after_days
    tier.full_clean()
    tier.save()
    _audit_definition(tier, before)
    bump_revision()
    return tier


@transaction.atomic
def set_rule(*, tier, after_spent_nanos=None, after_days=None):
    """Have organizations rise to ``tier`` from the step before once both are reached; neither is never."""
    before = _told(tier)
    tier.after_spent_nanos, tier.after_days = after_spent_nanos, after_days
    tier.full_clean()
    tier.save()
    _audit_definition(tier, before)


def _told(tier):
    """What the audit log says of a tier."""
    return {name: getattr(tier, name) for name in ("rates", "monthly_cap_nanos", "after_spent_nanos", "after_days")}


def _audit_definition(tier, before):
    """Tell each organization on the ladder: it stands on the tier, or rises to it by the rule."""
    for place in TierPlace.objects.filter(tier__ladder=tier.ladder).select_related("organization").order_by("pk"):
        audit.record(
            organization=place.organization,
            actor=None,
            action="tier.defined",
            target=tier,
            tier=tier.slug,
            before=before,
            after=_told(tier),
        )


@transaction.atomic
def put_on_tier(*, organization, tier, actor=None, by_rule=False):
    """
    Have the figures of ``tier`` hold for the organization, and its cap for each of its months.

    The cap is the organization's hard limit a month. A lower one that somebody has set stays, and stays below the cap
    of later tiers too. ``by_rule`` says that the server does it and nobody else.
    """
    take_turn(organization)
    place = TierPlace.objects.filter(organization=organization).first()
    before = place.tier if place else None
    if before == tier:
        return place
    place = place or TierPlace(organization=organization)
    place.tier, place.since, place.changed_by = tier, timezone.now(), actor
    place.save()
    _set_cap(organization, before and before.monthly_cap_nanos, tier.monthly_cap_nanos, actor, by_rule)
    audit.record(
        organization=organization,
        actor=actor,
        is_unattended=by_rule,
        action="tier.changed",
        target=tier,
        before=before.slug if before else None,
        after=tier.slug,
    )
    bump_revision()
    return place


@transaction.atomic
def take_off_tier(*, organization, actor=None):
    """Have only the organization's own limits hold; the cap that the tier brought goes with it."""
    take_turn(organization)
    place = TierPlace.objects.filter(organization=organization).first()
    if place is None:
        return
    tier = place.tier
    place.delete()
    _set_cap(organization, tier.monthly_cap_nanos, None, actor)
    audit.record(
        organization=organization, actor=actor, action="tier.changed", target=tier, before=tier.slug, after=None
    )
    bump_revision()


def promote_organizations(now=None) -> list[TierPlace]:
    """Move up each organization that has reached its next step by the rule, by one; nobody is moved down."""
    now = now or timezone.now()
    places = TierPlace.objects.select_related("tier", "organization")
    return [risen for place in places if (risen := _promote(place, now))]


@transaction.atomic
def _promote(place, now):
    tier = place.tier
    following = UsageTier.objects.filter(ladder=tier.ladder, step__gt=tier.step).first()
    if following is None or not following.is_reached_by_rule or not has_reached(place.organization, following, now):
        return None
    # Somebody may have moved it meanwhile.
    take_turn(place.organization)
    if not TierPlace.objects.filter(pk=place.pk, tier=tier).exists():
        return None
    return put_on_tier(organization=place.organization, tier=following, by_rule=True)


def has_reached(organization, tier, now=None) -> bool:
    """Whether the organization has spent enough in all, for long enough, to rise to ``tier`` by its rule."""
    spent, since = standing(organization)
    if tier.after_spent_nanos is not None and spent < tier.after_spent_nanos:
        return False
    days = datetime.timedelta(days=tier.after_days or 0)
    return not tier.after_days or (since is not None and since + days <= (now or timezone.now()))


def standing(organization):
    """What an organization has spent in all, in nanos, and the day of its first request, ``None`` before it."""
    spent = LedgerPeriod.objects.filter(
        organization=organization, scope=Scope.ORGANIZATION, scope_id=organization.pk, period=SpendPeriod.MONTH
    ).aggregate(nanos=Sum("settled_nanos"))["nanos"]
    first = UsageRollup.objects.filter(organization=organization, width=UsageRollup.Width.DAY).aggregate(
        first=Min("start")
    )["first"]
    return spent or 0, first


def _set_cap(organization, before, after, actor, by_rule=False):
    limit = SpendLimit.objects.filter(
        organization=organization, scope=Scope.ORGANIZATION, scope_id=organization.pk, period=SpendPeriod.MONTH
    ).first()
    if limit is not None and limit.amount_nanos != before and (after is None or limit.amount_nanos <= after):
        return
    if after is None:
        if limit is not None and before is not None:
            remove_spend_limit(limit=limit, actor=actor)
        return
    set_spend_limit(
        organization=organization,
        scope=Scope.ORGANIZATION,
        scope_id=organization.pk,
        period=SpendPeriod.MONTH,
        amount_nanos=after,
        allows_unpriced=limit is not None and limit.allows_unpriced,
        actor=actor,
        is_unattended=by_rule,
    )


# Reading ---------------------------------------------------------------------------------------------------------


def current_rules(organization=None) -> dict[tuple[str, int], tuple[Rule, ...]]:
    """Every rule that holds, by whose it is, of one organization or of all; two queries."""
    named = Case(
        When(scope=Scope.WORKSPACE, then=Workspace.objects.filter(pk=OuterRef("scope_id")).values("name")),
        When(scope=Scope.API_KEY, then=ApiKey.objects.filter(pk=OuterRef("scope_id")).values("name")),
        default=F("organization__name"),
    )
    limits = RateLimit.objects.select_related("group").annotate(name=named).order_by("pk")
    places = TierPlace.objects.select_related("tier", "organization")
    if organization is not None:
        limits, places = limits.filter(organization=organization), places.filter(organization=organization)
    found = {}
    for limit in limits:
        patterns = tuple(limit.group.patterns) if limit.group_id else (_escaped(limit.model),) if limit.model else ()
        rule = Rule(
            limit.uid,
            limit.scope,
            limit.scope_id,
            patterns,
            limit.models_label,
            *(getattr(limit, name) for name in FIGURES),
            name=limit.name or "",
        )
        found.setdefault((limit.scope, limit.scope_id), []).append(rule)
    for place in places:
        scope = Scope.ORGANIZATION.value, place.organization_id
        for rate in place.tier.rates:
            patterns = tuple(rate.get("models") or ())
            figures = (rate.get(name) for name in FIGURES)
            # The same on the next tier: what is used up stays used up.
            label = ", ".join(patterns)
            name = place.organization.name
            rule = Rule(f"tier.{place.organization_id}.{label}", *scope, patterns, label, *figures, name=name)
            found.setdefault(scope, []).append(rule)
    return {scope: tuple(rules) for scope, rules in found.items()}


def _escaped(name):
    """A model's name as a pattern that matches just that."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
