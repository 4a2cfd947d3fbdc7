"""Request ids: ULIDs, whose order as text is their order in time, and which nobody can guess."""

import datetime
import os
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two letters a look-up: 26 letters are 130 bits, the 128 of the id and two of padding in front.
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


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
    # In three numbers that are small enough to be quick, ten bits a look-up.
    time, high, low = (
        int.from_bytes(ulid[:6], "big"),
        int.from_bytes(ulid[6:11], "big"),
        int.from_bytes(ulid[11:], "big"),
    )
    return (
        f"req_{_PAIRS[time >> 40]}{_PAIRS[time >> 30 & 1023]}{_PAIRS[time >> 20 & 1023]}{_PAIRS[time >> 10 & 1023]}"
        f"{_PAIRS[time & 1023]}{_PAIRS[high >> 30]}{_PAIRS[high >> 20 & 1023]}{_PAIRS[high >> 10 & 1023]}"
        f"{_PAIRS[high & 1023]}{_PAIRS[low >> 30]}{_PAIRS[low >> 20 & 1023]}{_PAIRS[low >> 10 & 1023]}"
        f"{_PAIRS[low & 1023]}"
    )


def least_id_at(moment) -> str:
    """The id before which no request of ``moment``, an aware datetime, or later stands."""
    return request_id((int(moment.timestamp() * 1000) << 80).to_bytes(16, "big"))


def moment_of(request_id) -> datetime.datetime:
    """When a request's id was made."""
    milliseconds = 0
    for letter in request_id.removeprefix("req_")[:10]:
        milliseconds = milliseconds << 5 | ALPHABET.index(letter)
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
