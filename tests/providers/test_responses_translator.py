"""Responses in the terms of a conversation: requests, answers and streams, both ways."""

import json
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from providers.conversation import (
    ArgumentsPiece,
    Audio,
    Conversation,
    Document,
    Image,
    OutputFormat,
    RedactedPiece,
    Refusal,
    RefusalPiece,
    Reply,
    SignaturePiece,
    StopPiece,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
    Tool,
    ToolCall,
    ToolCallPiece,
    ToolChoice,
    ToolResult,
    Turn,
)
from providers.formats import responses as wire
from providers.request_body import InvalidRequest, parse_body
from providers.sse import EventSplitter
from providers.tokens import TokenUsage
from providers.translators import responses
from tests.providers.test_responses import Meter, event, whole

EVENTS = TypeAdapter(ResponseStreamEvent)
TARGET = SimpleNamespace(upstream_name="m-1", public_name="m", max_output_tokens=None)
WEATHER = {"type": "function", "name": "weather", "description": "Look.", "parameters": {"type": "object"}}


def fields(**body):
    return parse_body(json.dumps({"model": "m", "input": "Hello"} | body).encode())


def read(**body):
    return responses.read_request(fields(**body))


def refused(**body):
    with pytest.raises(InvalidRequest) as raised:
        read(**body)
    return raised.value


def turns(items):
    return [(turn.role, turn.parts) for turn in read(input=items).turns]


# Requests of callers ---------------------------------------------------------------------------------------------


def test_a_text_is_what_the_user_says_after_the_instructions():
    conversation = read(instructions="Be brief.", stream=True)
    assert conversation.turns == [
        Turn("system", [Text("Be brief.")], "instructions"),
        Turn("user", [Text("Hello")], "input"),
    ]
    assert (conversation.model, conversation.stream, conversation.dropped()) == ("m", True, [])


def test_messages_of_every_role_become_turns():
    assert turns(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "Hi"}, {"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "And?"},
        ]
    ) == [
        ("system", [Text("Be brief.")]),
        ("user", [Text("Hello")]),
        ("assistant", [Text("Hi"), Refusal("No.")]),
        ("user", [Text("And?")]),
    ]  # fmt: skip


def test_images_files_and_sound_become_parts():
    parts = [
        {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_image", "file_id": "file-1", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="},
        {"type": "input_file", "filename": "a.pdf", "file_data": "aGk="},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "input_file", "file_id": "file-2"},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]
    assert turns([{"role": "user", "content": parts}])[0][1] == [
        Image("image/png", "aGk=", detail="low"),
        Image(url="https://example.org/a.png"),
        Image(file_id="file-1", detail="auto"),
        Document("application/pdf", "aGk=", name="a.pdf"),
        Document("application/pdf", "aGk=", name="a.pdf"),
        Document(url="https://example.org/a.pdf"),
        Document(file_id="file-2"),
        Audio("aGk=", "wav"),
    ]


def test_what_the_model_does_in_a_row_is_one_turn_and_so_are_the_results():
    assert turns(
        [
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'},
            {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": ""},
            {"type": "function_call_output", "call_id": "call_1", "output": "Rain"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "Sun"}]},
            {"role": "user", "content": "So?"},
        ]
    ) == [
        ("user", [Text("Weather?")]),
        (
            "assistant",
            [
                Thinking("Hm."),
                Text("I look."),
                ToolCall("call_1", "weather", '{"city":"Paris"}'),
                ToolCall("call_2", "weather", ""),
            ],
        ),
        ("user", [ToolResult("call_1", [Text("Rain")]), ToolResult("call_2", [Text("Sun")])]),
        ("user", [Text("So?")]),
    ]


def test_thoughts_come_back_to_who_had_them_and_are_dropped_where_nobody_can_read_them():
    conversation = read(
        input=[
            {"role": "user", "content": "Hello"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}],
             "encrypted_content": "signed-thinking.abc"},
            {"type": "reasoning", "summary": [], "encrypted_content": "hidden-thinking.xyz"},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAopaque"},
            {"role": "assistant", "content": "Hi"},
        ]
    )  # fmt: skip
    assert conversation.turns[1].parts == [Thinking("Hm.", "abc"), Thinking(redacted="xyz"), Text("Hi")]
    assert conversation.dropped() == ["input.reasoning"]


def test_options_have_neutral_names_and_what_nobody_takes_is_said_as_the_caller_spelled_it():
    conversation = read(
        max_output_tokens=9,
        temperature=0.5,
        reasoning={"effort": "high", "summary": "auto"},
        text={"verbosity": "low"},
        parallel_tool_calls=False,
        truncation="auto",
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        metadata={"a": "b"},
        store=True,
        user="u",
    )
    assert conversation.options == {
        "max_tokens": 9,
        "temperature": 0.5,
        "reasoning_effort": "high",
        "verbosity": "low",
        "parallel_tool_calls": False,
        "user": "u",
    }
    assert conversation.dropped() == [
        "include", "max_output_tokens", "parallel_tool_calls", "reasoning.effort", "reasoning.summary", "temperature",
        "text.verbosity", "truncation", "user",
    ]  # fmt: skip


def test_tools_and_the_choice_among_them():
    conversation = read(tools=[WEATHER, {"type": "function", "name": "clock", "strict": True}], tool_choice="required")
    assert conversation.tools == [
        Tool("weather", "Look.", {"type": "object"}, None),
        Tool("clock", None, None, True),
    ]
    assert conversation.tool_choice == ToolChoice("required")
    named = read(tools=[WEATHER], tool_choice={"type": "function", "name": "weather"})
    assert named.tool_choice == ToolChoice("named", "weather")


def test_tools_that_are_not_allowed_this_time_are_left_out():
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]}
    conversation = read(tools=[WEATHER, {"type": "function", "name": "clock"}], tool_choice=allowed)
    assert [tool.name for tool in conversation.tools] == ["clock"]
    assert conversation.tool_choice == ToolChoice("auto")


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat("json")),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            OutputFormat("schema", {"type": "object"}, "n", True),
        ),
    ],
)
def test_the_form_of_the_answer(format, expected):
    assert read(text={"format": format}).output_format == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [WEATHER, {"type": "mcp", "server_label": "x"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": "plain"}, "text"),
        ({"reasoning": "high"}, "reasoning"),
        ({"input": []}, "input"),
        ({"input": ["Hello"]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]}]},
         "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0]"),
        ({"input": [{"role": "system", "content": "Be brief."}]}, "input"),
    ],
)  # fmt: skip
def test_what_another_format_cannot_say_is_refused_by_name(body, param):
    error = refused(**body)
    assert error.param == param
    assert str(error)


def test_a_tool_of_the_providers_own_is_named_in_the_refusal():
    error = refused(tools=[{"type": "web_search"}])
    assert "web_search" in str(error)
    assert "tools[0]" in str(error)


# Requests to providers -------------------------------------------------------------------------------------------


def written(conversation):
    return responses.write_request(conversation, TARGET)


def test_a_conversation_is_written_whole():
    conversation = Conversation(
        model="m",
        stream=True,
        turns=[
            Turn("system", [Text("Be brief.")], "system"),
            Turn(
                "user", [Text("Look"), Image("image/png", "aGk="), Document("application/pdf", "aGk=")], "messages[0]"
            ),
            Turn("assistant", [Text("I look."), ToolCall("call_1", "weather", "")], "messages[1]"),
            Turn("user", [ToolResult("call_1", [Text("Rain")]), Text("So?")], "messages[2]"),
        ],
        tools=[Tool("weather", "Look.", {"type": "object"})],
        tool_choice=ToolChoice("named", "weather"),
        output_format=OutputFormat("schema", {"type": "object"}, "n", True),
        options={"max_tokens": 9, "temperature": 0.5, "reasoning_effort": "low", "verbosity": "low", "seed": 3, "n": 1},
    )
    assert written(conversation) == {
        "model": "m-1",
        "stream": True,
        "store": False,
        "instructions": "Be brief.",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGk="},
                    {
                        "type": "input_file",
                        "filename": "document.pdf",
                        "file_data": "data:application/pdf;base64,aGk=",
                    },
                ],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "Rain"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "So?"}]},
        ],
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Look.",
                "parameters": {"type": "object"},
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            "verbosity": "low",
        },
        "max_output_tokens": 9,
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
    }
    assert conversation.dropped() == ["seed"]


@pytest.mark.parametrize("options", [{"stop": ["END"]}, {"n": 2}])
def test_what_cannot_be_dropped_without_another_meaning_is_refused(options):
    [name] = options
    conversation = Conversation("m", [Turn("user", [Text("Hello")], "messages[0]")], options=options)
    with pytest.raises(InvalidRequest) as raised:
        written(conversation)
    assert raised.value.param == name


def test_a_request_read_and_written_again_says_the_same():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "Rain"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "So?"}]},
    ]
    body = written(read(input=items, instructions="Be brief.", max_output_tokens=5, tools=[WEATHER]))
    assert body["input"] == items
    assert (body["instructions"], body["max_output_tokens"]) == ("Be brief.", 5)
    assert body["tools"] == [WEATHER | {"strict": False}]


def test_thoughts_that_are_none_of_this_providers_do_not_go_on():
    proof = "encrypted-reasoning.rs_1.gAAAA"
    conversation = Conversation(
        "m",
        [
            Turn("user", [Text("Hello")], "messages[0]"),
            Turn("assistant", [Thinking("Hm.", proof), Thinking("Oh.", "other"), Text("Hi")], "messages[1]"),
            Turn("user", [Text("So?")], "messages[2]"),
        ],
    )
    assert written(conversation)["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAAA",
    }
    assert len(written(conversation)["input"]) == 4
    assert conversation.dropped() == ["thinking"]


# Answers of providers --------------------------------------------------------------------------------------------

REASONING = {
    "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}],
    "encrypted_content": "gAAAA",
}  # fmt: skip
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "content": [{"type": "output_text", "text": "Héllo"}, {"type": "refusal", "refusal": "No."}],
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"a":1}'}
PIECES = [
    ThinkingPiece("Hm."),
    SignaturePiece("encrypted-reasoning.rs_1.gAAAA"),
    TextPiece("Héllo"),
    RefusalPiece("No."),
    ToolCallPiece(2, "call_1", "weather"),
    ArgumentsPiece(2, '{"a":1}'),
    StopPiece("tools"),
]
STREAM = [
    event("response.created", response=whole(status="in_progress")),
    event("response.output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": []}),
    event("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta="Hm."),
    event("response.output_item.done", output_index=0, item=REASONING),
    event("response.output_item.added", output_index=1, item={"type": "message", "id": "msg_1", "content": []}),
    event("response.output_text.delta", output_index=1, content_index=0, delta="Hé"),
    event("response.output_text.delta", output_index=1, content_index=0, delta="llo"),
    event("response.refusal.delta", output_index=1, content_index=1, delta="No."),
    event("response.output_item.done", output_index=1, item=MESSAGE),
    event("response.output_item.added", output_index=2, item=CALL | {"arguments": ""}),
    event("response.function_call_arguments.delta", output_index=2, delta='{"a"'),
    event("response.function_call_arguments.delta", output_index=2, delta=":1}"),
    event("response.output_item.done", output_index=2, item=CALL),
    event("response.completed", response=whole(output=[REASONING, MESSAGE, CALL])),
]


def merged(pieces):
    """Pieces with neighbours of the same text joined."""
    joined = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            hasattr(piece, "text")
            and type(last) is type(piece)
            and getattr(last, "index", 0) == getattr(piece, "index", 0)
        ):
            last.text += piece.text
        else:
            joined.append(msgspec.structs.replace(piece))
    return joined


def pieces_of(chunks):
    splitter, reader, pieces = EventSplitter(), wire.StreamReader(Meter()), responses.AnswerReader()
    found = []
    for chunk in chunks:
        for each in splitter.feed(chunk):
            _raw, said = reader.saw(each)
            if said is not None:
                found += pieces.feed(said)
    return merged([*found, *pieces.finish()])


def test_a_whole_answer_is_read_into_pieces():
    body = json.dumps(whole(output=[REASONING, MESSAGE, CALL])).encode()
    assert responses.read_answer(wire.read_answer(body, Meter())) == PIECES


@pytest.mark.parametrize("piece", [1, 5, 100, 10_000])
def test_a_stream_is_read_into_the_same_pieces(piece):
    raw = b"".join(STREAM)
    assert pieces_of(raw[at : at + piece] for at in range(0, len(raw), piece)) == PIECES


def test_a_stream_without_deltas_is_read_from_its_items():
    assert pieces_of([each for each in STREAM if b".delta" not in each and b".added" not in each]) == PIECES


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ({"status": "completed"}, "end"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
    ],
)
def test_why_an_answer_ended(ending, reason):
    assert responses.read_answer(wire.read_answer(json.dumps(whole(**ending)).encode(), Meter()))[-1].reason == reason
    kind = f"response.{ending['status']}"
    assert pieces_of([event(kind, response=whole(**ending))]) == [StopPiece(reason)]


# Answers to callers ----------------------------------------------------------------------------------------------


def reply(body=None, reported=None):
    meter = Meter()
    meter.requested_model, meter.reported = "m", reported or TokenUsage(15, 10, 5, None, 9, 4)
    meter.told = lambda: meter.reported
    asked = fields(**(body or {}))
    return Reply("req_01ABC", 1_760_000_000, meter, asked, True, responses.read_request(asked))


def events_of(raw):
    return [json.loads(each.data) for each in EventSplitter().feed(raw)]


def streamed(pieces, **options):
    writer = responses.AnswerWriter(reply(**options))
    return b"".join([*(writer.feed([piece]) for piece in pieces), writer.finish()])


def test_text_is_streamed_in_the_order_that_clients_expect():
    events = events_of(streamed([TextPiece("Hé"), TextPiece("llo"), StopPiece("end")]))
    assert [each["type"] for each in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [each["sequence_number"] for each in events] == list(range(10))
    assert events[0]["response"]["status"] == "in_progress"
    assert events[2]["item"] == {
        "id": "msg_01ABC0", "type": "message", "status": "in_progress", "role": "assistant", "content": [],
    }  # fmt: skip
    assert events[4] == {
        "type": "response.output_text.delta", "sequence_number": 4, "item_id": "msg_01ABC0", "output_index": 0,
        "content_index": 0, "delta": "Hé", "logprobs": [],
    }  # fmt: skip
    assert events[6]["text"] == events[7]["part"]["text"] == "Héllo"
    assert events[8]["item"] == events[9]["response"]["output"][0]
    response = events[9]["response"]
    assert (response["id"], response["status"], response["error"]) == ("resp_01ABC", "completed", None)
    assert response["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 39,
    }


ANSWERS = [
    [StopPiece("end")],
    PIECES,
    [TextPiece("a"), ThinkingPiece("b"), TextPiece("c"), StopPiece("length")],
    [RedactedPiece("xyz"), ThinkingPiece("b"), SignaturePiece("s"), ThinkingPiece("c"), StopPiece("end")],
    [ToolCallPiece(0, "c0", "f"), ToolCallPiece(1, "c1", "g"), ArgumentsPiece(1, "{"), ArgumentsPiece(0, "{}"),
     ArgumentsPiece(1, "}"), StopPiece("tools")],
    [ToolCallPiece(7, "c0", "f"), ArgumentsPiece(7, "{}"), TextPiece("after"),
     RefusalPiece("no"), TextPiece("again"), StopPiece("filter")],
]  # fmt: skip


@pytest.mark.parametrize("pieces", ANSWERS)
def test_every_event_is_one_that_the_official_library_takes_strictly(pieces):
    state = ResponseStreamState(text_format=omit, input_tools=[])
    for each in EventSplitter().feed(streamed(pieces)):
        said = json.loads(each.data)
        assert each.name.decode() == said["type"]
        state.handle_event(EVENTS.validate_python(said, strict=False))
    ended = said["response"]
    Response.model_validate(ended)
    assert said["type"] == f"response.{ended['status']}"


@pytest.mark.parametrize("pieces", ANSWERS)
def test_a_whole_answer_is_what_the_stream_of_it_ends_with(pieces):
    whole_answer = json.loads(responses.write_answer(pieces, reply()))
    ended = events_of(streamed(pieces))[-1]["response"]
    assert whole_answer | {"completed_at": None} == ended | {"completed_at": None}
    assert responses.write_answer(pieces, reply()).startswith(b'{"id":"resp_01ABC","object":"response"')


@pytest.mark.parametrize("pieces", ANSWERS)
def test_an_answer_written_and_read_again_says_the_same(pieces):
    once = pieces_of([streamed(pieces)])
    said = [piece for piece in merged(pieces) if not isinstance(piece, SignaturePiece | RedactedPiece | StopPiece)]
    texts = "".join(piece.text for piece in said if hasattr(piece, "text"))
    again = [piece for piece in once if hasattr(piece, "text")]
    assert sorted("".join(piece.text for piece in again)) == sorted(texts)
    calls = [(piece.id, piece.name) for piece in once if isinstance(piece, ToolCallPiece)]
    assert calls == [(piece.id, piece.name) for piece in pieces if isinstance(piece, ToolCallPiece)]


def test_calls_whose_arguments_come_mixed_are_told_apart():
    output = events_of(streamed(ANSWERS[4]))[-1]["response"]["output"]
    assert [(item["id"], item["call_id"], item["name"], item["arguments"], item["status"]) for item in output] == [
        ("fc_01ABC0", "c0", "f", "{}", "completed"),
        ("fc_01ABC1", "c1", "g", "{}", "completed"),
    ]


def test_a_call_without_arguments_has_an_empty_object_of_them():
    events = events_of(streamed([ToolCallPiece(0, "c0", "f"), StopPiece("tools")]))
    [done] = [each for each in events if each["type"] == "response.function_call_arguments.done"]
    assert done["arguments"] == events[-1]["response"]["output"][0]["arguments"] == "{}"


def test_thoughts_become_an_item_that_keeps_their_proof():
    output = events_of(streamed(ANSWERS[3]))[-1]["response"]["output"]
    assert [(item["summary"], item.get("encrypted_content")) for item in output] == [
        ([], "hidden-thinking.xyz"),
        ([{"type": "summary_text", "text": "b"}], "signed-thinking.s"),
        ([{"type": "summary_text", "text": "c"}], None),
    ]
    again = read(input=[{"role": "user", "content": "Hello"}, *output])
    assert again.turns[1].parts == [Thinking(redacted="xyz"), Thinking("b", "s"), Thinking("c")]


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("filter", "content_filter")])
def test_an_answer_that_was_cut_short_is_incomplete(reason, told):
    last = events_of(streamed([TextPiece("Hé"), StopPiece(reason)]))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": told}
    assert last["response"]["completed_at"] is None
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_response_repeats_what_its_request_said():
    asked = {
        "instructions": "Be brief.",
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "user": "u",
    }
    told = json.loads(responses.write_answer([StopPiece("end")], reply(asked | {"text": {"verbosity": "low"}})))
    assert {name: told[name] for name in asked} == asked
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    silent = json.loads(responses.write_answer([StopPiece("end")], reply({"temperature": None})))
    assert (silent["temperature"], silent["top_p"], silent["tools"], silent["metadata"]) == (1.0, 1.0, [], {})
    assert silent["text"] == {"format": {"type": "text"}}


def test_an_answer_tells_the_usage_that_is_recorded():
    told = json.loads(responses.write_answer([TextPiece("a")], reply(reported=TokenUsage(3, output_tokens=77))))
    assert told["usage"]["output_tokens"] == 77
    assert told["usage"]["total_tokens"] == 80


WORDS = st.text(max_size=4)
ANY_PIECE = st.one_of(
    st.builds(TextPiece, WORDS),
    st.builds(RefusalPiece, WORDS),
    st.builds(ThinkingPiece, WORDS),
    st.builds(SignaturePiece, WORDS),
    st.builds(RedactedPiece, WORDS),
    st.builds(lambda index: ToolCallPiece(index, f"call_{index}", "f"), st.integers(0, 3)),
    st.builds(ArgumentsPiece, st.integers(0, 3), WORDS),
)


@settings(max_examples=50)
@given(st.lists(ANY_PIECE, max_size=12), st.sampled_from(["end", "length", "tools", "filter", "pause"]))
def test_pieces_in_any_order_make_a_stream_that_adds_up(pieces, reason):
    state = ResponseStreamState(text_format=omit, input_tools=[])
    said, items = {}, {}
    for number, each in enumerate(events_of(streamed([*pieces, StopPiece(reason)]))):
        assert each["sequence_number"] == number
        state.handle_event(EVENTS.validate_python(each))
        if "delta" in each:
            said[each["item_id"]] = said.get(each["item_id"], "") + each["delta"]
        elif each["type"] == "response.output_item.done":
            items[each["output_index"]] = each["item"]
    output = each["response"]["output"]
    assert output == [items[index] for index in range(len(output))]
    assert len({item["id"] for item in output}) == len(output)
    for item in output:
        parts = item.get("content") or item.get("summary") or []
        whole_text = "".join(part.get("text", part.get("refusal")) for part in parts) + item.get("arguments", "")
        assert whole_text.removesuffix("{}" if item["id"] not in said else "") == said.get(item["id"], "")


@given(st.data())
def test_a_mutated_stream_never_crashes_and_invents_no_text(data):
    raw = bytearray(b"".join(STREAM))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        pieces = pieces_of([bytes(raw)])
    except wire.StreamError:
        return
    for each in EventSplitter().feed(streamed(pieces)):
        json.loads(each.data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "id", "output", "format", "schema", "summary"]),
            inner | st.sampled_from(["message", "function_call", "reasoning", "input_text", "user", "function"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "truncation", "metadata",
             "parallel_tool_calls", "max_output_tokens", "conversation", "background"]
        ),
        ANYTHING,
    )
)  # fmt: skip
def test_requests_of_any_shape_are_read_or_refused(body):
    try:
        conversation = read(**body)
        written(conversation)
    except InvalidRequest as error:
        assert str(error)
