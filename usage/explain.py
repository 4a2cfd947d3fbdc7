"""One request row put into words and terms: where it came from, what it cost and where its time went."""

import datetime
from dataclasses import dataclass

from django.utils.translation import gettext as _

from console.models import Flavour
from providers.exchange_rates import rate_at
from providers.models import Price
from providers.rates import field_of
from usage.costs import KINDS, PER_NANO, applied, cost_of, exchange_of, rates_of, terms_of
from usage.models import Outcome, Source, UsageSource

PATHS = {
    "chat_completions": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "messages": "/v1/messages",
    "moderations": "/v1/moderations",
    "responses": "/v1/responses",
}
DIALECTS = {"anthropic": "Anthropic"} | dict(Flavour.choices)


def prompt_tokens(log):
    """All input tokens, cached or not; ``None`` where none of them is known."""
    known = [log.input_tokens, log.cache_read_tokens, log.cache_write_tokens, log.cache_write_1h_tokens]
    known = [count for count in known if count is not None]
    return sum(known) if known else None


def tokens(log):
    """All tokens in and out; ``None`` where neither is known."""
    known = [count for count in (prompt_tokens(log), log.output_tokens) if count is not None]
    return sum(known) if known else None


def origin(log):
    """Who asked: the key's name, or the playground."""
    if log.source == Source.PLAYGROUND:
        return _("Playground")
    if log.api_key_id is None:
        return _("No key")
    return log.api_key.name if log.api_key else _("Deleted key")


@dataclass(frozen=True)
class Line:
    """One term of a cost; ``tokens`` is ``None`` where the count is unknown, ``borrowed`` says whose price it takes."""

    kind: str
    tokens: int | None
    rate: int
    amount: int
    borrowed: str = ""


@dataclass(frozen=True)
class Cost:
    """
    The cost of one request, term by term.

    ``state`` is ``priced``; or why there are no terms: ``refused``, ``nothing`` (no token was used), ``unpriced``,
    ``unconverted`` (its price's currency had no exchange rate), ``gone`` (its price was deleted).
    ``currency`` is that of its price, ``exchange`` the rate that made a cost of it, where the organization's currency
    is another, and ``exchange_since`` when that rate began, where this is still known. ``nanos`` is what the terms
    come to, ``agrees`` whether the row says the same. ``above`` is the number of input tokens above which the rates of
    its lines apply, where they are those of a tier.
    """

    state: str
    lines: tuple = ()
    tokens: int = 0
    amount: int = 0
    nanos: int | None = None
    agrees: bool = True
    above: int | None = None
    currency: str = ""
    exchange: int | None = None
    exchange_since: datetime.datetime | None = None

    @property
    def is_finer(self):
        """Whether a term has decimals below the nano."""
        return any(line.amount % PER_NANO for line in self.lines)


def cost(log):
    """The ``Cost`` of a row, by the very arithmetic that charged it."""
    if log.outcome == Outcome.REFUSED:
        return Cost("refused")
    if log.usage_source == UsageSource.NONE and tokens(log) is None and not log.cost_nanos:
        return Cost("nothing")
    if log.cost_nanos is None:
        return _uncosted(log)
    if log.price is None:
        return Cost("gone" if log.price_id else "unpriced", nanos=log.cost_nanos)
    rates = rates_of(log.price, exchange=log.exchange_rate)
    above, charged = applied(log, rates)
    set_kinds = _kinds_with_a_rate(log.price, above)
    terms = {term.kind: term for term in terms_of(log, rates)}
    lines = [
        Line(
            kind,
            term.tokens if term else None,
            getattr(charged, kind),
            term.amount if term else 0,
            _borrowed(kind, set_kinds),
        )
        for kind in KINDS
        for term in [terms.get(kind)]
        if kind in ("input", "output") or (term and term.tokens)
    ]
    nanos = cost_of(log, rates)
    return Cost(
        "priced",
        tuple(lines),
        sum(term.tokens for term in terms.values()),
        sum(term.amount for term in terms.values()),
        nanos,
        nanos == log.cost_nanos,
        above,
        log.price.currency,
        log.exchange_rate,
        _exchange_since(log),
    )


def _uncosted(log):
    """Why a request has no cost: its model had no price, or a price whose currency had no exchange rate."""
    prices = Price.objects.filter(provider_model=log.provider_model_id, valid_from__lte=log.started_at)
    price = prices.order_by("-valid_from", "-pk").first()
    if price and price.currency != log.organization.currency:
        return Cost("unconverted", currency=price.currency)
    return Cost("unpriced")


def _exchange_since(log):
    """Since when the exchange rate of a request was valid."""
    if log.exchange_rate is None:
        return None
    rate = rate_at(log.organization, log.price.currency, log.started_at)
    return rate.valid_from if rate and exchange_of(rate) == log.exchange_rate else None


def _kinds_with_a_rate(price, above):
    """The kinds for which a price, or its tier that begins ``above`` so many tokens, has a rate of its own."""
    if above is not None:
        return next(tier for tier in price.tiers if tier["above"] == above).keys()
    return {kind for kind in KINDS if getattr(price, field_of(kind)) is not None}


def _borrowed(kind, set_kinds):
    """The kind whose rate a cache term takes where there is none of its own."""
    if kind not in ("cache_read", "cache_write", "cache_write_1h") or kind in set_kinds:
        return ""
    return "cache_write" if kind == "cache_write_1h" and "cache_write" in set_kinds else "input"


@dataclass(frozen=True)
class Stage:
    """A part of a request's time in milliseconds, with its place on the scale of the whole in per cent."""

    name: str
    milliseconds: float
    start: str
    width: str
    is_sliver: bool = False


def stages(log):
    """Where the time went; what was not measured is left out."""
    whole = log.duration_ms
    here = min((log.overhead_us or 0) / 1000, whole)
    first = log.time_to_first_token_ms
    parts = []
    if log.overhead_us is not None:
        parts.append(("here", 0, here))
    if first is not None:
        first = min(max(first, here), whole)
        parts += [("waiting", here, first), ("streaming", first, whole)]
    elif log.attempts:
        parts.append(("answering", here, whole))
    scale = whole or 1
    return [
        Stage(name, end - begin, f"{begin / scale * 100:.2f}%", f"{(end - begin) / scale * 100:.2f}%", name == "here")
        for name, begin, end in parts
    ]


def tokens_a_second(log):
    """How fast a stream came after its first token; ``None`` where that cannot be told."""
    first = log.time_to_first_token_ms
    if not log.stream or first is None or not log.output_tokens or log.duration_ms <= first:
        return None
    if log.usage_source == UsageSource.NONE:
        return None
    return log.output_tokens / (log.duration_ms - first) * 1000


def dialect(log):
    """Whose API the client spoke."""
    return DIALECTS.get(log.dialect, log.dialect)


def api(log):
    """What the client called, in short: the path, and whose it is where that is not plain from it."""
    path = PATHS.get(log.endpoint, log.endpoint).removeprefix("/v1/")
    is_plain = log.dialect == ("anthropic" if log.endpoint == "messages" else "openai")
    return path if is_plain else f"{path}, {dialect(log)}"


def endpoint(log):
    """The method and path that the client called, whatever stood before ``/v1``."""
    return f"POST {PATHS[log.endpoint]}" if log.endpoint in PATHS else log.endpoint
