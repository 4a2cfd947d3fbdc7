"""The providers of an organization: list, add, change, test, disable, delete."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from console.access import get_organization
from console.forms import ConfirmationForm
from providers import queries, services
from providers.forms import TIMEOUTS, CredentialForm, ProviderEditForm, ProviderForm
from providers.models import CATALOG_CURRENCY
from providers.presets import ADDABLE, PRESETS, preset_groups
from providers.views.access import detail_url, done, get_provider, refuse

JUST_ADDED = "provider_just_added"


@login_required
@require_GET
def provider_list(request, organization_slug):
    """Every provider with its models and the state of its credential; htmx gets the table alone."""
    organization = get_organization(request, organization_slug)
    context = {"section": "providers", "listed": queries.providers_for_list(organization)}
    return render(request, "providers/provider_list.html" + ("#fragment" if request.htmx else ""), context)


@login_required
@require_http_methods(["GET", "POST"])
def provider_create(request, organization_slug):
    """Choose a kind of provider, add one of it, then go to its page, which tests the connection."""
    organization = get_organization(request, organization_slug)
    kind = request.POST.get("kind") or request.GET.get("kind")
    if kind not in ADDABLE:
        is_wrong = request.method == "POST"
        context = {"section": "providers", "groups": preset_groups(), "back_url": _list_url(organization)}
        context["is_wrong"] = is_wrong
        return render(request, "providers/provider_choose.html", context, status=422 if is_wrong else 200)
    data = request.POST if request.method == "POST" else None
    form = ProviderForm(data, preset=PRESETS[kind], currency=organization.currency)
    if request.method == "POST" and form.is_valid():
        try:
            provider = services.create_provider(
                organization=organization, kind=kind, actor=request.user, **form.cleaned_data
            )
        except ValidationError as error:
            refuse(form, error, "name")
        else:
            messages.success(request, _("Provider %(name)s added") % {"name": provider.name})
            # Its page tests it when it is shown first; in the address this would be there for every reload.
            request.session[JUST_ADDED] = provider.uid
            url = detail_url(provider)
            return HttpResponseClientRedirect(url) if request.htmx else redirect(url)
    back_url = reverse("providers:provider_create", args=[organization.slug])
    context = {"section": "providers", "form": form, "preset": PRESETS[kind], "back_url": back_url}
    context |= {"missing_library": services.missing_library(PRESETS[kind]), "catalog_currency": CATALOG_CURRENCY}
    return render(request, "providers/provider_form.html", context, status=422 if form.errors else 200)


@login_required
@require_GET
def provider_detail(request, organization_slug, provider_uid):
    """A provider, its connection and its models; htmx gets what changes."""
    provider = get_provider(request, organization_slug, provider_uid)
    template = "providers/provider_detail.html" + ("#fragment" if request.htmx else "")
    is_new = JUST_ADDED in request.session and request.session.pop(JUST_ADDED) == provider.uid
    return render(request, template, detail_context(provider, is_new=is_new))


def detail_context(provider, **more):
    """What a provider's page shows."""
    listed = queries.models_with_prices(provider)
    return {
        "section": "providers",
        "provider": provider,
        "credential_state": queries.credential_state(provider),
        "timeouts": [
            (label, seconds) for name, (label, _default) in TIMEOUTS.items() if (seconds := getattr(provider, name))
        ],
        "listed": listed,
        "missing_currencies": queries.missing_currencies(listed),
        **queries.exchange_of(provider.organization, provider.currency),
    } | more


@login_required
@require_POST
def provider_test(request, organization_slug, provider_uid):
    """Ask the provider for its models and show how it went; htmx gets the result alone."""
    provider = get_provider(request, organization_slug, provider_uid)
    result, status = None, 200
    try:
        result = services.test_connection(provider=provider, actor=request.user)
    except services.TooManyTests:
        status = 429
    if request.htmx:
        context = {"provider": provider, "result": result}
        return render(request, "providers/provider_detail.html#result", context, status=status)
    context = detail_context(provider, result=result, has_too_many_tests=status == 429)
    return render(request, "providers/provider_detail.html", context, status=status)


@login_required
@require_http_methods(["GET", "POST"])
def provider_edit(request, organization_slug, provider_uid):
    """Change name and base URL; another origin voids the credential."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    form = ProviderEditForm(request.POST or None, provider=provider)
    if request.method == "POST" and form.is_valid():
        try:
            services.update_provider(provider=provider, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            provider = get_provider(request, organization_slug, provider_uid, to_change=True)
            refuse(form, error, "name")
        else:
            return done(request, provider, _("Provider %(name)s saved") % {"name": provider.name})
    return _dialog(request, "provider_form", provider, form)


@login_required
@require_http_methods(["GET", "POST"])
def provider_credential(request, organization_slug, provider_uid):
    """Set the credential in place of any other, or remove it."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    if request.method == "POST" and "remove" in request.POST:
        services.remove_credential(provider=provider, actor=request.user)
        return done(request, provider, _("Key of %(name)s removed") % {"name": provider.name})
    form = CredentialForm(request.POST or None, preset=PRESETS[provider.kind])
    if request.method == "POST" and form.is_valid():
        try:
            services.set_credential(provider=provider, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            refuse(form, error, "credential")
        else:
            return done(request, provider, _("Key of %(name)s sealed") % {"name": provider.name})
    return _dialog(request, "provider_credential", provider, form)


@login_required
@require_POST
def provider_disable(request, organization_slug, provider_uid):
    """Send it nothing until it is enabled again."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    services.disable_provider(provider=provider, actor=request.user)
    message = _("%(name)s disabled. Its models are refused from now on.") % {"name": provider.name}
    return done(request, provider, message)


@login_required
@require_POST
def provider_enable(request, organization_slug, provider_uid):
    """Let it answer again."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    services.enable_provider(provider=provider, actor=request.user)
    return done(request, provider, _("%(name)s enabled. Its models answer again.") % {"name": provider.name})


@login_required
@require_http_methods(["GET", "POST"])
def provider_delete(request, organization_slug, provider_uid):
    """Remove a provider with its models, once its name has been typed."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    form = ConfirmationForm(request.POST or None, name=provider.name)
    if request.method == "POST" and form.is_valid():
        services.delete_provider(provider=provider, actor=request.user)
        messages.success(request, _("Provider %(name)s deleted") % {"name": form.name})
        url = _list_url(provider.organization)
        return HttpResponseClientRedirect(url) if request.htmx else redirect(url)
    return _dialog(request, "provider_delete", provider, form, model_count=provider.models.current().count())


def _dialog(request, template, provider, form, **more):
    context = {
        "section": "providers",
        "provider": provider,
        "preset": PRESETS[provider.kind],
        "form": form,
        "back_url": detail_url(provider),
    } | more
    return render(request, f"providers/{template}.html", context, status=422 if form.errors else 200)


def _list_url(organization):
    return reverse("providers:provider_list", args=[organization.slug])
