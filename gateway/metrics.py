"""What ``/metrics`` tells a machine; one scrape speaks for one process."""

import functools

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("comptoir_requests", "Model requests that ended, by endpoint and outcome.", ["endpoint", "outcome"])
REFUSALS = Counter("comptoir_refusals", "Calls refused before they were a request of anybody's.", ["code"])
IN_FLIGHT = Gauge("comptoir_requests_in_flight", "Model requests under way.")
DURATION = Histogram(
    "comptoir_request_seconds",
    "From the first byte in to the last byte out.",
    ["endpoint"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
OVERHEAD = Histogram(
    "comptoir_overhead_seconds",
    "Spent here before the provider was called.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1),
)
JOURNAL_BYTES = Gauge(
    "comptoir_journal_bytes", "Size of this process's journal files that are still written or drained."
)
JOURNAL_DAMAGED = Counter(
    "comptoir_journal_damaged_bytes", "Bytes of dead processes' journals that were no valid frame."
)
JOURNAL_POISON = Counter("comptoir_journal_poison", "Records that the database refused for what they hold.")
DRAINED = Counter("comptoir_records_drained", "Request rows written to the database.")
DRAIN_SECONDS = Histogram("comptoir_drain_seconds", "Time to write one batch of rows.")
DRAIN_FAILURES = Counter("comptoir_drain_failures", "Batches that the database did not take.")
SNAPSHOT_AGE = Gauge("comptoir_snapshot_age_seconds", "Since keys, models and prices were last known to be current.")


def ended(endpoint, closed):
    """Count one request that ended; ``closed`` is the second half of its record."""
    requests, duration = _series(endpoint, closed.outcome)
    requests.inc()
    duration.observe(closed.duration_ms / 1000)
    if closed.overhead_us is not None:
        OVERHEAD.observe(closed.overhead_us / 1_000_000)


@functools.cache
def _series(endpoint, outcome):
    return REQUESTS.labels(endpoint, outcome), DURATION.labels(endpoint)
