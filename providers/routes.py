"""Routes: names that lead to models, in order or by weight, as people make and change them."""

import functools
from collections import Counter

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Prefetch
from django.utils.translation import gettext as _

from console import audit
from console.formatting import percent
from console.revision import bump_revision
from providers.discovery import is_model_name
from providers.models import ModelRoute, ProviderModel, RouteTarget

MOST_TARGETS = 10
MOST_WEIGHT = 1000
WEIGHTED = ModelRoute.Strategy.WEIGHTED
BY_PROVIDER = ("provider__created_at", "provider_id", "public_name")


@transaction.atomic
def create_route(*, organization, name, strategy, targets, actor):
    """
    A new route to ``targets``, pairs of a model and its weight, in their order.

    The name may be that of a model, whose place the route then takes. Raises ``ValidationError``.
    """
    route = ModelRoute(organization=organization, name=name, strategy=strategy, created_by=actor)
    _save(route, targets)
    _audit(route, actor, "route.created", **_told(route, targets))
    return route


@transaction.atomic
def update_route(*, route, name, strategy, targets, actor):
    """Give a route another name, strategy or targets; the old name ends at once. Raises ``ValidationError``."""
    steps = route.targets.select_related("provider_model")
    before = _told(route, [(step.provider_model, step.weight) for step in steps])
    route.name, route.strategy = name, strategy
    _save(route, targets)
    after = _told(route, targets)
    if before != after:
        _audit(route, actor, "route.updated", before=before, after=after)


@transaction.atomic
def delete_route(*, route, actor):
    """End its name; where a model bears it too, that one answers again. Deleting twice changes nothing."""
    if ModelRoute.objects.filter(pk=route.pk).exists():
        _audit(route, actor, "route.deleted")
        route.delete()


def _save(route, targets):
    if not is_model_name(route.name):
        raise ValidationError({"name": _("A route’s name has no spaces and at most 200 characters.")})
    models = [model for model, _weight in targets]
    if not models:
        raise ValidationError({"targets": _("Choose at least one model.")})
    if len(models) > MOST_TARGETS:
        raise ValidationError({"targets": _("A route leads to at most %(most)d models.") % {"most": MOST_TARGETS}})
    if repeated := [model for model, count in Counter(models).items() if count > 1]:
        raise ValidationError({"targets": _("%(model)s is there twice.") % {"model": repeated[0]}})
    if any(model.organization_id != route.organization_id or model.removed_at for model in models):
        raise ValidationError({"targets": _("This model is not available any more; choose another.")})
    weights = [weight for _model, weight in targets]
    if route.strategy == WEIGHTED and not any(weights):
        raise ValidationError({"targets": _("At least one weight must be more than 0.")})
    if any(not 0 <= weight <= MOST_WEIGHT for weight in weights):
        raise ValidationError({"targets": _("A weight is a whole number from 0 to %(most)d.") % {"most": MOST_WEIGHT}})
    route.full_clean()
    route.save()
    route.targets.all().delete()
    RouteTarget.objects.bulk_create(
        RouteTarget(route=route, provider_model=model, position=position, weight=weight)
        for position, (model, weight) in enumerate(targets, start=1)
    )


def _told(route, targets):
    """What the audit log says of a route."""
    is_weighted = route.strategy == WEIGHTED
    told = [f"{model} ({weight})" if is_weighted else str(model) for model, weight in targets]
    return {"name": route.name, "strategy": str(route.strategy), "targets": told}


def _audit(route, actor, action, **details):
    audit.record(organization=route.organization, actor=actor, action=action, target=route, **details)
    bump_revision()


# What pages read -------------------------------------------------------------------------------------------------


def models_to_choose(organization):
    """The models that a route may lead to, grouped by provider, each with it."""
    models = ProviderModel.objects.current().filter(organization=organization)
    return list(models.select_related("provider").order_by(*BY_PROVIDER))


def routes_for_list(organization):
    """
    Every route with its ``steps``, in three queries.

    Of a step: its ``model``, the ``share`` in per cent where the route is weighted, and whether it ``answers``; of a
    route whether any of them does, and whether it ``takes_place`` of a model.
    """
    steps = RouteTarget.objects.select_related("provider_model__provider")
    routes = list(organization.routes.prefetch_related(Prefetch("targets", steps)))
    names = set(organization.models.current().values_list("public_name", flat=True))
    for route in routes:
        steps = [step for step in route.targets.all() if step.provider_model.removed_at is None]
        weights = [step.weight if route.strategy == WEIGHTED else 0 for step in steps]
        route.steps = [
            {"model": step.provider_model, "share": share, "answers": _answers(step.provider_model)}
            for step, share in zip(steps, shares(weights), strict=True)
        ]
        route.has_answer = any(step["answers"] for step in route.steps)
        route.takes_place = route.name in names
    return routes


def _answers(model):
    return model.disabled_at is None and model.provider.disabled_at is None


def shares(weights):
    """What each weight is of all, as text; ``None`` where there are no weights."""
    total = sum(weights)
    return [percent(weight / total) if total else None for weight in weights]


def described(name, strategy, targets):
    """What a route does, in a sentence; ``targets`` are pairs of a label and a weight."""
    if not name or not targets:
        return ""
    labels = [label for label, _weight in targets]
    then = functools.reduce(
        lambda one, other: _("%(one)s, then to %(next)s") % {"one": one, "next": other}, labels[1:] or [""]
    )
    told = {"name": name, "first": labels[0], "then": then}
    if len(labels) == 1:
        return _("Requests for “%(name)s” go to %(first)s.") % told
    if strategy != WEIGHTED:
        return _("Requests for “%(name)s” go to %(first)s; when it fails, to %(then)s.") % told
    parts = shares([weight for _label, weight in targets])
    if None in parts:
        return ""
    split = ", ".join(f"{label} {part}" for label, part in zip(labels, parts, strict=True))
    told |= {"split": split}
    return _("Requests for “%(name)s” are split: %(split)s. When one fails, another answers.") % told
