"""The network does as it is told: every test of an outage rests on it."""

import time

import httpx
import pytest

from tests.tcp_proxy import TcpProxy
from tests.upstream import Script


@pytest.fixture
def proxy(upstream):
    with TcpProxy(upstream.port, seed=1) as proxy:
        yield proxy


def models(proxy, timeout=5.0):
    return httpx.get(f"http://127.0.0.1:{proxy.port}/v1/models", timeout=timeout).status_code


def test_it_passes_on_refuses_and_comes_back(proxy):
    assert models(proxy) == 200
    with proxy.refused, pytest.raises(httpx.ConnectError):
        models(proxy)
    assert models(proxy) == 200


def test_a_black_hole_answers_nothing_and_its_connections_are_lost(proxy, upstream):
    with httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}", timeout=0.3) as client:
        assert client.get("/v1/models").status_code == 200
        asked = upstream.received
        with proxy.black_holed:
            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    client.get("/v1/models")
        assert upstream.received == asked
        assert client.get("/v1/models").status_code == 200


def test_what_is_held_back_arrives_when_it_is_passed_on(proxy, upstream):
    with proxy.frozen, pytest.raises(httpx.ReadTimeout):
        models(proxy, timeout=0.3)
    proxy.slow_down(0.1)
    began = time.monotonic()
    assert models(proxy) == 200
    assert time.monotonic() - began > 0.2


def test_connections_are_cut_at_the_same_bytes_for_the_same_seed(upstream):
    def lengths():
        with TcpProxy(upstream.port, seed=7) as proxy:
            proxy.cut_between(300, 1500)
            return [length(proxy) for _ in range(5)]

    def length(proxy):
        body = {"model": "long", "stream": True, "messages": []}
        received = 0
        with pytest.raises(httpx.TransportError), httpx.stream(
            "POST", f"http://127.0.0.1:{proxy.port}/v1/chat/completions", json=body
        ) as answer:  # fmt: skip
            for part in answer.iter_raw():
                received += len(part)
        return received

    upstream.play("long", Script(chunks=50, headers=(("id", "same"),)))
    first = lengths()
    assert first == lengths()
    assert len(set(first)) > 1
    assert max(first) < 1500
