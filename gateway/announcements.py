"""Hearing what other processes announce: a connection of its own to PostgreSQL, on which nothing is asked."""

import asyncio
from collections.abc import Callable

import structlog
from django.db import connection

from console.announcements import CHANNEL

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 1.0
# A server that vanished from the network is noticed after half a minute, although nothing is ever sent to it.
KEEPALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}


class Listener:
    """
    Calls, on the event loop, who wants to know of a topic, whenever one is announced.

    Whenever it has connected it calls all of them: something may have been announced before. On other databases than
    PostgreSQL it does nothing.
    """

    def __init__(self, hearers: dict[str, Callable[[], None]]):
        self.hearers = hearers
        self.is_connected = False
        self._task: asyncio.Task | None = None

    def start(self):
        if connection.vendor == "postgresql":
            self._task = asyncio.create_task(self._run())

    async def stop(self):
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self):
        # Django has imported it by now; on SQLite nobody need wait for that.
        import psycopg

        while True:
            try:
                await self._listen(psycopg.AsyncConnection.connect)
            except psycopg.Error as error:
                if self.is_connected:
                    log.warning("announcements not heard; changes are looked for", error=str(error).strip())
            except Exception:
                # The edge of this task: were it to end here, nothing would be heard again.
                log.exception("listening failed")
            self.is_connected = False
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, connect):
        parameters = KEEPALIVE | connection.get_connection_params()
        # Those are for Django's own kind of connection.
        for name in ("cursor_factory", "context"):
            parameters.pop(name, None)
        async with await connect(**parameters, autocommit=True) as listening:
            await listening.execute(f"LISTEN {CHANNEL}")
            self.is_connected = True
            for hearer in self.hearers.values():
                hearer()
            async for notice in listening.notifies():
                if hearer := self.hearers.get(notice.payload):
                    hearer()
