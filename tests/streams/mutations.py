"""Damage done to streams, the same for the same number: bytes, events and values that no provider should send."""

import json
import random
import re
from typing import NamedTuple

from tests.streams.replay import Asked, in_parts
from tests.streams.wires import WIRES, Wire

VALUES = (
    None, True, False, 0, 1, -1, -5, 7, 2**31, 2**63, 10**18, 10**30, -(10**30), 0.5, 1e300, "", "x", "0", "null", "\0",
    "\ud83d", "é" * 40, [], {}, [None], [[]], [{}], {"text": "t"}, [{"type": "text", "text": "t"}], {"index": 0},
    [1, "a"], {"content": {"content": "c"}}, "tool_use", "message_stop", "[DONE]", "stop", "data: {}\n\n",
)  # fmt: skip
RAW_VALUES = (b"1e999", b"-1e999", b"NaN", b"Infinity", b"01", b'"\\ud83d"', b'"\\u0000"', b"1" * 400, b"nul", b"")
WORD = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null')
ENDINGS = (b"\r\n", b"\r")


class Mutated(NamedTuple):
    """One damaged stream: how it began, what a provider sends now and in which pieces, who asks, and what was done."""

    wire: Wire
    stream: bytes
    pieces: list[bytes]
    asked: Asked
    done: list[str]


def mutated(number):
    """The damaged stream of this number."""
    chance = random.Random(number)
    wire = WIRES[number % len(WIRES)]
    asked = chance.choice(wire.callers)
    events, done = wire.events, []
    for _ in range(chance.randint(1, 4)):
        damage = chance.choice(ON_EVENTS)
        done.append(damage.__name__)
        events = damage(events, chance)
    try:
        stream = wire.framed(events)
    except (ValueError, LookupError, TypeError, AttributeError):
        # What cannot be framed as an event stands in a frame of Amazon's as it is.
        stream = b"".join(_frame(event) for event in events)
    while chance.random() < 0.35:
        damage = chance.choice(ON_BYTES)
        done.append(damage.__name__)
        stream = damage(stream, chance)
    places = [chance.randrange(len(stream) + 1) for _ in range(chance.choice((0, 0, 1, 4)))]
    return Mutated(wire, stream, in_parts(stream, places), asked, done)


def _frame(event):
    from tests.upstream.bedrock import base64, dumps, frame

    data = event.partition(b"data: ")[2].strip(b"\n")
    payload = dumps({"bytes": base64.b64encode(data).decode()})
    return frame({":event-type": "chunk", ":message-type": "event"}, payload)


# Whole events ----------------------------------------------------------------------------------------------------


def left_out(events, chance):
    at = chance.randrange(len(events) + 1)
    return events[:at] + events[at + chance.randint(1, 2) :]


def repeated(events, chance):
    if not events:
        return events
    at = chance.randrange(len(events))
    to = chance.randrange(len(events) + 1)
    return events[:to] + [events[at]] * chance.randint(1, 3) + events[to:]


def swapped(events, chance):
    events = list(events)
    if len(events) > 1:
        one, other = chance.sample(range(len(events)), 2)
        events[one], events[other] = events[other], events[one]
    return events


def shuffled(events, chance):
    return chance.sample(events, len(events))


def cut_short(events, chance):
    return events[: chance.randrange(len(events) + 1)]


def ended_early(events, chance):
    """The end of a stream in the middle of it, as often as not with the rest after it."""
    at = chance.randrange(len(events) + 1)
    return events[:at] + events[-2:] + (events[at:] if chance.random() < 0.7 else [])


def mixed(events, chance):
    """Events of a stream of the same format among these."""
    other = chance.choice(WIRES).events
    events = list(events)
    for event in chance.sample(other, min(len(other), 3)):
        events.insert(chance.randrange(len(events) + 1), event)
    return events


def renamed(events, chance):
    """Another name before the same data."""
    if not events:
        return events
    at = chance.randrange(len(events))
    name = chance.choice((b"event: error\n", b"event: ping\n", b"event:\n", b"id: 1\nretry: 5\n", b": comment\n"))
    return [*events[:at], name + events[at], *events[at + 1 :]]


# Values in an event ----------------------------------------------------------------------------------------------


def _in_one(events, chance, change):
    """``events`` with the document of one of them as ``change`` makes it."""
    for _ in range(4):
        if not events:
            break
        at = chance.randrange(len(events))
        head, mark, data = events[at].partition(b"data: ")
        try:
            document = json.loads(data)
            if not isinstance(document, dict):
                continue
            written = json.dumps(change(document), separators=(",", ":"))
        except (ValueError, RecursionError):
            continue
        return [*events[:at], head + mark + written.encode() + b"\n\n", *events[at + 1 :]]
    return events


def _places(value, found):
    """Every container in ``value`` and each key or index in it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)
    return found


def other_value(events, chance):
    def change(document):
        holder, key = chance.choice(_places(document, []) or [(document, "x")])
        holder[key] = chance.choice(VALUES)
        return document

    return _in_one(events, chance, change)


def without_field(events, chance):
    def change(document):
        holder, key = chance.choice(_places(document, []) or [(document, "x")])
        if isinstance(holder, dict):
            holder.pop(key, None)
        return document

    return _in_one(events, chance, change)


def other_number(events, chance):
    """Another number where one stands: indices, counts."""

    def change(document):
        numbers = [
            (holder, key)
            for holder, key in _places(document, [])
            if isinstance(holder[key], int) and not isinstance(holder[key], bool)
        ]
        if numbers:
            holder, key = chance.choice(numbers)
            holder[key] = chance.choice((0, 1, 2, 3, -1, 10**9, 10**18, 2**64, -(2**63), 1.5, "1", None))
        return document

    return _in_one(events, chance, change)


def value_of_another_field(events, chance):
    def change(document):
        places = _places(document, [])
        if places:
            (holder, key), (other, name) = chance.choice(places), chance.choice(places)
            # By value: a document that holds itself cannot be written.
            holder[key] = json.loads(json.dumps(other[name]))
        return document

    return _in_one(events, chance, change)


def nested(events, chance):
    depth = chance.choice((3, 60, 900, 3000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    if not events:
        return events
    at = chance.randrange(len(events))
    words = list(WORD.finditer(events[at]))
    if not words:
        return events
    word = chance.choice(words)
    deep = opening * depth + word[0] + closing * depth
    return [*events[:at], events[at][: word.start()] + deep + events[at][word.end() :], *events[at + 1 :]]


def odd_word(events, chance):
    """What is no JSON, or JSON that Python cannot hold, where a word stands."""
    if not events:
        return events
    at = chance.randrange(len(events))
    words = list(WORD.finditer(events[at]))
    if not words:
        return events
    word = chance.choice(words)
    odd = chance.choice(RAW_VALUES)
    return [*events[:at], events[at][: word.start()] + odd + events[at][word.end() :], *events[at + 1 :]]


ON_EVENTS = (
    left_out, repeated, swapped, shuffled, cut_short, ended_early, mixed, renamed, other_value, other_value,
    other_value, without_field, without_field, other_number, other_number, value_of_another_field, nested, odd_word,
)  # fmt: skip


# Bytes -----------------------------------------------------------------------------------------------------------


def flipped(stream, chance):
    stream = bytearray(stream)
    for _ in range(chance.randint(1, 6)):
        if stream:
            stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)
    return bytes(stream)


def gone(stream, chance):
    at = chance.randrange(len(stream) + 1)
    return stream[:at] + stream[at + chance.randint(1, 30) :]


def doubled(stream, chance):
    at = chance.randrange(len(stream) + 1)
    return stream[:at] + stream[max(at - chance.randint(1, 80), 0) :]


def cut_off(stream, chance):
    return stream[: chance.randrange(len(stream) + 1)]


def no_text(stream, chance):
    """Bytes that are no UTF-8, NULs, marks and surrogates in the middle."""
    at = chance.randrange(len(stream) + 1)
    odd = chance.choice((b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\0", b"\0" * 9, b"\xef\xbb\xbf", b"\xf5"))
    return stream[:at] + odd + stream[at:]


def other_lines(stream, chance):
    """Line ends of other kinds, everywhere or here and there."""
    if chance.random() < 0.5:
        return stream.replace(b"\n", chance.choice(ENDINGS))
    return b"".join(line + chance.choice((b"\n", *ENDINGS)) for line in stream.split(b"\n"))


def blank_lines(stream, chance):
    at = chance.randrange(len(stream) + 1)
    return stream[:at] + chance.choice((b"\n", b"\n\n", b"\r\n\r\n", b"\n" * 50)) + stream[at:]


def noise(stream, chance):
    at = chance.randrange(len(stream) + 1)
    return stream[:at] + chance.randbytes(chance.randint(1, 60)) + stream[at:]


ON_BYTES = (flipped, gone, doubled, cut_off, no_text, other_lines, blank_lines, noise)
