"""The drainer: a thread that moves finished records from the journal into the database, in bulk, until it worked."""

import threading
import time

import structlog
from django.db import DataError, Error, IntegrityError, connection

from gateway import metrics
from gateway.journal import Journal, SegmentReader, forget, prune, retire, take_over
from usage import ledger, records

log = structlog.get_logger(__name__)

INTERVAL = 0.5
BATCH = 1_000
TAKE_OVER_INTERVAL = 5.0
PRUNE_INTERVAL = 600.0
LONGEST_WAIT = 5.0


class Drainer:
    """
    Drains the journal of this process, and the files of processes that have died.

    While the database cannot be written, records stay in their files: memory does not grow with the outage.
    """

    def __init__(self, journal: Journal, keep_hours: float):
        self.journal = journal
        self.keep_hours = keep_hours
        self._readers = {}
        self._stop = threading.Event()
        self._next_take_over = self._next_prune = 0.0
        self.failing_since = None
        # When this process's records were last all in the database, by the monotonic clock.
        self.drained_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="drainer", daemon=True)

    def start(self):
        self._thread.start()

    def stop(self, timeout=10.0):
        """Drain what is there once more and end; what the database does not take stays in the journal."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self):
        while not self._stop.wait(INTERVAL):
            self._attempt()
        self._attempt(last=True)
        connection.close()

    def _attempt(self, *, last=False):
        """One round; where the database refuses, wait longer each time and try the same records again."""
        try:
            if not self._drain_own(last=last):
                return
            now = time.monotonic()
            if now >= self._next_take_over:
                self._drain_dead()
                self._next_take_over = now + TAKE_OVER_INTERVAL
            if now >= self._next_prune:
                prune(self.journal.folder, self.keep_hours)
                self._next_prune = now + PRUNE_INTERVAL
        except Exception:
            # The edge of this thread: were it to end here, nothing would ever be drained again.
            log.exception("drain failed")
            metrics.DRAIN_FAILURES.inc()

    def _drain_own(self, *, last=False):
        """
        Drain the files that this process writes; ``False`` where it ends before that worked.

        The ``last`` time lets go of the current file too, where no request is open in it: nobody has to take it over.
        """
        retired = self.journal.finished() if last else self.journal.retired()
        for segment in tuple(self.journal.segments):
            reader = self._readers.get(segment)
            if reader is None:
                reader = self._readers[segment] = SegmentReader(segment.path)
            size = segment.size
            # What was read and not written stays with the reader, and comes first the next time.
            while reader.unwritten or reader.position < size:
                reader.unwritten = reader.unwritten or reader.records(size)
                if not self._write(reader.unwritten):
                    return False
            if segment in retired:
                del self._readers[segment]
                reader.close()
                self.journal.release(segment)
        metrics.JOURNAL_BYTES.set(self.journal.bytes_waiting)
        self.drained_at = time.monotonic()
        return True

    @property
    def bytes_behind(self):
        """How much has been written to this process's files and not yet read for the database."""
        readers = dict(self._readers)
        segments = tuple(self.journal.segments)
        return sum(segment.size - (readers[segment].position if segment in readers else 0) for segment in segments)

    def _drain_dead(self):
        """Drain what dead processes have left, and only then return what they held of limits."""
        for uid, paths in take_over(self.journal.folder):
            if not all(self._drain_file(path) for path in paths):
                return
            if uid is not None:
                try:
                    ledger.close_process(uid, taken_over_by=self.journal.uid)
                except Error as error:
                    log.warning("holdings not returned", process=uid, error=str(error).strip())
                    metrics.LEDGER_FAILURES.inc()
                    connection.close()
                    return
                forget(self.journal.folder, uid)
                metrics.TAKEN_OVER.inc()
                log.info("process taken over", process=uid, files=len(paths))

    def _drain_file(self, path):
        """Drain a file that nobody writes; ``False`` where this process ends before that worked."""
        reader = SegmentReader(path)
        try:
            found = reader.rest()
            count = len(found)
            if not self._write(found):
                # Its file stays as it is, and with it its records.
                return False
            retire(path)
        finally:
            reader.close()
        metrics.JOURNAL_DAMAGED.inc(reader.damaged)
        log.info("journal taken over", path=path.name, records=count, damaged_bytes=reader.damaged)
        return True

    def _write(self, found):
        """Write and empty ``found``, whatever it takes; ``False`` where the process ends before it worked."""
        while found:
            wait = INTERVAL
            while not self._write_batch(found[:BATCH]):
                if self._stop.wait(wait):
                    return False
                wait = min(wait * 2, LONGEST_WAIT)
            del found[:BATCH]
        return True

    def _write_batch(self, batch):
        started = time.perf_counter()
        try:
            new = records.write_batch(batch)
        except (DataError, IntegrityError, OverflowError) as error:
            return self._write_without_poison(batch, error)
        except Error as error:
            if self.failing_since is None:
                self.failing_since = time.monotonic()
                log.error("database does not take records; they wait in the journal", error=str(error).strip())
            metrics.DRAIN_FAILURES.inc()
            connection.close()
            return False
        if self.failing_since is not None:
            log.info("database takes records again", after_seconds=round(time.monotonic() - self.failing_since, 1))
            self.failing_since = None
        metrics.DRAINED.inc(new)
        metrics.DRAIN_SECONDS.observe(time.perf_counter() - started)
        return True

    def _write_without_poison(self, batch, error):
        """Halve a batch that no database would take until what is wrong stands alone; that stays in its file."""
        if len(batch) == 1:
            metrics.JOURNAL_POISON.inc()
            log.error("record not written", request_id=batch[0].opened.id, error=str(error).strip())
            return True
        middle = len(batch) // 2
        return self._write_batch(batch[:middle]) and self._write_batch(batch[middle:])
