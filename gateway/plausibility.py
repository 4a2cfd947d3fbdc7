"""
What a provider may have counted, going by what was asked of it: a report far beyond that is not believed.

Generous throughout, as what is refused wrongly is charged too low: providers put prompts of their own before the
caller's, write past what they are told, think beside it, and have newer models than this system knows of.
"""

from gateway.bounds import BEYOND_BYTES_TOKENS, Size, goes_beyond
from providers.request_body import InvalidRequest
from providers.tokens import TokenUsage

# So many tokens beside those of the text need no explanation.
UNDOUBTED = 4_000
# By how much a count may exceed what this system knows of the request and of the model.
MARGIN = 4
# A provider that runs tools itself reads and writes again for each of them, and reports the sum.
MARGIN_OF_TOOLS = 16
# No prompt is longer, where the model's context window is not known.
LONGEST_PROMPT = 1_000_000


class Plausible:
    """What a report on the answer of ``target`` to ``call`` can say. Made only where a count looks large."""

    __slots__ = ("_asked", "_call", "_size", "_target", "_unseen", "_written")

    def __init__(self, call, target):
        try:
            size = Size(call.format, call.fields)
        except InvalidRequest:
            # A length that is none here may be one to the provider.
            size = Size(call.format, _without_lengths(call))
        self._call, self._target, self._size = call, target, size
        self._unseen = min(target.context_window or BEYOND_BYTES_TOKENS, BEYOND_BYTES_TOKENS)
        # Who asks for more than the model is known to write may know the model better.
        most = max(target.max_output_tokens or self._unseen, min(size.asked, BEYOND_BYTES_TOKENS))
        self._written = most * size.answers
        self._asked = (size.asked or most) * size.answers

    def believed(self, usage: TokenUsage, characters: int) -> TokenUsage:
        """``usage`` without the counts that cannot be right, where ``characters`` of the answer were seen."""
        read = usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
        if not self._could_read((usage.input_tokens or 0) + usage.cached_input):
            read = None, None, None, None
        output, thoughts = usage.output_tokens, usage.reasoning_tokens
        # Some providers do not count thoughts where they are told how much to write; no model thinks without end.
        hidden = (output or 0) - characters
        if not (self._is_within(hidden, self._written) and self._is_within(hidden - (thoughts or 0), self._asked)):
            output = thoughts = None
        return TokenUsage(*read, output, thoughts)

    def _could_read(self, tokens):
        size, window = self._size, self._target.context_window
        if tokens <= min(size.bytes, (window or BEYOND_BYTES_TOKENS) * MARGIN) + UNDOUBTED:
            # Beyond that the whole prompt is looked through.
            return True
        most = size.input_at(self._target) + self._unseen
        if window is None and size.prompts == 1:
            most = min(most, LONGEST_PROMPT)
        return self._is_within(tokens, most)

    def _is_within(self, tokens, known):
        if tokens <= known * MARGIN + UNDOUBTED:
            return True
        return tokens <= known * MARGIN_OF_TOOLS + UNDOUBTED and self._runs_tools()

    def _runs_tools(self):
        """Whether the provider may do more than answer: with tools of its own, or with what it fetches."""
        return self._size.fetches or ("tools" in self._call.fields and goes_beyond(bytes(self._call.fields["tools"])))


def _without_lengths(call):
    lengths = {*call.format.MAX_TOKENS_FIELDS, "n", "best_of"}
    return {name: raw for name, raw in call.fields.items() if name not in lengths}
