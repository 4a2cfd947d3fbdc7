"""What is left of a request whose process dies while another target than the first is being asked."""

import asyncio
import contextlib
from types import SimpleNamespace

import msgspec
import pytest

from gateway.admission import Admission
from gateway.calls import Call, Caller
from gateway.health import Health
from gateway.journal import Journal, SegmentReader
from gateway.pipeline import complete
from gateway.routing import Router
from providers.formats import chat_completions
from providers.targets import Route
from tests.gateway.test_routing import target
from usage.costs import Rates

CALLER = Caller(1, "org_1", 1, "wrkspc_1", 1, 1, "api")


class Upstream:
    """A provider that does not listen, and one that never answers."""

    def __init__(self):
        self.is_asked = asyncio.Event()

    def session_for(self, base_url, private_allowed):
        return self

    async def post(self, url, **request):
        if url.host == "down.example":
            raise ConnectionRefusedError
        self.is_asked.set()
        await asyncio.Event().wait()


@pytest.mark.anyio
async def test_the_record_names_the_target_that_was_being_asked(tmp_path):
    rates = [Rates(price, 0, 0, 0, 0, 0) for price in (11, 22)]
    targets = (
        target(1, base_url="https://down.example/v1", prices=((0.0, rates[0]),)),
        target(2, base_url="https://silent.example/v1", prices=((0.0, rates[1]),)),
    )
    keeper = SimpleNamespace(current=SimpleNamespace(routes={1: {"fast": Route("fast", targets)}}, spending={}))
    alerts = SimpleNamespace(succeeded=lambda target: None, failed=lambda target, error: None)
    router, journal = Router(keeper, Health(), alerts), Journal(tmp_path)
    admission = Admission(keeper, None)
    runtime = SimpleNamespace(router=router, journal=journal, upstream=Upstream(), admission=admission)
    fields = {"messages": msgspec.Raw(b'[{"role":"user","content":"Hello there"}]')}
    call = Call(chat_completions, CALLER, fields, model="fast", stream=True)

    async def answer():
        async with contextlib.aclosing(complete(call, runtime)) as chunks:
            async for _chunk in chunks:
                pass

    asking = asyncio.create_task(answer())
    await asyncio.wait_for(runtime.upstream.is_asked.wait(), 5)
    (record,) = SegmentReader(journal.segments[0].path).rest()
    asking.cancel()
    await asyncio.wait({asking})
    journal.close()

    assert (record.opened.provider_id, record.opened.price_id) == (1, 11)
    closed = record.closed
    assert (closed.outcome, closed.attempts) == ("interrupted", 2)
    assert (closed.provider_id, closed.provider_model_id, closed.price_id) == (2, 2, 22)
    assert closed.upstream_model == "model-2"
    assert closed.input_tokens == record.opened.input_estimate > 0
