"""Tells administrators of a provider's account in trouble: gathered as requests meet it, written once a second."""

import asyncio
import time

import structlog
from django.db import Error, connection

from providers.alerts import raise_alert, resolve_alerts
from providers.errors import OwnAccount
from providers.models import ProviderAlert

log = structlog.get_logger(__name__)
SECONDS = 1.0
# A model that was forbidden so long ago is not waited for any more.
FORBIDDEN_SECONDS = 600.0


class Alerts:
    """What one process has met and not written yet. Nothing waits for it, and a database that is away delays it."""

    def __init__(self, keeper):
        self._keeper = keeper
        # Each is of an account: a provider's, as it was renewed last.
        self._met: dict[tuple, list] = {}
        self._recovered: set[tuple] = set()
        # A provider may forbid one model and answer for the others: which, and since when.
        self._forbidden: dict[tuple, dict[int, float]] = {}
        self._wake = asyncio.Event()
        self._task = None

    def start(self):
        self._task = asyncio.create_task(self._run())

    async def stop(self):
        """Write what is left, once."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._met or self._recovered:
            await self._write()

    def failed(self, target, error):
        """A provider refused the account that this server has there."""
        if isinstance(error, OwnAccount):
            account = _account(target)
            if error.status == 403:
                self._forbidden.setdefault(account, {})[target.provider_model_id] = time.monotonic()
            kind = ProviderAlert.Kind.QUOTA if error.status in {402, 429} else ProviderAlert.Kind.CREDENTIAL
            self._meet((account, str(kind)), error.message, 1)
            self._recovered.discard(account)

    def succeeded(self, target):
        """A provider answered: nothing to tell, unless it had an alert."""
        if target.provider_id not in self._keeper.current.alerting:
            return
        account = _account(target)
        if account in self._recovered:
            return
        forbidden = self._forbidden.get(account, {})
        forbidden.pop(target.provider_model_id, None)
        since = time.monotonic() - FORBIDDEN_SECONDS
        if not any(moment > since for moment in forbidden.values()):
            self._forbidden.pop(account, None)
            self._recovered.add(account)
            self._wake.set()

    def _meet(self, key, message, count):
        met = self._met.setdefault(key, [message, 0])
        met[0], met[1] = message, met[1] + count
        self._wake.set()

    async def _run(self):
        while True:
            await self._wake.wait()
            await asyncio.sleep(SECONDS)
            self._wake.clear()
            await self._write()

    async def _write(self):
        met, self._met = self._met, {}
        recovered, self._recovered = self._recovered - {account for account, _ in met}, set()
        await asyncio.to_thread(_write, met, recovered)
        # What could not be written is left in there.
        for key, (message, count) in met.items():
            self._meet(key, message, count)


def _account(target):
    """What an alert is about: with another credential a provider's account is another one."""
    return target.provider_id, target.renewed_at


def _write(met, recovered):
    """Write alerts, taking out of ``met`` what is written. Those that have recovered would be noticed again."""
    try:
        for provider_id, renewed_at in recovered:
            resolve_alerts(provider_id=provider_id, renewed_at=renewed_at)
        for key, (message, count) in list(met.items()):
            (provider_id, renewed_at), kind = key
            raise_alert(provider_id=provider_id, renewed_at=renewed_at, kind=kind, message=message, count=count)
            del met[key]
    except Error as error:
        log.warning("alerts not written yet", error=str(error).strip())
    finally:
        connection.close()
