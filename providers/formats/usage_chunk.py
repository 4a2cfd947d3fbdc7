"""The usage chunk of a stream of OpenAI's shape, for a caller that asked and a provider that tells none."""

import msgspec

from providers.sse import encode

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
DONE = b"data: [DONE]\n\n"


def with_usage(passed, chunk, usage):
    """
    The last events of a stream with a chunk of ``usage`` before its last word; ``chunk`` is the JSON of another chunk.

    ``usage`` is a ``TokenUsage`` that is known whole.
    """
    fields = _FIELDS.decode(chunk.decode(errors="replace"))
    told = {
        "prompt_tokens": usage.total_input,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_input + usage.output_tokens,
    }
    event = encode(None, msgspec.json.encode(fields | {"choices": [], "usage": told}))
    return passed.removesuffix(DONE) + event + DONE
