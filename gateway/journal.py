"""
The journal: what makes every request a record, whatever dies.

Each process writes to files of its own, which it holds locked while it lives; their names begin with its uid, and one
more, ``<uid>.process``, stands for the process itself. A request is *opened* there before its provider is called and
*closed* before the end of its answer goes out, both in the same file. The files are mapped into memory at their full
size: writing is a copy of some hundred bytes, cannot run out of space, and survives the death of the process. A thread
syncs them to disk, so that at most ``SYNC_INTERVAL`` is lost with the machine's power.

A frame is ``magic, kind, length, CRC-32, request ULID, payload``; the CRC covers kind, ULID and payload. Readers take
frames in order, skip what is damaged, and wait at a tail that is not whole yet.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import msgspec
import structlog

from usage.records import Closed, Opened, Progress, Record, interrupted
from usage.ulid import new_ulid, request_id

log = structlog.get_logger(__name__)

OPEN, PROGRESS, CLOSE = b"OPC"
HEAD = struct.Struct("<2sBII16s")
MAGIC = b"\xc7J"
EMPTY = bytes(HEAD.size)
MAX_PAYLOAD = 64 * 1024
# What each open request keeps free for its close frame: nine texts, and numbers. Longer ones are cut to so many bytes.
CLOSE_ROOM = 4608
CLOSE_TEXT = 480
SEGMENT_BYTES = 4 * 1024 * 1024
SYNC_INTERVAL = 0.05
LIVE, DRAINED, PROCESS = ".journal", ".drained", ".process"

sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_encode = msgspec.msgpack.Encoder().encode


class JournalFull(Exception):
    """The journal cannot be written: nothing may be called that could not be recorded."""


class Segment:
    """One file of the journal, of fixed size, locked and mapped by the process that writes it."""

    def __init__(self, folder: Path, uid: str):
        self.path = folder / f"{uid}.{new_ulid().hex()}{LIVE}"
        self.fd = make_locked(self.path, SEGMENT_BYTES)
        try:
            self._map = mmap.mmap(self.fd, SEGMENT_BYTES)
        except OSError:
            self.path.unlink()
            os.close(self.fd)
            raise
        self.size = 0
        self.open_requests = 0
        self.synced = 0

    def has_room(self, length):
        """Whether a request may be opened here with a frame of ``length``: each open one keeps room for its end."""
        return self.size + length + (self.open_requests + 1) * CLOSE_ROOM <= SEGMENT_BYTES

    def append(self, data: bytes):
        end = self.size + len(data)
        self._map[self.size : end] = data
        # Readers of this process stop at ``size``: it moves when the frame is whole.
        self.size = end

    def sync(self):
        """Bring what was written to disk."""
        size = self.size
        if size != self.synced:
            sync(self.fd)
            self.synced = size

    def close(self):
        """Let go of file and lock."""
        self._map.close()
        os.close(self.fd)


class Entry:
    """One open request in the journal. Close it exactly once; closing never fails."""

    __slots__ = ("_segment", "_ulid")

    def __init__(self, segment, ulid):
        self._segment = segment
        self._ulid = ulid

    def progress(self, progress: Progress):
        """Say how far the stream has come, where there is room for it."""
        data = frame(PROGRESS, self._ulid, _encode(progress))
        if self._segment.has_room(len(data)):
            self._segment.append(data)

    def close(self, closed: Closed):
        """Say how the request ended."""
        try:
            data = frame(CLOSE, self._ulid, _encode(closed))
        except UnicodeEncodeError:
            data = b""
        if not data or len(data) > CLOSE_ROOM:
            data = frame(CLOSE, self._ulid, _encode(fitted(closed)))
        self._segment.append(data)
        self._segment.open_requests -= 1


class Journal:
    """
    The journal of this process, written from its event loop alone.

    ``uid`` is the process's: the ledger knows by it who holds what. Whoever takes the journal over returns that.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.uid = request_id(new_ulid()).removeprefix("req_")
        self._process_path = folder / f"{self.uid}{PROCESS}"
        self._process_fd = make_locked(self._process_path, content=b"%d\n" % os.getpid())
        self.segments = [Segment(folder, self.uid)]
        # Between the thread that syncs and the one that lets go of drained files.
        self._files = threading.Lock()
        self._stop = threading.Event()
        self._syncer = threading.Thread(target=self._sync_for_ever, name="journal-sync", daemon=True)
        self._syncer.start()

    def open(self, ulid: bytes, opened: Opened) -> Entry:
        """Record that a request begins. Raises ``JournalFull``: then its provider must not be called."""
        data = frame(OPEN, ulid, _encode(opened))
        segment = self._with_room_for(len(data))
        segment.append(data)
        segment.open_requests += 1
        return Entry(segment, ulid)

    def refuse(self, ulid: bytes, opened: Opened, closed: Closed):
        """Record a request that was refused before any provider was called."""
        try:
            self.open(ulid, opened).close(closed)
        except JournalFull as error:
            log.error("refusal not recorded", request_id=opened.id, error=str(error))

    def _with_room_for(self, length):
        # Letting go of the last one is an end; a request that comes even so gets a file that the next process reads.
        if self.segments and self.segments[-1].has_room(length):
            return self.segments[-1]
        try:
            segment = Segment(self.folder, self.uid)
        except OSError as error:
            raise JournalFull(str(error)) from error
        self.segments.append(segment)
        return segment

    @property
    def bytes_waiting(self):
        return sum(segment.size for segment in self.segments)

    @property
    def is_drained(self):
        """Whether every record is in the database and no request is open: for after the drainer's last round."""
        return not self.segments

    def retired(self):
        """Segments that will not be written again."""
        return [segment for segment in self.segments[:-1] if not segment.open_requests]

    def finished(self):
        """Segments in which no request is open, the current one among them: for when no more are opened."""
        return [segment for segment in self.segments if not segment.open_requests]

    def release(self, segment: Segment):
        """Give up a segment that is not written again and whose records are all in the database."""
        with self._files:
            if segment not in self.segments:
                # The journal has been closed meanwhile: the file is no longer this process's to touch.
                return
            self.segments.remove(segment)
            os.truncate(segment.path, segment.size)
            retire(segment.path)
            segment.close()

    def close(self, *, is_returned=False):
        """
        Sync and let go of every file: what is not drained, the next process takes over.

        ``is_returned`` says that the ledger knows that this process holds nothing any more.
        """
        self._stop.set()
        self._syncer.join()
        self._sync()
        with self._files:
            if is_returned and self.is_drained:
                self._process_path.unlink(missing_ok=True)
            for segment in self.segments:
                segment.close()
            self.segments = []
            # The last of the locks: who has it has the others.
            if self._process_fd is not None:
                os.close(self._process_fd)
                self._process_fd = None

    def _sync_for_ever(self):
        while not self._stop.wait(SYNC_INTERVAL):
            self._sync()

    def _sync(self):
        with self._files:
            for segment in self.segments:
                try:
                    segment.sync()
                except OSError as error:
                    log.error("journal not synced", path=str(segment.path), error=str(error))


def make_locked(path, size=0, content=b""):
    """Make a file of ``size`` or with ``content`` that is locked before it has its name; its descriptor."""
    draft = path.with_suffix(".new")
    # Nobody shall take it for a dead process's.
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if size:
            allocate(fd, size)
        os.write(fd, content)
        draft.rename(path)
    except OSError:
        os.close(fd)
        draft.unlink(missing_ok=True)
        raise
    return fd


def allocate(fd, size):
    """Give a file its full size on the disk, so that writing to its map cannot fail. Raises ``OSError``."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    else:
        os.write(fd, bytes(size))


def fitted(closed: Closed) -> Closed:
    """``closed`` with its texts cut to the room that was kept for its frame, and without what UTF-8 cannot hold."""
    cut = {
        name: value.encode("utf-8", "replace")[:CLOSE_TEXT].decode(errors="ignore")
        for name, value in msgspec.structs.asdict(closed).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(closed, **cut)


def frame(kind: int, ulid: bytes, payload: bytes) -> bytes:
    """One frame, ready to append."""
    crc = zlib.crc32(payload, zlib.crc32(ulid, kind))
    return HEAD.pack(MAGIC, kind, len(payload), crc, ulid) + payload


class SegmentReader:
    """
    Reads the records of one segment as they come, oldest first.

    ``damaged`` counts the bytes that belonged to no valid frame; ``unwritten`` is for whoever reads.
    """

    CHUNK = 512 * 1024

    def __init__(self, path: Path):
        self.path = path
        self.pending: dict[bytes, list] = {}
        self.damaged = 0
        self.unwritten: list[Record] = []
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.position = 0
        self._buffer = b""

    def records(self, upto: int):
        """
        The records that became complete in the next part of a file that is still written, of size ``upto`` so far.

        Ask until ``position`` is ``upto``: what one call holds in memory is bounded.
        """
        return self._part(min(self.CHUNK, upto - self.position))

    def rest(self):
        """
        All records of a file that nobody writes any more.

        An incomplete tail is damage, and every request still open becomes an interrupted one.
        """
        found = []
        while self.position < os.fstat(self._fd).st_size:
            found += self._part(self.CHUNK)
        self._take_frames(found, more_may_come=False)
        found += [interrupted(opened, progress) for opened, progress in self.pending.values()]
        self.pending.clear()
        return found

    def _part(self, length):
        found = []
        data = os.pread(self._fd, length, self.position)
        self.position += len(data)
        self._buffer += data
        self._take_frames(found, more_may_come=True)
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
            if buffer[at : at + HEAD.size] == EMPTY:
                # The unwritten rest of a file: as far as this reader can see, the end.
                at = len(buffer)
                break
            # Damage: on to the next place where a frame could begin.
            following = buffer.find(MAGIC, at + 1)
            skip = following if following >= 0 else max(len(buffer) - 1, at + 1)
            self.damaged += len(buffer[at:skip].rstrip(b"\0"))
            at = skip
        if not more_may_come:
            self.damaged += len(buffer[at:].rstrip(b"\0"))
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
    Lock and yield, one by one, what dead processes have left, as the process's uid and the paths of its files.

    The caller drains and retires the files, returns what the process held, and lets it be forgotten, in that order;
    the locks end when the next one is asked for. The uid is ``None`` for a file without a process's name.
    """
    known = set()
    for process in sorted(folder.glob(f"*{PROCESS}")):
        known.add(process.stem)
        with _locked(process) as is_dead, contextlib.ExitStack() as locks:
            if is_dead:
                paths = sorted(folder.glob(f"{process.stem}.*{LIVE}"))
                if all(locks.enter_context(_locked(path)) for path in paths):
                    yield process.stem, paths
    for path in sorted(folder.glob(f"*{LIVE}")):
        if path.name.partition(".")[0] not in known:
            with _locked(path) as is_dead:
                if is_dead:
                    yield None, [path]


@contextlib.contextmanager
def _locked(path):
    """Hold the lock of a file that nobody else holds; whether that is so."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been drained and renamed between the listing and the lock.
            is_ours = os.stat(path).st_ino == os.fstat(fd).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        yield is_ours
    finally:
        os.close(fd)


def forget(folder: Path, uid: str):
    """Delete what says that a dead process left something: it does not any more."""
    (folder / f"{uid}{PROCESS}").unlink(missing_ok=True)


def retire(path: Path):
    """Mark a file as drained. It is kept for a while, so that a database restored from a backup can be made whole."""
    path.rename(path.with_suffix(DRAINED))


def prune(folder: Path, keep_hours: float):
    """Delete drained files older than ``keep_hours``, and drafts whose process died before they had a name."""
    hour_ago = time.time() - 3600
    for pattern, before in ((f"*{DRAINED}", time.time() - keep_hours * 3600), ("*.new", hour_ago)):
        for path in folder.glob(pattern):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
            except FileNotFoundError:
                pass
