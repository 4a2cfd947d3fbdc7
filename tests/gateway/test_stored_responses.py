"""What is stored of responses: for whom, for how long, and in which form it is told again."""

import asyncio
import datetime
import json
import random
import string
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from gateway import stored_responses
from gateway.errors import GatewayError
from gateway.stored_responses import StoredResponses
from tests import factories
from usage import stored_responses as records
from usage.models import StoredItem, StoredResponse

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
SEARCH = {"type": "web_search_call", "id": "ws_1"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA", "status": None}


def said(text, id="msg_a"):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def kept(id, workspace, *, input="Hello", output=None, previous=(), provider_model_id=1, shows_reasoning=False):
    """What the gateway has of a response, to be stored."""
    return {
        "id": id,
        "workspace_id": workspace.pk,
        "previous": list(previous),
        "provider_model_id": provider_model_id,
        "shows_reasoning": shows_reasoning,
        "input": json.dumps(input).encode(),
        "output": json.dumps([said(f"Answer of {id}", f"msg_{id}")] if output is None else output).encode(),
        "response": json.dumps({"id": id, "object": "response"}).encode(),
    }


def keep(id, workspace, **fields):
    records.keep([stored_responses._kept(**kept(id, workspace, **fields))])


def plain(value):
    """What a caller gets of raw JSON."""
    return json.loads(msgspec.json.encode(value))


def listed(asked):
    return json.loads(stored_responses.listed(asked)[1])


def told_again(item, *, is_own):
    told = stored_responses.told_again(msgspec.json.encode(item), is_own=is_own)
    return told and json.loads(told)


def context(id, workspace_id, provider_model_id):
    ids, items = stored_responses.context(id, workspace_id, provider_model_id)
    return ids, json.loads(b"[" + items + b"]")


def named_items(ids, workspace_id, provider_model_id):
    found = stored_responses.named_items(ids, workspace_id, provider_model_id)
    return {id: told and json.loads(told) for id, told in found.items()}


def document(*values, **named):
    return plain(stored_responses.document(*values, **named))


def input_items(*values, **named):
    return [plain(item) for _id, item in stored_responses.input_items(*values, **named)]


def texts(items):
    return [item["content"][0]["text"] for item in items]


# Items -----------------------------------------------------------------------------------------------------------


def test_a_plain_text_is_listed_as_a_message_of_the_user():
    [item] = listed(b'"Hello"')
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hello"}],
    }


def test_items_are_listed_with_ids_and_parts():
    items = listed(
        json.dumps(
            [
                {"role": "assistant", "content": "Hi"},
                {"id": "msg_own", "role": "user", "content": [{"type": "input_text", "text": "Look"}]},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
                "no item",
            ]
        ).encode()
    )
    assert items[0]["content"] == [{"type": "output_text", "text": "Hi", "annotations": []}]
    assert items[1]["id"] == "msg_own"
    assert items[2]["id"].startswith("item_")
    assert items[3] == "no item"
    assert len({item["id"] for item in items[:3]}) == 3


@pytest.mark.parametrize(
    ("item", "is_own", "told"),
    [
        (
            said("Hi") | {"phase": None},
            False,
            {"type": "message", "role": "assistant", "content": said("Hi")["content"]},
        ),
        (CALL | {"id": "fc_1", "status": "completed"}, False, CALL),
        (REASONING, True, {name: REASONING[name] for name in ("type", "id", "summary", "encrypted_content")}),
        (REASONING, False, None),
        (REASONING | {"encrypted_content": None}, True, None),
        (SEARCH | {"status": "completed"}, True, SEARCH),
        (SEARCH, False, None),
        ("no item", True, None),
    ],
)
def test_how_an_item_is_told_again(item, is_own, told):
    assert told_again(item, is_own=is_own) == told


# The database ----------------------------------------------------------------------------------------------------


def test_a_conversation_is_told_from_its_beginning(workspace, django_assert_max_num_queries):
    keep("resp_1", workspace, input="One")
    keep("resp_2", workspace, input="Two", previous=["resp_1"])
    keep("resp_3", workspace, input="Three", previous=["resp_1", "resp_2"])
    keep("resp_branch", workspace, input="Elsewhere", previous=["resp_1"])
    with django_assert_max_num_queries(3):
        ids, items = context("resp_3", workspace.pk, 1)
    assert ids == ["resp_1", "resp_2", "resp_3"]
    assert texts(items) == ["One", "Answer of resp_1", "Two", "Answer of resp_2", "Three", "Answer of resp_3"]
    assert [item["role"] for item in items] == ["user", "assistant"] * 3
    assert not any("id" in item for item in items)
    assert texts(context("resp_branch", workspace.pk, 1)[1])[2:] == ["Elsewhere", "Answer of resp_branch"]


def test_thoughts_go_to_who_had_them_alone(workspace):
    keep("resp_1", workspace, output=[REASONING, said("Hi")], provider_model_id=7)
    assert [item["type"] for item in context("resp_1", workspace.pk, 7)[1]] == ["message", "reasoning", "message"]
    assert [item["type"] for item in context("resp_1", workspace.pk, 8)[1]] == ["message", "message"]


def test_a_conversation_that_lost_a_part_cannot_go_on(workspace):
    keep("resp_1", workspace)
    keep("resp_2", workspace, previous=["resp_1"])
    keep("resp_3", workspace, previous=["resp_1", "resp_2"])
    records.delete("resp_2", workspace.pk)
    with pytest.raises(StoredResponse.DoesNotExist):
        context("resp_3", workspace.pk, 1)
    assert document("resp_3", workspace.pk)["id"] == "resp_3"
    assert context("resp_1", workspace.pk, 1)[0] == ["resp_1"]


def test_a_deleted_response_leaves_nothing(workspace):
    keep("resp_1", workspace)
    assert StoredItem.objects.count() == 2
    records.delete("resp_1", workspace.pk)
    assert (StoredResponse.objects.count(), StoredItem.objects.count()) == (0, 0)


def test_encrypted_thoughts_are_shown_to_who_asked(workspace):
    keep("resp_1", workspace, output=[REASONING])
    keep("resp_2", workspace, output=[REASONING], shows_reasoning=True)
    assert "encrypted_content" not in document("resp_1", workspace.pk)["output"][0]
    assert document("resp_1", workspace.pk, with_proofs=True)["output"][0]["encrypted_content"] == "gAAAA"
    assert document("resp_2", workspace.pk)["output"][0]["encrypted_content"] == "gAAAA"
    keep("resp_3", workspace, previous=["resp_1"])
    assert "encrypted_content" not in input_items("resp_3", workspace.pk)[1]


def test_items_are_found_under_their_ids(workspace):
    keep("resp_1", workspace, input=[{"id": "msg_mine", "role": "user", "content": "One"}])
    found = named_items({"msg_mine", "msg_resp_1", "msg_unknown"}, workspace.pk, 1)
    assert {id: texts([item]) for id, item in found.items()} == {
        "msg_mine": ["One"],
        "msg_resp_1": ["Answer of resp_1"],
    }


def test_a_stranger_finds_nothing(workspace, charlie):
    keep("resp_1", workspace, input=[{"id": "msg_mine", "role": "user", "content": "One"}])
    theirs = charlie.last_workspace.pk
    for function in (document, input_items, records.delete, lambda *which: records.path_to(*which, 10**6)):
        with pytest.raises(StoredResponse.DoesNotExist):
            function("resp_1", theirs)
    assert named_items({"msg_mine"}, theirs, 1) == {}
    assert document("resp_1", workspace.pk)


@pytest.mark.parametrize("id", ["", "resp_unknown", "x" * 65, "resp_\0", "respé"])
def test_ids_of_any_shape_are_just_not_there(workspace, id):
    with pytest.raises(StoredResponse.DoesNotExist):
        document(id, workspace.pk)


def age(id, **gone):
    StoredResponse.objects.filter(pk=id).update(expires_at=timezone.now() - datetime.timedelta(**gone))


def test_what_has_expired_is_not_there_and_soon_gone(workspace, monkeypatch):
    monkeypatch.setattr(records, "DELETED_AT_ONCE", 2)
    for number in range(5):
        keep(f"resp_{number}", workspace)
        age(f"resp_{number}", seconds=1)
    keep("resp_new", workspace)
    with pytest.raises(StoredResponse.DoesNotExist):
        document("resp_1", workspace.pk)
    assert named_items({"msg_resp_1"}, workspace.pk, 1) == {}
    assert records.delete_expired() == 5
    assert list(StoredResponse.objects.values_list("pk", flat=True)) == ["resp_new"]
    assert StoredItem.objects.count() == 2


def test_a_conversation_lives_as_long_as_it_goes_on(workspace):
    keep("resp_1", workspace)
    StoredResponse.objects.update(expires_at=timezone.now() + datetime.timedelta(days=1))
    keep("resp_2", workspace, previous=["resp_1"])
    assert StoredResponse.objects.get(pk="resp_1").expires_at == StoredResponse.objects.get(pk="resp_2").expires_at
    assert StoredResponse.objects.get(pk="resp_2").expires_at > timezone.now() + datetime.timedelta(days=29)


def test_a_workspace_takes_its_responses_with_it(workspace):
    keep("resp_1", workspace)
    keep("resp_2", factories.make_workspace(organization=workspace.organization))
    workspace.delete()
    assert list(StoredResponse.objects.values_list("pk", flat=True)) == ["resp_2"]


def test_ids_too_long_to_be_named_do_not_hinder(workspace):
    keep("resp_1", workspace, output=[said("Hi", "msg_" + "x" * 400), {"type": "odd"}])
    assert texts(document("resp_1", workspace.pk)["output"][:1]) == ["Hi"]


def test_a_conversation_that_has_grown_too_long_does_not_go_on(workspace, monkeypatch):
    monkeypatch.setattr(stored_responses, "MOST_TOLD", 20_000)
    monkeypatch.setattr(stored_responses, "MOST_LISTED", 40_000)
    unpacked, unpack = [], records.unpacked
    monkeypatch.setattr(records, "unpacked", lambda *which: unpacked.append(unpack(*which)) or unpacked[-1])
    # Next to nothing once it is compressed.
    for number in range(6):
        keep(f"resp_{number}", workspace, input="a" * 9_000, previous=[f"resp_{n}" for n in range(number)])
    assert len(context("resp_1", workspace.pk, 1)[1]) == 4
    unpacked.clear()
    with pytest.raises(records.TooLarge):
        context("resp_5", workspace.pk, 1)
    assert sum(map(len, unpacked)) <= 20_000
    assert len(input_items("resp_3", workspace.pk)) == 7
    with pytest.raises(records.TooLarge):
        input_items("resp_5", workspace.pk)


def test_no_content_is_read_of_a_conversation_that_is_too_long_as_it_is_stored(workspace):
    keep("resp_1", workspace, input=random_text(5_000))
    keep("resp_2", workspace, input=random_text(5_000), previous=["resp_1"])
    for read in (
        lambda most: records.path_to("resp_2", workspace.pk, most),
        lambda most: records.holding({"msg_resp_1", "msg_resp_2"}, workspace.pk, most),
    ):
        assert len(read(20_000)) == 2
        with CaptureQueriesContext(connection) as queries, pytest.raises(records.TooLarge):
            read(6_000)
        assert not [query for query in queries if '"input",' in query["sql"]]


def random_text(length):
    return "".join(random.Random(length).choices(string.ascii_letters, k=length))


def test_of_an_id_that_is_used_again_the_newest_response_alone_is_read(workspace, django_assert_num_queries):
    for number in range(5):
        keep(f"resp_{9 - number}", workspace, input=[{"id": "msg_1", "role": "user", "content": f"Said {number}"}])
    keep("resp_a", factories.make_workspace(), input=[{"id": "msg_1", "role": "user", "content": "Elsewhere"}])
    with django_assert_num_queries(3):
        [(response, ids)] = records.holding({"msg_1"}, workspace.pk, 10**6).items()
    assert (response.pk, ids) == ("resp_5", {"msg_1"})
    assert texts(named_items({"msg_1"}, workspace.pk, 1).values()) == ["Said 4"]


def test_ids_that_no_database_could_hold_are_just_not_there(workspace):
    assert named_items({"msg_\0", "x" * 201}, workspace.pk, 1) == {}


def test_an_input_that_grows_past_all_bounds_in_being_listed_is_not_stored():
    with pytest.raises(records.TooLarge):
        stored_responses.listed(b"[" + b",".join([b"{}"] * 100) + b"]", most=5_000)


# The event loop --------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(monkeypatch):
    # One thread, so that it is the one that was asked before.
    monkeypatch.setattr(stored_responses, "READERS", 1)
    stored = StoredResponses()
    yield stored
    stored.close()


def away(*values, **named):
    raise OperationalError("no database")


@pytest.mark.anyio
async def test_a_database_that_is_away_is_said_to_be(stored):
    with pytest.raises(GatewayError) as raised:
        await stored.ask(away)
    assert (raised.value.status, raised.value.code) == (503, "not_ready")


@pytest.mark.anyio
@pytest.mark.django_db(transaction=True)
async def test_a_connection_that_was_lost_meanwhile_is_made_anew(stored):
    failures = [OperationalError("server closed the connection")]

    def flaky():
        if failures:
            raise failures.pop()
        return StoredResponse.objects.count()

    await stored.ask(lambda: connection.ensure_connection())
    try:
        assert await stored.ask(flaky) == 0
        failures += [OperationalError("gone"), OperationalError("still gone")]
        with pytest.raises(GatewayError):
            await stored.ask(flaky)
    finally:
        await stored.ask(lambda: connection.close())


@pytest.mark.anyio
async def test_a_database_that_is_silent_is_not_waited_for_long(stored):
    began = time.monotonic()
    with pytest.raises(GatewayError):
        await stored.ask(time.sleep, 0.5, seconds=0.05)
    assert time.monotonic() - began < 0.4


@pytest.mark.anyio
async def test_a_line_that_is_full_turns_away_at_once(monkeypatch):
    monkeypatch.setattr(stored_responses, "MOST_WAITING", 2)
    stored, silence = StoredResponses(), threading.Event()
    waiting = [asyncio.create_task(stored.ask(silence.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(GatewayError):
        await stored.ask(time.time)
    assert time.monotonic() - began < 1
    silence.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await stored.ask(time.time)
    stored.close()


@pytest.mark.anyio
async def test_what_waits_to_be_stored_is_bounded_by_its_size_too(monkeypatch):
    monkeypatch.setattr(stored_responses, "MOST_BYTES_WAITING", 5_000)
    monkeypatch.setattr(records, "keep", lambda each: None)
    stored, silence, workspace = StoredResponses(), threading.Event(), SimpleNamespace(pk=1)
    stored._writer.submit(silence.wait)
    waiting = [asyncio.create_task(stored.keep(**kept(f"resp_{n}", workspace, input="a" * 2_000))) for n in range(3)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting.pop(), 1) is False
    silence.set()
    assert await asyncio.gather(*waiting) == [True, True]
    # What is larger than all that may wait is stored where nothing else waits.
    assert await stored.keep(**kept("resp_large", workspace, input="a" * 9_000)) is True
    assert (stored._waiting, stored._bytes_waiting) == (0, 0)
    stored.close()


@pytest.mark.anyio
async def test_too_much_is_said_to_be(stored):
    def find():
        raise records.TooLarge

    with pytest.raises(GatewayError) as raised:
        await stored.ask(find)
    assert (raised.value.status, raised.value.code) == (413, "request_too_large")
    assert "too long" in raised.value.message


@pytest.mark.anyio
async def test_an_answer_that_cannot_be_stored_is_none_the_worse(stored, monkeypatch):
    monkeypatch.setattr(records, "keep", away)
    workspace = SimpleNamespace(pk=1)
    assert await stored.keep(**kept("resp_1", workspace)) is False
    assert await stored.keep(**kept("resp_1", workspace) | {"input": b'[{"n":}]'}) is False
    assert (stored._waiting, stored._bytes_waiting) == (0, 0)


@pytest.mark.anyio
@pytest.mark.django_db(transaction=True)
async def test_all_that_wait_are_written_together_and_what_is_wrong_hinders_nobody(stored, monkeypatch, workspace):
    sizes, write = [], records.keep
    monkeypatch.setattr(records, "keep", lambda each: (sizes.append(len(each)), write(each)))
    held = threading.Event()
    stored._writer.submit(held.wait)
    waiting = [asyncio.create_task(stored.keep(**kept(f"resp_{n}", workspace))) for n in range(5)]
    # One of a workspace that has gone meanwhile.
    waiting.append(asyncio.create_task(stored.keep(**kept("resp_5", SimpleNamespace(pk=10**6)))))
    await asyncio.sleep(0)
    held.set()
    assert await asyncio.gather(*waiting) == [True] * 5 + [False]
    assert sizes[0] == 6
    assert await stored.ask(lambda: StoredResponse.objects.count()) == 5
    await stored.ask(lambda: connection.close())
    await asyncio.wrap_future(stored._writer.submit(lambda: connection.close()))
