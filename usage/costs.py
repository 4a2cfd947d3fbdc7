"""What tokens cost: integer arithmetic, rounded once a request."""

import math
from decimal import Decimal
from typing import NamedTuple

from providers.rates import field_of

# A rate is kept as an integer number of millionths of the currency per million tokens: the six decimals of a Price.
RATE_SCALE = 1_000_000
# tokens × rate is then in 10⁻¹² of the currency; a nano is a thousand of those.
PER_NANO = 1_000
# An exchange rate is kept as an integer number of 10⁻¹⁰: the ten decimals of an ExchangeRate.
EXCHANGE_SCALE = 10**10
# What is converted by one is then in 10⁻²² of the organization's currency; a nano is so many of those.
EXCHANGED = PER_NANO * EXCHANGE_SCALE
# Nine thousand million of the currency: what a 64-bit column holds, and no request costs.
CEILING_NANOS = 9 * 10**18
KINDS = ("input", "cache_read", "cache_write", "cache_write_1h", "output")


class Rates(NamedTuple):
    """
    What a million tokens of each kind cost, in millionths of the price's currency. A cache rate not set is the input's.

    ``tiers`` are pairs of a number of input tokens and the ``Rates`` of a request with more of them, highest first.
    ``exchange`` is what that currency is worth in the organization's, where it is another.
    """

    price_id: int | None
    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    tiers: tuple = ()
    exchange: int | None = None


class Term(NamedTuple):
    """One line of an explained cost: ``tokens × rate``; the sum of all terms is in 10⁻¹² of the price's currency."""

    kind: str
    tokens: int
    rate: int

    @property
    def amount(self):
        return self.tokens * self.rate


def rates_of(price, *, batch: bool = False, exchange: int | None = None) -> Rates:
    """
    The integer rates of a ``providers.models.Price``; of a batch, those that the price has for batches.

    ``exchange`` is needed where the price is not in the organization's currency.
    """
    base = {kind: getattr(price, field_of(kind)) for kind in KINDS}
    base |= {f"batch_{kind}": getattr(price, field_of(f"batch_{kind}")) for kind in KINDS}
    tiers = tuple(
        (
            tier["above"],
            _rates(price.pk, {kind: Decimal(rate) for kind, rate in tier.items() if kind != "above"}, batch),
        )
        for tier in sorted(price.tiers, key=lambda tier: -tier["above"])
    )
    return _rates(price.pk, base, batch)._replace(tiers=tiers, exchange=exchange)


def exchange_of(rate) -> int:
    """The integer rate of a ``providers.models.ExchangeRate``."""
    return int(rate.rate * EXCHANGE_SCALE)


def rates_over_time(prices, currency: str, exchanges: dict) -> tuple[tuple[float, Rates | None], ...]:
    """
    What a model costs from which Unix time on, newest first.

    ``prices`` are its prices, newest first. ``exchanges`` has pairs of a Unix time and the rate from then on, newest
    first, by other currencies than ``currency``, the organization's. As long as there is none that a price needs, the
    model is not priced: ``None``.
    """
    found, until = [], math.inf
    for price in prices:
        since = price.valid_from.timestamp()
        if price.currency == currency:
            found.append((since, rates_of(price)))
        else:
            found += _exchanged(price, since, until, exchanges.get(price.currency, ()))
        until = since
    return tuple(found)


def _exchanged(price, since, until, steps):
    """The rates of one price, newest first, by every exchange rate that is valid before ``until``."""
    rates = rates_of(price)
    for moment, exchange in steps:
        if moment < until:
            yield max(moment, since), rates._replace(exchange=exchange)
            if moment <= since:
                return
    yield since, None


def _rates(price_id, rates, batch):
    """Integer rates from decimal ones; of what is not there, the rate that stands in for it."""

    def first(*kinds):
        if batch:
            kinds = [name for kind in kinds for name in (f"batch_{kind}", kind)]
        found = next(rate for kind in kinds if (rate := rates.get(kind)) is not None)
        return int(found * RATE_SCALE)

    return Rates(
        price_id,
        first("input"),
        first("cache_read", "input"),
        first("cache_write", "input"),
        first("cache_write_1h", "cache_write", "input"),
        first("output"),
    )


def applied(tokens, rates: Rates) -> tuple[int | None, Rates]:
    """
    The rates that a request takes, and the number of input tokens above which they apply; ``None``, the base rates.

    All input counts, cached or not, and the whole request takes the rates of the highest tier that it passes.
    """
    if rates.tiers:
        counts = (
            tokens.input_tokens,
            tokens.cache_read_tokens,
            tokens.cache_write_tokens,
            tokens.cache_write_1h_tokens,
        )
        total = sum(count or 0 for count in counts)
        for above, tier in rates.tiers:
            if total > above:
                return above, tier
    return None, rates


def terms_of(tokens, rates: Rates) -> list[Term]:
    """
    The lines of a cost, in the order of KINDS; ``tokens`` has the counters of a TokenUsage or a RequestLog.

    An unknown count has no line: what is not known cannot be charged, and the row's provenance says so.
    """
    rates = applied(tokens, rates)[1]
    counts = [getattr(tokens, f"{kind}_tokens") for kind in KINDS]
    return [
        Term(kind, count, getattr(rates, kind)) for kind, count in zip(KINDS, counts, strict=True) if count is not None
    ]


def cost_of(tokens, rates: Rates | None) -> int | None:
    """
    The cost in nanos of the organization's currency, half a nano rounded up; ``None`` where there is no price.

    What is priced in another currency is converted before it is rounded, once.
    """
    if rates is None:
        return None
    _price_id, uncached, cache_read, cache_write, cache_write_1h, output, tiers, exchange = rates
    if tiers:
        _price_id, uncached, cache_read, cache_write, cache_write_1h, output, *_rest = applied(tokens, rates)[1]
    amount = (
        (tokens.input_tokens or 0) * uncached
        + (tokens.cache_read_tokens or 0) * cache_read
        + (tokens.cache_write_tokens or 0) * cache_write
        + (tokens.cache_write_1h_tokens or 0) * cache_write_1h
        + (tokens.output_tokens or 0) * output
    )
    if exchange is None:
        return min((amount + PER_NANO // 2) // PER_NANO, CEILING_NANOS)
    return min((amount * exchange + EXCHANGED // 2) // EXCHANGED, CEILING_NANOS)


def most_of(rates: Rates, input_tokens: int, output_tokens: int) -> int:
    """The most nanos that a request of at most so many tokens can cost, whichever of its input is cached or written."""
    _price_id, *inputs, output, tiers, exchange = rates
    dearest = max(inputs)
    for above, tier in tiers:
        if above < input_tokens:
            dearest, output = max(dearest, *tier[1:5]), max(output, tier.output)
    amount = dearest * input_tokens + output * output_tokens
    if exchange is None:
        return min(-(-amount // PER_NANO), CEILING_NANOS)
    return min(-(-amount * exchange // EXCHANGED), CEILING_NANOS)
