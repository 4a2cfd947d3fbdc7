"""The webhooks of an organization: list, add, test, rotate the secret, disable, delete."""

import functools

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db.models import OuterRef, Subquery
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect

from console.access import get_organization
from usage import webhooks
from usage.models import Webhook, WebhookDelivery
from usage.views.pages import done, refuse
from usage.webhook_forms import WebhookForm

CHANGED = "webhook-changed"
LATEST = 20


def _gone_is_404(view):
    """Have a webhook that somebody else deletes meanwhile be not there, as it is for whoever asks later."""

    @functools.wraps(view)
    def answer(request, *args, **kwargs):
        try:
            return view(request, *args, **kwargs)
        except Webhook.DoesNotExist:
            raise Http404 from None

    return answer


@login_required
@require_GET
def webhook_list(request, organization_slug):
    """Every webhook with how its last message went; htmx gets the table alone."""
    organization = get_organization(request, organization_slug)
    context = {"section": "alerts", "listed": _for_list(organization)}
    return render(request, "usage/webhook_list.html" + ("#fragment" if request.htmx else ""), context)


@login_required
@require_http_methods(["GET", "POST"])
def webhook_create(request, organization_slug):
    """Add a webhook and show its secret, once."""
    organization = get_organization(request, organization_slug)
    form = WebhookForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            webhook, secret = webhooks.create_webhook(
                organization=organization, url=form.cleaned_data["url"], actor=request.user
            )
        except ValidationError as error:
            refuse(form, error)
        else:
            return _show_secret(request, webhook, secret)
    context = {"section": "alerts", "form": form, "back_url": _list_url(organization)}
    return render(request, "usage/webhook_form.html", context, status=422 if form.errors else 200)


@login_required
@require_GET
def webhook_detail(request, organization_slug, webhook_uid):
    """A webhook and its latest messages; htmx gets what changes."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    return render(request, "usage/webhook_detail.html" + ("#fragment" if request.htmx else ""), _detail(webhook))


@login_required
@require_POST
@_gone_is_404
def webhook_test(request, organization_slug, webhook_uid):
    """Send a message and show how it went; htmx gets what changes."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    result, status = None, 200
    try:
        result = webhooks.send_test(webhook=webhook, actor=request.user)
    except webhooks.TooManyTests:
        status = 429
    context = _detail(webhook) | {"result": result, "has_too_many_tests": status == 429}
    # htmx leaves the page as it is at a 429, and says so itself.
    template = "usage/webhook_detail.html" + ("#fragment" if request.htmx else "")
    return render(request, template, context, status=status)


@login_required
@require_http_methods(["GET", "POST"])
@_gone_is_404
def webhook_rotate(request, organization_slug, webhook_uid):
    """Give a webhook another secret, after a word on what that means, and show it once."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    if request.method == "POST":
        return _show_secret(request, webhook, webhooks.rotate_secret(webhook=webhook, actor=request.user))
    context = {"section": "alerts", "webhook": webhook, "back_url": webhook.get_absolute_url()}
    return render(request, "usage/webhook_rotate.html", context)


@login_required
@require_POST
@_gone_is_404
def webhook_disable(request, organization_slug, webhook_uid):
    """Send it nothing until it is enabled again."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    webhooks.disable_webhook(webhook=webhook, actor=request.user)
    return done(request, _("Webhook disabled. Nothing is sent to it from now on."), webhook, CHANGED)


@login_required
@require_POST
@_gone_is_404
def webhook_enable(request, organization_slug, webhook_uid):
    """Tell it of what happens from now on."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    webhooks.enable_webhook(webhook=webhook, actor=request.user)
    return done(request, _("Webhook enabled. It is told of what happens from now on."), webhook, CHANGED)


@login_required
@require_http_methods(["GET", "POST"])
def webhook_delete(request, organization_slug, webhook_uid):
    """Forget a webhook, its secret and what was sent to it."""
    webhook = _get_webhook(request, organization_slug, webhook_uid)
    if request.method == "POST":
        webhooks.delete_webhook(webhook=webhook, actor=request.user)
        messages.success(request, _("Webhook deleted"))
        url = _list_url(webhook.organization)
        return HttpResponseClientRedirect(url) if request.htmx else redirect(url)
    context = {"section": "alerts", "webhook": webhook, "back_url": webhook.get_absolute_url()}
    return render(request, "usage/webhook_delete.html", context)


def _get_webhook(request, organization_slug, uid):
    organization = get_organization(request, organization_slug)
    webhook = get_object_or_404(organization.webhooks.select_related("created_by"), uid=uid)
    webhook.organization = organization
    return webhook


def _for_list(organization):
    latest = WebhookDelivery.objects.filter(webhook=OuterRef("pk")).order_by("-pk")
    listed = organization.webhooks.annotate(
        last_state=Subquery(latest.values("state")[:1]),
        last_error=Subquery(latest.values("error")[:1]),
        last_status=Subquery(latest.values("status")[:1]),
        last_at=Subquery(latest.values("created_at")[:1]),
    )
    for webhook in listed:
        webhook.last_words = webhook.last_state and _words(webhook.last_state, webhook.last_error, webhook.last_status)
        yield webhook


def _detail(webhook):
    latest = list(webhook.deliveries.order_by("-pk")[:LATEST])
    for delivery in latest:
        delivery.words = _words(delivery.state, delivery.error, delivery.status)
    return {"section": "alerts", "webhook": webhook, "deliveries": latest}


def _words(state, error, status):
    """How the last attempt of a delivery went, for people."""
    if state == WebhookDelivery.State.DELIVERED:
        return _("Answered %(status)s") % {"status": status}
    return {
        "": _("Not tried yet"),
        "status": _("Answered %(status)s") % {"status": status},
        "redirect": _("Answered with a redirect, which is not followed"),
        "timeout": _("Took too long"),
        "unreachable": _("Not reached"),
        "secret": _("Its secret cannot be opened: rotate it"),
        "disabled": _("The webhook was disabled"),
        "failed": _("Could not be sent: the server’s log says why"),
    }[error]


def _show_secret(request, webhook, secret):
    context = {
        "section": "alerts",
        "webhook": webhook,
        "secret": secret,
        "back_url": webhook.get_absolute_url(),
    }
    response = render(request, "usage/webhook_secret.html", context)
    response["HX-Trigger"] = CHANGED
    return response


def _list_url(organization):
    return reverse("usage:webhook_list", args=[organization.slug])
