"""JSON as providers write it: at times with bytes that are no UTF-8, or with numbers that no reader takes."""

import math
import re

import msgspec

# Looking takes a millisecond, and fifty where it is made to, in which the process does nothing else.
MOST_BYTES = 256 * 1024
# Strings are matched as well, so that what stands in them stays: also one that the data ends in.
_WORD = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"?'
    rb"|-?(?:NaN|Infinity)\b"
    rb"|(?<![0-9.eE+-])-?(?:[0-9]{200,}+[0-9.eE+-]*+|[0-9]++(?:\.[0-9]++)?[eE]\+?[0-9]{3,}+)",
    re.DOTALL,
)
# An integer of more digits is not read, however large a float may be.
MOST_DIGITS = 400


def decoded(decoder, data):
    """
    What ``decoder`` reads; of bytes that are no UTF-8 the sign for such, of numbers that cannot be held ``null``.

    Raises ``msgspec.DecodeError`` where it still is nothing for it.
    """
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError):
        data = bytes(data)
        plain = without_odd_numbers(data.decode(errors="replace").encode())
        if plain == data:
            raise
        return decoder.decode(plain)


def without_odd_numbers(data: bytes) -> bytes:
    """``data`` with ``null`` for what is ``NaN``, infinite or larger than a float; what is long stays as it is."""
    return _WORD.sub(_readable, data) if len(data) <= MOST_BYTES else data


def _readable(match):
    word = match[0]
    if word.startswith(b'"'):
        return word
    if word.endswith((b"N", b"y")) or len(word) > MOST_DIGITS:
        return b"null"
    try:
        return word if math.isfinite(float(word)) else b"null"
    except ValueError:
        return word
