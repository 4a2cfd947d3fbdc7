"""What tokens cost: integer arithmetic, rounded once a request."""

from decimal import Decimal
from typing import NamedTuple

from providers.rates import field_of

# A rate is kept as an integer number of millionths of the currency per million tokens: the six decimals of a Price.
RATE_SCALE = 1_000_000
# tokens × rate is then in 10⁻¹² of the currency; a nano is a thousand of those.
PER_NANO = 1_000
# Nine thousand million of the currency: what a 64-bit column holds, and no request costs.
CEILING_NANOS = 9 * 10**18
KINDS = ("input", "cache_read", "cache_write", "cache_write_1h", "output")


class Rates(NamedTuple):
    """
    What a million tokens of each kind cost, in millionths of the currency. A cache rate not set is the input's.

    ``tiers`` are pairs of a number of input tokens and the ``Rates`` of a request with more of them, highest first.
    """

    price_id: int | None
    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    tiers: tuple = ()


class Term(NamedTuple):
    """One line of an explained cost: ``tokens × rate``; the sum of all terms is in 10⁻¹² of the currency."""

    kind: str
    tokens: int
    rate: int

    @property
    def amount(self):
        return self.tokens * self.rate


def rates_of(price, *, batch: bool = False) -> Rates:
    """The integer rates of a ``providers.models.Price``; of a batch, those that the price has for batches."""
    base = {kind: getattr(price, field_of(kind)) for kind in KINDS}
    base |= {f"batch_{kind}": getattr(price, field_of(f"batch_{kind}")) for kind in KINDS}
    tiers = tuple(
        (
            tier["above"],
            _rates(price.pk, {kind: Decimal(rate) for kind, rate in tier.items() if kind != "above"}, batch),
        )
        for tier in sorted(price.tiers, key=lambda tier: -tier["above"])
    )
    return _rates(price.pk, base, batch)._replace(tiers=tiers)


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
    """The cost in nanos, half a nano rounded up; ``None`` where there is no price."""
    if rates is None:
        return None
    if rates.tiers:
        rates = applied(tokens, rates)[1]
    amount = (
        (tokens.input_tokens or 0) * rates.input
        + (tokens.cache_read_tokens or 0) * rates.cache_read
        + (tokens.cache_write_tokens or 0) * rates.cache_write
        + (tokens.cache_write_1h_tokens or 0) * rates.cache_write_1h
        + (tokens.output_tokens or 0) * rates.output
    )
    return min((amount + PER_NANO // 2) // PER_NANO, CEILING_NANOS)
