"""How much may be asked in a minute: rate limits, groups of models that share one, and the organization's tier."""

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from console.access import get_workspace
from console.models import ApiKey, Member
from usage import limit_queries, rate_limits, rate_queries
from usage.limit_queries import Subject
from usage.models import ModelGroup, RateLimit, UsageTier
from usage.rate_forms import ModelGroupForm, NewRateForm, RateForm, TierForm
from usage.views.pages import done, refuse, render_local


@login_required
@require_http_methods(["GET", "POST"])
def rate_create(request, workspace_slug):
    """Limit how much a scope may ask in a minute, of every model, one model or a group; ``?of=`` says whose."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    organization = workspace.organization
    keys = ApiKey.objects.filter(workspace=workspace, revoked_at=None).select_related("workspace").order_by("name")
    form = NewRateForm(
        request.POST or None,
        organization=organization,
        subjects=[Subject.of(thing) for thing in (workspace, *keys, organization)],
        names=rate_queries.model_names(organization),
        groups=rate_queries.groups_of(organization),
        initial={"subject": request.GET.get("of") or Subject.of(workspace).target},
    )
    if request.method == "POST" and form.is_valid():
        subject = form.cleaned_data["subject"]
        models = form.cleaned_data["models"]
        if _set(request, form, scope=subject.scope, scope_id=subject.scope_id, **models):
            return done(request, _("Rate limit of %(name)s set") % {"name": subject.name}, _back_url(request))
    context = {"title": _("Add a rate limit"), "form": form}
    return _render(request, "usage/rate_form.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def rate_edit(request, workspace_slug, rate_uid):
    """Change the figures of a rate limit."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    limit, subject = _rate_or_404(workspace, rate_uid)
    form = RateForm(request.POST or None, initial=RateForm.initial_of(limit))
    if request.method == "POST" and form.is_valid():
        where = {"scope": limit.scope, "scope_id": limit.scope_id, "model": limit.model, "group": limit.group}
        if _set(request, form, **where):
            return done(request, _("Rate limit of %(name)s changed") % {"name": subject.name}, _back_url(request))
    context = {"title": _("Change the rate limit"), "form": form, "limit": limit, "subject": subject}
    return _render(request, "usage/rate_form.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def rate_remove(request, workspace_slug, rate_uid):
    """Take a rate limit away."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    limit, subject = _rate_or_404(workspace, rate_uid)
    if request.method == "POST":
        rate_limits.remove_rate_limit(limit=limit, actor=request.user)
        return done(request, _("Rate limit of %(name)s removed") % {"name": subject.name}, _back_url(request))
    context = {"title": _("Remove the rate limit"), "limit": limit, "subject": subject}
    return _render(request, "usage/rate_remove.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def group_create(request, workspace_slug):
    """Name models that share a limit."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    form = ModelGroupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"].strip()
        if ModelGroup.objects.filter(organization=workspace.organization, name=name).exists():
            form.add_error("name", _("There is already a group of models with that name."))
        elif group := _set_group(request, form, name):
            return _done_with(request, group, _("Group %(name)s created"))
    return _render(request, "usage/rate_group.html", {"title": _("Add a group of models"), "form": form})


@login_required
@require_http_methods(["GET", "POST"])
def group_edit(request, workspace_slug, group_uid):
    """Change which models a group stands for; its name stays."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    group = get_object_or_404(ModelGroup, organization=workspace.organization, uid=group_uid)
    form = ModelGroupForm(request.POST or None, initial={"patterns": "\n".join(group.patterns)})
    del form.fields["name"]
    if request.method == "POST" and form.is_valid() and (changed := _set_group(request, form, group.name)):
        return _done_with(request, changed, _("Group %(name)s changed"))
    return _render(
        request, "usage/rate_group.html", {"title": _("Change the group of models"), "form": form, "group": group}
    )


@login_required
@require_http_methods(["GET", "POST"])
def group_remove(request, workspace_slug, group_uid):
    """Forget a group, with the limits that are for it."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    group = get_object_or_404(ModelGroup, organization=workspace.organization, uid=group_uid)
    if request.method == "POST":
        rate_limits.remove_model_group(group=group, actor=request.user)
        return done(request, _("Group %(name)s removed") % {"name": group.name}, _back_url(request))
    context = {"title": _("Remove the group of models"), "group": group, "count": group.rate_limits.count()}
    return _render(request, "usage/rate_group_remove.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def tier_edit(request, workspace_slug):
    """Put the organization on a tier, or on none; the published tiers are at hand."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    organization = workspace.organization
    if request.method == "POST" and not UsageTier.objects.exists():
        rate_limits.install_presets()
    place = rate_queries.place_of(organization)
    tiers = list(UsageTier.objects.all()) or rate_limits.presets()
    form = TierForm(request.POST or None, tiers=tiers, initial={"tier": place.tier.slug if place else ""})
    if request.method == "POST" and form.is_valid():
        tier = form.cleaned_data["tier"]
        try:
            if tier:
                rate_limits.put_on_tier(organization=organization, tier=tier, actor=request.user)
            else:
                rate_limits.take_off_tier(organization=organization, actor=request.user)
        except ValidationError as error:
            refuse(form, error)
        else:
            said = _("%(organization)s is on tier %(tier)s") if tier else _("%(organization)s is on no tier")
            page = reverse("usage:limit_organization", args=[workspace.slug])
            return done(request, said % {"organization": organization.name, "tier": tier}, page)
    context = {"title": _("Tier of the organization"), "form": form, "place": place, "tiers": tiers}
    return _render(request, "usage/rate_tier.html", context)


def _rate_or_404(workspace, uid):
    """A rate limit that can be seen from a workspace, and whose it is."""
    limit = get_object_or_404(
        RateLimit.objects.select_related("organization", "group"), organization=workspace.organization, uid=uid
    )
    known = limit_queries.subjects_of(workspace.organization, [limit], [Subject.of(workspace)])
    subject = known.get((limit.scope, limit.scope_id))
    if subject is None or (subject.workspace and subject.workspace.pk != workspace.pk):
        raise Http404
    return limit, subject


def _set(request, form, **where):
    try:
        return rate_limits.set_rate_limit(
            organization=request.workspace.organization, actor=request.user, **where, **form.figures
        )
    except ValidationError as error:
        refuse(form, error)
        return None


def _set_group(request, form, name):
    try:
        return rate_limits.set_model_group(
            organization=request.workspace.organization,
            name=name,
            patterns=form.cleaned_data["patterns"],
            actor=request.user,
        )
    except ValidationError as error:
        refuse(form, error)
        return None


def _done_with(request, group, said):
    """Say what happened to a group, and which of its patterns stand for nothing yet."""
    said %= {"name": group.name}
    if patterns := rate_queries.unmatched(group):
        matches_none = _("No model or route matches %(patterns)s yet.") % {"patterns": ", ".join(patterns)}
        said = f"{said}. {matches_none}"
    return done(request, said, _back_url(request))


def _render(request, template, context):
    context |= {"section": "limits", "back_url": _back_url(request)}
    form = context.get("form")
    return render_local(request, request.workspace, template, context, 422 if form and form.errors else 200)


def _back_url(request):
    return reverse("usage:limit_list", args=[request.workspace.slug])
