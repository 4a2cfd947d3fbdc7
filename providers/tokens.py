"""Token counts of one answer, the same for every dialect: disjoint counters, where ``None`` is "not reported"."""

import functools

import msgspec

# No model reads or writes so many tokens at once: what claims more is a fault of its sender.
CEILING = 100_000_000


class TokenUsage(msgspec.Struct, frozen=True):
    """
    What a provider reported; no counter holds a token of another.

    ``input_tokens`` are those that were neither read from nor written to a cache; ``cache_write_tokens`` live five
    minutes (or the provider's default), ``cache_write_1h_tokens`` an hour; ``reasoning_tokens`` are a part of
    ``output_tokens``.
    """

    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None

    def updated(self, later):
        """These counts, replaced by each that ``later`` knows: cumulative reports are never summed."""
        values = [
            old if new is None else new
            for old, new in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(later), strict=True)
        ]
        return TokenUsage(*values)

    @property
    def total_input(self):
        """Every input token, cached or not; ``None`` where the uncached count is unknown."""
        return None if self.input_tokens is None else self.input_tokens + self.cached_input

    @property
    def cached_input(self):
        """The input tokens that were read from or written to a cache."""
        return (self.cache_read_tokens or 0) + (self.cache_write_tokens or 0) + (self.cache_write_1h_tokens or 0)


def count_of(value):
    """``value`` as a token count; ``None`` where it is no number from 0 to CEILING: absurd counts are no reports."""
    if type(value) is int:
        return value if 0 <= value <= CEILING else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= CEILING:
        return None
    return int(value)


@functools.cache
def _tokenizer():
    from splintr import Tokenizer

    return Tokenizer.from_pretrained("o200k_base")


def count_tokens(text):
    """
    How many tokens ``text`` is in the o200k vocabulary, offline: 8 µs a kilobyte after a first call of 0.1 s.

    Other models' vocabularies differ, so what rests on this says "counted", not "reported".
    """
    return len(_tokenizer().encode(text)) if text else 0


def count_entries(prompt):
    """The tokens of a decoded prompt: a text, texts, token ids or lists of them; a token id is one."""
    if isinstance(prompt, str):
        return count_tokens(prompt)
    if isinstance(prompt, list):
        return sum(count_entries(entry) if isinstance(entry, str | list) else 1 for entry in prompt)
    return 0
