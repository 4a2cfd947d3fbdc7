"""Event-stream bytes to events, whole and in order, whatever way the network cut them."""

from typing import NamedTuple

MAX_EVENT_BYTES = 4 * 1024 * 1024


class Event(NamedTuple):
    """One server-sent event: ``raw`` as it goes on the wire, its blank line included; ``name`` may be empty."""

    raw: bytes
    name: bytes
    data: bytes


class EventSplitter:
    """
    Feeds on the bytes of one stream and gives its complete events.

    Line ends of CRLF or CR come out as LF; comments and events without data come out with empty ``data``.
    """

    def __init__(self):
        self._buffer = b""
        self._held_cr = False

    def feed(self, chunk):
        """The events that ``chunk`` completed."""
        if self._held_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        buffer = self._buffer + chunk if self._buffer else chunk
        if b"\n\n" not in buffer:
            self._buffer = buffer
            return []
        *blocks, self._buffer = buffer.split(b"\n\n")
        return [_event(block) for block in blocks if block]

    @property
    def is_overfull(self):
        """Whether an event has grown past ``MAX_EVENT_BYTES`` without ending: feed no more."""
        return len(self._buffer) > MAX_EVENT_BYTES

    def rest(self):
        """What stands after the last complete event, as an event of its own: some servers end without a blank line."""
        block, self._buffer = self._buffer.strip(b"\n"), b""
        return [_event(block)] if block else []

    def _with_lf(self, chunk):
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block):
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", b"", block[6:])
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(block + b"\n\n", name, b"\n".join(data))


def encode(name, data):
    """The bytes of a named event, or of an unnamed one where ``name`` is ``None``."""
    return b"data: %b\n\n" % data if name is None else b"event: %b\ndata: %b\n\n" % (name, data)
