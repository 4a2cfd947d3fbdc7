"""What of a response passes to its caller, and what is made of it on the way."""

import json
import threading
import tracemalloc
from types import SimpleNamespace

import msgspec
import pytest

from gateway import responses, stored_responses
from gateway.errors import GatewayError
from gateway.responses import Passage
from providers.request_body import InvalidRequest
from providers.sse import EventSplitter
from tests.providers.test_responses import event, whole

MESSAGE = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hi"}]}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}


class Store:
    """Keeps what it is given, where it works."""

    def __init__(self, *, works=True):
        self.works, self.kept = works, []

    async def keep(self, **named):
        self.kept.append(named)
        return self.works


def passage(*, stores=True, previous=(), shows_reasoning=False, works=True):
    made = Passage(SimpleNamespace(stored_responses=Store(works=works)))
    made.stores, made.previous, made.shows_reasoning = stores, list(previous), shows_reasoning
    made.patches, made.input = stores or bool(previous), b'"Hello"'
    return made


async def passed(made, *chunks, stream=True):
    call = SimpleNamespace(
        id="req_01ABC",
        stream=stream,
        caller=SimpleNamespace(workspace_id=1),
        plan=SimpleNamespace(target=SimpleNamespace(provider_model_id=7)),
    )

    async def answer():
        for chunk in chunks:
            yield chunk

    return [chunk async for chunk in made.through(call, answer())]


def said(chunks):
    return [json.loads(each.data) for each in EventSplitter().feed(b"".join(chunks))]


STREAM = [
    event("response.created", sequence_number=0, response=whole(status="in_progress")),
    event("response.output_text.delta", sequence_number=1, delta='Its "response": {"id": "resp_1"} is'),
    event("response.output_item.done", sequence_number=2, item=REASONING),
    event("response.output_item.done", sequence_number=3, item=MESSAGE),
    event("response.completed", sequence_number=4, response=whole(output=[REASONING, MESSAGE])),
]


@pytest.mark.anyio
async def test_a_response_goes_out_under_the_id_that_it_is_stored_under():
    made = passage(previous=["resp_0"])
    events = said(await passed(made, *STREAM))
    for each in (events[0], events[-1]):
        told = each["response"]
        assert (told["id"], told["store"], told["previous_response_id"]) == ("resp_01ABC", True, "resp_0")
    [kept] = made.runtime.stored_responses.kept
    assert (kept["id"], kept["previous"], kept["provider_model_id"]) == ("resp_01ABC", ["resp_0"], 7)
    assert json.loads(kept["output"]) == [REASONING, MESSAGE]
    assert "output" not in json.loads(kept["response"])


@pytest.mark.anyio
async def test_what_needs_no_change_passes_byte_for_byte():
    made = passage(stores=False, shows_reasoning=True)
    assert await passed(made, *STREAM) == STREAM
    assert made.runtime.stored_responses.kept == []
    assert (await passed(passage(), *STREAM))[1] == STREAM[1]


@pytest.mark.anyio
@pytest.mark.parametrize("stores", [True, False])
async def test_encrypted_thoughts_stay_here_unless_they_were_asked_for(stores):
    chunks = await passed(passage(stores=stores), *STREAM)
    assert b"gAAAA" not in b"".join(chunks)
    assert said(chunks)[-1]["response"]["output"] == [{"type": "reasoning", "id": "rs_1", "summary": []}, MESSAGE]
    assert b"gAAAA" in b"".join(await passed(passage(stores=stores, shows_reasoning=True), *STREAM))


@pytest.mark.anyio
async def test_the_same_holds_for_a_whole_answer():
    made = passage()
    [body] = await passed(made, json.dumps(whole(output=[REASONING, MESSAGE])).encode(), stream=False)
    told = json.loads(body)
    assert (told["id"], told["store"]) == ("resp_01ABC", True)
    assert "encrypted_content" not in told["output"][0]
    assert json.loads(made.runtime.stored_responses.kept[0]["output"])[0] == REASONING


@pytest.mark.anyio
async def test_what_could_not_be_stored_is_not_said_to_be():
    events = said(await passed(passage(works=False), *STREAM))
    assert events[-1]["response"]["store"] is False


@pytest.mark.anyio
@pytest.mark.parametrize("output", [None, []])
async def test_an_answer_whose_end_is_silent_about_it_is_stored_by_its_items(output):
    made = passage()
    await passed(made, *STREAM[:-1], event("response.completed", response=whole(output=output)))
    assert json.loads(made.runtime.stored_responses.kept[0]["output"]) == [REASONING, MESSAGE]


@pytest.mark.anyio
async def test_an_answer_that_was_cut_short_is_stored_and_one_that_failed_is_not():
    made = passage()
    await passed(made, event("response.incomplete", response=whole(status="incomplete", output=[MESSAGE])))
    await passed(made, event("response.failed", response=whole(status="failed")))
    assert len(made.runtime.stored_responses.kept) == 1


@pytest.mark.anyio
async def test_several_events_in_one_chunk_keep_their_order():
    chunks = await passed(passage(), b"".join(STREAM))
    assert [each["sequence_number"] for each in said(chunks)] == [0, 1, 2, 3, 4]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "odd",
    [
        b'event: response.created\ndata: {"type":"response.created","response":null}\n\n',
        b'data: {"type":"response.created","response":[3]}\n\n',
        b'data: "response"\n\n',
        b'data: {"response"\n\n',
        b'event: "response"\n\n',
        b': "response"\n\n',
        b'data: {"type":"response.output_item.done","item":{"encrypted_content"\xff}}\n\n',
        b'data: {"type":3,"item":"\\"encrypted_content\\""}\n\n',
    ],
)
async def test_events_of_any_shape_pass_as_they_are(odd):
    assert await passed(passage(), odd) == [odd]


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"", b"[]", b'"response"', b"\xff"])
async def test_bodies_of_any_shape_pass_as_they_are(body):
    assert await passed(passage(), body, stream=False) == [body]


@pytest.mark.anyio
async def test_an_event_over_several_lines_and_without_a_name_is_understood():
    raw = b'data: {"type":"response.completed",\ndata: "response":' + msgspec.json.encode(whole()) + b"}\n\n"
    [ended] = said(await passed(passage(), raw))
    assert ended["response"]["id"] == "resp_01ABC"


@pytest.mark.anyio
async def test_a_request_is_as_large_as_all_that_it_goes_on_from(monkeypatch):
    earlier = b",".join([b'{"type":"message","role":"user","content":"' + b"a" * 1_000 + b'"}'] * 300)

    async def ask(*_):
        return ["resp_0"], earlier

    async def asked_first(*_):
        return SimpleNamespace(kind="openai-compatible", endpoints={}), 7

    monkeypatch.setattr("gateway.responses._asked_first", asked_first)
    made = Passage(SimpleNamespace(stored_responses=SimpleNamespace(ask=ask)))
    call = SimpleNamespace(
        model="public",
        caller=SimpleNamespace(workspace_id=1, stores=True),
        fields={"input": msgspec.Raw(b'"Hello"'), "previous_response_id": msgspec.Raw(b'"resp_0"')},
        size=60,
    )
    await made.prepare(call)
    assert call.size > 300_000


CALLER = SimpleNamespace(workspace_id=1)


def asking(answer):
    """A runtime whose stored responses answer so; what they were asked is in ``asked``."""
    asked = []

    async def ask(function, *values, **named):
        asked.append(values)
        return answer

    return SimpleNamespace(stored_responses=SimpleNamespace(ask=ask), asked=asked)


@pytest.mark.anyio
@pytest.mark.parametrize("own", [b'"' + b"a" * 600 + b'"', b'[{"role":"user","content":"' + b"a" * 600 + b'"}]'])
async def test_what_is_told_again_and_what_is_new_are_no_longer_together_than_a_request(monkeypatch, own):
    fields = {"input": msgspec.Raw(own), "previous_response_id": msgspec.Raw(b'"resp_0"')}
    runtime = asking((["resp_0"], b'{"role":"user","content":"' + b"b" * 600 + b'"}'))
    monkeypatch.setattr(stored_responses, "MOST_TOLD", 2_000)
    told, _own, _ids = await responses._going_on(fields, 7, CALLER, runtime)
    assert [item["content"][0] for item in json.loads(bytes(told["input"]))] == ["b", "a"]
    monkeypatch.setattr(stored_responses, "MOST_TOLD", 1_000)
    with pytest.raises(GatewayError) as raised:
        await responses._going_on(fields, 7, CALLER, runtime)
    assert raised.value.status == 413


async def named(items, found=None):
    """What becomes of an input, and which ids were looked up."""
    runtime = asking(found or {})
    own = items if isinstance(items, bytes) else msgspec.json.encode(items)
    told, own, _ids = await responses._going_on({"input": msgspec.Raw(own)}, 7, CALLER, runtime)
    assert bytes(told["input"]) == own
    return own, [ids for ids, *_others in runtime.asked]


@pytest.mark.anyio
async def test_named_items_take_their_place_and_the_others_stay_byte_for_byte():
    odd = b'{ "role": "user", "content": [{"type": "input_text", "text": "\\u0061 \\"reasoning\\"", "n": 1e999}] }'
    sealed = b'{"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"gAAAA"}'
    spoken = b'{"type":"reasoning","id":"rs_3","content":[{"type":"reasoning_text","text":"Hm"}]}'
    dark = b'{"type":"reasoning","id":"rs_4","summary":[],"encrypted_content":"","content":[ ]}'
    lost = b'{"type":"reasoning","id":"rs_5"}'
    reference = b'{"type": "item_reference", "id": "msg_1"}'
    own = b"[" + b" , ".join([odd, reference, sealed, spoken, dark, lost]) + b"]"
    told, asked = await named(own, {"msg_1": b'{"n":1}', "rs_4": b'{"n":4}'})
    assert asked == [{"msg_1", "rs_4", "rs_5"}]
    assert told == b"[" + b",".join([odd, b'{"n":1}', sealed, spoken, b'{"n":4}']) + b"]"


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 300_000])
async def test_thoughts_that_are_sent_back_whole_leave_the_input_as_it_is(size, monkeypatch):
    threads, naming = [], responses._naming
    monkeypatch.setattr(responses, "_naming", lambda asked: threads.append(threading.get_ident()) or naming(asked))
    own = b'[ {"type":"reasoning","id":"rs_2","encrypted_content":"' + b"g" * size + b'"} ]'
    assert await named(own) == (own, [])
    # Long ones are looked through where they hold nobody up.
    assert (threads == [threading.get_ident()]) == (size == 1)


@pytest.mark.anyio
async def test_an_input_of_values_that_are_no_items_is_not_built():
    own = b'["reasoning",{"type":"item_reference","id":"msg_1"}' + b",1" * 1_000_000 + b"]"
    tracemalloc.start()
    try:
        assert await named(own) == (own, [])
        assert tracemalloc.get_traced_memory()[1] < 5 * len(own)
    finally:
        tracemalloc.stop()


@pytest.mark.anyio
async def test_a_request_names_some_stored_items_and_not_thousands():
    items = [{"type": "item_reference", "id": f"msg_{number}"} for number in range(501)]
    with pytest.raises(InvalidRequest) as raised:
        await named(items)
    assert raised.value.param == "input"
    found = {item["id"]: b"{}" for item in items[1:]}
    assert (await named(items[1:] * 2, found))[0] == b"[" + b",".join([b"{}"] * 1_000) + b"]"


@pytest.mark.anyio
async def test_thoughts_are_not_looked_for_among_items_without_number():
    with pytest.raises(InvalidRequest, match="100000 items"):
        await named(b'[{"type":"reasoning","id":"rs_1"}' + b",{}" * 100_000 + b"]")


@pytest.mark.anyio
async def test_an_item_that_is_named_over_and_over_is_not_told_without_end(monkeypatch):
    monkeypatch.setattr(stored_responses, "MOST_TOLD", 10_000)
    items = [{"type": "item_reference", "id": "msg_1"}] * 100
    with pytest.raises(GatewayError) as raised:
        await named(items, {"msg_1": b'"' + b"a" * 100 + b'"'})
    assert raised.value.status == 413
