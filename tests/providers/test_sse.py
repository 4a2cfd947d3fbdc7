import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.sse import MAX_EVENT_BYTES, EventSplitter, encode

STREAM = (
    b'event: message_start\ndata: {"a":"h\xc3\xa9"}\n\n: comment\n\ndata: {"b":1}\n\ndata: first\ndata: second\n\n'
    b"data:no space\n\ndata: [DONE]\n\n"
)


def events_of(chunks):
    splitter = EventSplitter()
    found = [event for chunk in chunks for event in splitter.feed(chunk)]
    return found + splitter.rest()


WHOLE = events_of([STREAM])


def test_events_have_name_data_and_their_own_bytes():
    assert [(event.name, event.data) for event in WHOLE] == [
        (b"message_start", '{"a":"hé"}'.encode()),
        (b"", b""),
        (b"", b'{"b":1}'),
        (b"", b"first\nsecond"),
        (b"", b"no space"),
        (b"", b"[DONE]"),
    ]
    assert b"".join(event.raw for event in WHOLE) == STREAM


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_a_stream_reads_the_same_wherever_it_is_cut_and_whatever_its_line_ends(ends):
    stream = STREAM.replace(b"\n", ends)
    for cut in range(len(stream) + 1):
        assert events_of([stream[:cut], stream[cut:]]) == WHOLE, cut
    assert events_of([bytes([byte]) for byte in stream]) == WHOLE


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=200)
def test_a_stream_reads_the_same_in_any_pieces(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    assert events_of([STREAM[a:b] for a, b in itertools.pairwise(places)]) == WHOLE


def test_a_last_event_without_its_blank_line_is_an_event():
    assert [event.data for event in events_of([b"data: a\n\ndata: b\n"])] == [b"a", b"b"]


def test_an_event_without_end_is_noticed():
    splitter = EventSplitter()
    splitter.feed(b"x" * MAX_EVENT_BYTES)
    assert not splitter.is_overfull
    splitter.feed(b"x")
    assert splitter.is_overfull


def test_ten_thousand_broken_streams_break_nothing():
    chance = random.Random(7)
    for _ in range(10_000):
        broken = bytearray(STREAM)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.choice(b"\r\n :\x00\xff{d")
        for event in events_of([bytes(broken)]):
            assert b"\n\n" not in event.raw[:-2]


def test_encoding_is_what_the_splitter_reads():
    assert events_of([encode(b"ping", b"{}"), encode(None, b"1")]) == [
        (b"event: ping\ndata: {}\n\n", b"ping", b"{}"),
        (b"data: 1\n\n", b"", b"1"),
    ]


def test_a_large_event_in_small_pieces_costs_no_more_than_its_size():
    splitter = EventSplitter()
    splitter.feed(b"data: ")
    began = time.process_time()
    for _ in range(MAX_EVENT_BYTES // 256 - 1):
        assert splitter.feed(b"x" * 256) == []
    (event,) = splitter.feed(b"\n\n")
    assert len(event.data) == MAX_EVENT_BYTES - 256
    assert time.process_time() - began < 1


def test_a_byte_order_mark_hides_no_event():
    marked = b"\xef\xbb\xbfdata: a\n\n"
    for place in range(len(marked)):
        assert events_of([marked[:place], marked[place:]]) == [(b"data: a\n\n", b"", b"a")]
