from prometheus_client import CollectorRegistry, generate_latest

from gateway.metrics import Requests
from tests.gateway.records import closed


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
