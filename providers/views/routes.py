"""The routes of an organization: list, add, change, delete; and the alerts of its providers for other pages."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from console.access import get_organization
from providers import routes
from providers.alerts import open_alerts
from providers.route_form import RouteForm, Row
from providers.views.access import refuse

CHANGED = "routes-changed"


@login_required
@require_GET
def route_list(request, organization_slug):
    """Every route with where it leads; htmx gets the table alone."""
    organization = get_organization(request, organization_slug)
    listed = routes.routes_for_list(organization)
    has_models = bool(listed) or organization.models.current().exists()
    context = {"section": "routes", "routes": listed, "has_models": has_models}
    return render(request, "providers/route_list.html" + ("#fragment" if request.htmx else ""), context)


@login_required
@require_http_methods(["GET", "POST"])
def route_create(request, organization_slug):
    """Add a route; ``arrange`` moves, adds or removes a row of the form, or asks what it would do."""
    organization = get_organization(request, organization_slug)
    models = routes.models_to_choose(organization)
    if how := request.POST.get("arrange"):
        return _arranged(request, organization, models, how)
    form = RouteForm(models, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            route = routes.create_route(organization=organization, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            refuse(form, error, "name")
        else:
            return _done(request, organization, _("Route %(name)s added") % {"name": route.name})
    return _dialog(request, organization, form)


@login_required
@require_http_methods(["GET", "POST"])
def route_edit(request, organization_slug, route_uid):
    """Change a route, as ``route_create``."""
    organization, route = _get_route(request, organization_slug, route_uid)
    models = routes.models_to_choose(organization)
    if how := request.POST.get("arrange"):
        return _arranged(request, organization, models, how, route)
    if request.method == "POST":
        form = RouteForm(models, request.POST)
    else:
        steps = route.targets.filter(provider_model__removed_at=None).select_related("provider_model")
        rows = [Row(step.provider_model.uid, str(step.weight)) for step in steps]
        form = RouteForm(models, initial={"name": route.name, "strategy": route.strategy}, rows=rows)
    if form.is_bound and form.is_valid():
        try:
            routes.update_route(route=route, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            route.refresh_from_db()
            refuse(form, error, "name")
        else:
            return _done(request, organization, _("Route %(name)s saved") % {"name": route.name})
    return _dialog(request, organization, form, route)


@login_required
@require_http_methods(["GET", "POST"])
def route_delete(request, organization_slug, route_uid):
    """End a route's name."""
    organization, route = _get_route(request, organization_slug, route_uid)
    if request.method == "POST":
        routes.delete_route(route=route, actor=request.user)
        return _done(request, organization, _("Route %(name)s deleted") % {"name": route.name})
    context = {
        "section": "routes",
        "route": route,
        "model": organization.models.current().filter(public_name=route.name).first(),
        "back_url": _list_url(organization),
    }
    return render(request, "providers/route_delete.html", context)


@login_required
@require_GET
def alert_list(request, organization_slug):
    """What providers refuse this server's accounts, as a fragment for pages that do not know of providers."""
    organization = get_organization(request, organization_slug)
    if not request.htmx:
        return redirect("providers:provider_list", organization.slug)
    return render(request, "providers/_alert_list.html", {"alerts": open_alerts(organization)})


def _get_route(request, organization_slug, route_uid):
    organization = get_organization(request, organization_slug)
    route = get_object_or_404(organization.routes, uid=route_uid)
    route.organization = organization
    return organization, route


def _arranged(request, organization, models, how, route=None):
    form = RouteForm.arranged(models, request.POST, how)
    if how == "preview":
        return render(request, "providers/route_form.html#preview", {"form": form})
    return _dialog(request, organization, form, route)


def _dialog(request, organization, form, route=None):
    context = {"section": "routes", "route": route, "form": form, "back_url": _list_url(organization)}
    return render(request, "providers/route_form.html", context, status=422 if form.errors else 200)


def _done(request, organization, message):
    """Say what happened: on the list, or to the list beneath the dialog, which fetches itself anew."""
    messages.success(request, message)
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": CHANGED})
    return redirect(_list_url(organization))


def _list_url(organization):
    return reverse("providers:route_list", args=[organization.slug])
