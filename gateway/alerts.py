"""Tells administrators of a provider's account in trouble: gathered as requests meet it, written once a second."""

import asyncio

import structlog
from django.db import Error, connection

from providers.alerts import raise_alert, resolve_alerts
from providers.errors import OwnAccount
from providers.models import ProviderAlert

log = structlog.get_logger(__name__)
SECONDS = 1.0


class Alerts:
    """What one process has met and not written yet. Nothing waits for it, and a database that is away delays it."""

    def __init__(self, keeper):
        self._keeper = keeper
        self._met: dict[tuple[int, str], list] = {}
        self._recovered: set[int] = set()
        self._wake = asyncio.Event()
        self._task = None

    def start(self):
        self._task = asyncio.create_task(self._run())

    async def stop(self):
        """Write what is left, once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._met or self._recovered:
            await asyncio.to_thread(self._write)

    def failed(self, target, error):
        """A provider refused the account that this server has there."""
        if isinstance(error, OwnAccount):
            kind = ProviderAlert.Kind.QUOTA if error.status in {402, 429} else ProviderAlert.Kind.CREDENTIAL
            met = self._met.setdefault((target.provider_id, str(kind)), [error.message, 0])
            met[1] += 1
            self._recovered.discard(target.provider_id)
            self._wake.set()

    def succeeded(self, target):
        """A provider answered: nothing to tell, unless it had an alert."""
        if target.provider_id in self._keeper.current.alerting and target.provider_id not in self._recovered:
            self._recovered.add(target.provider_id)
            self._wake.set()

    async def _run(self):
        while True:
            await self._wake.wait()
            await asyncio.sleep(SECONDS)
            self._wake.clear()
            await asyncio.to_thread(self._write)
            if self._met:
                self._wake.set()

    def _write(self):
        met, self._met = self._met, {}
        recovered, self._recovered = self._recovered, set()
        try:
            for provider_id in recovered - {provider_id for provider_id, _ in met}:
                resolve_alerts(provider_id=provider_id)
            for (provider_id, kind), (message, count) in met.items():
                raise_alert(provider_id=provider_id, kind=kind, message=message, count=count)
        except Error as error:
            log.warning("alerts not written yet", error=str(error).strip())
            for key, (message, count) in met.items():
                again = self._met.setdefault(key, [message, 0])
                again[1] += count
        finally:
            connection.close()
