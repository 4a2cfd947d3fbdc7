"""Responses of providers that fail, or that leave out what OpenAI's never lack."""

from types import SimpleNamespace

import msgspec
import pytest

from gateway import responses
from gateway.calls import Call
from gateway.metering import Meter
from gateway.pipeline import Exchange
from providers import formats
from providers.errors import StreamError
from providers.request_body import parse_body
from tests.providers.calls import make_target

pytestmark = pytest.mark.anyio


def test_a_response_that_failed_never_tells_the_credential():
    target = make_target("openai", "https://api.openai.com/v1", credential="sk-upstream-1234")
    call = Call(formats.responses, None, parse_body(b'{"model":"public","input":"a"}'), model="public")
    plan = SimpleNamespace(target=target, format_name="responses", has_others=False)
    meter = Meter(call, len)
    meter.ask(target, None)
    exchange = Exchange(call, plan, meter)
    body = {"status": "failed", "output": [], "error": {"message": "No account for sk-upstream-1234 here."}}

    with pytest.raises(StreamError) as failed:
        exchange._answer(msgspec.json.encode(body))

    assert failed.value.message == "No account for *** here."


async def test_items_that_a_provider_gave_no_id_are_listed_all_the_same():
    items = [{"type": "message", "id": "msg_1"}, {"type": "message"}, {"type": "message", "id": "msg_2"}]

    class Http:
        path, query = "/v1/responses/resp_1/input_items", b"limit=2&order=asc"

        async def authenticate(self, runtime):
            return SimpleNamespace(workspace_id=1)

        async def json(self, document):
            self.told = document

    async def ask(function, *values, **named):
        return [(item.get("id"), item) for item in items]

    http = Http()
    await responses.list_input_items(http, SimpleNamespace(stored_responses=SimpleNamespace(ask=ask)))

    assert http.told["data"] == items[:2]
    assert (http.told["first_id"], http.told["last_id"], http.told["has_more"]) == ("msg_1", None, True)
