"""What the upstream is told to do with one request, and what it bills for it."""

import json
import re
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import NamedTuple

PACED_MODEL = re.compile(r"m-(\d+)-(\d+)$")
ABSURD_USAGE = {"prompt_tokens": -5, "completion_tokens": 10**18, "total_tokens": "many"}


@dataclass(frozen=True)
class Bill:
    """The tokens of one answer, in disjoint counters; reasoning is a part of the output."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other):
        return Bill(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Tariff:
    """What this upstream asks for a million tokens; the prices that ``tests.server.Server`` gives models by default."""

    input: Decimal | int = 3
    output: Decimal | int = 15
    cache_read: Decimal | int | None = None  # None: as input
    cache_write: Decimal | int | None = None

    def nanos(self, bill):
        """What a bill comes to, in 10⁻⁹ of the currency; reckoned on its own, not with the product's code."""
        cache_read = self.input if self.cache_read is None else self.cache_read
        cache_write = self.input if self.cache_write is None else self.cache_write
        total = (
            bill.input_tokens * Decimal(self.input)
            + bill.cache_read_tokens * Decimal(cache_read)
            + bill.cache_write_tokens * Decimal(cache_write)
            + bill.output_tokens * Decimal(self.output)
        )
        return int((total * 1000).quantize(Decimal(1), ROUND_HALF_UP))


class Entry(NamedTuple):
    """One line of the upstream's own books: whole, or what was sent of an answer that was cut."""

    call_id: str
    marker: str | None
    model: str | None
    bill: Bill
    is_whole: bool
    nanos: int


@dataclass(frozen=True)
class ToolCall:
    """A call that the model makes; in a stream its arguments come in fragments of a few characters."""

    id: str
    name: str
    arguments: str

    @property
    def fragments(self):
        return [self.arguments[start : start + 7] for start in range(0, len(self.arguments), 7)]


@dataclass(frozen=True)
class Piece:
    """What one chunk of a stream brings: ``kind`` is reasoning, text, call (one begins) or arguments."""

    kind: str
    text: str = ""
    index: int = 0  # of the call
    call: ToolCall | None = None


@dataclass(frozen=True)
class Script:
    """
    One answer. The default is a good one: eight chunks of text, one token each, with its usage told.

    Of the faults at most one is meant to be set, apart from the delays, which go with all.
    """

    # The answer
    chunks: int = 8
    text: tuple[str, ...] = ()  # the chunks themselves, where their wording matters; else "token " each
    reasoning: tuple[str, ...] = ()  # what it thinks before, in chunks, where its wire shows that
    tools: tuple[ToolCall, ...] = ()  # what it calls after; without a text of its own there is none then
    stop: str = "stop"  # the OpenAI finish_reason; Anthropic answers carry its counterpart
    input_tokens: int | None = None  # None: about a token for every four characters of the body
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    response_model: str | None = None  # None: the model that was asked for
    # "told", "none", "cumulative" (in every chunk), "unasked" (told without stream_options too), "zero_twins"
    # (with input_tokens and output_tokens of 0 beside the true counts), or a usage object to be sent as it is
    usage: str | dict = "told"

    # The wire
    delay: float = 0  # seconds before each chunk
    first_byte_delay: float = 0  # seconds before the status line
    newline: bytes = b"\n"  # of the event stream: also b"\r\n" and b"\r"
    piece: int | None = None  # write the body in pieces of so many bytes, each on its own: splits UTF-8 and events
    framing: str = "chunked"  # of streams; "close": no length, ended by closing the connection
    headers: tuple[tuple[str, str], ...] = ()

    # The faults
    status: int = 200  # any other: refuse with `body`, or with `message` as this provider words errors
    message: str = "Refused by the script."
    body: bytes | None = None  # sent instead of the answer, with `content_type`
    content_type: str = "application/json"
    silent: bool = False  # read the request and never answer
    reset: str | None = None  # "before_headers" or "after_headers": a TCP reset
    cut_at: int | None = None  # close after so many bytes of the body
    stall_after: int | None = None  # send so many chunks, then nothing more until the client leaves
    error_after: int | None = None  # send so many chunks, then an error event, then end
    endless: bool = False  # leave out the end: no stop reason, no usage, no [DONE]
    stream_options: bool = True  # False: refuse requests that carry stream_options, as some servers do

    @classmethod
    def refuse(cls, status, *, message="Refused by the script.", body=None, headers=()):
        """An answer of ``status`` with a JSON error that reads well in both dialects, or with ``body``."""
        error = {"type": "error", "error": {"type": "scripted_error", "message": message, "code": f"scripted_{status}"}}
        return cls(status=status, body=json.dumps(error).encode() if body is None else body, headers=tuple(headers))

    @classmethod
    def html(cls, status=200):
        """A page where JSON was expected, as a proxy in between would send it."""
        page = b"<!doctype html><title>Login</title><h1>Please sign in</h1>"
        return cls(status=status, body=page, content_type="text/html")

    @classmethod
    def of_model(cls, name):
        """The script that a name such as ``m-50-5`` stands for, or None."""
        match = PACED_MODEL.search(name or "")
        return cls(chunks=int(match[1]), delay=int(match[2]) / 1000) if match else None

    @property
    def pieces_of_text(self):
        return self.text or (() if self.tools else ("token ",) * self.chunks)

    @property
    def whole_text(self):
        return "".join(self.pieces_of_text)

    @cached_property
    def pieces(self):
        """All of the answer in order, one output token each."""
        pieces = [Piece("reasoning", text) for text in self.reasoning]
        pieces += [Piece("text", text) for text in self.pieces_of_text]
        for index, call in enumerate(self.tools):
            pieces.append(Piece("call", index=index, call=call))
            pieces += [Piece("arguments", fragment, index, call) for fragment in call.fragments]
        return pieces

    def bill(self, body, sent=None):
        """The cost of an answer of ``sent`` chunks, by default of all, to a request ``body``."""
        input_tokens = len(body) // 4 if self.input_tokens is None else self.input_tokens
        return Bill(
            input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            len(self.pieces) if sent is None else sent,
            self.reasoning_tokens + len(self.reasoning),
        )

    def but(self, **changes):
        return replace(self, **changes)


@dataclass
class Playlist:
    """Scripts in turn; the last one stays."""

    scripts: list[Script] = field(default_factory=list)

    def next(self):
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
