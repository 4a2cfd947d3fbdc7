"""Whom to ask: one model at one provider, and the routes that lead to such targets, as immutable values."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from providers.credentials import Secret


@dataclass(frozen=True, slots=True)
class Target:
    """
    A model as clients know it and as its provider does.

    ``kind`` is the provider's preset, ``dialect`` the wire format that it speaks at heart, and ``endpoints`` the paths
    of the formats in which it can be asked. ``headers`` and ``credential`` are secret: they never show in a repr.
    ``created`` is a Unix time, ``renewed_at`` the provider's. ``prices`` are pairs of Unix time and
    ``usage.costs.Rates``, newest first. Timeouts are seconds, ``None`` meaning the adapter's own. No ``capabilities``
    mean that nothing is known.
    """

    public_name: str
    upstream_name: str
    provider_model_id: int
    provider_id: int
    provider_name: str
    dialect: str
    base_url: str
    private_allowed: bool
    headers: dict[str, str] = field(repr=False)
    is_usable: bool
    created: int
    context_window: int | None
    max_output_tokens: int | None
    endpoints: Mapping[str, str] = field(repr=False)
    kind: str = "openai-compatible"
    adapter: str = "http"
    credential: Secret | None = field(default=None, repr=False)
    model_field: str = "model"
    max_tokens_field: str = "max_tokens"
    drops: frozenset[str] = frozenset()
    renames: Mapping[str, str] = MappingProxyType({})
    takes_stream_options: bool = True
    capabilities: tuple[str, ...] = ()
    lifecycle: str = "active"
    aliases: tuple[str, ...] = ()
    prices: tuple = ()
    renewed_at: datetime.datetime | None = None
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    encoded_name: msgspec.Raw = field(init=False, repr=False)
    main_format: str = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "encoded_name", msgspec.Raw(msgspec.json.encode(self.upstream_name)))
        main = "messages" if self.dialect == "anthropic" else "chat_completions"
        if main not in self.endpoints and "responses" in self.endpoints:
            main = "responses"
        object.__setattr__(self, "main_format", main)

    @property
    def counts_tokens(self):
        """Whether the provider itself answers ``count_tokens`` in the Anthropic shape."""
        return "count_tokens" in self.endpoints

    def rates_at(self, moment):
        """The rates valid at a Unix time; ``None`` where the model had no price then."""
        for valid_from, rates in self.prices:
            if valid_from <= moment:
                return rates
        return None


@dataclass(frozen=True, slots=True)
class Route:
    """
    A name that clients ask for, and the targets that may answer: in order, or by ``weights`` where there are any.

    ``listed`` is the target that speaks for the name in model lists, under that name.
    """

    name: str
    targets: tuple[Target, ...]
    weights: tuple[int, ...] = ()
    listed: Target = field(init=False, repr=False)

    def __post_init__(self):
        first = self.targets[0]
        listed = first if first.public_name == self.name else replace(first, public_name=self.name, aliases=())
        object.__setattr__(self, "listed", listed)
