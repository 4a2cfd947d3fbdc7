"""What ``/metrics`` tells a machine; one scrape speaks for one process."""

from bisect import bisect_left
from collections import Counter as Counts
from time import monotonic

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from usage.models import Scope

REFUSALS = Counter("comptoir_refusals", "Calls refused before they were a request of anybody's.", ["code"])
JOURNAL_BYTES = Gauge(
    "comptoir_journal_bytes", "Size of this process's journal files that are still written or drained."
)
JOURNAL_SEGMENTS = Gauge("comptoir_journal_segments", "This process's journal files.")
JOURNAL_OPEN = Gauge("comptoir_journal_open_requests", "Requests that this process has begun and not ended.")
DRAIN_FAILING = Gauge("comptoir_drain_failing_seconds", "Since the database takes no records; 0 while it does.")
JOURNAL_DAMAGED = Counter(
    "comptoir_journal_damaged_bytes", "Bytes of dead processes' journals that were no valid frame."
)
JOURNAL_POISON = Counter("comptoir_journal_poison", "Records that the database refused for what they hold.")
TAKEN_OVER = Counter("comptoir_processes_taken_over", "Dead processes whose journals this one has drained.")
DRAINED = Counter("comptoir_records_drained", "Request rows written to the database.")
DRAIN_SECONDS = Histogram("comptoir_drain_seconds", "Time to write one batch of rows.")
DRAIN_FAILURES = Counter("comptoir_drain_failures", "Batches that the database did not take.")
DISBELIEVED = Counter(
    "comptoir_usage_disbelieved", "Counts of tokens that a provider gave and that cannot be right.", ["count"]
)
OVERRUNS = Counter("comptoir_overruns", "Requests that cost more than was held for them, whatever they were told.")
LEDGER_FAILURES = Counter("comptoir_ledger_failures", "Questions to the ledger of spending that were not answered.")
LEDGER_FAILING = Gauge("comptoir_ledger_failing", "1 while the ledger of spending does not answer.")
LEASE_ACCOUNTS = Gauge(
    "comptoir_lease_accounts", "Intervals of spend limits that this process holds something of.", ["scope"]
)
LEASE_HELD = Gauge("comptoir_lease_held_nanos", "Reserved here by requests under way.", ["scope"])
LEASE_FREE = Gauge("comptoir_lease_free_nanos", "Drawn ahead for requests to come.", ["scope"])
ANNOUNCEMENTS = Gauge("comptoir_announcements_connected", "1 while changes are heard of at once.")
RATE_REFUSALS = Counter(
    "comptoir_rate_refusals", "Requests refused by a limit by the minute, by what it counts.", ["kind"]
)
RATES_SHARED = Gauge("comptoir_rates_shared", "Whether limits by the minute are counted over all processes.")
DELIVERIES_WAITING = Gauge(
    "comptoir_deliveries_waiting", "Alerts of the whole server that wait to be sent, counted each minute.", ["kind"]
)
SNAPSHOT_AGE = Gauge("comptoir_snapshot_age_seconds", "Since keys, models and prices were last known to be current.")


class Distribution:
    """A histogram that one thread fills: without the lock of the library's, at a third of its cost."""

    def __init__(self, *bounds):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value):
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self):
        """Cumulative counts by upper bound, as Prometheus wants them."""
        sofar, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            sofar += count
            found.append((bound, sofar))
        return found


class Requests:
    """The model requests of this process, counted on its event loop; a collector of prometheus_client."""

    def __init__(self):
        self.in_flight = 0
        self.outcomes = Counts()
        self.durations = {}
        self.overhead = Distribution(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)

    def ended(self, endpoint, closed):
        """Count one request that ended; ``closed`` is the second half of its record."""
        self.outcomes[endpoint, closed.outcome] += 1
        duration = self.durations.get(endpoint)
        if duration is None:
            bounds = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
            duration = self.durations[endpoint] = Distribution(*bounds)
        duration.observe(closed.duration_ms / 1000)
        if closed.overhead_us is not None:
            self.overhead.observe(closed.overhead_us / 1_000_000)

    def collect(self):
        requests = CounterMetricFamily(
            "comptoir_requests", "Model requests that ended, by endpoint and outcome.", labels=["endpoint", "outcome"]
        )
        for labels, count in self.outcomes.items():
            requests.add_metric(labels, count)
        durations = HistogramMetricFamily(
            "comptoir_request_seconds", "From the first byte in to the last byte out.", labels=["endpoint"]
        )
        for endpoint, duration in self.durations.items():
            durations.add_metric([endpoint], duration.buckets(), duration.total)
        overhead = HistogramMetricFamily("comptoir_overhead_seconds", "Spent here before the provider was called.")
        overhead.add_metric([], self.overhead.buckets(), self.overhead.total)
        in_flight = GaugeMetricFamily("comptoir_requests_in_flight", "Model requests under way.", value=self.in_flight)
        return [requests, durations, overhead, in_flight]


REQUESTS = Requests()
REGISTRY.register(REQUESTS)


def look_at(runtime):
    """Bring the gauges up to date with what the process holds at the moment of a scrape."""
    segments = list(runtime.journal.segments)
    JOURNAL_BYTES.set(runtime.journal.bytes_waiting)
    JOURNAL_SEGMENTS.set(len(segments))
    JOURNAL_OPEN.set(sum(segment.open_requests for segment in segments))
    failing_since = runtime.drainer.failing_since
    DRAIN_FAILING.set(0 if failing_since is None else monotonic() - failing_since)
    SNAPSHOT_AGE.set(runtime.keeper.age)
    ANNOUNCEMENTS.set(runtime.listener.is_connected)
    LEDGER_FAILING.set(runtime.leases.failing)
    accounts = [account for account in runtime.leases.accounts.values() if account.lease_id]
    for scope in Scope.values:
        of_scope = [account for account in accounts if account.key.scope == scope]
        LEASE_ACCOUNTS.labels(scope).set(len(of_scope))
        LEASE_HELD.labels(scope).set(sum(account.held for account in of_scope))
        LEASE_FREE.labels(scope).set(sum(account.free for account in of_scope))
