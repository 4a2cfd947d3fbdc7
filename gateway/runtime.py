"""What one process holds while it serves; opened and closed with its lifespan."""

import asyncio
import gc
import sys

from django.conf import settings

from console.announcements import LEDGER, REVISION
from gateway.admission import Admission
from gateway.alerts import Alerts
from gateway.announcements import Listener
from gateway.drainer import Drainer
from gateway.health import Health
from gateway.housekeeping import Housekeeping
from gateway.journal import Journal
from gateway.leases import Leases
from gateway.rates import RateLimiter
from gateway.routing import Router
from gateway.snapshot import SnapshotKeeper
from gateway.stored_responses import StoredResponses
from providers.client import Upstream
from providers.origins import resolve_own_endpoints

_current = None


class Runtime:
    """Snapshot, routes, journal, drainer, leases, limits by the minute and the connections to providers."""

    def __init__(self):
        self.keeper = SnapshotKeeper()
        self.alerts = Alerts(self.keeper)
        self.router = Router(self.keeper, Health(), self.alerts)
        self.journal = Journal(settings.JOURNAL_DIR)
        self.drainer = Drainer(self.journal, settings.JOURNAL_KEEP_HOURS)
        self.leases = Leases(self.journal.uid)
        self.listener = Listener({REVISION: self.keeper.announced, LEDGER: self.leases.recall})
        self.housekeeping = Housekeeping(self.journal.uid)
        self.rates = RateLimiter(
            self.keeper, self.journal.uid, redis_url=settings.REDIS_URL, least_processes=settings.WEB_PROCESSES
        )
        self.admission = Admission(self.keeper, self.leases, self.housekeeping.refused, self.rates)
        self.upstream = Upstream()
        self.stored_responses = StoredResponses()
        # Requests of this server's own pages, by id, and whether what is cancelled now is cancelled by its end.
        self.asked_here = {}
        self.is_cutting_off = False

    async def start(self):
        global _current
        await asyncio.gather(self.keeper.start(), asyncio.to_thread(resolve_own_endpoints))
        await self.rates.start()
        self.drainer.start()
        self.leases.start(is_limited=bool(self.keeper.current.spending))
        self.listener.start()
        self.alerts.start()
        self.housekeeping.start()
        # What is loaded by now stays: the collector need not look at it again, and need not look at all so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        # The drainer must not keep the event loop waiting for the interpreter's usual five milliseconds.
        sys.setswitchinterval(0.0005)
        _current = self

    def cut_off(self):
        """Say that what is cancelled from now on is cancelled because this process ends, and by nobody who asked."""
        self.is_cutting_off = True
        for call in self.asked_here.values():
            call.client_gone = False

    async def stop(self):
        """End in the order in which things depend on each other; what is not drained waits in the journal."""
        global _current
        _current = None
        await self.upstream.close()
        await self.alerts.stop()
        await asyncio.to_thread(self.housekeeping.stop)
        await self.rates.stop()
        await self.listener.stop()
        await self.keeper.stop()
        await self.leases.stop()
        self.drainer.stop()
        self.journal.close(is_returned=self.leases.close(is_settled=self.journal.is_drained))
        self.stored_responses.close()


def current() -> Runtime | None:
    """The runtime of this process; ``None`` outside the server."""
    return _current
