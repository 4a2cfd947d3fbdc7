"""The models of a provider: take over, show, describe, rename, disable, remove, price."""

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.shortcuts import get_object_or_404, render
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.formatting import integer
from providers import queries, services
from providers.catalog.lookup import entries_of, names_of
from providers.forms import ModelForm, ModelNameForm, PriceForm, TakeOverForm, ticket
from providers.models import CATALOG_CURRENCY
from providers.rates import MOST_TIERS
from providers.views.access import detail_url, done, get_model, get_provider, refuse


@login_required
@require_http_methods(["GET", "POST"])
def model_create(request, organization_slug, provider_uid):
    """Offer models of the provider's list, or by name; posting ``list`` asks the provider for that list."""
    provider = get_provider(request, organization_slug, provider_uid, to_change=True)
    wants_list = request.method == "POST" and "list" in request.POST
    form = TakeOverForm(request.POST if request.method == "POST" and not wants_list else None)
    context = {"section": "providers", "provider": provider, "form": form, "back_url": detail_url(provider)}
    context["catalog_currency"] = CATALOG_CURRENCY
    if wants_list:
        return _list(request, provider, context)
    if form.is_bound and form.is_valid():
        try:
            made = services.take_over_models(provider=provider, models=form.cleaned_data["models"], actor=request.user)
        except ValidationError as error:
            refuse(form, error, "names")
        else:
            message = ngettext("%(number)s model taken over", "%(number)s models taken over", len(made))
            return done(request, provider, message % {"number": integer(len(made))})
    return render(request, "providers/model_create.html", context, status=422 if form.errors else 200)


def _list(request, provider, context):
    """What the provider says it sells, what is taken over already marked."""
    status = 200
    try:
        result = services.test_connection(provider=provider, actor=request.user)
    except services.TooManyTests:
        result, status = None, 429
    taken_over = set(provider.models.current().values_list("name", flat=True))
    listed = result.models if result else ()
    entries = entries_of(provider, [model.name for model in listed])
    remote = [(model, ticket(model), model.name in taken_over, entries.get(model.name)) for model in listed]
    context |= {"result": result, "remote": remote, "has_too_many_tests": result is None}
    # A fragment says itself that there were too many; with 429 htmx would leave it out.
    template = "providers/model_create.html" + ("#remote" if request.htmx else "")
    return render(request, template, context, status=200 if request.htmx else status)


@login_required
@require_GET
def model_detail(request, organization_slug, provider_uid, model_uid):
    """A model: what it can do, what it costs and what the catalogue says of both; htmx gets what changes."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    template = "providers/model_detail.html" + ("#fragment" if request.htmx else "")
    context = {"section": "providers", "provider": model.provider, "model": model, **queries.model_page(model)}
    return render(request, template, context)


@login_required
@require_http_methods(["GET", "POST"])
def model_edit(request, organization_slug, provider_uid, model_uid):
    """Say what a model can do, and which entry of the catalogue it is."""
    model = get_model(request, organization_slug, provider_uid, model_uid, to_change=True)
    initial = {
        name: getattr(model, name)
        for name in ("context_window", "max_output_tokens", "capabilities", "lifecycle", "follows_catalog")
    }
    initial["catalog_name"] = model.catalog_model.name if model.catalog_model else ""
    form = ModelForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            services.describe_model(model=model, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            refuse(form, error, "catalog_name")
        else:
            return done(request, model.provider, _("Model %(name)s saved") % {"name": model.public_name})
    return _dialog(request, "model_edit", model, form, catalog_names=names_of(model.provider))


@login_required
@require_http_methods(["GET", "POST"])
def model_rename(request, organization_slug, provider_uid, model_uid):
    """Let clients ask for a model by another name."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    before = model.public_name
    form = ModelNameForm(request.POST or None, initial={"public_name": before})
    if request.method == "POST" and form.is_valid():
        try:
            services.rename_model(model=model, public_name=form.cleaned_data["public_name"], actor=request.user)
        except ValidationError as error:
            refuse(form, error, "public_name")
        else:
            return done(request, model.provider, _("Model renamed to %(name)s") % {"name": model.public_name})
    return _dialog(request, "model_rename", model, form, before=before)


@login_required
@require_POST
def model_disable(request, organization_slug, provider_uid, model_uid):
    """Answer no request for a model until it is enabled again."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    services.disable_model(model=model, actor=request.user)
    return done(
        request, model.provider, _("%(name)s disabled. It is refused from now on.") % {"name": model.public_name}
    )


@login_required
@require_POST
def model_enable(request, organization_slug, provider_uid, model_uid):
    """Let a disabled model be asked for again."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    services.enable_model(model=model, actor=request.user)
    return done(request, model.provider, _("%(name)s enabled") % {"name": model.public_name})


@login_required
@require_http_methods(["GET", "POST"])
def model_delete(request, organization_slug, provider_uid, model_uid):
    """Remove a model; what it used keeps its name and its prices."""
    model = get_model(request, organization_slug, provider_uid, model_uid, to_change=True)
    if request.method == "POST":
        services.remove_model(model=model, actor=request.user)
        return done(request, model.provider, _("Model %(name)s removed") % {"name": model.public_name})
    return _dialog(request, "model_delete", model, None)


@login_required
@require_http_methods(["GET", "POST"])
def price_create(request, organization_slug, provider_uid, model_uid):
    """Set a new price; the older ones stand beneath."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    history = queries.price_history(model)
    current = next((price for price, state in history if state == "current"), None)
    # Amounts of another currency are no beginning for amounts of this one.
    latest = current if current and current.currency == model.provider.currency else None
    initial = {field: getattr(latest, field).normalize() for field in _known_rates(latest)}
    form = PriceForm(
        request.POST or None,
        initial={name: number_format(value) for name, value in initial.items()},
        tiers=_tiers_posted(request) or (latest.tiers if latest else ()),
    )
    if request.method == "POST" and form.is_valid():
        try:
            services.set_price(model=model, actor=request.user, **form.cleaned_data)
        except ValidationError as error:
            refuse(form, error, "input_per_mtok")
        else:
            return done(request, model.provider, _("Price of %(name)s set") % {"name": model.public_name})
    return _price_dialog(request, model, form, history=history)


def _tiers_posted(request):
    """As many empty tiers as a posted form has before its last one, so that each of its fields is read."""
    return [{}] * sum(f"tier{number}_above" in request.POST for number in range(1, MOST_TIERS))


@login_required
@require_POST
def price_from_catalog(request, organization_slug, provider_uid, model_uid):
    """Set the price that the catalogue has."""
    model = get_model(request, organization_slug, provider_uid, model_uid, to_change=True)
    try:
        services.use_catalog_price(model=model, actor=request.user)
    except ValidationError as error:
        return _price_dialog(request, model, PriceForm(), error=error.messages[0])
    return done(request, model.provider, _("Price of %(name)s set") % {"name": model.public_name})


def _known_rates(price):
    return [name for name in services.PRICE_FIELDS if price is not None and getattr(price, name) is not None]


@login_required
@require_POST
def price_withdraw(request, organization_slug, provider_uid, model_uid, price_pk):
    """Take back a price that has not begun."""
    model = get_model(request, organization_slug, provider_uid, model_uid)
    price = get_object_or_404(model.prices, pk=price_pk)
    price.provider_model = model
    try:
        services.withdraw_price(price=price, actor=request.user)
    except ValidationError as error:
        return _price_dialog(request, model, PriceForm(), error=error.messages[0])
    return done(request, model.provider, _("Price of %(name)s withdrawn") % {"name": model.public_name})


def _price_dialog(request, model, form, history=None, **more):
    return _dialog(
        request,
        "price_form",
        model,
        form,
        history=queries.price_history(model) if history is None else history,
        **queries.exchange_of(model.organization, model.provider.currency),
        **more,
    )


def _dialog(request, template, model, form, **more):
    context = {
        "section": "providers",
        "provider": model.provider,
        "model": model,
        "catalog": model.catalog_model,
        "form": form,
        "back_url": detail_url(model.provider),
    } | more
    refused = bool(form is not None and form.errors) or "error" in more
    return render(request, f"providers/{template}.html", context, status=422 if refused else 200)
