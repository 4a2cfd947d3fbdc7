"""Spend alerts of a server without a worker, and what only this process knows: that a limit has refused a request."""

import threading
import time

import structlog
from django.db import Error, connection

from usage import limit_alerts, sweeps
from usage.ledger import Key

log = structlog.get_logger(__name__)

INTERVAL = 2.0
# Where a worker runs, it comes first.
EVERY = 30
# The alert of a limit that goes on refusing is looked at again so often: it may have been resolved meanwhile.
AGAIN_SECONDS = 60.0


class SpendAlerts:
    """A thread that waits for nothing on the event loop and that nothing there waits for."""

    def __init__(self):
        self._refused: set[Key] = set()
        self._told: dict[Key, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spend-alerts", daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        """End with the attempt that is under way, or leave it: what is not sent is due for whoever comes next."""
        self._stop.set()
        self._thread.join(1.0)

    def refused(self, key: Key):
        """A hard limit had too little left for a request in that interval; call it on the event loop."""
        if self._told.get(key, 0.0) < time.monotonic():
            self._refused.add(key)

    def _run(self):
        while not self._stop.wait(INTERVAL):
            try:
                self._write_refusals()
                sweeps.sweep_alerts(EVERY)
            except Error as error:
                log.warning("spend alerts put off", error=str(error).strip())
            except Exception:
                # The edge of this thread: were it to end here, nobody would be told anything again.
                log.exception("spend alerts failed")
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
