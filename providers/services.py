"""What people do to providers, models and prices; each change with its audit event and the gateway's revision."""

import datetime
import json
from collections.abc import Iterable
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _

from console import audit
from console.models import AuditEvent
from console.revision import bump_revision
from providers import credentials, discovery
from providers.adapters.extras import missing_extra
from providers.adapters.vertex import is_key_file
from providers.alerts import close_alerts
from providers.capabilities import in_order
from providers.catalog.lookup import catalogs_of, entries_of
from providers.discovery import RemoteModel
from providers.endpoints import normal_base_url
from providers.models import CatalogModel, Lifecycle, Price, Provider, ProviderModel
from providers.origins import InvalidBaseUrl, is_private_allowed, origin_of, origin_verdict, parse_base_url
from providers.rates import ALL_KINDS, field_of

TIMEOUTS = ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s")
TESTS_A_MINUTE = 10
SERIES = 9


class TooManyTests(Exception):
    """The organization has asked its providers too often within a minute."""


# Providers -------------------------------------------------------------------------------------------------------


@transaction.atomic
def create_provider(*, organization, kind, name, base_url, actor, credential=None, currency="", allow_private=False):
    """
    A new provider, its credential sealed; its ``currency`` is the organization's where none is given.

    ``allow_private`` is the operator's word that this origin may be private or plain http; no page passes it.
    Raises ``ValidationError``: of code ``private_origin`` where the operator would have to allow the address, of code
    ``missing_extra`` where the operator would have to install a library.
    """
    provider = Provider(
        organization=organization,
        kind=kind,
        name=name,
        currency=currency or organization.currency,
        created_by=actor,
    )
    if missing := missing_library(provider.preset):
        raise ValidationError(missing, code="missing_extra")
    _place(provider, base_url, allow_private=allow_private)
    provider.full_clean(exclude=["base_url"])
    provider.save()
    _audit(
        provider,
        actor,
        "provider.created",
        kind=kind,
        base_url=provider.base_url,
        currency=provider.currency,
        approved_private_origin=provider.approved_private_origin,
    )
    if credential:
        set_credential(provider=provider, credential=credential, actor=actor)
    return provider


@transaction.atomic
def update_provider(*, provider, name, base_url, actor, credential=None, currency="", **timeouts):
    """
    Change name, base URL, currency and those of TIMEOUTS that are given; ``None`` is the server's default.

    The prices that its models have stay in the currency that they were set in.

    A new origin voids the credential and the operator's word, which were both given for the old one; until another
    credential is set, or this one removed, the provider is not called. Raises ``ValidationError`` as
    ``create_provider``.
    """
    _refuse_managed(provider)
    _hold(provider)
    changing = ("name", "base_url", "currency", *timeouts)
    before = {field: getattr(provider, field) for field in changing}
    old_origin = origin_of(provider.base_url)
    provider.name = name
    provider.currency = currency or provider.currency
    for field in TIMEOUTS:
        if field in timeouts:
            setattr(provider, field, timeouts[field])
    _place(provider, base_url)
    moved = origin_of(provider.base_url) != old_origin
    voided = moved and provider.sealed_credential is not None
    if voided:
        provider.sealed_credential, provider.credential_hint = credentials.VOID, ""
    if moved:
        provider.approved_private_origin = ""
    after = {field: getattr(provider, field) for field in changing}
    if any(after[field] != before[field] for field in changing if field not in ("name", "currency")):
        provider.renewed_at = timezone.now()
    if after["base_url"] != before["base_url"]:
        close_alerts(provider)
    provider.full_clean(exclude=["base_url"])
    provider.save()
    if before != after:
        _audit(provider, actor, "provider.updated", before=before, after=after, credential_voided=voided)
    if credential:
        set_credential(provider=provider, credential=credential, actor=actor)
    return provider


@transaction.atomic
def set_credential(*, provider, credential, actor):
    """
    Seal ``credential`` in place of any other; only four characters of it stay readable.

    It is one line; for a provider of Google's cloud the key file of a service account, for one of Amazon's an API key
    or the JSON of a key pair.
    """
    _refuse_managed(provider)
    _hold(provider)
    credential, named = _checked_credential(provider.preset.auth, credential.strip())
    provider.sealed_credential = credentials.seal(credential, provider=provider)
    provider.credential_hint = named[-4:] if len(named) >= 12 else ""
    _renew(provider, ["sealed_credential", "credential_hint"])
    _audit(provider, actor, "provider.credential_set")


def missing_library(preset) -> str | None:
    """What to do before providers of ``preset`` can be called, where this server lacks a library for them."""
    extra = missing_extra(preset.adapter)
    if extra is None:
        return None
    return _(
        "This server lacks the library for it. Whoever runs the server installs it by setting %(variable)s in its "
        "environment or in .env and starting it again."
    ) % {"variable": f"COMPTOIR_EXTRAS={extra}"}


def _checked_credential(auth, text):
    """A credential as it is sealed, and the part of it whose end names it; raises ``ValidationError``."""
    if auth == "google":
        key_file = _json_of_texts(text)
        if not key_file or not is_key_file(text):
            raise ValidationError({"credential": _("This is not the JSON key file of a service account.")})
        return json.dumps(key_file), key_file.get("private_key_id", "")
    if auth == "aws" and text.startswith("{"):
        keys = _json_of_texts(text)
        allowed = {"access_key_id", "secret_access_key", "session_token", "region"}
        if not keys or not {"access_key_id", "secret_access_key"} <= keys.keys() <= allowed:
            raise ValidationError(
                {"credential": _("A key pair has an access_key_id, a secret_access_key and maybe a session_token.")}
            )
        return json.dumps(keys), keys["access_key_id"]
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > 4_000:
        raise ValidationError({"credential": _("A credential is one line of visible characters, without spaces.")})
    return text, text


def _json_of_texts(text):
    """The object that ``text`` is, where all that it holds is texts that are not empty; else ``None``."""
    try:
        found = json.loads(text) if len(text) <= 16_000 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) and value for value in found.values()):
        return None
    return found


@transaction.atomic
def remove_credential(*, provider, actor):
    """Forget the credential; the provider is then called without one."""
    _refuse_managed(provider)
    if provider.sealed_credential is not None:
        provider.sealed_credential, provider.credential_hint = None, ""
        _renew(provider, ["sealed_credential", "credential_hint"])
        _audit(provider, actor, "provider.credential_removed")


@transaction.atomic
def disable_provider(*, provider, actor):
    """Send it nothing until it is enabled again; disabling twice changes nothing."""
    _refuse_managed(provider)
    if provider.disabled_at is None:
        provider.disabled_at = timezone.now()
        provider.save(update_fields=["disabled_at"])
        _audit(provider, actor, "provider.disabled")


@transaction.atomic
def enable_provider(*, provider, actor):
    """Let a disabled provider answer again."""
    _refuse_managed(provider)
    if provider.disabled_at is not None:
        provider.disabled_at = None
        _renew(provider, ["disabled_at"])
        _audit(provider, actor, "provider.enabled")


@transaction.atomic
def delete_provider(*, provider, actor):
    """
    Remove it with its models and erase its credential; deleting twice changes nothing.

    What stays of it are the names and the prices that explain its requests. Its name and theirs are free again.
    """
    _refuse_managed(provider)
    now = timezone.now()
    row = Provider.objects.current().filter(pk=provider.pk)
    if row.update(removed_at=now, sealed_credential=None, credential_hint=""):
        models = provider.models.current()
        names = list(models.values_list("public_name", flat=True))
        models.update(removed_at=now)
        _audit(provider, actor, "provider.deleted", base_url=provider.base_url, models=names[:100])


def _place(provider, base_url, *, allow_private=False):
    """Set a base URL that the guard will let through, as far as its text tells."""
    try:
        provider.base_url = normal_base_url(provider.kind, base_url)
        origin = parse_base_url(provider.base_url).origin
    except InvalidBaseUrl as error:
        raise ValidationError({"base_url": error.args[0]}) from None
    if allow_private:
        provider.approved_private_origin = str(origin)
    private_allowed = is_private_allowed(provider.base_url, provider.approved_private_origin)
    if not origin_verdict(origin, private_allowed=private_allowed):
        return
    if origin_verdict(origin, private_allowed=True):
        message, code = _("No provider may stand at this address: it belongs to this server or its host."), "never"
    elif origin.scheme == "http":
        message = _("Plain http and private addresses need the word of whoever runs this server.")
        code = "private_origin"
    else:
        message, code = _("Private addresses need the word of whoever runs this server."), "private_origin"
    raise ValidationError({"base_url": ValidationError(message, code=code)})


def _renew(provider, changed):
    """Save the fields that are ``changed`` and may have mended it: its troubles so far are those of another time."""
    provider.renewed_at = timezone.now()
    provider.save(update_fields=[*changed, "renewed_at"])
    close_alerts(provider)


def _hold(provider):
    """Lock the row and read it anew, so that no change made meanwhile is undone, a removal least of all."""
    try:
        provider.refresh_from_db(from_queryset=Provider.objects.current().select_for_update())
    except Provider.DoesNotExist:
        raise ValidationError(_("This provider has been deleted."), code="deleted") from None


def _refuse_managed(provider):
    if provider.is_local:
        raise ValidationError(_("The server itself manages the model on this machine."), code="managed")


# Asking a provider -----------------------------------------------------------------------------------------------


def test_connection(*, provider, actor):
    """
    Ask the provider for its models and say how it went; takes up to ten seconds.

    One that answers rests no longer, and the next request finds out whether its alerts are still true: some providers
    list their models for everybody. Raises ``TooManyTests`` after ten calls of the organization within a minute. Each
    call is in the audit log, which also counts them, so the limit holds over any number of processes.
    """
    since = timezone.now() - datetime.timedelta(minutes=1)
    tests = AuditEvent.objects.filter(
        organization=provider.organization, created_at__gt=since, action="provider.tested"
    )
    if tests.count() >= TESTS_A_MINUTE:
        raise TooManyTests
    audit.record(organization=provider.organization, actor=actor, action="provider.tested", target=provider)
    found = discovery.ask_for_models(provider)
    if found.answered:
        Provider.objects.filter(pk=provider.pk).update(renewed_at=timezone.now())
        bump_revision()
    return found


test_connection.__test__ = False  # pytest takes any test_… that a test imports for one of its own


# Models ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def take_over_models(*, provider, models: Iterable[RemoteModel], actor, priced=True):
    """
    Offer ``models`` of the provider to clients under their own names, or ``provider/name`` where that is taken.

    What the provider does not say of them the catalogue does; where it is ``priced`` in the provider's currency,
    they get that price. Those taken over already are left alone. Raises ``ValidationError`` for what cannot name a
    model.
    """
    models = list(models)
    _hold(provider)
    taken_over = set(provider.models.current().values_list("name", flat=True))
    public_names = set(provider.organization.models.current().values_list("public_name", flat=True))
    count = provider.organization.models.count()  # with the removed ones, which keep their colours
    entries = entries_of(provider, [remote.name for remote in models])
    made = []
    for remote in models:
        if remote.name in taken_over:
            continue
        if not discovery.is_model_name(remote.name):
            raise ValidationError(_("A model’s name has no spaces and at most 200 characters."))
        taken_over.add(remote.name)
        entry = entries.get(remote.name)
        model = ProviderModel(
            organization=provider.organization,
            provider=provider,
            name=remote.name,
            public_name=_free_public_name(provider, remote.name, public_names),
            context_window=remote.context_window or (entry and entry.context_window),
            max_output_tokens=remote.max_output_tokens or (entry and entry.max_output_tokens),
            capabilities=entry.capabilities if entry else [],
            lifecycle=entry.lifecycle if entry else Lifecycle.ACTIVE,
            catalog_model=entry,
            series=(count + len(made)) % SERIES + 1,
        )
        model.full_clean()
        model.save()
        public_names.add(model.public_name)
        made.append(model)
        _audit(model, actor, "model.created", provider=provider.name, name=model.name)
        if priced and entry and entry.rates and entry.currency == provider.currency:
            _set_catalog_price(model, entry, actor)
    return made


def _free_public_name(provider, name, taken):
    if name not in taken:
        return name
    stem = f"{slugify(provider.name) or provider.uid}/{name}"[:190]
    candidate, number = stem, 1
    while candidate in taken:
        number += 1
        candidate = f"{stem}-{number}"
    return candidate


@transaction.atomic
def rename_model(*, model, public_name, actor):
    """Let clients ask for it by another name; the old one ends at once. Raises ``ValidationError``."""
    before, model.public_name = model.public_name, public_name
    if not discovery.is_model_name(public_name):
        raise ValidationError({"public_name": _("A model’s name has no spaces and at most 200 characters.")})
    model.full_clean()
    if before != public_name:
        model.save(update_fields=["public_name"])
        _audit(model, actor, "model.renamed", before=before, after=public_name)


@transaction.atomic
def describe_model(
    *, model, context_window, max_output_tokens, capabilities, lifecycle, catalog_name, follows_catalog, actor
):
    """
    Say what a model can do, and which entry of its provider's price lists it is; an empty name is none.

    Raises ``ValidationError``.
    """
    entry = None
    if catalog_name:
        catalogs = catalogs_of(model.provider)
        found = {row.catalog: row for row in CatalogModel.objects.filter(catalog__in=catalogs, name=catalog_name)}
        entry = next((found[catalog] for catalog in catalogs if catalog in found), None)
        if entry is None:
            raise ValidationError({"catalog_name": _("The catalogue has no such model of this provider.")})
    after = {
        "context_window": context_window,
        "max_output_tokens": max_output_tokens,
        "capabilities": in_order(capabilities),
        "lifecycle": str(lifecycle),
        "catalog_model": entry,
        "follows_catalog": bool(follows_catalog and entry),
    }
    before = {field: getattr(model, field) for field in after}
    for field, value in after.items():
        setattr(model, field, value)
    model.full_clean()
    if before != after:
        model.save(update_fields=list(after))
        changed = {field: value for field, value in after.items() if before[field] != value}
        _audit(model, actor, "model.described", **changed | ({"catalog_model": str(entry)} if entry else {}))


@transaction.atomic
def disable_model(*, model, actor):
    """Answer no request for it until it is enabled again."""
    if model.disabled_at is None:
        model.disabled_at = timezone.now()
        model.save(update_fields=["disabled_at"])
        _audit(model, actor, "model.disabled")


@transaction.atomic
def enable_model(*, model, actor):
    """Let a disabled model be asked for again."""
    if model.disabled_at is not None:
        model.disabled_at = None
        model.save(update_fields=["disabled_at"])
        _audit(model, actor, "model.enabled")


@transaction.atomic
def remove_model(*, model, actor):
    """
    Answer no request for it any more; removing twice changes nothing.

    Its row and its prices stay, to name and explain its requests. The name is free again.
    """
    _refuse_managed(model.provider)
    if ProviderModel.objects.current().filter(pk=model.pk).update(removed_at=timezone.now()):
        _audit(model, actor, "model.removed", provider=model.provider.name, name=model.name)


# Prices ----------------------------------------------------------------------------------------------------------


@transaction.atomic
def set_price(
    *,
    model,
    input_per_mtok: Decimal,
    output_per_mtok: Decimal,
    actor,
    valid_from=None,
    tiers=(),
    source="",
    **rates: Decimal | None,
):
    """
    A new price from ``valid_from`` on, by default from now, in its provider's currency.

    Older prices and what they cost stay as they are.

    ``rates`` are the other PRICE_FIELDS, ``tiers`` as in ``providers.rates``. Raises ``ValidationError``, also for a
    moment that has passed: what was served has its price.
    """
    now = timezone.now()
    if valid_from is not None and valid_from < now - datetime.timedelta(minutes=1):
        raise ValidationError({"valid_from": _("A price begins now or later: what was served keeps its price.")})
    if model.prices.filter(valid_from=valid_from).exists():
        raise ValidationError({"valid_from": _("Another price begins at that moment.")})
    price = Price(
        provider_model=model,
        valid_from=valid_from or now,
        currency=model.provider.currency,
        input_per_mtok=input_per_mtok,
        output_per_mtok=output_per_mtok,
        tiers=sorted(tiers, key=lambda tier: tier["above"]),
        source=source,
        created_by=actor,
        **rates,
    )
    price.full_clean()
    price.save()
    details = {field: str(getattr(price, field)) for field in PRICE_FIELDS if getattr(price, field) is not None}
    details |= {field: value for field in ("currency", "tiers", "source") if (value := getattr(price, field))}
    _audit(model, actor, "price.set", valid_from=price.valid_from.isoformat(), **details)
    return price


PRICE_FIELDS = tuple(field_of(kind) for kind in ALL_KINDS)


@transaction.atomic
def use_catalog_price(*, model, actor):
    """Set the price that the catalogue has, from now on. Raises ``ValidationError`` where it has none to be used."""
    entry = model.catalog_model
    if entry is None or not entry.rates:
        raise ValidationError(_("The catalogue has no price for this model."))
    if entry.currency != model.provider.currency:
        raise ValidationError(
            _("The catalogue’s prices are in %(currency)s."), params={"currency": entry.currency}, code="currency"
        )
    return _set_catalog_price(model, entry, actor)


@transaction.atomic
def follow_catalog(*, model):
    """Give a model that follows the catalogue the price that it has there now; says whether that was done."""
    entry = model.catalog_model
    if not model.follows_catalog or not entry.rates or entry.currency != model.provider.currency:
        return False
    _set_catalog_price(model, entry, None)
    return True


def _set_catalog_price(model, entry, actor):
    rates = {field_of(kind): Decimal(rate) for kind, rate in entry.rates.items()}
    return set_price(model=model, tiers=entry.tiers, source=entry.source, actor=actor, **rates)


@transaction.atomic
def withdraw_price(*, price, actor):
    """Take back a price that has not begun; raises ``ValidationError`` for one that has."""
    if price.valid_from <= timezone.now():
        raise ValidationError(_("This price has begun. Set another one instead."))
    _audit(price.provider_model, actor, "price.withdrawn", valid_from=price.valid_from.isoformat())
    price.delete()


def _audit(target, actor, action, **details):
    audit.record(organization=target.organization, actor=actor, action=action, target=target, **details)
    bump_revision()
