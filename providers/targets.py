"""Whom to ask: one model at one provider, with all that a call needs, as an immutable value."""

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True, slots=True)
class Target:
    """
    A model as clients know it and as its provider does.

    ``headers`` hold the provider's credential: they never show in a repr. ``created`` is a Unix time. ``prices`` are
    pairs of Unix time and ``usage.costs.Rates``, newest first. ``counts_tokens`` says that the provider itself answers
    ``count_tokens`` in the Anthropic shape.
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
    counts_tokens: bool
    prices: tuple = ()
    encoded_name: msgspec.Raw = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "encoded_name", msgspec.Raw(msgspec.json.encode(self.upstream_name)))

    @property
    def max_tokens_field(self):
        """How this OpenAI-shaped provider spells the output limit: OpenAI's own newer models refuse the old name."""
        return "max_completion_tokens" if self.base_url.startswith("https://api.openai.com/") else "max_tokens"

    def rates_at(self, moment):
        """The rates valid at a Unix time; ``None`` where the model had no price then."""
        for valid_from, rates in self.prices:
            if valid_from <= moment:
                return rates
        return None
