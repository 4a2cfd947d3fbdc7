"""Event-stream bytes to events, whole and in order, whatever way the network cut them."""

from typing import NamedTuple

MAX_EVENT_BYTES = 4 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        # The pieces of an event that has not ended; joined once, when it does.
        self._pieces = []
        self._size = 0
        self._held_cr = False
        # The first bytes of all, as long as they may be those of a byte order mark; ``None`` from then on.
        self._beginning = b""

    def feed(self, chunk):
        """The events that ``chunk`` completed."""
        if self._beginning is not None:
            chunk = self._beginning + chunk
            if len(chunk) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(chunk):
                self._beginning = chunk
                return []
            self._beginning, chunk = None, chunk.removeprefix(BYTE_ORDER_MARK)
        if self._held_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        if not chunk:
            return []
        # A blank line may begin with the last byte that came before.
        splits_here = self._pieces and chunk.startswith(b"\n") and self._pieces[-1].endswith(b"\n")
        if b"\n\n" not in chunk and not splits_here:
            self._keep(chunk)
            return []
        *blocks, rest = b"".join([*self._pieces, chunk]).split(b"\n\n")
        self._pieces, self._size = [], 0
        if rest:
            self._keep(rest)
        return [_event(block) for block in blocks if block]

    @property
    def is_overfull(self):
        """Whether an event has grown past ``MAX_EVENT_BYTES`` without ending: feed no more."""
        return self._size > MAX_EVENT_BYTES

    def rest(self):
        """What stands after the last complete event, as an event of its own: some servers end without a blank line."""
        block = b"".join([self._beginning or b"", *self._pieces]).strip(b"\n")
        self._beginning, self._pieces, self._size = None, [], 0
        return [_event(block)] if block else []

    def _keep(self, piece):
        self._pieces.append(piece)
        self._size += len(piece)

    def _with_lf(self, chunk):
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block):
    # As nearly all come: one line of data, with a name above it or without.
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", b"", block[6:])
    if block.startswith(b"event: ") and block.count(b"\n") == 1:
        name, is_named, data = block[7:].partition(b"\ndata: ")
        if is_named:
            return Event(block + b"\n\n", name, data)
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
