import time
from types import SimpleNamespace

from prometheus_client import CollectorRegistry, generate_latest

from gateway import metrics
from gateway.journal import Journal
from gateway.metrics import Requests
from tests.gateway.records import closed, opened


def test_a_scrape_tells_outcomes_durations_and_what_is_under_way():
    requests, registry = Requests(), CollectorRegistry()
    registry.register(requests)
    requests.in_flight = 2
    requests.ended("messages", closed(duration_ms=400, overhead_us=300))
    requests.ended("messages", closed(duration_ms=50, overhead_us=None))
    requests.ended("messages", closed(outcome="refused", duration_ms=900_000))
    told = generate_latest(registry).decode()
    assert 'comptoir_requests_total{endpoint="messages",outcome="completed"} 2.0' in told
    assert 'comptoir_requests_total{endpoint="messages",outcome="refused"} 1.0' in told
    assert 'comptoir_request_seconds_bucket{endpoint="messages",le="0.05"} 1.0' in told
    assert 'comptoir_request_seconds_bucket{endpoint="messages",le="0.5"} 2.0' in told
    assert 'comptoir_request_seconds_bucket{endpoint="messages",le="+Inf"} 3.0' in told
    assert 'comptoir_request_seconds_sum{endpoint="messages"} 900.45' in told
    assert "comptoir_overhead_seconds_count 1.0" in told
    assert "comptoir_requests_in_flight 2.0" in told


def account(scope, *, lease_id=1, held=0, free=0):
    return SimpleNamespace(key=SimpleNamespace(scope=scope), lease_id=lease_id, held=held, free=free)


def test_a_scrape_tells_what_the_process_holds_at_that_moment(tmp_path):
    journal = Journal(tmp_path)
    journal.open(*opened()).close(closed())
    journal.open(*opened())
    accounts = [
        account("organization", held=5, free=100),
        account("organization", held=7),
        account("api_key", free=30),
        account("api_key", lease_id=0, held=999),
    ]
    runtime = SimpleNamespace(
        journal=journal,
        drainer=SimpleNamespace(failing_since=time.monotonic() - 60),
        keeper=SimpleNamespace(age=0.25),
        listener=SimpleNamespace(is_connected=True),
        leases=SimpleNamespace(failing=True, accounts=dict(enumerate(accounts))),
    )
    metrics.look_at(runtime)
    told = dict(line.rsplit(" ", 1) for line in generate_latest().decode().splitlines() if line[0] != "#")
    assert float(told["comptoir_journal_bytes"]) == journal.segments[0].size
    assert (told["comptoir_journal_segments"], told["comptoir_journal_open_requests"]) == ("1.0", "1.0")
    assert 60 <= float(told["comptoir_drain_failing_seconds"]) < 70
    assert (told["comptoir_ledger_failing"], told["comptoir_announcements_connected"]) == ("1.0", "1.0")
    assert told["comptoir_snapshot_age_seconds"] == "0.25"
    held = {scope: told[f'comptoir_lease_held_nanos{{scope="{scope}"}}'] for scope in ("organization", "api_key")}
    assert held == {"organization": "12.0", "api_key": "0.0"}
    assert told['comptoir_lease_free_nanos{scope="organization"}'] == "100.0"
    assert told['comptoir_lease_accounts{scope="api_key"}'] == "1.0"
    # What has ended is not told again.
    runtime.leases.accounts.clear()
    runtime.leases.failing, runtime.drainer.failing_since = False, None
    metrics.look_at(runtime)
    told = generate_latest().decode()
    assert 'comptoir_lease_held_nanos{scope="organization"} 0.0' in told
    assert "comptoir_drain_failing_seconds 0.0" in told and "comptoir_ledger_failing 0.0" in told
    journal.close()
