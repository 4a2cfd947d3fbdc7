"""The usage chunk of a stream of OpenAI's shape, for a caller that asked and a provider that sends none like it."""

import msgspec

from providers.odd_json import decoded
from providers.sse import encode

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
DONE = b"data: [DONE]\n\n"


def with_usage(passed, chunk, usage=None):
    """
    The last events of a stream with a chunk of usage before its last word; ``chunk`` is the JSON of another chunk.

    ``usage`` is a ``TokenUsage`` that is known whole; without it what ``chunk`` says is said again.
    """
    fields = _fields(chunk) | {"choices": []}
    if usage is not None:
        fields["usage"] = {
            "prompt_tokens": usage.total_input,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_input + usage.output_tokens,
        }
    return passed.removesuffix(DONE) + encode(None, msgspec.json.encode(fields)) + DONE


def without_usage(chunk):
    """The event of a ``chunk``, given as JSON, without the usage in it."""
    fields = _fields(chunk)
    del fields["usage"]
    return encode(None, msgspec.json.encode(fields))


def _fields(chunk):
    """The fields of a chunk as raw JSON, which is UTF-8 then."""
    return decoded(_FIELDS, chunk.decode(errors="replace").encode())
