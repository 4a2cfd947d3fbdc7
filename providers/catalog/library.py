"""
The price library's data as rows of the catalogue. Imports genai-prices, half a second and much memory: for the command
``update_catalog`` alone.
"""

import datetime
import json
from decimal import Decimal
from pathlib import Path

import httpx2
from genai_prices import data_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.update_prices import UpdatePrices

from providers.capabilities import Capability, in_order
from providers.catalog.update import installed_source
from providers.models import CatalogModel, Lifecycle
from providers.rates import BATCH_KINDS, KINDS, MOST_TIERS, rate, text_of

FACTS = Path(__file__).with_name("facts.json")
# Our kinds of tokens and the library's.
KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}
BATCH = {"processing": "batch"}


class FetchFailed(Exception):
    """The price library could not get newer data; its text says why."""


def read(*, fetch: bool, now: datetime.datetime) -> list[CatalogModel]:
    """
    Every model that the library knows, unsaved; with ``fetch`` by what its makers publish today.

    Raises ``FetchFailed``.
    """
    snapshot = _fetched() if fetch else data_snapshot.get_snapshot()
    source = f"{installed_source()}, fetched {now:%Y-%m-%d}" if fetch else installed_source()
    facts = json.loads(FACTS.read_text())
    checked = datetime.date.fromisoformat(facts["checked"])
    return [
        _row(provider, position, model, facts["models"].get(provider.id, {}).get(model.id, {}), source, checked, now)
        for provider in snapshot.providers
        for position, model in enumerate(provider.models)
        if len(model.id) <= 200
    ]


def _fetched():
    try:
        snapshot = UpdatePrices().fetch()
    except (httpx2.HTTPError, ValueError) as error:
        raise FetchFailed(" ".join(str(error).split())[:300]) from None
    if snapshot is None:
        raise FetchFailed("nothing came back")
    return snapshot


def _row(provider, position, model, fact, source, checked, now):
    rates, tiers, is_peak = _prices(model, now)
    deprecated = model.deprecated or fact.get("deprecated")
    return CatalogModel(
        catalog=provider.id,
        position=position,
        name=model.id,
        display_name=(model.name or "")[:200],
        match=_clause(model.match),
        context_window=fact.get("context") or model.context_window,
        max_output_tokens=fact.get("output"),
        capabilities=in_order(fact.get("can", "").split()) or _told_by_name(model.id),
        lifecycle=Lifecycle.DEPRECATED if deprecated else Lifecycle.ACTIVE,
        rates=rates,
        tiers=tiers,
        source=f"{source}, peak hours" if is_peak else source,
        checked_on=now.date() if ", fetched " in source else checked,
    )


def _told_by_name(name):
    """What nobody would say of another model."""
    if "embed" in name.lower():
        return [Capability.EMBEDDINGS.value]
    return [Capability.MODERATIONS.value] if "moderation" in name.lower() else []


def _clause(logic):
    """The library's match logic in JSON; what compares texts does so in small letters."""
    (name, value), *_ = vars(logic).items()
    kind = name.rstrip("_")
    if kind in ("or", "and"):
        return {kind: [_clause(each) for each in value]}
    return {kind: value if kind == "regex" else value.lower()}


def _prices(model, now):
    """
    Rates and tiers of today, and whether they are those of the dearest hours of a day that has several.

    Empty rates where the model is not sold by the token alone, or where the library knows no price.
    """
    prices, is_peak = _dearest(model.prices, now)
    known = {kind: _value(prices, key) for kind, key in KEYS.items()}
    if known["input"] is None:
        return {}, [], False
    if known["output"] is None:
        others = {name for name, value in vars(prices).items() if value is not None} - set(KEYS.values())
        if any(name.startswith("output_") for name in others):
            return {}, [], False
        # Embeddings and their like answer with no tokens.
        known["output"] = Decimal(0)
    for variant in model.price_variants or ():
        if variant.when == BATCH and (variant.constraint is None or variant.constraint.active(now)):
            known |= {f"batch_{kind}": _value(variant.prices, key) for kind, key in KEYS.items()}
            break
    known = {kind: value for kind, value in known.items() if value is not None}
    rates = _at(known, 0)
    starts = {tier.start for value in known.values() if isinstance(value, TieredPrices) for tier in value.tiers}
    tiers = [{"above": start, **_at(known, start)} for start in sorted(starts)[:MOST_TIERS] if start > 0]
    if any(rate(text) is None for part in (rates, *tiers) for kind, text in part.items() if kind != "above"):
        return {}, [], False
    return rates, tiers, is_peak


def _dearest(prices, now):
    """The price that applies; of those that apply at different hours of the day, the dearest."""
    if isinstance(prices, ModelPrice):
        return prices, False
    by_hour = [each for each in prices if isinstance(each.constraint, TimeOfDateConstraint)]
    if by_hour:
        return max((each.prices for each in prices), key=lambda each: _base(each.input_mtok) or 0), True
    begun = [each for each in prices if _has_begun(each, now)]
    return (begun[-1] if begun else prices[0]).prices, False


def _has_begun(price: ConditionalPrice, now):
    return price.constraint is None or (
        isinstance(price.constraint, StartDateConstraint) and price.constraint.active(now)
    )


def _value(prices, key):
    value = vars(prices).get(key)
    return value if isinstance(value, Decimal | TieredPrices) else None


def _base(value):
    return value.base if isinstance(value, TieredPrices) else value


def _at(known, start):
    """The rates of a request just above ``start`` tokens, as texts; tiers go by the whole request, so do ours."""
    found = {}
    for kind in (*KINDS, *BATCH_KINDS):
        if (value := known.get(kind)) is None:
            continue
        amount = _base(value)
        if isinstance(value, TieredPrices):
            for tier in value.tiers:
                if tier.start <= start:
                    amount = tier.price
        found[kind] = text_of(round(amount, 6))
    return found
