"""Request ids: ULIDs, whose order as text is their order in time, and which nobody can guess."""

import os
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two letters a look-up: 26 letters are 130 bits, the 128 of the id and two of padding in front.
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
PREFIX = "req_"


def _random_bytes(length):
    """The operating system's randomness, fetched for many ids at once: a tenth of the cost."""
    while True:
        block = os.urandom(length * 256)
        for start in range(0, len(block), length):
            yield block[start : start + length]


_randomness = _random_bytes(10)


def new_ulid() -> bytes:
    """48 bits of milliseconds and 80 random ones. For one thread: the event loop's."""
    return (time.time_ns() // 1_000_000).to_bytes(6, "big") + next(_randomness)


def request_id(ulid: bytes) -> str:
    """``req_`` and the 26 letters of a ULID."""
    number = int.from_bytes(ulid, "big")
    return PREFIX + "".join([_PAIRS[(number >> shift) & 0x3FF] for shift in range(120, -1, -10)])


def least_id_at(moment) -> str:
    """The id before which no request of ``moment``, an aware datetime, or later stands."""
    return request_id((int(moment.timestamp() * 1000) << 80).to_bytes(16, "big"))
