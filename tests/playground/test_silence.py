import asyncio

import pytest

from playground import views


async def silent_then(*pieces, seconds, left):
    try:
        await asyncio.sleep(seconds)
        for piece in pieces:
            yield piece
    finally:
        left.append(True)


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(views, "SILENCE_SECONDS", 0.05)


@pytest.mark.anyio
async def test_a_silent_stream_is_kept_alive(short_silence):
    left = []
    found = [piece async for piece in views._kept_alive(silent_then("a", "b", seconds=0.18, left=left))]
    assert found[-2:] == ["a", "b"]
    assert 2 <= found.count(": still here\n\n") <= 4
    assert left


@pytest.mark.anyio
async def test_who_leaves_in_a_silence_ends_what_is_under_way(short_silence):
    left = []
    stream = views._kept_alive(silent_then("never", seconds=60, left=left))
    assert await anext(stream) == ": still here\n\n"
    await stream.aclose()
    assert left


@pytest.mark.anyio
async def test_a_cancelled_reader_ends_what_is_under_way():
    left = []

    async def read():
        async for _ in views._kept_alive(silent_then("never", seconds=60, left=left)):
            pass

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert left
