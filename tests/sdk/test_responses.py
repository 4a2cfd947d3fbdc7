"""Responses through the official OpenAI library, in front of three kinds of provider."""

import contextlib
import json
import sqlite3
from importlib.util import find_spec

import httpx
import openai
import pydantic
import pytest

from tests.upstream import Script
from tests.upstream.providers import credential_of
from tests.upstream.scripts import ToolCall

# One that has responses itself, one of chat completions alone, and one of another dialect.
MODELS = ["native-test", "chat-test", "claude-test"]
every_upstream = pytest.mark.parametrize("model", MODELS)
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CALL = ToolCall("call_1", "weather", '{"city":"Paris"}')


@pytest.fixture(scope="module")
def responses_server(shared_server, running_upstream):
    for kind, model in (("openai", "native-test"), ("ektos", "chat-test")):
        url, credential = running_upstream.url_of(kind), credential_of(kind)
        shared_server.add_provider(url, model, kind=kind, name=f"responses {kind}", credential=credential)
    return shared_server


@pytest.fixture
def client(responses_server, upstream):
    with openai.OpenAI(
        base_url=f"{responses_server.base_url}/v1", api_key=responses_server.api_key, max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def foreign_key(responses_server):
    """A key of another workspace."""
    responses_server.manage(
        "shell",
        "-c",
        "from console.models import Organization, Workspace; Workspace.objects.create("
        "organization=Organization.objects.get(slug='default'), slug='elsewhere', name='Elsewhere')",
    )
    return responses_server.create_api_key("of a stranger", workspace="elsewhere")


@every_upstream
def test_a_response_answers_with_usage(client, upstream, model):
    answer = client.responses.create(model=model, input="Hello id=sdk", instructions="Be brief.", max_output_tokens=50)
    assert (answer.object, answer.status, answer.model, answer.error) == ("response", "completed", model, None)
    assert answer.output_text == "token " * 8
    assert answer.id.startswith("resp_")
    assert (answer.instructions, answer.max_output_tokens, answer.store) == ("Be brief.", 50, True)
    (bill,) = upstream.ledger["sdk"]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (bill.input_tokens, 8)
    assert answer.usage.total_tokens == bill.input_tokens + 8
    assert answer._request_id == answer.id.replace("resp_", "req_")


@every_upstream
def test_a_response_streams(client, upstream, model):
    with client.responses.stream(model=model, input="Hello id=sdk") as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == deltas[-1].snapshot == final.output_text == "token " * 8
    assert [event.type for event in events][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.type for event in events][-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert {event.response.id for event in events if hasattr(event, "response")} == {final.id}
    assert final.usage.output_tokens == 8


@every_upstream
def test_an_answer_that_was_cut_short_is_incomplete(client, upstream, model):
    upstream.play(model, Script(stop="length"))
    answer = client.responses.create(model=model, input="Hello", max_output_tokens=8)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    with client.responses.stream(model=model, input="Hello") as stream:
        assert [event.type for event in stream][-1] == "response.incomplete"


@every_upstream
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_is_called_and_its_result_answered(client, upstream, model, streams):
    upstream.play(model, Script(tools=(CALL,)), Script(text=("Rain.",)))
    if streams:
        with client.responses.stream(model=model, input="Weather?", tools=[WEATHER]) as stream:
            events = list(stream)
            asked = stream.get_final_response()
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert "".join(pieces) == '{"city":"Paris"}'
    else:
        asked = client.responses.create(model=model, input="Weather?", tools=[WEATHER])
    [call] = asked.output
    assert (call.type, call.name, call.call_id) == ("function_call", "weather", "call_1")
    assert json.loads(call.arguments) == {"city": "Paris"}
    answer = client.responses.create(
        model=model,
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        tools=[WEATHER],
    )
    assert answer.output_text == "Rain."
    assert answer.previous_response_id == asked.id
    told = upstream.calls[-1].body.decode()
    assert told.index("Weather?") < told.index("Paris") < told.rindex("rain")


@every_upstream
def test_an_answer_in_a_given_form_is_parsed(client, upstream, model):
    class City(pydantic.BaseModel):
        name: str

    upstream.play(model, Script(text=('{"name":', '"Paris"}')))
    answer = client.responses.parse(model=model, input="A city.", text_format=City)
    assert answer.output_parsed == City(name="Paris")
    assert b'"name"' in upstream.calls[-1].body
    assert b"schema" in upstream.calls[-1].body


@every_upstream
def test_a_stored_response_is_read_gone_on_from_and_deleted(client, upstream, model):
    first = client.responses.create(model=model, input="My name is Alice.", metadata={"a": "b"})
    assert client.responses.retrieve(first.id) == first
    second = client.responses.create(model=model, input="What is my name?", previous_response_id=first.id)
    told = upstream.calls[-1].body.decode()
    assert told.index("My name is Alice.") < told.index("token token") < told.index("What is my name?")
    assert first.id not in told
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as raised:
        client.responses.retrieve(first.id)
    assert raised.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=model, input="And now?", previous_response_id=second.id)
    assert (raised.value.code, raised.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_conversation_goes_on_with_another_provider(client, upstream):
    upstream.play("claude-test", Script(tools=(CALL,)))
    first = client.responses.create(model="native-test", input="Hello 1")
    second = client.responses.create(
        model="claude-test", input="Hello 2", previous_response_id=first.id, tools=[WEATHER]
    )
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    client.responses.create(model="chat-test", input=[result], previous_response_id=second.id, tools=[WEATHER])
    roles = [message["role"] for message in upstream.calls[-1].json["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "tool"]


def test_a_provider_that_has_responses_is_asked_to_store_nothing(client, upstream):
    first = client.responses.create(model="native-test", input="Hello")
    client.responses.create(model="native-test", input="So?", previous_response_id=first.id)
    sent = upstream.calls[-1].json
    assert sent["store"] is False
    assert "previous_response_id" not in sent
    assert [item["role"] for item in sent["input"]] == ["user", "assistant", "user"]
    assert all("id" not in item for item in sent["input"])


def test_a_response_that_is_not_to_be_stored_is_not(client):
    answer = client.responses.create(model="native-test", input="Hello", store=False)
    assert answer.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)


@pytest.fixture(scope="module")
def discreet_key(responses_server):
    """A key that stores nothing."""
    return responses_server.create_api_key("discreet", "--no-store")


@every_upstream
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("asked", [{}, {"store": True}, {"store": None}, {"store": False}], ids=str)
def test_where_it_is_forbidden_nothing_is_stored_whatever_is_asked(
    client, responses_server, discreet_key, upstream, model, streams, asked
):
    before = responses_server.query("SELECT COUNT(*) AS n FROM usage_storedresponse")
    discreet = client.with_options(api_key=discreet_key)
    if streams:
        with discreet.responses.stream(model=model, input="Hello", extra_body=asked) as stream:
            events = list(stream)
        assert {event.response.store for event in events if hasattr(event, "response")} == {False}
        answer = events[-1].response
    else:
        answer = discreet.responses.create(model=model, input="Hello", extra_body=asked)
    assert (answer.output_text, answer.store) == ("token " * 8, False)
    # No provider is asked to store it either.
    assert json.loads(upstream.calls[-1].body).get("store") in ((False,) if model == "native-test" else (None, False))
    with pytest.raises(openai.NotFoundError):
        discreet.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError) as refused:
        discreet.responses.create(model=model, input="And?", previous_response_id=answer.id)
    assert refused.value.code == "previous_response_not_found"
    assert responses_server.query("SELECT COUNT(*) AS n FROM usage_storedresponse") == before


def test_what_was_stored_before_can_be_gone_on_from_without_storing_more(client, discreet_key, upstream):
    first = client.responses.create(model="native-test", input="My name is Alice.")
    discreet = client.with_options(api_key=discreet_key)
    answer = discreet.responses.create(model="native-test", input="What is it?", previous_response_id=first.id)
    assert b"My name is Alice." in upstream.calls[-1].body
    assert (answer.store, answer.previous_response_id) == (False, first.id)
    with pytest.raises(openai.NotFoundError):
        discreet.responses.retrieve(answer.id)
    assert discreet.responses.retrieve(first.id) == first


def test_a_chat_completion_is_stored_by_no_provider_where_that_is_forbidden(client, discreet_key, upstream):
    discreet = client.with_options(api_key=discreet_key)
    for each, told in ((client, True), (discreet, False)):
        each.chat.completions.create(model="native-test", messages=[{"role": "user", "content": "Hi"}], store=True)
        assert json.loads(upstream.calls[-1].body)["store"] is told
    discreet.chat.completions.create(model="native-test", messages=[{"role": "user", "content": "Hi"}])
    assert "store" not in json.loads(upstream.calls[-1].body)


@pytest.mark.parametrize("streams", [False, True])
def test_reasoning_survives_without_the_caller_seeing_what_it_did_not_ask_for(client, upstream, streams):
    upstream.play("native-test", Script(reasoning=("Hm, ", "well.")))
    request = {"model": "native-test", "input": "Hello", "reasoning": {"effort": "low"}}
    if streams:
        with client.responses.stream(**request) as stream:
            events = list(stream)
            first = stream.get_final_response()
        assert "gAAAA" not in repr(events)
    else:
        first = client.responses.create(**request)
    assert first.output[0].type == "reasoning"
    assert first.output[0].encrypted_content is None
    assert client.responses.retrieve(first.id).output[0].encrypted_content is None
    seen = client.responses.retrieve(first.id, include=["reasoning.encrypted_content"])
    assert seen.output[0].encrypted_content.startswith("gAAAA")
    client.responses.create(model="native-test", input="So?", previous_response_id=first.id)
    assert upstream.calls[-1].json["input"][1] == {
        "type": "reasoning",
        "id": "rs_scripted",
        "summary": [{"type": "summary_text", "text": "Hm, well."}],
        "encrypted_content": seen.output[0].encrypted_content,
    }
    # To another provider it would be noise.
    client.responses.create(model="chat-test", input="So?", previous_response_id=first.id)
    assert b"gAAAA" not in upstream.calls[-1].body


def test_encrypted_reasoning_is_there_for_who_asks(client, upstream):
    upstream.play("native-test", Script(reasoning=("Hm.",)))
    answer = client.responses.create(
        model="native-test", input="Hello", include=["reasoning.encrypted_content"], store=False
    )
    assert answer.output[0].encrypted_content.startswith("gAAAA")


def test_thoughts_of_another_dialect_go_back_to_it_signed(client, upstream):
    upstream.play("claude-test", Script(reasoning=("Hm.",), tools=(CALL,)), Script())
    first = client.responses.create(model="claude-test", input="Weather?", tools=[WEATHER])
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    client.responses.create(model="claude-test", input=[result], previous_response_id=first.id, tools=[WEATHER])
    [thinking, called] = upstream.calls[-1].json["messages"][1]["content"]
    assert (thinking["type"], thinking["thinking"], called["type"]) == ("thinking", "Hm.", "tool_use")
    assert thinking["signature"]


def test_items_are_named_instead_of_repeated(client, upstream):
    first = client.responses.create(model="native-test", input="Hello")
    reference = {"type": "item_reference", "id": first.output[0].id}
    client.responses.create(
        model="native-test", input=[{"role": "user", "content": "Hello"}, reference, {"role": "user", "content": "So?"}]
    )
    said = upstream.calls[-1].json["input"][1]
    assert (said["role"], said["content"][0]["text"]) == ("assistant", "token " * 8)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="native-test", input=[reference | {"id": "msg_unknown"}])
    assert raised.value.code == "item_not_found"


def test_a_history_that_the_caller_keeps_may_hold_reasoning_by_name_alone(client, upstream):
    upstream.play("native-test", Script(reasoning=("Hm.",)))
    first = client.responses.create(model="native-test", input="Hello", reasoning={"effort": "low"})
    history = [{"role": "user", "content": "Hello"}, *first.output, {"role": "user", "content": "So?"}]
    client.responses.create(model="native-test", input=history)
    sent = upstream.calls[-1].json["input"]
    assert [item["type"] for item in sent[1:3]] == ["reasoning", "message"]
    assert sent[1]["encrypted_content"].startswith("gAAAA")
    for unknown in ({"id": "rs_unknown", "type": "reasoning", "summary": []}, first.output[0]):
        client.responses.create(model="gpt-test", input=[history[0], unknown, history[-1]])
        assert [item["content"] for item in upstream.calls[-1].json["input"]] == ["Hello", "So?"]


def test_a_reference_is_listed_as_what_it_stands_for(client, upstream):
    first = client.responses.create(model="native-test", input="Hello")
    reference = {"type": "item_reference", "id": first.output[0].id}
    second = client.responses.create(model="native-test", input=[reference, {"role": "user", "content": "So?"}])
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.content[0].text for item in items] == ["token " * 8, "So?"]
    client.responses.create(model="native-test", input="And?", previous_response_id=second.id)
    assert b"item_reference" not in upstream.calls[-1].body


def test_input_items_are_listed_in_pages(client, upstream):
    first = client.responses.create(model="native-test", input="One")
    second = client.responses.create(model="native-test", input="Two", previous_response_id=first.id)
    page = client.responses.input_items.list(second.id, limit=2, order="asc")
    assert page.has_more
    texts = [item.content[0].text for item in page.data]
    assert texts == ["One", "token " * 8]
    everything = list(client.responses.input_items.list(second.id, limit=1))
    assert [item.content[0].text for item in everything] == ["Two", "token " * 8, "One"]
    for options in ({"limit": 0}, {"limit": 101}, {"order": "sideways"}, {"after": "msg_unknown"}):
        with pytest.raises(openai.BadRequestError):
            client.responses.input_items.list(second.id, **options)


@every_upstream
@pytest.mark.skipif(not find_spec("openai.resources.responses.input_tokens"), reason="this version has no word for it")
def test_input_tokens_are_counted(client, upstream, model):
    counted = client.responses.input_tokens.count(
        model=model, input="Hello there, how are you?", instructions="Be brief."
    )
    assert counted.object == "response.input_tokens"
    assert 5 <= counted.input_tokens <= 60
    more = client.responses.input_tokens.count(model=model, input="Hello there, how are you? " * 50)
    assert more.input_tokens > counted.input_tokens * 5
    assert upstream.calls == []
    asked = [request for request in upstream.requests if request.endpoint == "responses/input_tokens"]
    assert len(asked) == (2 if model == "native-test" else 0)


def test_a_complete_response_cannot_be_cancelled(client):
    answer = client.responses.create(model="native-test", input="Hello")
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(answer.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_unknown")


def test_a_response_cannot_be_made_in_the_background(client, upstream):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="native-test", input="Hello", background=True)
    assert raised.value.param == "background"
    assert upstream.calls == []


@every_upstream
def test_a_failure_in_mid_stream_is_told_in_order(client, upstream, model):
    upstream.play(model, Script(error_after=3))
    events = list(client.responses.create(model=model, input="Hello", stream=True))
    assert events[-1].type == "error"
    assert "broke" in events[-1].message
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(events[0].response.id)


@pytest.mark.parametrize("model", ["chat-test", "claude-test"])
def test_tools_that_only_their_maker_runs_are_refused_by_name(client, upstream, model):
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=model, input="Hello", tools=[{"type": "web_search"}])
    assert "web_search" in raised.value.message
    assert upstream.calls == []


def test_what_is_not_there_and_what_is_not_ones_own_look_the_same(client, responses_server, foreign_key):
    own = client.responses.create(model="native-test", input="Hello")
    answers = [
        httpx.request(method, f"{responses_server.base_url}/v1/responses/{id}{path}",
                      headers={"authorization": f"Bearer {foreign_key}"})
        for id in (own.id, "resp_unknown", "x" * 300, "resp_%00")
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items"))
    ]  # fmt: skip
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
    with openai.OpenAI(base_url=f"{responses_server.base_url}/v1", api_key=foreign_key, max_retries=0) as stranger:
        for request in (
            {"input": "So?", "previous_response_id": own.id},
            {"input": [{"type": "item_reference", "id": own.output[0].id}]},
        ):
            with pytest.raises(openai.BadRequestError):
                stranger.responses.create(model="native-test", **request)
    assert client.responses.retrieve(own.id) == own


def test_an_answer_goes_out_though_it_cannot_be_stored(client, responses_server, upstream):
    with contextlib.closing(sqlite3.connect(responses_server.sqlite_path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        answer = client.responses.create(model="native-test", input="Hello")
        rival.execute("ROLLBACK")
    assert (answer.output_text, answer.store) == ("token " * 8, False)
    assert any("response not stored" in line and answer.id in line for line in responses_server.log.splitlines())


def test_numbers_that_nobody_can_hold_do_no_harm(client, responses_server, upstream):
    headers = {"authorization": f"Bearer {responses_server.api_key}"}
    item = '{"type":"message","role":"user","content":[{"type":"input_text","text":"item_reference","n":1e999}]}'
    body = '{"model":"native-test","input":[' + item + "]}"
    answer = httpx.post(f"{responses_server.base_url}/v1/responses", content=body, headers=headers)
    assert (answer.status_code, answer.json()["store"]) == (200, True)
    listed = httpx.get(f"{responses_server.base_url}/v1/responses/{answer.json()['id']}/input_items", headers=headers)
    assert b'"n":1e999' in listed.content
    again = httpx.post(
        f"{responses_server.base_url}/v1/responses",
        json={"model": "native-test", "input": "And?", "previous_response_id": answer.json()["id"]},
        headers=headers,
    )
    assert again.status_code == 200


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_stream_cut_anywhere_is_the_same_stream(client, upstream, newline):
    upstream.play("native-test", Script(piece=41, text=("Hé", "llo ", "🙂"), newline=newline))
    with client.responses.stream(model="native-test", input="Hello") as stream:
        final = stream.get_final_response()
    assert final.output_text == "Héllo 🙂"
    assert client.responses.retrieve(final.id).output_text == "Héllo 🙂"
