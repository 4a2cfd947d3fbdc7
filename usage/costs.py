"""What tokens cost: integer arithmetic, rounded once a request."""

from decimal import Decimal
from typing import NamedTuple

# A rate is kept as an integer number of millionths of the currency per million tokens: the six decimals of a Price.
RATE_SCALE = 1_000_000
# tokens × rate is then in 10⁻¹² of the currency; a nano is a thousand of those.
PER_NANO = 1_000
# Nine thousand million of the currency: what a 64-bit column holds, and no request costs.
CEILING_NANOS = 9 * 10**18
KINDS = ("input", "cache_read", "cache_write", "cache_write_1h", "output")


class Rates(NamedTuple):
    """What a million tokens of each kind cost, in millionths of the currency. A cache rate not set is the input's."""

    price_id: int | None
    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int


class Term(NamedTuple):
    """One line of an explained cost: ``tokens × rate``; the sum of all terms is in 10⁻¹² of the currency."""

    kind: str
    tokens: int
    rate: int

    @property
    def amount(self):
        return self.tokens * self.rate


def rates_of(price) -> Rates:
    """The integer rates of a ``providers.models.Price``."""

    def scaled(rate: Decimal | None):
        return int((price.input_per_mtok if rate is None else rate) * RATE_SCALE)

    return Rates(
        price.pk,
        scaled(price.input_per_mtok),
        scaled(price.cache_read_per_mtok),
        scaled(price.cache_write_per_mtok),
        scaled(
            price.cache_write_1h_per_mtok if price.cache_write_1h_per_mtok is not None else price.cache_write_per_mtok
        ),
        scaled(price.output_per_mtok),
    )


def terms_of(tokens, rates: Rates) -> list[Term]:
    """
    The lines of a cost, in the order of KINDS; ``tokens`` has the counters of a TokenUsage or a RequestLog.

    An unknown count has no line: what is not known cannot be charged, and the row's provenance says so.
    """
    counts = [getattr(tokens, f"{kind}_tokens") for kind in KINDS]
    return [
        Term(kind, count, getattr(rates, kind)) for kind, count in zip(KINDS, counts, strict=True) if count is not None
    ]


def cost_of(tokens, rates: Rates | None) -> int | None:
    """The cost in nanos, half a nano rounded up; ``None`` where there is no price."""
    if rates is None:
        return None
    amount = (
        (tokens.input_tokens or 0) * rates.input
        + (tokens.cache_read_tokens or 0) * rates.cache_read
        + (tokens.cache_write_tokens or 0) * rates.cache_write
        + (tokens.cache_write_1h_tokens or 0) * rates.cache_write_1h
        + (tokens.output_tokens or 0) * rates.output
    )
    return min((amount + PER_NANO // 2) // PER_NANO, CEILING_NANOS)
