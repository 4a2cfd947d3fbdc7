"""
All that a request reads, in memory: keys, models, prices. Immutable, and replaced whole when the revision moves.

No request writes to it. A change in the database is seen at once where the database announces it, and else within
``POLL_INTERVAL``; a key made a moment ago is looked for at once.
"""

import asyncio
import contextlib
import datetime
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from django.db import Error, connection
from django.utils import timezone

from console.models import ApiKey, Workspace
from console.revision import current_revision
from gateway import metrics
from gateway.calls import Caller
from providers.credentials import CredentialUnreadable, Secret, unseal
from providers.endpoints import auth_headers
from providers.exchange_rates import rates_from
from providers.models import ModelRoute, ProviderAlert, ProviderModel
from providers.origins import is_private_allowed
from providers.targets import Route, Target
from usage import spending
from usage.costs import exchange_of, rates_over_time
from usage.models import Source
from usage.rate_limits import Rule, current_rules
from usage.spending import Spending

log = structlog.get_logger(__name__)

POLL_INTERVAL = 0.5
LEAST_INTERVAL = 0.05
REFRESH_TIMEOUT = 1.0
# Without the database, known keys go on for so long.
USABLE_SECONDS = 600.0
# What came in so long ago still finds the exchange rate of its moment.
EXCHANGE_RATES_BACK = datetime.timedelta(hours=1)
# Beyond this an unknown key may be one that was made meanwhile: not known is then not wrong.
CURRENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Key:
    """What a request needs of an API key; times are Unix times."""

    caller: Caller
    is_disabled: bool
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The state at one revision. ``routes`` maps each organization to the names that clients may ask for: models, oldest
    first, then aliases. ``alerting`` are the providers with an open alert. ``spending`` are the hard spend limits of
    each organization that has any, ``rates`` the limits by the minute of each scope.
    """

    revision: int
    keys: dict[bytes, Key] = field(repr=False)
    routes: dict[int, dict[str, Route]] = field(repr=False)
    alerting: frozenset[int] = frozenset()
    spending: dict[int, Spending] = field(default_factory=dict, repr=False)
    rates: dict[tuple[str, int], tuple[Rule, ...]] = field(default_factory=dict, repr=False)


class SnapshotKeeper:
    """Holds the current snapshot and keeps it current, in a thread of its own for the database."""

    def __init__(self):
        self.current = Snapshot(-1, {}, {})
        self.checked_at = float("-inf")
        self._executor = ThreadPoolExecutor(1, "snapshot")
        self._announced = asyncio.Event()
        self._refreshing: asyncio.Future | None = None
        self._task: asyncio.Task | None = None
        self._failing = False

    async def start(self):
        """Load the first snapshot; a database that is not there yet only delays it."""
        await self.refresh()
        self._task = asyncio.create_task(self._poll())

    async def stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._executor.submit(lambda: connection.close())  # this thread has another connection
        self._executor.shutdown(wait=False)

    def announced(self):
        """Look at once: somebody says that something has changed."""
        self._announced.set()

    @property
    def age(self):
        """Seconds since the snapshot was last known to be current."""
        return time.monotonic() - self.checked_at

    async def refresh(self):
        """
        Bring the snapshot up to date, or give up after ``REFRESH_TIMEOUT``; never raises.

        Callers at the same time share one question, and there are at most twenty a second.
        """
        if self._refreshing is not None:
            # It may have been asked before the change that this caller looks for.
            await asyncio.wait([self._refreshing], timeout=REFRESH_TIMEOUT)
        if self.age < LEAST_INTERVAL:
            await asyncio.sleep(LEAST_INTERVAL)
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().run_in_executor(self._executor, self._look)
            self._refreshing.add_done_callback(self._looked)
        await asyncio.wait([self._refreshing], timeout=REFRESH_TIMEOUT)

    def _looked(self, future):
        self._refreshing = None
        error = future.exception()
        if error is None:
            self.current, self.checked_at = future.result()
        if (error is not None) != self._failing:
            self._failing = error is not None
            if self._failing:
                log.error("database does not answer; known keys go on", error=str(error).strip())
            else:
                log.info("database answers again")

    def _look(self):
        asked_at = time.monotonic()
        try:
            revision = current_revision()
            return (self.current if revision == self.current.revision else load(revision)), asked_at
        except Error:
            connection.close()
            raise

    async def _poll(self):
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._announced.wait(), POLL_INTERVAL)
            self._announced.clear()
            await self.refresh()
            metrics.SNAPSHOT_AGE.set(self.age)


def load(revision):
    """Read the state of ``revision``, or a later one: in a fixed number of queries."""
    targets, routes = {}, {}
    rows = (
        ProviderModel.objects.current()
        .filter(disabled_at=None, provider__disabled_at=None)
        .select_related("provider__organization")
        .prefetch_related("prices")
        .order_by("pk")
    )
    named = ModelRoute.objects.prefetch_related("targets").order_by("pk")
    aliases = defaultdict(list)
    for route in named:
        for step in route.targets.all()[:1]:
            aliases[step.provider_model_id].append(route.name)
    exchanges = _exchanges()
    for row in rows:
        target = targets[row.pk] = _target(row, aliases[row.pk], exchanges[row.organization_id])
        routes.setdefault(row.organization_id, {})[row.public_name] = Route(row.public_name, (target,))
    for route in named:
        steps = [step for step in route.targets.all() if step.provider_model_id in targets]
        if steps:
            weights = tuple(step.weight for step in steps) if route.strategy == ModelRoute.Strategy.WEIGHTED else ()
            found = Route(route.name, tuple(targets[step.provider_model_id] for step in steps), weights)
            routes.setdefault(route.organization_id, {})[route.name] = found
    alerting = frozenset(ProviderAlert.objects.filter(resolved_at=None).values_list("provider_id", flat=True))
    return Snapshot(revision, _keys(), routes, alerting, spending.load(), current_rules())


def _keys():
    """Every key that is not revoked, by its digest."""
    workspaces = {workspace.pk: workspace for workspace in Workspace.objects.select_related("organization")}
    columns = ("digest", "pk", "workspace", "created_by", "flavour", "stores_responses", "disabled_at", "expires_at")
    found = {}
    # Plain values: there may be a hundred thousand, and every change anywhere reads them all again.
    rows = ApiKey.objects.filter(revoked_at=None).values_list(*columns)
    for digest, pk, workspace_id, user_id, flavour, stores, disabled_at, expires_at in rows:
        workspace = workspaces.get(workspace_id)
        if workspace is None:
            # It was made between the two questions; the revision has moved on, so both are asked again.
            continue
        caller = Caller(
            organization_id=workspace.organization_id,
            organization_uid=workspace.organization.uid,
            workspace_id=workspace_id,
            workspace_uid=workspace.uid,
            api_key_id=pk,
            user_id=user_id,
            source=Source.API.value,
            flavour=flavour or workspace.flavour or None,
            stores=stores and workspace.stores_responses,
        )
        found[bytes(digest)] = Key(caller, disabled_at is not None, expires_at.timestamp() if expires_at else None)
    return found


def _exchanges():
    """By organization and currency, what that is worth in the organization's own, as pairs of Unix time and rate."""
    found = defaultdict(lambda: defaultdict(list))
    for row in rates_from(timezone.now() - EXCHANGE_RATES_BACK):
        found[row.organization_id][row.from_currency].append((row.valid_from.timestamp(), exchange_of(row)))
    return found


def _target(row, aliases, exchanges):
    provider = row.provider
    preset = provider.preset
    try:
        secret: Secret | None = unseal(provider)
        is_usable = True
    except CredentialUnreadable as error:
        log.error("credential not readable", provider=provider.uid, error=str(error))
        secret, is_usable = None, False
    return Target(
        public_name=row.public_name,
        upstream_name=row.name,
        provider_model_id=row.pk,
        provider_id=provider.pk,
        provider_name=provider.name,
        kind=provider.kind,
        dialect=preset.dialect,
        adapter=preset.adapter,
        endpoints=preset.endpoints,
        base_url=provider.base_url,
        private_allowed=is_private_allowed(provider.base_url, provider.approved_private_origin),
        headers=auth_headers(preset, secret),
        credential=secret,
        is_usable=is_usable,
        model_field=preset.model_field,
        max_tokens_field=preset.max_tokens_field,
        drops=preset.drops,
        renames=preset.renames,
        takes_stream_options=preset.stream_options,
        created=int(row.created_at.timestamp()),
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=tuple(row.capabilities),
        lifecycle=row.lifecycle,
        aliases=tuple(aliases),
        renewed_at=provider.renewed_at,
        connect_timeout=provider.connect_timeout_s,
        first_byte_timeout=provider.first_byte_timeout_s,
        idle_timeout=provider.idle_timeout_s,
        prices=rates_over_time(row.prices.all(), provider.organization.currency, exchanges),
    )
