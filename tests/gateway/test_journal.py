import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway import journal as journals
from gateway.journal import HEAD, Journal, JournalFull, SegmentReader, forget, prune, retire, take_over
from tests.gateway.records import closed, opened
from usage.records import Closed, Progress
from usage.ulid import new_ulid, request_id


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


def written(journal, count):
    """``count`` requests, opened and closed; their ids."""
    ids = []
    for number in range(count):
        ulid, first = opened()
        journal.open(ulid, first).close(closed(output_tokens=number))
        ids.append(first.id)
    return ids


def test_request_ids_sort_as_their_moments_do():
    ids = [request_id((moment << 80).to_bytes(16, "big")) for moment in (1, 2, 31, 32, 1 << 30, 1 << 47)]
    assert ids == sorted(ids)
    assert all(len(text) == 30 for text in ids)
    assert len({new_ulid() for _ in range(10_000)}) == 10_000


def test_a_live_reader_gets_each_record_once_and_in_order(journal):
    reader = SegmentReader(journal.segments[0].path)
    first = written(journal, 3)
    assert [record.opened.id for record in reader.records(journal.segments[0].size)] == first
    second = written(journal, 2)
    assert [record.opened.id for record in reader.records(journal.segments[0].size)] == second
    assert reader.records(journal.segments[0].size) == []
    assert reader.damaged == 0


def test_a_live_reader_waits_for_a_request_that_is_open(journal):
    ulid, first = opened()
    entry = journal.open(ulid, first)
    reader = SegmentReader(journal.segments[0].path)
    assert reader.records(journal.segments[0].size) == []
    entry.close(closed())
    assert len(reader.records(journal.segments[0].size)) == 1


def test_a_dead_process_leaves_what_its_last_mark_knew_as_an_estimate(journal):
    ulid, first = opened()
    entry = journal.open(ulid, first)
    entry.progress(Progress(1000, 40, 5, 300))
    entry.progress(Progress(2000, 40, 9, 300))
    (record,) = SegmentReader(journal.segments[0].path).rest()
    assert (record.closed.outcome, record.closed.usage_source) == ("interrupted", "estimated")
    assert (record.closed.input_tokens, record.closed.output_tokens, record.closed.duration_ms) == (40, 9, 2000)


def test_a_dead_process_leaves_the_estimate_of_a_prompt_it_had_sent(journal):
    ulid, first = opened(input_estimate=17)
    journal.open(ulid, first)
    (record,) = SegmentReader(journal.segments[0].path).rest()
    assert (record.closed.input_tokens, record.closed.output_tokens) == (17, 0)


def test_a_flipped_bit_costs_the_record_it_stands_in_and_no_other(tmp_path, journal):
    ids = written(journal, 10)
    segment = journal.segments[0]
    whole = segment.path.read_bytes()[: segment.size]
    for bit in random.Random(1).sample(range(len(whole) * 8), 600):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        reader = SegmentReader(path)
        found = {record.opened.id: record for record in reader.rest()}
        reader.close()
        assert len(set(ids) - set(found)) <= 1
        assert set(found) <= set(ids)
        exact = [name for name, record in found.items() if record.closed.outcome == "completed"]
        assert len(exact) >= 9
        assert all(found[name].closed.output_tokens == ids.index(name) for name in exact)


def test_a_file_cut_off_anywhere_gives_all_that_is_whole(tmp_path, journal):
    ids = written(journal, 4)
    segment = journal.segments[0]
    whole = segment.path.read_bytes()[: segment.size]
    for end in range(0, len(whole), 7):
        path = tmp_path / "cut"
        path.write_bytes(whole[:end])
        reader = SegmentReader(path)
        found = [record.opened.id for record in reader.rest()]
        reader.close()
        assert found == ids[: len(found)]


def test_a_full_file_makes_room_in_the_next_one_and_closes_where_it_opened(journal, monkeypatch):
    monkeypatch.setattr(journals, "SEGMENT_BYTES", 64 * 1024)
    small = Journal(journal.folder / "small")
    entries = []
    for _ in range(60):
        ulid, first = opened()
        entries.append(small.open(ulid, first))
    assert len(small.segments) > 1
    for entry in entries:
        entry.close(closed(error_message="é" * 500, response_model="m" * 5000))
    records = [record for segment in small.segments for record in SegmentReader(segment.path).records(segment.size)]
    assert len(records) == 60
    assert all(record.closed.outcome == "completed" for record in records)
    assert all(segment.size <= 64 * 1024 for segment in small.segments)
    small.close()


def test_without_room_on_the_disk_no_request_is_opened(journal, monkeypatch):
    def full(fd, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals, "allocate", full)
    journal.segments[0].size = journals.SEGMENT_BYTES
    ulid, first = opened()
    with pytest.raises(JournalFull):
        journal.open(ulid, first)
    journal.segments[0].size = 0
    assert list(journal.folder.glob("*.new")) == []


def test_only_files_of_dead_processes_are_taken_over(tmp_path, journal):
    folder = journal.folder
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        import django
        django.setup()
        from gateway.journal import Journal
        from tests.gateway.records import closed, opened
        journal = Journal(Path({str(folder)!r}))
        for number in range(5):
            ulid, first = opened()
            entry = journal.open(ulid, first)
            if number < 3:
                entry.close(closed())
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == -9
    taken = []
    for uid, paths in take_over(folder):
        for path in paths:
            assert path.name.startswith(f"{uid}.")
            reader = SegmentReader(path)
            taken += reader.rest()
            reader.close()
            retire(path)
        forget(folder, uid)
    assert sorted(record.closed.outcome for record in taken) == ["completed"] * 3 + ["interrupted"] * 2
    assert list(take_over(folder)) == []
    assert journal.segments[0].path.exists()


def test_drained_files_are_kept_for_a_while(journal):
    written(journal, 1)
    journal.segments.append(journals.Segment(journal.folder, journal.uid))
    (segment,) = journal.retired()
    journal.release(segment)
    (kept,) = journal.folder.glob("*.drained")
    assert kept.stat().st_size == segment.size
    prune(journal.folder, keep_hours=1)
    assert kept.exists()
    prune(journal.folder, keep_hours=-1)
    assert not kept.exists()


def test_a_frame_says_what_it_covers():
    data = journals.frame(journals.OPEN, b"u" * 16, b"payload")
    assert HEAD.unpack(data[: HEAD.size])[:3] == (b"\xc7J", ord("O"), 7)


def test_closing_never_fails_whatever_the_provider_sent(journal):
    ulid, first = opened()
    journal.open(ulid, first).close(closed(upstream_request_id="\udcff\udcfe", error_message="x" * 50_000))
    (record,) = SegmentReader(journal.segments[0].path).rest()
    assert record.closed.outcome == "completed"
    assert record.closed.upstream_request_id == "??"


def test_the_end_of_a_request_finds_room_whatever_its_texts_are(tmp_path, monkeypatch):
    monkeypatch.setattr(journals, "SEGMENT_BYTES", 2 * journals.CLOSE_ROOM)
    longest = dict.fromkeys(("outcome", "usage_source", "dropped"), "\N{GRINNING FACE}\ud800" * 50_000)
    longest |= dict.fromkeys(("response_model", "upstream_model"), "\N{GRINNING FACE}" * 50_000)
    longest |= dict.fromkeys(("stop_reason", "error_code", "error_message", "upstream_request_id"), "é" * 50_000)
    numbers = {name: 2**63 - 1 for name in Closed.__struct_fields__ if name not in longest}
    journal = Journal(tmp_path)
    journal.open(*opened()).close(Closed(**numbers | longest))
    reader = SegmentReader(journal.segments[0].path)
    (record,) = reader.records(journal.segments[0].size)
    assert reader.damaged == 0
    assert record.closed.cost_nanos == 2**63 - 1
    assert record.closed.error_message.startswith("é" * 200)
    reader.close()
    journal.close()
