"""Ten thousand damaged streams: no crash, no hang, no text that nobody wrote, nothing given away."""

import asyncio
import contextlib
import json
import os
import re
import time

import msgspec
import pytest

from providers.adapters.bedrock import Frames
from providers.odd_json import decoded
from providers.sse import EventSplitter
from providers.tokens import CEILING
from tests.streams.checks import heard
from tests.streams.mutations import Mutated, mutated
from tests.streams.replay import Replay, stand_still
from tests.streams.wires import WIRES

STREAMS = 10_000 if os.environ.get("COMPTOIR_SLOW_TESTS") else 2_000
GROUPS = 10
MOST_SECONDS = 2.0
# Streams that once did harm: which, who asks, and what stands otherwise in them.
REGRESSIONS = {
    "a key that is no UTF-8, dressed": ("openai-text", "cloud-temple", {b'"id"': b'"\xffid"'}),
    "a key that is no UTF-8, in Ikalas' dress": ("ikalas-conversation", "evolink", {b'"object"': b'"\xffobject"'}),
    "usage that is no UTF-8, dressed": ("evolink-zero-twins", "evolink", {b'"text_tokens"': b'"\xfftext_tokens"'}),
    "a key that is no UTF-8, before usage of our own": ("ollama-tool", "chat-with-all", {b'"id"': b'"\xffid"'}),
    "a last word spelled otherwise": ("ollama-tool", "chat-with-all", {b"data: [DONE]": b"data:[DONE]"}),
    "calls that never end": ("responses-calls", "messages", {b"output_item.done": b"output_item.gone"}),
    "calls of which only the end is whole": (
        "responses-calls",
        "chat-with-all",
        {b"output_item.added": b"output_item.gone", b'"delta":"{': b'"gone":"{'},
    ),
}
# What this server itself may put where a provider wrote nothing.
OWN_WORDS = {"{}", "\n\n"}
EXPLANATION = re.compile(rb'"explanation":"([^"]*)"')
# The input of a tool, as it stands in the block that begins a call.
OBJECT = re.compile(rb'"input":(\{[^{}]*\}|[^{}\[\]",]+)')
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@pytest.fixture(scope="module", autouse=True)
def still():
    with pytest.MonkeyPatch.context() as patch:
        stand_still(patch)
        yield


@pytest.mark.parametrize("group", range(GROUPS))
def test_no_damaged_stream_breaks_the_gateway_or_is_made_up(group):
    async def replay():
        replays = {}
        for number in range(group, STREAMS, GROUPS):
            await survive(number, replays)

    asyncio.run(replay())


@pytest.mark.parametrize("case", REGRESSIONS)
def test_a_stream_that_once_did_harm_does_none(case):
    name, caller, changes = REGRESSIONS[case]
    wire = next(wire for wire in WIRES if wire.name == name)
    asked = next(asked for asked in wire.callers if asked.name == caller)
    stream = wire.bytes
    for old, new in changes.items():
        assert old in stream
        stream = stream.replace(old, new)
    asyncio.run(survive(case, {}, Mutated(wire, stream, [stream], asked, [])))


async def survive(number, replays, case=None):
    """Replay the damaged stream of this number, or ``case``, and look at everything that came of it."""
    case = case or mutated(number)
    wire, asked = case.wire, case.asked
    replay = replays.setdefault((wire.kind, wire.format), Replay(wire.kind, wire.format))
    began = time.process_time()
    told = await replay.ask(asked, case.pieces)
    about = number, wire.name, asked.name, case.done
    assert time.process_time() - began < MOST_SECONDS, about
    check_counts(told, about)
    if told.refused:
        assert told.bytes == b"" and told.failure, about
        return
    if wire.format == asked.format:
        check_passed_on(case, told, about)
    else:
        check_translated(case, told, about)


def check_counts(told, about):
    for count in msgspec.structs.astuple(told.usage):
        assert count is None or 0 <= count <= CEILING, about
    assert told.cost is not None and told.cost >= 0, about
    if told.text:
        assert told.source in ("reported", "counted") and told.usage.output_tokens > 0 and told.cost > 0, about


def check_translated(case, told, about):
    try:
        said = heard(case.asked, told.bytes)
    except Exception as error:
        raise AssertionError(about) from error
    assert said.is_whole == (told.failure is None), about
    leaves = leaves_of(case)
    for piece in said.pieces:
        assert is_made_of(piece, leaves), (about, piece)
    delivered = sum(len(piece) for piece in said.pieces if piece not in OWN_WORDS)
    # Why a model refused is told as its refusal; nobody counts it.
    uncounted = sum(len(why) for event in events_of(case) for why in EXPLANATION.findall(event.data))
    assert delivered <= len(told.text) + uncounted, (about, said.pieces, told.text)


def check_passed_on(case, told, about):
    """Each event of the caller's stands in the provider's, but for the usage, the last word and the error."""
    came = {comparable(event.data) for event in events_of(case)}
    events = EventSplitter().feed(told.bytes)
    assert b"".join(event.raw for event in events) == told.bytes, about
    for event in events[:-1] if told.failure else events:
        assert not event.data or comparable(event.data) in came or is_own(event.data), (about, event)
    ends = [place for place, event in enumerate(events) if event.data.startswith(b"[DONE]")]
    assert ends in ([], [len(events) - 1]) or case.asked.format not in ("chat_completions", "completions"), about


def events_of(case):
    """What the provider's bytes are as events, whatever became of them."""
    stream = case.stream
    if case.wire.kind == "bedrock":
        # Amazon's frames are read as far as they can be.
        stream = Frames().feed(stream)
    splitter = EventSplitter()
    return [*splitter.feed(stream), *splitter.rest()]


def comparable(data):
    """An event's data without what this server takes out or writes anew: empty usage, a flavour's dress."""
    try:
        # What is no UTF-8 is dressed as the sign for it.
        return bytes(decoded(FIELDS, data)["choices"]).decode(errors="replace").encode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return data.replace(b',"usage":null', b"")


def is_own(data):
    """Whether an event is the last word or the usage chunk that this server wrote."""
    return data.startswith(b"[DONE]") or comparable(data) == b"[]"


def leaves_of(case):
    """Every text in the provider's events, and every object as JSON."""
    leaves = {"\n\n", "{}"}
    for event in events_of(case):
        try:
            todo = [json.loads(event.data.decode(errors="replace"))]
        except (ValueError, RecursionError):
            continue
        leaves.update(word.decode(errors="replace") for word in OBJECT.findall(event.data))
        while todo:
            match todo.pop():
                case str(text):
                    leaves.add(text)
                case dict(fields):
                    todo += fields.values()
                    with contextlib.suppress(RecursionError, ValueError, OverflowError):
                        leaves.add(msgspec.json.encode(fields).decode())
                case list(values):
                    todo += values
    return leaves - {""}


def is_made_of(piece, leaves):
    """Whether ``piece`` is one of ``leaves``, or some of them one after the other."""
    if piece in leaves:
        return True
    reached = {0}
    for place in range(len(piece)):
        if place in reached:
            reached.update(place + len(leaf) for leaf in leaves if piece.startswith(leaf, place))
    return len(piece) in reached
