"""Limits: how they stand for a scope, what a change would do, what the ledger holds, and asking for more."""

import shlex

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from console.access import get_workspace
from console.commands import comptoir
from console.formatting import money
from console.models import ApiKey, Member, User, Workspace
from usage import increases, ledger, limit_queries, processes, rate_queries, spend_limits
from usage.limit_forms import AnswerForm, AskForm, LimitForm, NewLimitForm
from usage.limit_queries import Subject
from usage.models import LimitIncrease, Scope, SpendLease, SpendLimit
from usage.views.pages import done, refuse, render_local

INTERVALS, WISHES = 24, 50
# How forms call what services speak of.
FIELDS = {"amount_nanos": "amount", "until": "last_day"}


# How limits stand ----------------------------------------------------------------------------------------------------


@login_required
@require_GET
def limit_list(request, workspace_slug):
    """What limits a workspace: its own and the organization's; beneath, those of its keys and of members."""
    workspace = get_workspace(request, workspace_slug)
    subjects = [Subject.of(workspace.organization), Subject.of(workspace)]
    beneath = limit_queries.beneath_workspace(workspace, request.member)
    return _limits(request, workspace, subjects, beneath)


@login_required
@require_GET
def limit_organization(request, workspace_slug):
    """What limits the organization; beneath, the limits of its workspaces and members."""
    workspace = get_workspace(request, workspace_slug)
    beneath = limit_queries.beneath_organization(workspace.organization, request.member)
    return _limits(request, workspace, [Subject.of(workspace.organization)], beneath)


@login_required
@require_GET
def limit_key(request, workspace_slug, api_key_uid):
    """What limits an API key: its own limits, those of its workspace, of who created it, and of the organization."""
    workspace = get_workspace(request, workspace_slug)
    api_key = get_object_or_404(workspace.api_keys.select_related("workspace", "created_by"), uid=api_key_uid)
    people = [Subject.of(api_key.created_by)] if api_key.created_by else []
    subjects = [Subject.of(workspace.organization), Subject.of(workspace), *people, Subject.of(api_key)]
    return _limits(request, workspace, subjects)


@login_required
@require_GET
def limit_member(request, workspace_slug, user_uid):
    """What limits a person: their own limits, those of the workspace and of the organization. Others': for admins."""
    workspace = get_workspace(request, workspace_slug)
    user = _member_or_404(request, workspace, user_uid)
    subjects = [Subject.of(workspace.organization), Subject.of(workspace), Subject.of(user)]
    return _limits(request, workspace, subjects)


def _limits(request, workspace, subjects, beneath=()):
    """The page of the last of ``subjects``, with the limits of all of them and those ``beneath`` it."""
    organization, subject = workspace.organization, subjects[-1]
    limits = limit_queries.applying(organization, subjects)
    wishes = limit_queries.fresh_wishes(organization, request.member)
    rate_limits = _rate_limits_shown(workspace, subjects)
    known = limit_queries.subjects_of(
        organization, [*limits, *beneath, *rate_limits, *(wish.spend_limit for wish in wishes)], subjects
    )
    found = limit_queries.standings(organization, [*limits, *beneath], known)
    applying = found[: len(limits)]
    limit_queries.mark_what_binds(applying)
    named = _named_in_commands(organization, subject)
    context = {
        "section": "limits",
        "subject": subject,
        "applying": applying,
        "beneath": found[len(limits) :],
        "is_beneath_shown": subject.scope in {Scope.ORGANIZATION, Scope.WORKSPACE},
        "wishes": _named(wishes, known),
        "zone": organization.time_zone,
        "me": request.user,
        "command": f"{comptoir()} manage set_spend_limit {named} --period month --amount 50",
        "rate_command": f"{comptoir()} manage set_rate_limit {named} --rpm 60",
    }
    if subject.scope != Scope.MEMBER:
        place, groups = rate_queries.place_of(organization), rate_queries.groups_of(organization)
        rate_queries.mark_what_matches_nothing(organization, groups)
        rates = rate_queries.rates(organization, place, rate_limits, known)
        rate_queries.mark_what_binds(rates, {each.key for each in subjects})
        context |= {
            "place": place,
            "rates": rates,
            "groups": groups,
            "shares": processes.sharing() if rates else 1,
        }
    template = "usage/limit_list.html" + ("#fragment" if request.htmx else "")
    return render_local(request, workspace, template, context)


def _rate_limits_shown(workspace, subjects):
    """The rate limits of the page of the last of ``subjects``: what applies to it, and what is right beneath it."""
    subject = subjects[-1]
    if subject.scope == Scope.MEMBER:
        return []
    keys = {subject.key for subject in subjects}
    if subject.scope == Scope.WORKSPACE:
        beneath = Q(scope=Scope.API_KEY, scope_id__in=ApiKey.objects.filter(workspace=workspace).values("pk"))
    else:
        beneath = Q(scope=Scope.WORKSPACE) if subject.scope == Scope.ORGANIZATION else Q(pk__in=[])
    return rate_queries.rate_limits_of(workspace.organization, keys, beneath)


def _named_in_commands(organization, subject):
    """How commands name that subject."""
    return {
        Scope.ORGANIZATION: f"--organization {organization.slug}",
        Scope.WORKSPACE: f"--workspace {subject.workspace.slug}" if subject.workspace else "",
        Scope.API_KEY: f"--key {shlex.quote(subject.name)}",
        Scope.MEMBER: f"--member {subject.email}",
    }[subject.scope]


# Setting -------------------------------------------------------------------------------------------------------------


@login_required
@require_http_methods(["GET", "POST"])
def limit_create(request, workspace_slug):
    """Set a limit where there is none; ``?of=`` says whose, and ``preview`` asks what it would do."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    subjects = _possible_subjects(workspace)
    form = NewLimitForm(
        request.POST or None,
        organization=workspace.organization,
        subjects=subjects,
        initial={"subject": request.GET.get("of") or Subject.of(workspace).target},
    )
    asks = "preview" in request.POST
    if request.method == "POST" and form.is_valid() and not asks:
        subject, period = form.cleaned_data["subject"], form.cleaned_data["period"]
        limit = _set(request, form, subject, period)
        if limit:
            return done(request, _("Limit of %(name)s set") % {"name": subject.name}, _page_of(workspace, subject))
    context = {"title": _("Add a limit"), "form": form, "back_url": _list_url(workspace)}
    if asks:
        cleaned = form.cleaned_data if form.is_valid() else {}
        if cleaned:
            context["effect"] = _effect(workspace.organization, form, cleaned["subject"], cleaned["period"])
    return _render_form(request, workspace, context, asks)


@login_required
@require_http_methods(["GET", "POST"])
def limit_edit(request, workspace_slug, limit_uid):
    """Change how much a limit is, what it does and when somebody is told; ``preview`` asks what that would do."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    limit, subject = _limit_or_404(request, workspace, limit_uid)
    form = LimitForm(request.POST or None, initial=LimitForm.initial_of(limit))
    asks = "preview" in request.POST
    if request.method == "POST" and form.is_valid() and not asks and _set(request, form, subject, limit.period):
        return done(request, _("Limit of %(name)s changed") % {"name": subject.name}, _page_of(workspace, subject))
    context = {
        "title": _("Change the limit"),
        "form": form,
        "limit": limit,
        "subject": subject,
        "back_url": _page_of(workspace, subject),
    }
    if not form.is_bound:
        context["effect"] = _effect_of(limit, subject)
    elif asks and form.is_valid():
        context["effect"] = _effect(workspace.organization, form, subject, limit.period)
    return _render_form(request, workspace, context, asks)


def _render_form(request, workspace, context, asks):
    context["section"] = "limits"
    is_part = asks and request.htmx
    # Under which fields an error stands already.
    context["told"] = request.POST.get("told", "").split() if is_part else list(context["form"].errors)
    if is_part:
        return render_local(request, workspace, "usage/limit_form.html#effect", context)
    status = 422 if context["form"].errors and not asks else 200
    return render_local(request, workspace, "usage/limit_form.html", context, status)


def _set(request, form, subject, period):
    """The limit as it is then, or ``None`` with what is wrong in the form."""
    try:
        return spend_limits.set_spend_limit(
            organization=request.workspace.organization,
            scope=subject.scope,
            scope_id=subject.scope_id,
            period=period,
            actor=request.user,
            **form.values,
        )
    except ValidationError as error:
        refuse(form, error, FIELDS)
        return None


def _effect(organization, form, subject, period):
    """What the limit of the form would do."""
    values = form.values
    there = SpendLimit.objects.filter(
        organization=organization, scope=subject.scope, scope_id=subject.scope_id, period=period
    ).first()
    limit = SpendLimit(
        organization=organization,
        scope=subject.scope,
        scope_id=subject.scope_id,
        period=period,
        amount_nanos=values["amount_nanos"],
        is_hard=values["is_hard"],
        allows_unpriced=values["allows_unpriced"],
        raised_nanos=there.raised_nanos if there else 0,
        raised_until=there.raised_until if there else None,
    )
    return _effect_of(limit, subject)


def _effect_of(limit, subject):
    """What a limit, saved or not, does now, would have done before, and whom it stops."""
    (standing,) = limit_queries.standings(limit.organization, [limit], {subject.key: subject})
    stopped = limit_queries.stopped_models(limit.organization) if limit.is_hard else None
    stops = stopped and not limit.allows_unpriced
    return {
        "standing": standing,
        "past": limit_queries.past_of(limit),
        "unpriced": stopped.unpriced if stops else [],
        "without_rate": stopped.without_rate if stops else [],
        "unbounded": stopped.unbounded if stopped else [],
    }


@login_required
@require_http_methods(["GET", "POST"])
def limit_remove(request, workspace_slug, limit_uid):
    """Take a limit away."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    limit, subject = _limit_or_404(request, workspace, limit_uid)
    if request.method == "POST":
        spend_limits.remove_spend_limit(limit=limit, actor=request.user)
        return done(request, _("Limit of %(name)s removed") % {"name": subject.name}, _page_of(workspace, subject))
    (standing,) = limit_queries.standings(workspace.organization, [limit], {subject.key: subject})
    context = {
        "section": "limits",
        "title": _("Remove the limit"),
        "limit": limit,
        "subject": subject,
        "standing": standing,
        "waiting": limit.increases.filter(state=LimitIncrease.State.PENDING).count(),
        "back_url": _page_of(workspace, subject),
    }
    return render_local(request, workspace, "usage/limit_remove.html", context)


# The ledger ----------------------------------------------------------------------------------------------------------


@login_required
@require_GET
def limit_ledger(request, workspace_slug, limit_uid):
    """What was reserved, settled and released of a limit, by interval, and of one ``interval`` by process."""
    workspace = get_workspace(request, workspace_slug)
    limit, subject = _limit_or_404(request, workspace, limit_uid)
    (standing,) = limit_queries.standings(workspace.organization, [limit], {subject.key: subject})
    intervals = limit_queries.intervals_of(limit)
    page = Paginator(intervals, INTERVALS).get_page(request.GET.get("page"))
    chosen = request.GET.get("interval", "")
    if chosen:
        if not (chosen.isdecimal() and len(chosen) < 19):
            raise Http404
        shown = get_object_or_404(intervals, pk=int(chosen))
    else:
        shown = next(iter(page), None)
    context = {
        "section": "limits",
        "limit": limit,
        "subject": subject,
        "standing": standing,
        "page": page,
        "shown": shown,
        "leases": limit_queries.leases_of(shown) if shown else [],
        "now": timezone.now(),
        "told_since": timezone.now() - processes.TOLD,
        "told_days": processes.TOLD.days,
        "zone": workspace.organization.time_zone,
        "back_url": _page_of(workspace, subject),
    }
    template = "usage/limit_ledger.html" + ("#fragment" if request.htmx else "")
    return render_local(request, workspace, template, context)


@login_required
@require_http_methods(["GET", "POST"])
def lease_release(request, workspace_slug, limit_uid, lease_id):
    """Take off the ledger what a process held that is lost."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    limit, subject = _limit_or_404(request, workspace, limit_uid)
    leases = SpendLease.objects.select_related("process", "ledger_period").filter(
        ledger_period__organization=workspace.organization,
        ledger_period__scope=limit.scope,
        ledger_period__scope_id=limit.scope_id,
        ledger_period__period=limit.period,
    )
    lease = get_object_or_404(leases, pk=lease_id)
    back_url = reverse("usage:limit_ledger", args=[workspace.slug, limit.uid])
    if request.method == "POST":
        if ledger.release_orphan(lease=lease, actor=request.user):
            amount = money(lease.remaining_nanos, workspace.organization.currency)
            return done(request, _("%(amount)s released") % {"amount": amount}, back_url)
        return done(request, _("Nothing to release: the process has come back, or somebody was faster."), back_url)
    context = {
        "section": "limits",
        "title": _("Release what a lost process held"),
        "limit": limit,
        "subject": subject,
        "lease": lease,
        "back_url": back_url,
    }
    return render_local(request, workspace, "usage/limit_release.html", context)


# Asking for more -----------------------------------------------------------------------------------------------------


@login_required
@require_http_methods(["GET", "POST"])
def increase_create(request, workspace_slug, limit_uid):
    """Ask those who manage for more of a limit."""
    workspace = get_workspace(request, workspace_slug)
    limit, subject = _limit_or_404(request, workspace, limit_uid)
    organization = workspace.organization
    (standing,) = limit_queries.standings(organization, [limit], {subject.key: subject})
    form = AskForm(request.POST or None, initial={"last_day": timezone.localdate(standing.last_day)})
    if request.method == "POST" and form.is_valid():
        try:
            increases.request_increase(
                limit=limit,
                amount_nanos=form.cleaned_data["amount"],
                until=form.until,
                reason=form.cleaned_data["reason"],
                requested_by=request.user,
            )
        except ValidationError as error:
            refuse(form, error, FIELDS)
        else:
            return done(request, _("Asked for more. The answer will stand here."), _page_of(workspace, subject))
    context = {
        "section": "limits",
        "title": _("Ask for more"),
        "form": form,
        "limit": limit,
        "subject": subject,
        "standing": standing,
        "administrators": limit_queries.administrators(organization),
        # Whoever sends the form all the same reads it as an error.
        "waiting": None if form.is_bound else increases.waiting_increase(limit, request.user),
        "back_url": _page_of(workspace, subject),
    }
    return render_local(request, workspace, "usage/limit_ask.html", context, 422 if form.errors else 200)


@login_required
@require_GET
def increase_list(request, workspace_slug):
    """Who asked for more and what became of it: of everybody for those who manage, else one's own."""
    workspace = get_workspace(request, workspace_slug)
    organization = workspace.organization
    page = Paginator(limit_queries.wishes(organization, request.member), WISHES).get_page(request.GET.get("page"))
    known = limit_queries.subjects_of(organization, [wish.spend_limit for wish in page], [Subject.of(workspace)])
    context = {
        "section": "limits",
        "page": page,
        "wishes": _named(page, known),
        "zone": organization.time_zone,
    }
    template = "usage/limit_wishes.html" + ("#fragment" if request.htmx else "")
    return render_local(request, workspace, template, context)


@login_required
@require_http_methods(["GET", "POST"])
def increase_answer(request, workspace_slug, increase_uid):
    """Approve a wish, also with another amount or day, or deny it."""
    workspace = get_workspace(request, workspace_slug, Member.Role.ADMIN)
    organization = workspace.organization
    wishes = LimitIncrease.objects.select_related("spend_limit__organization", "requested_by", "decided_by")
    increase = get_object_or_404(wishes, spend_limit__organization=organization, uid=increase_uid)
    limit = increase.spend_limit
    known = limit_queries.subjects_of(organization, [limit], [Subject.of(workspace)])
    subject = known.get((limit.scope, limit.scope_id))
    if subject is None:
        raise Http404
    back_url = reverse("usage:increase_list", args=[workspace.slug])
    form = AnswerForm(request.POST or None, increase=increase)
    if request.method == "POST" and form.is_valid():
        try:
            if form.is_denied:
                increases.deny_increase(increase=increase, answer=form.cleaned_data["answer"], actor=request.user)
                said = _("Denied. %(name)s reads the answer.")
            else:
                increases.approve_increase(
                    increase=increase,
                    amount_nanos=form.cleaned_data["amount"],
                    until=form.until,
                    answer=form.cleaned_data["answer"],
                    actor=request.user,
                )
                said = _("Approved. It holds from the next second on, and %(name)s reads the answer.")
        except ValidationError as error:
            refuse(form, error, FIELDS)
        else:
            return done(request, said % {"name": increase.requested_by or _("whoever asked")}, back_url)
    (standing,) = limit_queries.standings(organization, [limit], known)
    context = {
        "section": "limits",
        "title": _("Answer a request for more"),
        "form": form,
        "increase": increase,
        "limit": limit,
        "subject": subject,
        "standing": standing,
        "back_url": back_url,
    }
    return render_local(request, workspace, "usage/limit_answer.html", context, 422 if form.errors else 200)


@login_required
@require_GET
def limit_link(request, limit_uid):
    """From a refusal, which knows the limit alone: lead to it who can change it, and others to asking for more."""
    member = get_object_or_404(
        Member.objects.select_related("organization"), user=request.user, organization__spend_limits__uid=limit_uid
    )
    limit = SpendLimit.objects.get(uid=limit_uid)
    workspaces = Workspace.objects.filter(organization=limit.organization_id)
    if limit.scope == Scope.WORKSPACE:
        workspaces = workspaces.filter(pk=limit.scope_id)
    elif limit.scope == Scope.API_KEY:
        workspaces = workspaces.filter(api_keys=limit.scope_id)
    last = request.user.last_workspace_id
    workspace = workspaces.filter(pk=last).first() or workspaces.first()
    if workspace is None:
        raise Http404
    if member.may(Member.Role.ADMIN):
        known = limit_queries.subjects_of(member.organization, [limit], [Subject.of(workspace)])
        if subject := known.get((limit.scope, limit.scope_id)):
            return redirect(f"{_page_of(workspace, subject)}#{limit.uid}")
    return redirect("usage:increase_create", workspace.slug, limit.uid)


# What they share -----------------------------------------------------------------------------------------------------


def _limit_or_404(request, workspace, uid):
    """
    A limit that can be seen from a workspace, and whose it is: the organization's, the workspace's, one of its keys or
    a member's. Another member's is for those who manage.
    """
    limits = SpendLimit.objects.select_related("organization", "changed_by")
    limit = get_object_or_404(limits, organization=workspace.organization, uid=uid)
    own = Subject.of(workspace)
    subject = limit_queries.subjects_of(workspace.organization, [limit], [own]).get((limit.scope, limit.scope_id))
    if subject is None or (subject.workspace and subject.workspace.pk != workspace.pk):
        raise Http404
    if limit.scope == Scope.MEMBER:
        _check_may_see(request, limit.scope_id)
    return limit, subject


def _member_or_404(request, workspace, uid):
    found = Member.objects.select_related("user").filter(organization=workspace.organization)
    user = get_object_or_404(found, user__uid=uid).user
    _check_may_see(request, user.pk)
    return user


def _check_may_see(request, user_id):
    if user_id != request.user.pk and not request.member.may(Member.Role.ADMIN):
        raise PermissionDenied


def _possible_subjects(workspace):
    """Whose limits can be set from a workspace."""
    organization = workspace.organization
    keys = ApiKey.objects.filter(workspace=workspace, revoked_at=None).select_related("workspace").order_by("name")
    people = User.objects.filter(memberships__organization=organization).order_by("name", "email")
    return [Subject.of(thing) for thing in (workspace, *keys, *people, organization)]


def _page_of(workspace, subject):
    """The page of limits of a subject."""
    if subject.scope == Scope.API_KEY:
        return reverse("usage:limit_key", args=[workspace.slug, subject.uid])
    if subject.scope == Scope.MEMBER:
        return reverse("usage:limit_member", args=[workspace.slug, subject.uid])
    if subject.scope == Scope.ORGANIZATION:
        return reverse("usage:limit_organization", args=[workspace.slug])
    return _list_url(workspace)


def _list_url(workspace):
    return reverse("usage:limit_list", args=[workspace.slug])


def _named(wishes, subjects):
    """Wishes, each with whose limit it speaks of."""
    for wish in wishes:
        wish.subject = subjects.get((wish.spend_limit.scope, wish.spend_limit.scope_id))
    return [wish for wish in wishes if wish.subject]
