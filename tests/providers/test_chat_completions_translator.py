"""Chat completions in the terms of a conversation: requests and answers, read and written, plain and streamed."""

import base64
import json
import re

import pytest

from providers import translators
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
from providers.formats import chat_completions as format
from providers.request_body import InvalidRequest
from providers.tokens import TokenUsage
from providers.translators import chat_completions as chat
from tests.providers.exchange import Seen, data, documents, raw, reply_for, retold, target

HELLO = {"model": "public", "messages": [{"role": "user", "content": "Hello"}]}
PIXEL = "iVBORw0KGgo="
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time"}}


def read(**fields):
    return chat.read_request(raw(HELLO | fields))


def written(*turns, to=None, **fields):
    conversation = Conversation(model="public", turns=list(turns), **fields)
    return chat.write_request(conversation, to or target()), conversation


def user(*parts):
    return Turn("user", list(parts), "messages[0]")


def assistant(*parts):
    return Turn("assistant", list(parts), "messages[1]")


# Requests, read --------------------------------------------------------------------------------------------------


def test_every_kind_of_message_is_read():
    pdf, note = "data:application/pdf;base64,JVBERg==", base64.b64encode("Grüße".encode()).decode()
    conversation = read(
        stream=True,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ana", "content": [
                {"type": "text", "text": "Look:", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "file", "file": {"file_data": pdf, "filename": "a.pdf"}},
                {"type": "file", "file": {"file_data": note, "filename": "a.txt"}},
            ]},
            {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"a\":1}"}},
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "Rain"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "Noon"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "No."},
                                              {"type": "refusal", "refusal": "I will not."}]},
            {"role": "assistant", "content": None, "refusal": "Never."},
        ],
    )  # fmt: skip
    assert conversation.stream
    assert conversation.turns == [
        Turn("system", [Text("Be brief.")], "messages[0]"),
        Turn("user", [
            Text("Look:", {"type": "ephemeral"}), Image("image/png", PIXEL, detail="low"),
            Image(url="https://x.example/a.png"), Audio("UklGRg==", "wav"), Document(file_id="file-1"),
            Document("application/pdf", "JVBERg==", name="a.pdf"), Document("text/plain", text="Grüße", name="a.txt"),
        ], "messages[1]", "ana"),
        Turn("assistant", [
            Thinking("hm"), ToolCall("c1", "weather", '{"a":1}'), ToolCall("c2", "time", ""),
        ], "messages[2]"),
        Turn("user", [ToolResult("c1", [Text("Rain")]), ToolResult("c2", [Text("Noon")])], "messages[3]"),
        Turn("assistant", [Text("No."), Refusal("I will not.")], "messages[5]"),
        Turn("assistant", [Refusal("Never.")], "messages[6]"),
    ]  # fmt: skip


def test_functions_of_the_older_spelling_are_tools():
    conversation = read(
        functions=[{"name": "weather", "parameters": {"type": "object"}}],
        function_call={"name": "weather"},
        messages=[
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "Yes"},
        ],
    )
    assert conversation.tools == [Tool("weather", parameters={"type": "object"})]
    assert conversation.tool_choice == ToolChoice("named", "weather")
    call, result = conversation.turns[1].parts[0], conversation.turns[2].parts[0]
    assert (call.name, result.content) == ("weather", [Text("Yes")])
    assert call.id == result.id
    # There is room for one call in an answer of that spelling.
    assert conversation.options["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("asked", "tools", "choice"),
    [
        ("auto", ["weather", "time"], ToolChoice("auto")),
        ("none", ["weather", "time"], ToolChoice("none")),
        ("required", ["weather", "time"], ToolChoice("required")),
        ("any", ["weather", "time"], ToolChoice("required")),
        ({"type": "function", "function": {"name": "time"}}, ["weather", "time"], ToolChoice("named", "time")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TIME]}},
            ["time"],
            ToolChoice("required"),
        ),
    ],
)
def test_the_choice_of_a_tool_is_read_in_every_form(asked, tools, choice):
    conversation = read(tools=[WEATHER, TIME], tool_choice=asked)
    assert [tool.name for tool in conversation.tools] == tools
    assert conversation.tool_choice == choice


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat("json")),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}},
            OutputFormat("schema", {"type": "object"}, "a", True),
        ),
    ],
)
def test_the_format_of_the_answer_is_read(asked, wanted):
    assert read(response_format=asked).output_format == wanted


def test_everything_else_is_an_option_under_its_own_name():
    conversation = read(max_completion_tokens=5, stop="END", temperature=0, seed=7, reasoning_effort="low", extra=[1])
    assert conversation.options == {
        "max_tokens": 5, "stop": ["END"], "temperature": 0, "seed": 7, "reasoning_effort": "low", "extra": [1],
    }  # fmt: skip
    assert conversation.spelling("max_tokens") == "max_completion_tokens"


def test_what_says_no_more_than_leaving_it_out_is_no_option():
    conversation = read(
        n=1, logprobs=False, store=False, presence_penalty=0, modalities=["text"], stream_options={}, user=None,
        tools=[], tool_choice="auto", parallel_tool_calls=True, include_reasoning=True,
    )  # fmt: skip
    assert conversation.options == {}
    assert conversation.tool_choice is None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": ["text"]}, "messages[0]"),
        ({"messages": [{"role": {}, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": "a"}}]}]},
            "messages[0].content[0].file.file_id",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,!"}}]}]},
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "messages[0].tool_calls[0].type"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": 1}}]}]},
         "messages[0].tool_calls[0].function.name"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "flat"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}, "tools[0].function.parameters"),
        ({"tools": "weather"}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "time"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": 3}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"temperature": True}, "temperature"),
        ({"stop": [1]}, "stop"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_its_place(change, param):
    with pytest.raises(InvalidRequest) as refused:
        read(**change)
    assert refused.value.param == param
    # Each value that the message names was given.
    assert str(refused.value)


# Requests, written -----------------------------------------------------------------------------------------------


def test_a_conversation_is_written_as_messages():
    body, conversation = written(
        Turn("system", [Text("Be brief."), Text("In French.")], "system"),
        user(Text("Look:"), Image("image/png", PIXEL, detail="high"), Audio("UklGRg==", "wav"),
             Document("application/pdf", "JVBERg==", name="a.pdf"), Document(text="A note.", name="Note")),
        assistant(Thinking("hm", "sig"), Text("I'll ask."), ToolCall("c1", "weather", ""),
                  ToolCall("c2", "time", "{}")),
        user(ToolResult("c1", [Text("Rain"), Text("and wind")]), ToolResult("c2", [Text("Noon")], is_error=True),
             Text("Well?")),
        tools=[Tool("weather", "What it is like.", cache={"type": "ephemeral"}), Tool("time", strict=True)],
        tool_choice=ToolChoice("named", "time"),
        output_format=OutputFormat("schema", {"type": "object"}),
        stream=True,
        options={"max_tokens": 30, "temperature": 0.5, "stop": ["END"], "user": "u1", "top_k": 40,
                 "parallel_tool_calls": False},
    )  # fmt: skip
    nothing = {"type": "object", "properties": {}}
    assert body == {
        "model": "upstream",
        "messages": [
            {"role": "system", "content": "Be brief.\n\nIn French."},
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "high"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
                {"type": "text", "text": "Note\n\nA note."},
            ]},
            {"role": "assistant", "content": "I'll ask.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "Rain\n\nand wind"},
            {"role": "tool", "tool_call_id": "c2", "content": "Noon"},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "What it is like.",
                                              "parameters": nothing}},
            {"type": "function", "function": {"name": "time", "parameters": nothing, "strict": True}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "time"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        "max_tokens": 30, "temperature": 0.5, "stop": ["END"], "user": "u1", "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert conversation.dropped() == ["cache_control", "messages.thinking", "tool_result.is_error", "top_k"]


def test_turns_of_one_side_that_follow_one_another_are_one_message():
    body, _ = written(
        user(Text("One")), user(Text("Two")),
        assistant(ToolCall("c1", "f", "{}")), assistant(ToolCall("c2", "f", "{}")),
        user(ToolResult("c1", [])), user(ToolResult("c2", [])),
    )  # fmt: skip
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "tool"]
    assert body["messages"][0]["content"] == "One\n\nTwo"
    assert len(body["messages"][1]["tool_calls"]) == 2


def test_pictures_in_the_result_of_a_tool_move_to_the_message_behind_it():
    body, _ = written(user(ToolResult("c1", [Image("image/png", PIXEL)]), Text("What is it?")))
    result, after = body["messages"]
    assert result["role"] == "tool"
    assert result["content"]
    assert [part["type"] for part in after["content"]] == ["image_url", "text"]


def test_thoughts_alone_are_no_message():
    body, conversation = written(user(Text("Hi")), assistant(Thinking("hm", "sig")), user(Text("Well?")))
    assert [message["content"] for message in body["messages"]] == ["Hi", "Well?"]
    assert conversation.dropped() == ["messages.thinking"]


def test_a_message_of_calls_alone_has_no_content():
    body, _ = written(assistant(ToolCall("c", "f", "{}")))
    assert body["messages"][0]["content"] is None


@pytest.mark.parametrize(
    "turn",
    [
        user(Image(file_id="file_1")),
        user(Document(url="https://x.example/a.pdf")),
        assistant(Image("image/png", PIXEL)),
    ],
)
def test_what_cannot_be_written_is_refused(turn):
    with pytest.raises(InvalidRequest) as refused:
        written(turn)
    assert refused.value.param == turn.where
    assert str(refused.value)


def test_several_answers_are_refused():
    with pytest.raises(InvalidRequest) as refused:
        written(user(Text("Hi")), options={"n": 2})
    assert refused.value.param == "n"


@pytest.mark.parametrize(
    ("thinking", "effort", "dropped"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, "low", []),
        ({"type": "enabled", "budget_tokens": 10_000}, "medium", []),
        ({"type": "enabled", "budget_tokens": 32_000}, "high", []),
        ({"type": "adaptive"}, None, []),
        ({"type": "disabled"}, None, ["thinking"]),
        ("yes", None, ["thinking"]),
    ],
)
def test_thinking_becomes_an_effort(thinking, effort, dropped):
    body, conversation = written(user(Text("Hi")), options={"thinking": thinking})
    assert body.get("reasoning_effort") == effort
    assert conversation.dropped() == dropped


@pytest.mark.parametrize(
    ("capabilities", "options", "effort", "dropped"),
    [
        ((), {"reasoning_effort": "low"}, "low", []),
        (("text", "reasoning"), {"reasoning_effort": "low", "thinking": {"type": "disabled"}}, "low", []),
        (("text",), {"reasoning_effort": "low", "thinking": {"type": "adaptive"}}, None,
         ["reasoning_effort", "thinking"]),
        (("text",), {"reasoning_effort": "none", "thinking": {"type": "disabled"}}, None, []),
    ],
)  # fmt: skip
def test_models_that_cannot_think_are_not_told_how_much(capabilities, options, effort, dropped):
    body, conversation = written(user(Text("Hi")), to=target(capabilities=capabilities), options=options)
    assert body.get("reasoning_effort") == effort
    assert conversation.dropped() == dropped


@pytest.mark.parametrize(("known", "limit"), [(None, 99), (200, 99), (50, 50)])
def test_a_limit_is_no_more_than_the_model_can(known, limit):
    body, _ = written(user(Text("Hi")), to=target(max_output_tokens=known), options={"max_tokens": 99})
    assert body["max_tokens"] == limit


def test_a_document_of_text_is_text():
    note = Document("text/markdown", base64.b64encode(b"# A note").decode(), name="a.md")
    body, _ = written(user(note, Text("Well?")))
    assert body["messages"][0]["content"] == "a.md\n\n# A note\n\nWell?"


def test_a_provider_gets_what_its_preset_says():
    to = target(
        max_tokens_field="max_completion_tokens", model_field="modele", drops=frozenset({"seed", "user", "top_p"}),
        renames={"temperature": "heat"}, takes_stream_options=False,
    )  # fmt: skip
    conversation = Conversation(
        "public", [user(Text("Hi"))], stream=True, spelled={"user": "metadata.user_id"},
        options={"max_tokens": 5, "seed": 1, "user": "u", "temperature": 1},
    )  # fmt: skip
    assert translators.request_for(to, "chat_completions", conversation) == {
        "modele": "upstream", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 5,
        "heat": 1, "stream": True,
    }  # fmt: skip
    assert conversation.dropped() == ["metadata.user_id", "seed"]


def test_deepseek_gets_back_what_it_thought_of_its_calls():
    to = target(kind="deepseek")
    thinking, plain = [Thinking("hm"), ToolCall("c", "f", "{}")], [ToolCall("d", "f", "{}")]
    body, conversation = written(assistant(*thinking), user(ToolResult("c", [])), assistant(*plain), to=to)
    assert [message.get("reasoning_content") for message in body["messages"]] == ["hm", None, ""]
    assert conversation.dropped() == []
    body, conversation = written(assistant(Thinking("hm"), Text("Hi")), to=to)
    assert "reasoning_content" not in body["messages"][0]
    assert conversation.dropped() == ["messages.thinking"]


@pytest.mark.parametrize(
    ("kind", "name", "signed"),
    [
        ("gemini", "gemini-3.1-pro", True),
        ("gemini", "models/gemini-10-flash", True),
        ("gemini", "gemini-2.5-pro", False),
        ("openai", "gemini-3.1-pro", False),
    ],
)
def test_gemini_takes_calls_without_its_signature_by_a_word(kind, name, signed):
    body, _ = written(assistant(ToolCall("c", "f", "{}")), to=target(kind=kind, upstream_name=name))
    assert ("extra_content" in body["messages"][0]["tool_calls"][0]) == signed


def test_top_k_goes_to_providers_that_take_it():
    assert written(user(Text("Hi")), to=target(kind="vllm"), options={"top_k": 4})[0]["top_k"] == 4


# Answers, read ---------------------------------------------------------------------------------------------------


def chunk(delta, finish=None, **more):
    return {"model": "real", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def calls(*entries):
    return {"tool_calls": list(entries)}


def pieces_of(*chunks):
    """The pieces of a stream, neighbours of one kind joined and the ids that were made here named."""
    reader = chat.AnswerReader()
    pieces = []
    for each in chunks:
        for piece in reader.feed(format._CHUNK.decode(json.dumps(each).encode())):
            last = pieces[-1] if pieces else None
            if isinstance(piece, ArgumentsPiece) and isinstance(last, ArgumentsPiece) and last.index == piece.index:
                pieces[-1] = ArgumentsPiece(last.index, last.text + piece.text)
            elif isinstance(piece, ToolCallPiece) and re.fullmatch(r"call_[0-9a-f]{24}", piece.id):
                pieces.append(ToolCallPiece(piece.index, "made", piece.name))
            else:
                pieces.append(piece)
    return pieces + reader.finish()


@pytest.mark.parametrize(
    ("chunks", "pieces"),
    [
        (
            [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "length")],
            [TextPiece("Hi"), StopPiece("length")],
        ),
        ([chunk({"reasoning_content": "hm", "reasoning": "hm", "content": None}, "stop")],
         [ThinkingPiece("hm"), StopPiece("end")]),
        ([chunk({"reasoning": "hm"}, "stop")], [ThinkingPiece("hm"), StopPiece("end")]),
        (
            # Mistral's content is a list where it thinks.
            [chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                                {"type": "text", "text": "Hi"}]}, "model_length")],
            [ThinkingPiece("hm"), TextPiece("Hi"), StopPiece("length")],
        ),
        ([chunk({"refusal": "No."}, "content_filter")], [RefusalPiece("No."), StopPiece("filter")]),
        (
            # Two calls whose arguments come interleaved.
            [
                chunk(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}})),
                chunk(calls({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}})),
                chunk(calls({"index": 0, "function": {"arguments": "{}"}},
                            {"index": 1, "function": {"arguments": "}"}})),
                chunk({}, "tool_calls"),
            ],
            [ToolCallPiece(0, "a", "f"), ToolCallPiece(1, "b", "g"), ArgumentsPiece(1, "{"), ArgumentsPiece(0, "{}"),
             ArgumentsPiece(1, "}"), StopPiece("tools")],
        ),
        (
            # Gemini leaves the index out, gives each call whole, and stops as if there were none.
            [chunk(calls({"id": "a", "function": {"name": "f", "arguments": "{}"}})),
             chunk(calls({"id": "b", "function": {"name": "f", "arguments": "{}"}}), "stop")],
            [ToolCallPiece(0, "a", "f"), ArgumentsPiece(0, "{}"), ToolCallPiece(1, "b", "f"), ArgumentsPiece(1, "{}"),
             StopPiece("tools")],
        ),
        (
            # Every call with the same index.
            [chunk(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}})),
             chunk(calls({"index": 0, "id": "b", "function": {"name": "f", "arguments": "{}"}}), "tool_calls")],
            [ToolCallPiece(0, "a", "f"), ArgumentsPiece(0, "{}"), ToolCallPiece(1, "b", "f"), ArgumentsPiece(1, "{}"),
             StopPiece("tools")],
        ),
        (
            # The same id and name in every part are one call; so is an id without a name.
            [chunk(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}})),
             chunk(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "\"a\""}})),
             chunk(calls({"index": 0, "id": "z", "function": {"arguments": ":1}"}}), "tool_calls")],
            [ToolCallPiece(0, "a", "f"), ArgumentsPiece(0, '{"a":1}'), StopPiece("tools")],
        ),
        (
            # No index and no id: what has no name goes on with the last.
            [chunk(calls({"function": {"name": "f", "arguments": "{"}})),
             chunk(calls({"id": "", "function": {"name": "", "arguments": "}"}})),
             chunk(calls({"function": {"name": "g", "arguments": {"a": 1}}}))],
            [ToolCallPiece(0, "made", "f"), ArgumentsPiece(0, "{}"), ToolCallPiece(1, "made", "g"),
             ArgumentsPiece(1, '{"a":1}'), StopPiece("tools")],
        ),
        (
            # The name behind the arguments.
            [chunk(calls({"index": 0, "id": "a", "function": {"arguments": "{}"}})),
             chunk(calls({"index": 0, "function": {"name": "f"}}), "tool_calls")],
            [ToolCallPiece(0, "a", "f"), ArgumentsPiece(0, "{}"), StopPiece("tools")],
        ),
        (
            [chunk({"function_call": {"name": "f", "arguments": ""}}),
             chunk({"function_call": {"arguments": "{}"}}, "function_call")],
            [ToolCallPiece(0, "made", "f"), ArgumentsPiece(0, "{}"), StopPiece("tools")],
        ),
        (
            # Parts of nothing: no call is made up for them.
            [chunk(calls({"function": {"arguments": "{}"}}, None, {"index": 3, "function": "f"}, {"index": [1]})),
             chunk({"tool_calls": "none", "content": 3, "refusal": []}, "tool_calls")],
            [StopPiece("end")],
        ),
        (
            # Of several choices the first.
            [{"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]},
             {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}, {"choices": []}, {}],
            [TextPiece("a"), StopPiece("end")],
        ),
        (
            # A whole answer.
            [{"choices": [{"message": {"content": "Hi", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "function": {"name": "f", "arguments": ""}}]}, "finish_reason": "stop"}]}],
            [TextPiece("Hi"), ToolCallPiece(0, "a", "f"), ArgumentsPiece(0, "{}"), ToolCallPiece(1, "b", "f"),
             StopPiece("tools")],
        ),
    ],
)  # fmt: skip
def test_what_providers_send_becomes_pieces(chunks, pieces):
    assert pieces_of(*chunks) == pieces


# Answers, written ------------------------------------------------------------------------------------------------

PIECES = [
    ThinkingPiece("hm"), SignaturePiece("s"), RedactedPiece("x"), TextPiece("Hel"), TextPiece("lo"),
    ToolCallPiece(1, "a", "f"), ToolCallPiece(3, "b", "g"), ArgumentsPiece(1, '{"a"'), ArgumentsPiece(1, ":1}"),
    StopPiece("tools"),
]  # fmt: skip


def streamed(pieces, fields=None, usage=None, *, with_usage=False):
    meter = Seen()
    meter.response_model, meter.reported = "real", usage
    writer = chat.AnswerWriter(reply_for(meter, fields, with_usage=with_usage))
    told = b"".join(writer.feed([piece]) for piece in pieces) + writer.finish()
    return documents(told), told


def answered(pieces, fields=None, usage=None, text=""):
    meter = Seen()
    meter.response_model, meter.reported, meter.text = "real", usage, text
    return json.loads(chat.write_answer(pieces, reply_for(meter, fields)))


def test_a_stream_has_exactly_these_chunks():
    chunks, told = streamed(PIECES, usage=TokenUsage(9, 3, output_tokens=4, reasoning_tokens=1), with_usage=True)
    assert told.endswith(format.DONE)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "real",
            "system_fingerprint": None}  # fmt: skip
    call = {"type": "function"}
    deltas = [
        {"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"},
        {"tool_calls": [{"index": 0, "id": "a", **call, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "b", **call, "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        # A call without arguments is one with none.
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]  # fmt: skip
    finishes = [None] * 8 + ["tool_calls"]
    assert chunks == [
        head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": None}
        for delta, finish in zip(deltas, finishes, strict=True)
    ] + [
        head | {"choices": [], "usage": {
            "prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16,
            "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1, "text_tokens": 3, "audio_tokens": 0,
                                          "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        }},
        "[DONE]",
    ]  # fmt: skip


def test_usage_is_no_part_of_a_stream_unless_asked_for():
    chunks, _ = streamed(PIECES)
    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stream_of_nothing_is_whole():
    chunks, _ = streamed([])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, "stop"]


def test_thoughts_are_shown_to_callers_who_ask_for_them():
    chunks, _ = streamed(PIECES, {"include_reasoning": True})
    assert chunks[1]["choices"][0]["delta"] == {"reasoning_content": "hm"}
    assert answered(PIECES, {"include_reasoning": True})["choices"][0]["message"]["reasoning_content"] == "hm"
    assert "reasoning_content" not in answered(PIECES)["choices"][0]["message"]


def test_a_whole_answer_has_exactly_this_shape():
    answer = answered(PIECES, usage=TokenUsage(9, output_tokens=4))
    usage = answer.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 4, 13)
    assert answer == {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "real", "system_fingerprint": None,
        "choices": [{
            "index": 0, "logprobs": None, "finish_reason": "tool_calls",
            "message": {
                "role": "assistant", "content": "Hello", "refusal": None, "annotations": [],
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
        }],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "content", "refusal"),
    [
        ([TextPiece("Hi")], "Hi", None),
        ([ToolCallPiece(0, "a", "f")], None, None),
        ([RefusalPiece("No.")], None, "No."),
        ([], "", None),
    ],
)
def test_content_is_null_where_something_else_was_answered(pieces, content, refusal):
    message = answered(pieces)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (content, refusal)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end", "stop"), ("length", "length"), ("tools", "tool_calls"), ("filter", "content_filter"), ("pause", "stop")],
)
def test_every_reason_to_stop_has_its_word(reason, finish):
    assert answered([StopPiece(reason)])["choices"][0]["finish_reason"] == finish


def test_callers_of_the_older_spelling_are_answered_in_it():
    fields = {"functions": [{"name": "f"}], "tools": None}
    choice = answered(PIECES, fields)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "function_call"
    chunks, _ = streamed(PIECES, fields)
    deltas = [chunk["choices"][0]["delta"].get("function_call") for chunk in chunks[:-1]]
    assert [delta for delta in deltas if delta] == [
        {"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"},
    ]  # fmt: skip


def test_what_was_not_reported_of_the_output_is_counted():
    assert answered([TextPiece("Hello")], text="Hello")["usage"]["completion_tokens"] == 1
    usage = answered([TextPiece("Hello")], usage=TokenUsage(5, output_tokens=0), text="Hello")["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 1)


def test_a_stream_is_retold_chunk_by_chunk():
    stream = b"".join(data(each) for each in [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hi"}),
        chunk(calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}})),
        chunk({}, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]) + format.DONE  # fmt: skip
    told, meter = retold(stream, format, chat.AnswerReader(), chat.AnswerWriter, with_usage=True)
    chunks = documents(told)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-2]] == [None] * 4 + ["tool_calls"]
    assert chunks[-2]["usage"]["total_tokens"] == 5
    assert meter.text == "Hif{}"
