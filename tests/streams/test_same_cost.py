"""One conversation in every dialect, whoever answers: the same tokens in the row, the same cost to the nano."""

import itertools

import httpx
import pytest

from tests.server import Server
from tests.upstream import Script
from tests.upstream.providers import credential_of

ASKED = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": ASKED}]
CALLERS = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completions": ("/v1/completions", {"prompt": ASKED}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 100}),
    "responses": ("/v1/responses", {"input": ASKED}),
    "ikalas": ("/api/v1/conversation", {"messages": MESSAGES}),
    "evolink": ("/evolink/v1/chat/completions", {"messages": MESSAGES}),
}
MODELS = ("gpt-priced", "claude-priced")
PRICED = """
from console.revision import bump_revision
from providers.models import Price
Price.objects.update(cache_read_per_mtok="0.3", cache_write_per_mtok="3.75", cache_write_1h_per_mtok="6")
bump_revision()
"""
SCRIPTS = {
    "plain": Script(chunks=6, input_tokens=121),
    "cache read": Script(chunks=6, input_tokens=121, cache_read_tokens=1027),
    "cache written": Script(chunks=6, input_tokens=121, cache_write_tokens=333),
    "all": Script(chunks=7, input_tokens=3, cache_read_tokens=64, cache_write_tokens=17, reasoning_tokens=5),
    "cut short": Script(text=("Let ", "me see."), input_tokens=55, cache_read_tokens=9, stop="length"),
}
COUNTERS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


@pytest.fixture(scope="module")
def priced(running_upstream, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("priced")) as server:
        server.add_provider(running_upstream.url, "gpt-priced", kind="openai")
        # As Claude tells it, with what was thought in the stream's last usage.
        claude = {"kind": "anthropic", "credential": credential_of("anthropic")}
        server.add_provider(running_upstream.url_of("anthropic"), "claude-priced", **claude)
        server.manage("shell", "-c", PRICED)
        server.api_key = server.create_api_key("test")
        yield server


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_conversation_costs_the_same_in_every_dialect_and_at_every_provider(case, priced, upstream):
    script = SCRIPTS[case]
    bill = script.bill(b"")
    for model in MODELS:
        upstream.play(model, script)
    headers = {"authorization": f"Bearer {priced.api_key}", "anthropic-version": "2023-06-01"}
    cost = (
        bill.input_tokens * 3000 + bill.cache_read_tokens * 300 + bill.cache_write_tokens * 3750
        + bill.output_tokens * 15000
    )  # fmt: skip
    asked = {}
    with httpx.Client(base_url=priced.base_url, headers=headers, timeout=20) as client:
        for name, model, stream in itertools.product(CALLERS, MODELS, (False, True)):
            path, body = CALLERS[name]
            answer = client.post(path, json=body | {"model": model, "stream": stream})
            assert answer.status_code == 200, answer.text
            id = answer.headers["request-id" if name == "messages" else "x-request-id"]
            asked[id] = name, model, stream
    for id, about in asked.items():
        row = priced.row(id)
        assert row["usage_source"] == "reported", about
        assert [row[name] or 0 for name in COUNTERS] == [getattr(bill, name) for name in COUNTERS], about
        assert row["cost_nanos"] == cost, about
