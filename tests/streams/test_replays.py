"""Streams of every provider, cut by the network wherever it likes: the same bytes for the caller, the same counts."""

import asyncio

import msgspec
import pytest

from providers.presets import PRESETS
from providers.sse import BYTE_ORDER_MARK, EventSplitter
from providers.tokens import count_tokens
from tests.providers.exchange import documents
from tests.streams.checks import heard
from tests.streams.replay import PROMPT, Replay, in_bytes, in_two, stand_still
from tests.streams.wires import ASKED_TOKENS, FOLDER, WIRES

# One caller's prompt names a function too.
ASKED_WITH_FUNCTION = count_tokens(f"weather\n{PROMPT}")


@pytest.fixture(scope="module", autouse=True)
def still():
    with pytest.MonkeyPatch.context() as patch:
        stand_still(patch)
        yield


@pytest.fixture(params=WIRES, ids=lambda wire: wire.name)
def wire(request):
    return request.param


def test_every_stream_in_the_folder_is_replayed_and_every_provider_has_one():
    assert sorted(wire.name for wire in WIRES) == sorted(path.stem for path in FOLDER.glob("*.txt"))
    same_as_another = {"local": "llama-cpp", "anthropic-compatible": "anthropic"}
    assert {wire.kind for wire in WIRES} == PRESETS.keys() - same_as_another.keys()


def test_each_caller_gets_the_words_and_each_row_the_counts(wire):
    async def replay():
        for asked in wire.callers:
            told = await Replay(wire.kind, wire.format).ask(asked, [wire.bytes])
            usage = told.usage
            if asked.name == "functions" and wire.source == "counted" and wire.usage.input_tokens == ASKED_TOKENS:
                assert usage.input_tokens == ASKED_WITH_FUNCTION
                usage = msgspec.structs.replace(usage, input_tokens=ASKED_TOKENS)
            assert (told.source, usage, told.stop_reason) == (wire.source, wire.usage, wire.stop), asked
            assert (told.text, told.failure) == (wire.text, wire.failure), asked
            if wire.format != asked.format:
                said = heard(asked, told.bytes)
                assert said.is_whole == (wire.failure is None)

    asyncio.run(replay())


@pytest.mark.parametrize("name", ["gemini-tool", "gemini-thoughts-in-the-total"])
def test_usage_that_a_provider_repeats_is_told_once_and_only_who_asks(name):
    (wire,) = [wire for wire in WIRES if wire.name == name]
    counted = [document["usage"] for document in documents(wire.bytes)[:-1]]
    assert len(counted) > 1

    async def replay():
        for asked in wire.callers:
            if asked.format != "chat_completions" or asked.flavour != "openai":
                continue
            *chunks, last = documents((await Replay(wire.kind, wire.format).ask(asked, [wire.bytes])).bytes)
            assert last == "[DONE]"
            told = [chunk["usage"] for chunk in chunks if "usage" in chunk]
            if asked.name == "chat":
                assert told == []
            else:
                assert told == counted[-1:]
                assert chunks.pop()["choices"] == []
            assert [chunk["choices"] for chunk in chunks] == [each["choices"] for each in documents(wire.bytes)[:-1]]

    asyncio.run(replay())


def test_a_stream_cut_at_any_byte_comes_out_the_same(wire):
    stream = wire.bytes

    async def replay():
        replay = Replay(wire.kind, wire.format)
        whole = {asked: await replay.ask(asked, [stream]) for asked in wire.callers}
        for place in range(1, len(stream)):
            asked = wire.callers[place % len(wire.callers)]
            assert await replay.ask(asked, in_two(stream, place)) == whole[asked], (place, asked)

    asyncio.run(replay())


def test_a_stream_byte_by_byte_comes_out_the_same(wire):
    stream = wire.bytes

    async def replay():
        replay = Replay(wire.kind, wire.format)
        for asked in wire.callers:
            whole = await replay.ask(asked, [stream])
            assert await replay.ask(asked, in_bytes(stream)) == whole, asked

    asyncio.run(replay())


def test_cut_at_any_byte_a_stream_is_the_same_events(wire):
    stream = b"".join(wire.events)
    if wire.name == "compatible-crlf":
        stream = BYTE_ORDER_MARK + stream
    for ending in (b"\n", b"\r\n", b"\r"):
        written = stream.replace(b"\n", ending)
        whole = split([written])
        for place in range(1, len(written)):
            assert split(in_two(written, place)) == whole, place


def split(pieces):
    splitter = EventSplitter()
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.rest()
