"""
What a web process does beside its calls: it says that it lives, notes which limits refuse, and raises and sends spend
alerts where no worker does.
"""

import datetime
import os
import socket
import threading
import time

import structlog
from django.db import Error, connection
from django.utils import timezone

from gateway import metrics
from usage import deliveries, ledger, limit_alerts, sweeps
from usage.ledger import Key
from usage.models import GatewayProcess

log = structlog.get_logger(__name__)

INTERVAL = 2.0
# Where a worker runs, it comes first.
EVERY = 30
SEEN_SECONDS = 60.0
# The alert of a limit that goes on refusing is looked at again so often: it may have been resolved meanwhile.
AGAIN_SECONDS = 60.0
# How long the operations page remembers processes that have ended.
REMEMBERED = datetime.timedelta(days=30)


class Housekeeping:
    """A thread that waits for nothing on the event loop and that nothing there waits for."""

    def __init__(self, uid):
        self.uid = uid
        self._refused: set[Key] = set()
        self._told: dict[Key, float] = {}
        self._seen_at = float("-inf")
        self._is_failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        """End with what is under way, or leave it: what is not sent is due for whoever comes next."""
        self._stop.set()
        self._thread.join(1.0)

    def refused(self, key: Key):
        """A hard limit had too little left for a request in that interval; call it on the event loop."""
        if self._told.get(key, 0.0) < time.monotonic():
            self._refused.add(key)

    def _run(self):
        while True:
            try:
                self._say_that_it_lives()
                self._write_refusals()
                sweeps.sweep_alerts(EVERY)
                self._is_failing = False
            except Error as error:
                if not self._is_failing:
                    log.warning("housekeeping put off", error=str(error).strip())
                self._is_failing = True
            except Exception:
                # The edge of this thread: were it to end here, nobody would be told anything again.
                log.exception("housekeeping failed")
            finally:
                connection.close()
            if self._stop.wait(INTERVAL):
                break
        self._say_that_it_ends()

    def _say_that_it_lives(self):
        now = time.monotonic()
        if now - self._seen_at < SEEN_SECONDS:
            return
        if self._seen_at == float("-inf"):
            ledger.register(uid=self.uid, host=socket.gethostname(), pid=os.getpid())
            over = GatewayProcess.objects.filter(ended_at__lt=timezone.now() - REMEMBERED, leases=None)
            over.delete()
        ledger.renew(self.uid)
        for kind, count in deliveries.count_waiting().items():
            metrics.DELIVERIES_WAITING.labels(kind).set(count)
        self._seen_at = now

    def _say_that_it_ends(self):
        """Unless it holds something: then it is said when that is returned."""
        try:
            GatewayProcess.objects.filter(pk=self.uid, leases=None).update(ended_at=timezone.now())
        except Error as error:
            log.warning("end not said", error=str(error).strip())
        finally:
            connection.close()

    def _write_refusals(self):
        now = time.monotonic()
        self._told = {key: until for key, until in self._told.items() if until > now}
        while self._refused:
            key = self._refused.pop()
            self._told[key] = now + AGAIN_SECONDS
            try:
                limit_alerts.note_refusal(key)
            except Error:
                # It is noticed again with the next refusal.
                del self._told[key]
                raise
