"""The operations page: what the server's processes do, and whether an organization's books agree."""

import datetime
import time

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Count, Q, Sum
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from console.access import get_organization
from console.models import Organization
from gateway import runtime as runtimes
from usage import checks, deliveries, limit_alerts, processes
from usage.ledger import LEASE_SECONDS
from usage.models import GatewayProcess, SpendLease, SpendLimit, Sweep

PROCESSES = 50
ORPHANS = 50
# A process says each minute that it lives; one more may be late.
SILENT = datetime.timedelta(seconds=150)
LOST = datetime.timedelta(seconds=LEASE_SECONDS)
REDIS_SECONDS = 1


@login_required
@require_GET
def operations(request, organization_slug):
    """
    Processes, journal, stores, leases and books; htmx gets what changes.

    What is of the whole server is shown where the organization has it for itself.
    """
    organization = get_organization(request, organization_slug)
    has_server = not Organization.objects.exclude(pk=organization.pk).exists()
    context = {
        "section": "operations",
        "has_server": has_server,
        "currency": organization.currency,
        "processes": _processes(organization, has_server),
        "orphans": _orphans(organization),
    }
    if has_server:
        context |= {
            "stores": [_database(), _redis(), _mail()],
            "journal": _journal(),
            "swept_at": Sweep.objects.filter(name="alerts").values_list("swept_at", flat=True).first(),
            "waiting": sum(deliveries.count_waiting().values()),
        }
    if request.htmx:
        return render(request, "config/operations.html#state", context)
    return render(request, "config/operations.html", context | _books(organization))


@login_required
@require_GET
def operations_books(request, organization_slug):
    """The latest check of the books, as a fragment that asks again while it runs."""
    organization = get_organization(request, organization_slug)
    if not request.htmx:
        return redirect(_url(organization))
    return render(request, "config/operations.html#books", _books(organization))


@login_required
@require_POST
def operations_check(request, organization_slug):
    """Check the books, a pass over all requests of the organization, and show how far it is."""
    organization = get_organization(request, organization_slug)
    checks.start_check(organization=organization, actor=request.user)
    if not request.htmx:
        return redirect(_url(organization))
    return render(request, "config/operations.html#books", _books(organization))


def _url(organization):
    return reverse("operations", args=[organization.slug])


def _books(organization):
    check = checks.latest_check(organization)
    if check is None:
        return {"check": None}
    result = check.result or {}
    return {
        "check": check,
        "is_running": checks.is_running(check),
        "result": check.result,
        "currency": organization.currency,
        "accounts": list(result.get("cost_nanos", {}).items()),
        "differences": [
            difference
            | {
                "start": datetime.datetime.fromisoformat(difference["start"]),
                "is_money": difference["measure"].endswith("nanos"),
            }
            for difference in result.get("differences", ())
        ],
        "more": result.get("difference_count", 0) - len(result.get("differences", ())),
        "share": check.days_done / check.days if check.days else 0,
    }


def _processes(organization, has_server):
    """
    The processes that live, and the latest that ended, with what they hold of the organization's limits.

    Those that share the server with others see the processes that hold something of theirs, without their hosts.
    """
    of_organization = Q(leases__ledger_period__organization=organization)
    holds = Q(leases__remaining_nanos__gt=0) | Q(leases__remaining_nanos__lt=0)
    found = GatewayProcess.objects.annotate(
        held_nanos=Sum("leases__remaining_nanos", filter=of_organization, default=0),
        lease_count=Count("leases", filter=of_organization & holds),
    )
    if not has_server:
        found = found.filter(lease_count__gt=0)
    now, here = timezone.now(), runtimes.current()
    rows = list(found.order_by("ended_at", "-seen_at") if not has_server else _latest(found))
    takers = dict(
        GatewayProcess.objects.filter(pk__in=[row.taken_over_by for row in rows if row.taken_over_by]).values_list(
            "pk", "pid"
        )
    )
    for row in rows:
        row.is_this = here is not None and here.journal.uid == row.pk
        row.taker = takers.get(row.taken_over_by)
        row.short = row.pk[-6:]
        if row.taken_over_by:
            row.state = "taken_over"
        elif row.ended_at:
            row.state = "ended"
        elif now - row.seen_at > LOST:
            row.state = "lost"
        else:
            row.state = "silent" if now - row.seen_at > SILENT else "living"
    return rows


def _latest(found):
    """Every process that has not ended, then the latest that have, bounded."""
    living = list(found.filter(ended_at=None).order_by("-started_at")[:PROCESSES])
    return living + list(found.exclude(ended_at=None).order_by("-ended_at")[:10])


def _orphans(organization):
    """What lost processes hold of the organization's limits, each with its limit."""
    leases = SpendLease.objects.filter(
        ledger_period__organization=organization, state=SpendLease.State.ORPHANED
    ).exclude(remaining_nanos=0)
    page = Paginator(leases.select_related("ledger_period", "process").order_by("pk"), ORPHANS).page(1)
    found = {
        (limit.scope, limit.scope_id, limit.period): limit
        for limit in SpendLimit.objects.filter(
            organization=organization, scope_id__in={lease.ledger_period.scope_id for lease in page}
        )
    }
    rows = []
    subjects = limit_alerts.subjects_of(found.values())
    for lease in page:
        interval = lease.ledger_period
        lease.limit = found.get((interval.scope, interval.scope_id, interval.period))
        if lease.limit is not None:
            lease.who = limit_alerts.who(lease.limit, subjects.get((interval.scope, interval.scope_id)))
            rows.append(lease)
    return rows


def _journal():
    """The journal of the process that answers; ``None`` outside the server."""
    runtime = runtimes.current()
    if runtime is None:
        return None
    drainer, segments = runtime.drainer, tuple(runtime.journal.segments)
    now = time.monotonic()
    return {
        "segments": len(segments),
        "open": sum(segment.open_requests for segment in segments),
        "behind": drainer.bytes_behind,
        "lag_ms": (now - drainer.drained_at) * 1000,
        "failing_ms": None if drainer.failing_since is None else (now - drainer.failing_since) * 1000,
        "snapshot_ms": runtime.keeper.age * 1000,
        "ledger_fails": runtime.leases.failing,
    }


def _database():
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    milliseconds = (time.perf_counter() - began) * 1000
    version = ".".join(map(str, connection.get_database_version()))
    return {"name": f"{connection.display_name} {version}", "kind": "database", "ms": milliseconds, "state": "ok"}


def _redis():
    if not settings.REDIS_URL:
        return {"kind": "redis", "state": "none", "shares": processes.sharing()}
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=REDIS_SECONDS, socket_timeout=REDIS_SECONDS, retry=None
    )
    began = time.perf_counter()
    try:
        facts = client.info("server")
    except redis.RedisError:
        return {"kind": "redis", "state": "failed"}
    finally:
        client.close()
    milliseconds = (time.perf_counter() - began) * 1000
    name = f"Valkey {facts['valkey_version']}" if "valkey_version" in facts else f"Redis {facts.get('redis_version')}"
    return {"kind": "redis", "state": "ok", "name": name, "ms": milliseconds}


def _mail():
    return {"kind": "mail", "state": "set" if deliveries.can_mail() else "none"}
