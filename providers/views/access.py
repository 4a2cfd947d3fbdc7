"""The first line of every view here: providers are for those who manage their organization."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse

from console.access import get_organization

CHANGED = "provider-changed"


def get_provider(request, organization_slug, provider_uid, *, to_change=False):
    """A provider of an organization that the reader manages; ``to_change``: not one that the server itself manages."""
    organization = get_organization(request, organization_slug)
    provider = get_object_or_404(organization.providers.current().select_related("created_by"), uid=provider_uid)
    if to_change and provider.is_local:
        raise Http404
    provider.organization = organization
    return provider


def get_model(request, organization_slug, provider_uid, model_uid, *, to_change=False):
    """A model of such a provider."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=to_change)
    model = get_object_or_404(provider.models.current().select_related("catalog_model"), uid=model_uid)
    model.provider, model.organization = provider, provider.organization
    return model


def detail_url(provider):
    return reverse("providers:provider_detail", args=[provider.organization.slug, provider.uid])


def done(request, provider, message):
    """Say what happened: on the provider's page, or to the page beneath the dialog, which fetches itself anew."""
    messages.success(request, message)
    if request.htmx:
        return HttpResponse(headers={"HX-Trigger": CHANGED})
    return redirect(detail_url(provider))


def refuse(form, error, field):
    """Put a service's refusal beside the fields that it names, and what names none beside ``field``."""
    for name, errors in error.error_dict.items() if hasattr(error, "error_dict") else [(field, error.error_list)]:
        target = name if name in form.fields else field
        for one in errors:
            form.add_error(target if target in form.fields else None, one)
