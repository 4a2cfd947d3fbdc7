"""
The journal: what makes every request a record, whatever dies.

Each process appends to files of its own, which it holds locked while it lives. A request is *opened* there before its
provider is called and *closed* when it has ended, both in the same file. A plain write survives the death of the
process; a thread beside it syncs the file to disk, so that at most ``SYNC_INTERVAL`` is lost with the machine's power.

A frame is ``magic, kind, length, CRC-32, request ULID, payload``; the CRC covers all that follows it and the kind.
Readers take frames in order, skip what is damaged and wait at a tail that is not whole yet.
"""

import errno
import fcntl
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import msgspec
import structlog

from gateway.ulid import new_ulid
from usage.records import Closed, Opened, Progress, Record, interrupted

log = structlog.get_logger(__name__)

OPEN, PROGRESS, CLOSE = b"OPC"
HEAD = struct.Struct("<2sBII16s")
MAGIC = b"\xc7J"
MAX_PAYLOAD = 64 * 1024
SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_INTERVAL = 0.05
LIVE, DRAINED = ".journal", ".drained"

sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_encode = msgspec.msgpack.Encoder().encode


class JournalFull(Exception):
    """The journal cannot be written: nothing may be called that could not be recorded."""


class Segment:
    """One file of the journal, locked by the process that writes it."""

    def __init__(self, folder: Path):
        self.path = folder / f"{new_ulid().hex()}{LIVE}"
        draft = self.path.with_suffix(".new")
        # Locked before it has its name, so that nobody takes it for a dead process's.
        self.fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        draft.rename(self.path)
        self.size = 0
        self.open_requests = 0
        self.dirty = False

    def append(self, data: bytes):
        """Write at the end, wholly or not at all: readers stop at ``size``. Raises ``OSError``."""
        written = os.pwrite(self.fd, data, self.size)
        if written != len(data):
            # What stands past ``size`` is written over by the next frame.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written
        self.dirty = True


class Entry:
    """One open request in the journal. Close it exactly once; closing never fails the request."""

    __slots__ = ("_journal", "opened", "segment", "ulid")

    def __init__(self, journal, segment, ulid, opened):
        self._journal = journal
        self.segment = segment
        self.ulid = ulid
        self.opened = opened

    def progress(self, progress: Progress):
        """Say how far the stream has come; losing it loses only precision."""
        try:
            self.segment.append(frame(PROGRESS, self.ulid, _encode(progress)))
        except OSError:
            pass

    def close(self, closed: Closed):
        """Say how the request ended. Without room the record waits in memory and is written when there is some."""
        self._journal.finish(self, frame(CLOSE, self.ulid, _encode(closed)))


class Journal:
    """The journal of this process, used from its event loop alone."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.segments = [Segment(folder)]
        self._unwritten: list[tuple[Entry, bytes]] = []
        # Between the thread that syncs and the one that lets go of drained files.
        self._files = threading.Lock()
        self._stop = threading.Event()
        self._syncer = threading.Thread(target=self._sync_for_ever, name="journal-sync", daemon=True)
        self._syncer.start()

    def open(self, ulid: bytes, opened: Opened) -> Entry:
        """Record that a request begins. Raises ``JournalFull``: then its provider must not be called."""
        segment = self._writable()
        try:
            segment.append(frame(OPEN, ulid, _encode(opened)))
        except OSError as error:
            raise JournalFull(str(error)) from error
        segment.open_requests += 1
        return Entry(self, segment, ulid, opened)

    def refuse(self, ulid: bytes, opened: Opened, closed: Closed):
        """Record a request that was refused before any provider was called, in one write."""
        try:
            self._writable().append(frame(OPEN, ulid, _encode(opened)) + frame(CLOSE, ulid, _encode(closed)))
        except (OSError, JournalFull) as error:
            log.error("refusal not recorded", request_id=opened.id, error=str(error))

    def finish(self, entry: Entry, data: bytes):
        try:
            self._write_waiting()
            entry.segment.append(data)
        except OSError as error:
            log.error("journal full, record held in memory", request_id=entry.opened.id, error=str(error))
            self._unwritten.append((entry, data))
        else:
            entry.segment.open_requests -= 1

    def _write_waiting(self):
        while self._unwritten:
            entry, data = self._unwritten[0]
            entry.segment.append(data)
            entry.segment.open_requests -= 1
            self._unwritten.pop(0)

    def _writable(self):
        segment = self.segments[-1]
        if segment.size < SEGMENT_BYTES:
            return segment
        try:
            segment = Segment(self.folder)
        except OSError as error:
            raise JournalFull(str(error)) from error
        self.segments.append(segment)
        return segment

    @property
    def bytes_waiting(self):
        return sum(segment.size for segment in self.segments)

    def retired(self):
        """Segments that will not be written again."""
        return [segment for segment in self.segments[:-1] if not segment.open_requests]

    def release(self, segment: Segment):
        """Give up a retired segment whose records are all in the database."""
        with self._files:
            self.segments.remove(segment)
            retire(segment.path)
            os.close(segment.fd)

    def close(self):
        """Sync and let go of every file: what is not drained, the next process takes over."""
        self._stop.set()
        self._syncer.join()
        try:
            self._write_waiting()
        except OSError as error:
            log.error("records lost: no room in the journal", count=len(self._unwritten), error=str(error))
        self._sync()
        for segment in self.segments:
            os.close(segment.fd)

    def _sync_for_ever(self):
        while not self._stop.wait(SYNC_INTERVAL):
            self._sync()

    def _sync(self):
        with self._files:
            for segment in self.segments:
                if segment.dirty:
                    segment.dirty = False
                    try:
                        sync(segment.fd)
                    except OSError as error:
                        log.error("journal not synced", path=str(segment.path), error=str(error))


def frame(kind: int, ulid: bytes, payload: bytes) -> bytes:
    """One frame, ready to append."""
    crc = zlib.crc32(payload, zlib.crc32(ulid, kind))
    return HEAD.pack(MAGIC, kind, len(payload), crc, ulid) + payload


class SegmentReader:
    """
    Reads the records of one segment as they come, oldest first.

    ``damaged`` counts the bytes that belonged to no valid frame.
    """

    CHUNK = 1024 * 1024

    def __init__(self, path: Path):
        self.path = path
        self.pending: dict[bytes, list] = {}
        self.damaged = 0
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at = 0
        self._buffer = b""

    def records(self, upto: int | None = None):
        """
        The records that became complete since the last call.

        Of a file that is still written give its size so far as ``upto``. Without it this is the end: an incomplete tail
        is damage, and every request still open becomes an interrupted one.
        """
        found = []
        while data := os.pread(self._fd, self.CHUNK if upto is None else min(self.CHUNK, upto - self._at), self._at):
            self._at += len(data)
            self._buffer += data
            self._take_frames(found, more_may_come=True)
        if upto is None:
            self._take_frames(found, more_may_come=False)
            found += [interrupted(opened, progress) for opened, progress in self.pending.values()]
            self.pending.clear()
        return found

    def _take_frames(self, found, *, more_may_come):
        buffer, at = self._buffer, 0
        while len(buffer) - at >= HEAD.size:
            magic, kind, length, crc, ulid = HEAD.unpack_from(buffer, at)
            end = at + HEAD.size + length
            if magic == MAGIC and length <= MAX_PAYLOAD:
                if end > len(buffer):
                    if more_may_come:
                        break
                elif zlib.crc32(buffer[at + HEAD.size : end], zlib.crc32(ulid, kind)) == crc:
                    self._take(found, kind, ulid, buffer[at + HEAD.size : end])
                    at = end
                    continue
            # Damage: on to the next place where a frame could begin.
            following = buffer.find(MAGIC, at + 1)
            skip = following if following >= 0 else max(len(buffer) - 1, at + 1)
            self.damaged += skip - at
            at = skip
        if not more_may_come:
            self.damaged += len(buffer) - at
            at = len(buffer)
        self._buffer = buffer[at:]

    def _take(self, found, kind, ulid, payload):
        try:
            if kind == OPEN:
                self.pending[ulid] = [msgspec.msgpack.decode(payload, type=Opened), None]
            elif kind == PROGRESS and ulid in self.pending:
                self.pending[ulid][1] = msgspec.msgpack.decode(payload, type=Progress)
            elif kind == CLOSE and ulid in self.pending:
                found.append(Record(self.pending.pop(ulid)[0], msgspec.msgpack.decode(payload, type=Closed)))
        except msgspec.DecodeError as error:
            self.damaged += len(payload)
            log.error("journal frame not understood", path=str(self.path), error=str(error))

    def close(self):
        os.close(self._fd)


def take_over(folder: Path):
    """
    Lock and yield, one by one, the paths of files whose processes have died.

    The caller reads the file and retires it; the lock ends when the next one is asked for.
    """
    for path in sorted(folder.glob(f"*{LIVE}")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been drained and renamed between the listing and the lock.
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                yield path
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(fd)


def retire(path: Path):
    """Mark a file as drained. It is kept for a while, so that a database restored from a backup can be made whole."""
    path.rename(path.with_suffix(DRAINED))


def prune(folder: Path, keep_hours: float):
    """Delete drained files older than ``keep_hours``."""
    before = time.time() - keep_hours * 3600
    for path in folder.glob(f"*{DRAINED}"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            pass
