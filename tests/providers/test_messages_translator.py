"""Messages in the terms of a conversation: requests and answers, read and written, plain and streamed."""

import base64
import json

import anthropic.types
import pytest
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
from providers.formats import messages as format
from providers.request_body import InvalidRequest
from providers.tokens import TokenUsage
from providers.translators import messages
from tests.providers.exchange import Seen, data, documents, raw, reply_for, retold, target

HELLO = {"model": "public", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
OLD, NEW = "2023-06-01", "2026-10-21"
PIXEL = "iVBORw0KGgo="
CACHE = {"type": "ephemeral", "ttl": "1h"}


def read(rules=OLD, **fields):
    return messages.read_request(raw(HELLO | fields), rules)


def written(*turns, to=None, **fields):
    conversation = Conversation(model="public", turns=list(turns), **fields)
    return messages.write_request(conversation, to or target()), conversation


def system(*parts):
    return Turn("system", list(parts), "messages[0]")


def user(*parts, **fields):
    return Turn("user", list(parts), "messages[1]", **fields)


def assistant(*parts):
    return Turn("assistant", list(parts), "messages[2]")


HI = user(Text("Hi"))

# Requests, read --------------------------------------------------------------------------------------------------


def test_every_kind_of_block_is_read():
    conversation = read(
        stream=True,
        system=[{"type": "text", "text": "Be brief.", "cache_control": CACHE}, {"type": "text", "text": "Be kind."}],
        messages=[
            {"role": "user", "content": "Look:"},
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}, "cache_control": CACHE},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                 "title": "a.pdf", "context": "A bill."},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
                {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
                {"type": "document", "source": {"type": "file", "file_id": "file_2"}},
                {"type": "document", "title": "c", "source": {"type": "content", "content": [
                    {"type": "text", "text": "One"},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/b.png"}},
                    {"type": "text", "text": "Two"}]}},
                {"type": "document", "source": {"type": "content", "content": "Three"}},
                {"type": "search_result", "source": "https://x.example", "title": "Found",
                 "content": [{"type": "text", "text": "Four"}], "citations": {"enabled": True}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "hidden"},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "text", "text": "So:"},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
                {"type": "tool_use", "id": "toolu_2", "name": "time"},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "content": [
                    {"type": "text", "text": "Noon"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}]},
                {"type": "tool_result", "tool_use_id": "toolu_3"},
            ]},
        ],
    )  # fmt: skip
    assert conversation.stream
    instructed, asked, answered, returned = conversation.turns
    assert instructed == Turn("system", [Text("Be brief.", CACHE), Text("Be kind.")], "system")
    assert (asked.role, asked.where) == ("user", "messages[0]")
    assert asked.parts == [
        Text("Look:"),
        Image("image/png", PIXEL),
        Image(url="https://x.example/a.png", cache=CACHE),
        Image(file_id="file_1"),
        Document("application/pdf", "JVBERg==", name="a.pdf", context="A bill."),
        Document("text/plain", text="Grüße"),
        Document(url="https://x.example/a.pdf"),
        Document(file_id="file_2"),
        Document("text/plain", text="One\n\nTwo", name="c"),
        Image(url="https://x.example/b.png"),
        Document("text/plain", text="Three"),
        Document(text="Four", name="Found", context="https://x.example"),
    ]
    assert answered.parts == [
        Thinking("hm", "sig"),
        Thinking(redacted="hidden"),
        Text("So:"),
        ToolCall("toolu_1", "weather", '{"city":"Zürich"}'),
        ToolCall("toolu_2", "time", "{}"),
    ]
    assert returned.parts == [
        ToolResult("toolu_1", [Text("Rain")]),
        ToolResult("toolu_2", [Text("Noon"), Image("image/png", PIXEL)], is_error=True),
        ToolResult("toolu_3", []),
    ]
    assert conversation.dropped() == [
        "cache_control", "citations", "max_tokens", "server_tool_use", "web_search_tool_result",
    ]  # fmt: skip


def test_the_older_version_reads_documents_of_the_assistant_and_the_newer_system_turns():
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    said = [*HELLO["messages"], {"role": "assistant", "content": [document]}]
    assert read(messages=said).turns[1].parts == [Document("text/plain", text="x")]
    said = [*HELLO["messages"], {"role": "system", "content": "In French."}]
    assert read(NEW, messages=said).turns[1] == Turn("system", [Text("In French.")], "messages[1]")


def test_fields_become_options_under_neutral_names():
    conversation = read(
        temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], metadata={"user_id": "u"},
        thinking={"type": "enabled", "budget_tokens": 2000}, output_config={"effort": "high", "task_budget": 5},
        service_tier="standard_only", speed="standard", inference_geo="global", cache_control=CACHE,
        tools=[{"name": "f", "input_schema": {"type": "object"}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True}, novelty=1,
    )  # fmt: skip
    assert conversation.options == {
        "max_tokens": 50, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop": ["END"], "user": "u",
        "thinking": {"type": "enabled", "budget_tokens": 2000}, "reasoning_effort": "high", "service_tier": "default",
        "cache_control": CACHE, "parallel_tool_calls": False, "novelty": 1,
    }  # fmt: skip
    # What nobody takes is dropped under the name that the caller gave it.
    assert conversation.dropped() == [
        "cache_control", "max_tokens", "metadata.user_id", "novelty", "output_config.effort",
        "output_config.task_budget", "service_tier", "stop_sequences", "temperature", "thinking",
        "tool_choice.disable_parallel_tool_use", "top_k", "top_p",
    ]  # fmt: skip


def test_tools_and_the_choice_among_them_are_read():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    conversation = read(
        tools=[
            {"name": "f", "description": "F.", "input_schema": schema, "strict": True, "cache_control": CACHE},
            {"type": "custom", "name": "g", "input_schema": {}, "input_examples": [{}], "defer_loading": False},
        ],
        tool_choice={"type": "tool", "name": "f"},
    )
    assert conversation.tools == [Tool("f", "F.", schema, True, CACHE), Tool("g", None, {})]
    assert conversation.tool_choice == ToolChoice("named", "f")
    assert conversation.lost == {"tools.input_examples"}
    for asked, kind in [("auto", "auto"), ("any", "required"), ("none", "none")]:
        assert read(tool_choice={"type": asked}).tool_choice == ToolChoice(kind)


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_schema_for_the_answer_is_read(name):
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    conversation = read(**{name: {"format": wanted} if name == "output_config" else wanted})
    assert conversation.output_format == OutputFormat("schema", {"type": "object"}, strict=True)


BLOCK = {"type": "text", "text": "x"}


def of(role, *blocks):
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"system": 5}, "system"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"messages": ["text"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (of("user", "text"), "messages[0].content[0]"),
        (of("user", BLOCK, {"type": ["text"]}), "messages[0].content[1]"),
        (of("user", {"type": "novelty"}), "messages[0].content[0]"),
        (of("user", {"type": "container_upload", "file_id": "f"}), "messages[0].content[0]"),
        (of("user", {"type": "thinking", "thinking": "x"}), "messages[0].content[0]"),
        (of("user", {"type": "tool_use", "id": "t", "name": "f"}), "messages[0].content[0]"),
        (of("assistant", {"type": "tool_result", "tool_use_id": "t"}), "messages[0].content[0]"),
        (of("assistant", {"type": "image"}), "messages[0].content[0]"),
        (of("system", {"type": "image"}), "messages[0].content[0]"),
        (of("assistant", {"type": "tool_use", "name": "f"}), "messages[0].content[0].id"),
        (of("assistant", {"type": "tool_use", "id": "t"}), "messages[0].content[0].name"),
        (of("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": []}), "messages[0].content[0].input"),
        (of("user", {"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (of("user", {"type": "tool_result", "tool_use_id": "t", "content": 5}), "messages[0].content[0].content"),
        (
            of("user", {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}),
            "messages[0].content[0].content[0]",
        ),
        (of("user", {"type": "image"}), "messages[0].content[0].source"),
        (of("user", {"type": "image", "source": {"type": "base64"}}), "messages[0].content[0].source.media_type"),
        (of("user", {"type": "image", "source": {"type": "ftp"}}), "messages[0].content[0].source.type"),
        (of("user", {"type": "document", "source": {"type": "ftp"}}), "messages[0].content[0].source.type"),
        (of("user", {"type": "document", "source": {"type": "url"}}), "messages[0].content[0].source.url"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {}, "strict": "no"}]}, "tools[0].strict"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": "much"}, "thinking"),
        ({"thinking": {}}, "thinking.type"),
        ({"output_config": 5}, "output_config"),
        ({"output_config": {"effort": 5}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "yaml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"metadata": 5}, "metadata"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"mcp_servers": [{"url": "https://x.example"}]}, "mcp_servers"),
    ],
)
def test_what_cannot_be_read_is_named(change, param):
    with pytest.raises(InvalidRequest) as refused:
        read(**change)
    assert refused.value.param == param
    assert param.split(".")[0].split("[")[0] in str(refused.value)


@pytest.mark.parametrize("kind", ["web_search_20260318", "code_execution_20260521", "computer_toolset_20260801", 5])
def test_tools_of_the_provider_are_refused_by_name(kind):
    with pytest.raises(InvalidRequest) as refused:
        read(tools=[{"name": "f", "input_schema": {}}, {"type": kind, "name": "s"}])
    assert refused.value.param == "tools[1]"
    assert str(kind) in str(refused.value)


# Requests, written -----------------------------------------------------------------------------------------------


def test_a_conversation_of_another_format_is_written():
    body, conversation = written(
        system(Text("Be brief.")),
        system(Text("In French.")),
        user(Text("Look:"), Image("image/png", PIXEL), Image(url="https://x.example/a.png", detail="high")),
        assistant(Text(""), ToolCall("call_1", "weather", '{"city":"Zürich"}'), ToolCall("call_2", "time", "")),
        user(ToolResult("call_1", [Text("Rain")])),
        user(ToolResult("call_2", [Text("No clock."), Image(url="https://x.example/b.png")], is_error=True)),
        user(Text("Well?"), Document("application/pdf", "JVBERg==", name="a.pdf"), name="ana"),
        stream=True,
        tools=[Tool("weather", "W.", {"properties": {"city": {}}}, True), Tool("time")],
        tool_choice=ToolChoice("required"),
        options={
            "max_tokens": 30, "temperature": 1.7, "top_p": 1, "stop": ["END"], "user": "u", "seed": 7,
            "logprobs": True, "reasoning_effort": "minimal", "parallel_tool_calls": False, "service_tier": "default",
            "n": 1,
        },
        spelled={"max_tokens": "max_completion_tokens"},
    )  # fmt: skip
    assert body == {
        "model": "upstream", "stream": True, "max_tokens": 30, "system": "Be brief.\n\nIn French.",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}},
                {"type": "tool_use", "id": "call_2", "name": "time", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "Rain"},
                {"type": "tool_result", "tool_use_id": "call_2", "is_error": True, "content": [
                    {"type": "text", "text": "No clock."},
                    {"type": "image", "source": {"type": "url", "url": "https://x.example/b.png"}}]},
                {"type": "text", "text": "Well?"},
                {"type": "document", "title": "a.pdf",
                 "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}]},
        ],
        "tools": [
            {"name": "weather", "description": "W.", "strict": True,
             "input_schema": {"type": "object", "properties": {"city": {}}}},
            {"name": "time", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "temperature": 1, "stop_sequences": ["END"], "metadata": {"user_id": "u"}, "service_tier": "standard_only",
        "output_config": {"effort": "low"},
    }  # fmt: skip
    assert conversation.dropped() == ["detail", "logprobs", "messages.name", "seed"]


@pytest.mark.parametrize(("known", "limit"), [(None, 4096), (1000, 1000)])
def test_a_limit_that_nobody_set_is_the_models_own(known, limit):
    assert written(HI, to=target(max_output_tokens=known))[0]["max_tokens"] == limit


def test_marks_of_the_cache_stand_where_they_were():
    body, conversation = written(
        system(Text("Be brief.", CACHE)),
        user(Text("Hi", CACHE)),
        tools=[Tool("f", cache=CACHE)],
        options={"cache_control": True},
    )
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": CACHE}]
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Hi", "cache_control": CACHE}]
    assert body["tools"][0]["cache_control"] == CACHE
    assert "cache_control" not in body
    assert conversation.dropped() == []
    assert written(HI, options={"cache_control": CACHE})[0]["cache_control"] == CACHE


def test_turns_alternate_and_results_come_first():
    body, _ = written(
        user(Text("One")),
        assistant(Text(" \n")),
        user(Text("Two"), ToolResult("call_1", [])),
        assistant(Refusal("I will not."), Text("But: ")),
    )
    assert body["messages"] == [
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1"},
            {"type": "text", "text": "One"}, {"type": "text", "text": "Two"}]},
        # The model goes on from the last turn, and may not from a space.
        {"role": "assistant", "content": [{"type": "text", "text": "I will not."}, {"type": "text", "text": "But:"}]},
    ]  # fmt: skip


def test_the_newer_version_keeps_system_turns_in_place_and_samples_not():
    newer = target(headers={"anthropic-version": NEW})
    turns = (system(Text("A")), user(Text("B")), system(Text("C")), assistant(Text("D")))
    body, conversation = written(*turns, to=newer, options={"temperature": 0.5, "top_p": 1, "top_k": 5})
    assert body["system"] == "A"
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == [
        ("user", "B"), ("system", "C"), ("assistant", "D"),
    ]  # fmt: skip
    assert conversation.dropped() == ["temperature", "top_k"]
    for other in ({}, {"anthropic-version": OLD}, {"anthropic-version": "vertex-2023-10-16"}):
        body, conversation = written(*turns, to=target(headers=other), options={"temperature": 0.5, "top_k": 5})
        assert (body["system"], body["temperature"], body["top_k"]) == ("A\n\nC", 0.5, 5)
        assert len(body["messages"]) == 2


def test_thoughts_go_back_only_with_their_proof():
    thoughts = [Thinking("hm", "sig"), Thinking(redacted="hidden"), Thinking("of another model")]
    body, conversation = written(HI, assistant(*thoughts, Text("Yes.")), user(Text("Sure?")))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hidden"},
        {"type": "text", "text": "Yes."},
    ]
    assert conversation.dropped() == ["messages.thinking"]


@pytest.mark.parametrize(
    ("options", "capabilities", "asked", "dropped"),
    [
        ({"reasoning_effort": "high"}, (), {"output_config": {"effort": "high"}}, []),
        ({"reasoning_effort": "none"}, (), {"thinking": {"type": "disabled"}}, []),
        ({"thinking": {"type": "adaptive"}}, (), {"thinking": {"type": "adaptive"}}, []),
        ({"reasoning_effort": "high"}, ("chat", "reasoning"), {"output_config": {"effort": "high"}}, []),
        ({"reasoning_effort": "high"}, ("chat",), {}, ["reasoning_effort"]),
        ({"thinking": {"type": "adaptive"}}, ("chat",), {}, ["thinking"]),
        ({"reasoning_effort": "none", "thinking": {"type": "disabled"}}, ("chat",), {}, []),
    ],
)  # fmt: skip
def test_how_hard_to_think_is_asked_of_models_that_do(options, capabilities, asked, dropped):
    body, conversation = written(HI, to=target(capabilities=capabilities), options=dict(options))
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == asked
    assert conversation.dropped() == dropped


def test_a_schema_is_said_and_plain_json_refused():
    schema = {"type": "object", "additionalProperties": False}
    body, _ = written(HI, output_format=OutputFormat("schema", schema, "a"), options={"reasoning_effort": "low"})
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    with pytest.raises(InvalidRequest) as refused:
        written(HI, output_format=OutputFormat("json"), spelled={"response_format": "text.format"})
    assert refused.value.param == "text.format"


def test_ids_of_calls_are_put_in_letters_that_are_allowed_one_for_one():
    calls = [ToolCall(id, "f", "{}") for id in ("functions.f:0", "functions:f.0", "functions_f_0", "")]
    body, _ = written(HI, assistant(*calls), user(*[ToolResult(call.id, []) for call in calls]))
    ids = [block["id"] for block in body["messages"][1]["content"]]
    assert ids == ["functions_f_0", "functions_f_0_1", "functions_f_0_2", "call"]
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == ids


@pytest.mark.parametrize(
    ("document", "source"),
    [
        (Document(text="Hi"), {"type": "text", "media_type": "text/plain", "data": "Hi"}),
        (
            Document("text/csv; charset=utf-8", base64.b64encode("a;ü".encode()).decode()),
            {"type": "text", "media_type": "text/plain", "data": "a;ü"},
        ),
        (Document(data="JVBERi0x"), {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}),
        (Document(url="https://x.example/a.pdf"), {"type": "url", "url": "https://x.example/a.pdf"}),
        (Document(file_id="file_1"), {"type": "file", "file_id": "file_1"}),
    ],
)
def test_documents_are_written_from_every_source(document, source):
    document.context = "A bill."
    assert written(user(document))[0]["messages"][0]["content"] == [
        {"type": "document", "source": source, "context": "A bill."}
    ]


def test_the_kind_of_a_picture_that_nobody_named_is_seen_in_its_first_letters():
    for start, kind in [
        (PIXEL, "image/png"),
        ("/9j/4AAQ", "image/jpeg"),
        ("R0lGODlh", "image/gif"),
        ("UklGRg", "image/webp"),
    ]:
        content = written(user(Image(data=start)))[0]["messages"][0]["content"]
        assert content[0]["source"]["media_type"] == kind


def test_an_image_in_words_of_the_assistant_is_refused_as_its_place_says():
    with pytest.raises(InvalidRequest) as refused:
        written(HI, assistant(Image(url="https://x.example/a.png")))
    assert refused.value.param == "messages[2]"


@pytest.mark.parametrize(
    ("turns", "fields", "param"),
    [
        ([system(Text("alone"))], {}, "messages"),
        ([user(Text(" "))], {}, "messages"),
        ([user(Audio("UklGRg==", "wav"))], {}, "messages[1]"),
        ([system(Image(url="https://x.example"))], {}, "messages[0]"),
        ([user(Document("application/msword", "0M8R4A=="))], {}, "messages[1]"),
        ([user(Document("text/plain", "/////w=="))], {}, "messages[1]"),
        ([user(Image())], {}, "messages[1]"),
        ([HI, assistant(ToolCall("t", "f", '{"a":'))], {}, "messages[2]"),
        ([HI, assistant(ToolCall("t", "f", "[1]"))], {}, "messages[2]"),
        ([HI], {"options": {"n": 2}}, "n"),
        ([HI], {"options": {"suffix": "end"}}, "suffix"),
        ([HI], {"options": {"stop": ["END", "\n"]}, "spelled": {"stop": "stop_sequences"}}, "stop_sequences"),
        ([HI], {"tool_choice": ToolChoice("required")}, "tool_choice"),
        ([HI], {"output_format": OutputFormat("json")}, "response_format"),
    ],
)
def test_what_must_not_be_dropped_is_refused(turns, fields, param):
    with pytest.raises(InvalidRequest) as refused:
        written(*turns, **fields)
    assert refused.value.param == param


def test_what_has_no_meaning_without_tools_is_left_out():
    body, conversation = written(HI, tool_choice=ToolChoice("auto"), options={"parallel_tool_calls": False})
    assert not body.keys() & {"tools", "tool_choice"}
    assert conversation.dropped() == []
    body, _ = written(HI, tools=[Tool("f")], options={"parallel_tool_calls": False})
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    body, _ = written(HI, tools=[Tool("f")], tool_choice=ToolChoice("none"), options={"parallel_tool_calls": False})
    assert body["tool_choice"] == {"type": "none"}


def test_a_schema_is_kept_strictly_by_models_that_can():
    tools = [Tool("f", None, {"type": "object"}, True)]
    for capabilities, kept, dropped in [((), True, []), (("chat", "structured_outputs"), True, []),
                                        (("chat", "tools"), False, ["tools.strict"])]:  # fmt: skip
        body, conversation = written(HI, tools=list(tools), to=target(capabilities=capabilities))
        assert ("strict" in body["tools"][0]) is kept
        assert conversation.dropped() == dropped


# Answers, read ---------------------------------------------------------------------------------------------------


def event(kind, **more):
    return f"event: {kind}\n".encode() + data({"type": kind, **more})


def begins(index, **block):
    return event("content_block_start", index=index, content_block=block)


def grows(index, kind, **delta):
    return event("content_block_delta", index=index, delta={"type": kind, **delta})


def ends(index):
    return event("content_block_stop", index=index)


def stops(reason, **more):
    return event("message_delta", delta={"stop_reason": reason, **more}, usage={"output_tokens": 2})


START = event("message_start", message={"model": "real", "content": [], "usage": {"input_tokens": 9}})
END = event("message_stop")


def pieces_of(*events):
    class Kept:
        def __init__(self, reply):
            self.pieces = []

        def feed(self, pieces):
            self.pieces += pieces
            return b""

        def finish(self):
            return self

    kept = []

    class Writer(Kept):
        def finish(self):
            kept.extend(self.pieces)
            return b""

    retold(b"".join(events), format, messages.AnswerReader(), Writer)
    return kept


def test_a_stream_is_read_into_pieces():
    assert pieces_of(
        START,
        begins(0, type="thinking", thinking="", signature=""),
        event("ping"),
        grows(0, "thinking_delta", thinking="hm"),
        grows(0, "signature_delta", signature="sig"),
        ends(0),
        begins(1, type="redacted_thinking", data="hidden"),
        ends(1),
        begins(2, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
        grows(2, "input_json_delta", partial_json='{"query":"x"}'),
        ends(2),
        begins(3, type="web_search_tool_result", tool_use_id="srvtoolu_1", content=[]),
        ends(3),
        begins(4, type="text", text="So"),
        grows(4, "text_delta", text=": é"),
        grows(4, "citations_delta", citation={"type": "char_location", "cited_text": "secret"}),
        ends(4),
        begins(5, type="tool_use", id="toolu_1", name="f", input={}),
        grows(5, "input_json_delta", partial_json=""),
        grows(5, "input_json_delta", partial_json='{"a"'),
        grows(5, "input_json_delta", partial_json=":1}"),
        ends(5),
        begins(6, type="tool_use", id="toolu_2", name="g", input={"b": 2}),
        ends(6),
        begins(7, type="tool_use", id="toolu_3", name="h", input={}),
        ends(7),
        stops("tool_use"),
        END,
    ) == [
        ThinkingPiece("hm"),
        SignaturePiece("sig"),
        RedactedPiece("hidden"),
        TextPiece("So"),
        TextPiece(": é"),
        ToolCallPiece(0, "toolu_1", "f"),
        ArgumentsPiece(0, '{"a"'),
        ArgumentsPiece(0, ":1}"),
        ToolCallPiece(1, "toolu_2", "g"),
        ArgumentsPiece(1, '{"b":2}'),
        ToolCallPiece(2, "toolu_3", "h"),
        ArgumentsPiece(2, "{}"),
        StopPiece("tools"),
    ]


@pytest.mark.parametrize(
    ("delta", "pieces"),
    [
        ({"stop_reason": "end_turn"}, [StopPiece("end")]),
        ({"stop_reason": "stop_sequence", "stop_sequence": "END"}, [StopPiece("end", "END")]),
        ({"stop_reason": "max_tokens"}, [StopPiece("length")]),
        ({"stop_reason": "model_context_window_exceeded"}, [StopPiece("length")]),
        ({"stop_reason": "pause_turn"}, [StopPiece("pause")]),
        ({"stop_reason": "refusal", "stop_details": None}, [StopPiece("filter")]),
        (
            {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "No."}},
            [RefusalPiece("No."), StopPiece("filter")],
        ),
        ({"stop_reason": "novelty", "stop_sequence": 5}, [StopPiece("end")]),
    ],
)
def test_why_the_model_stopped_is_read_from_streams_and_whole_answers(delta, pieces):
    assert pieces_of(START, event("message_delta", delta=delta, usage={}), END) == pieces
    whole = format.read_answer(json.dumps({"content": [], **delta}).encode(), Seen())
    assert messages.read_answer(whole) == pieces


def test_a_stream_that_says_no_reason_stopped_for_its_calls():
    assert pieces_of(START, begins(0, type="tool_use", name="f", input={"a": 1}), END) == [
        ToolCallPiece(0, "toolu_0", "f"),
        ArgumentsPiece(0, '{"a":1}'),
        StopPiece("tools"),
    ]
    assert pieces_of(START, END) == [StopPiece("end")]


def test_input_that_came_whole_and_in_parts_is_not_doubled():
    assert pieces_of(
        begins(0, type="tool_use", id="t", name="f", input={"a": 1}),
        grows(0, "input_json_delta", partial_json='{"a":1}'),
        ends(0),
        END,
    )[1:-1] == [ArgumentsPiece(0, '{"a":1}')]


@pytest.mark.parametrize("index", [[], {}, None, "0", 7])
def test_parts_of_no_known_block_are_passed_over(index):
    start = begins(0, type="tool_use", id="t", name="f", input={})
    lost = grows(index, "input_json_delta", partial_json="x")
    pieces = [ToolCallPiece(0, "t", "f"), ArgumentsPiece(0, "{}"), StopPiece("tools")]
    assert pieces_of(start, lost, ends(index), END) == pieces
    assert pieces_of(begins(index, type="text", text="Hi"), ends(index), END) == [TextPiece("Hi"), StopPiece("end")]


def test_a_whole_answer_is_read_into_pieces():
    body = {
        "model": "real", "stop_reason": "tool_use", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "redacted_thinking", "data": "hidden"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
            {"type": "text", "text": "So", "citations": None},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1.0, "b": 12345678901234567890123}},
            {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        ],
    }  # fmt: skip
    assert messages.read_answer(format.read_answer(json.dumps(body).encode(), Seen())) == [
        ThinkingPiece("hm"),
        SignaturePiece("sig"),
        RedactedPiece("hidden"),
        TextPiece("So"),
        ToolCallPiece(0, "toolu_1", "f"),
        ArgumentsPiece(0, '{"a": 1.0, "b": 12345678901234567890123}'),
        ToolCallPiece(1, "toolu_2", "g"),
        ArgumentsPiece(1, "{}"),
        StopPiece("tools"),
    ]


# Answers, written ------------------------------------------------------------------------------------------------

THINKS = {"thinking": {"type": "adaptive"}}
STREAM_EVENT = TypeAdapter(anthropic.types.RawMessageStreamEvent)


def meter_with(usage=None, text=""):
    meter = Seen()
    meter.response_model, meter.reported, meter.text = "real", usage, text
    return meter


def told(*pieces, fields=None, usage=None, apart=True):
    """The events for some pieces, given one by one or all ``apart`` from the end at once."""
    writer = messages.AnswerWriter(reply_for(meter_with(usage), fields))
    stream = b"".join(writer.feed([piece]) for piece in pieces) if apart else writer.feed(pieces)
    events = documents(stream + writer.finish())
    for each in events:
        STREAM_EVENT.validate_python(each)
    return events


def blocks_of(events):
    """What the blocks of a stream come to, after a look at how they are opened and closed."""
    blocks = []
    is_open = False
    for each in events[1:-2]:
        match each["type"]:
            case "content_block_start":
                assert not is_open
                assert each["index"] == len(blocks)
                is_open = True
                blocks.append(dict(each["content_block"]))
                if blocks[-1]["type"] == "tool_use":
                    assert blocks[-1]["input"] == {}
                    blocks[-1]["input"] = ""
            case "content_block_delta":
                assert is_open
                assert each["index"] == len(blocks) - 1
                delta = each["delta"]
                field = {
                    "text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature",
                    "input_json_delta": "partial_json",
                }[delta["type"]]  # fmt: skip
                into = "input" if field == "partial_json" else field
                blocks[-1][into] += delta[field]
            case "content_block_stop":
                assert is_open
                assert each["index"] == len(blocks) - 1
                is_open = False
    assert not is_open
    return blocks


def test_a_stream_is_written_block_by_block():
    usage = TokenUsage(9, 3, 4, 5, 20, 6)
    events = told(
        ThinkingPiece("h"), ThinkingPiece("m"), SignaturePiece("sig"), RedactedPiece("hidden"), TextPiece("He"),
        TextPiece("llo"), ToolCallPiece(0, "call_1", "f"), ArgumentsPiece(0, '{"a"'), ArgumentsPiece(0, ":1}"),
        TextPiece("Bye"), StopPiece("tools"), fields=THINKS, usage=usage,
    )  # fmt: skip
    assert events[0] == {
        "type": "message_start",
        "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "real", "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": {
                "input_tokens": 9, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
            },
        },
    }  # fmt: skip
    assert blocks_of(events) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "hidden"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": '{"a":1}'},
        {"type": "text", "text": "Bye"},
    ]
    assert events[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None, "stop_details": None},
        "usage": {
            "input_tokens": 9, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 20,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
            "output_tokens_details": {"thinking_tokens": 6},
        },
    }  # fmt: skip
    assert events[-1] == {"type": "message_stop"}


def test_what_may_be_told_is_told_at_once():
    writer = messages.AnswerWriter(reply_for(meter_with()))
    assert [each["type"] for each in documents(writer.feed([]))] == ["message_start"]
    assert writer.feed([]) == b""
    assert [each["type"] for each in documents(writer.feed([TextPiece("H")]))] == [
        "content_block_start", "content_block_delta",
    ]  # fmt: skip
    assert [each["type"] for each in documents(writer.feed([TextPiece("i")]))] == ["content_block_delta"]
    assert [each["type"] for each in documents(writer.feed([ToolCallPiece(0, "a", "f")]))] == [
        "content_block_stop", "content_block_start",
    ]  # fmt: skip
    assert len(documents(writer.feed([ArgumentsPiece(0, "{}")]))) == 1
    # Its object is whole, so the next call need not wait.
    assert [each["type"] for each in documents(writer.feed([ToolCallPiece(1, "b", "g")]))] == [
        "content_block_stop", "content_block_start",
    ]  # fmt: skip


@pytest.mark.parametrize("apart", [True, False])
def test_calls_whose_arguments_come_by_turns_are_told_one_after_the_other(apart):
    events = told(
        ToolCallPiece(0, "a", "f"), ToolCallPiece(1, "b", "g"), ArgumentsPiece(1, '{"x":'),
        ArgumentsPiece(0, '{"y":"}'), TextPiece("mid"), ArgumentsPiece(1, "[1]}"), ArgumentsPiece(0, '\\"{"'),
        ArgumentsPiece(0, "}"), ToolCallPiece(2, "c", "h"), ArgumentsPiece(7, "nobody's"), StopPiece("end"),
        apart=apart,
    )  # fmt: skip
    assert blocks_of(events) == [
        {"type": "tool_use", "id": "a", "name": "f", "input": '{"y":"}\\"{"}'},
        {"type": "tool_use", "id": "b", "name": "g", "input": '{"x":[1]}'},
        {"type": "text", "text": "mid"},
        {"type": "tool_use", "id": "c", "name": "h", "input": ""},
    ]
    # A provider that names no tools as the reason has called them all the same.
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, []),
        ({"thinking": None}, []),
        ({"thinking": {"type": "disabled"}}, []),
        ({"thinking": {"type": "between_tools"}}, []),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["thinking", "redacted_thinking"]),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, ["thinking", "redacted_thinking"]),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, ["omitted", "redacted_thinking"]),
    ],
)
def test_thoughts_are_shown_to_those_who_asked(fields, shown):
    pieces = [ThinkingPiece("hm"), SignaturePiece("sig"), RedactedPiece("x"), TextPiece("Hi"), StopPiece("end")]
    streamed = blocks_of(told(*pieces, fields=fields))
    whole = json.loads(messages.write_answer(pieces, reply_for(meter_with(), fields)))["content"]
    assert streamed == whole
    kinds = ["omitted" if block.get("thinking") == "" else block["type"] for block in whole[:-1]]
    assert kinds == shown
    assert all(block["signature"] == "sig" for block in whole if block["type"] == "thinking")


def test_thoughts_without_proof_are_shown_without_it():
    events = told(ThinkingPiece("hm"), TextPiece("Hi"), fields=THINKS)
    assert blocks_of(events)[0] == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert "signature_delta" not in json.dumps(events)


@pytest.mark.parametrize(
    ("pieces", "delta"),
    [
        ([StopPiece("end")], ("end_turn", None, None)),
        ([], ("end_turn", None, None)),
        ([StopPiece("end", "END")], ("stop_sequence", "END", None)),
        ([StopPiece("length")], ("max_tokens", None, None)),
        ([StopPiece("pause")], ("pause_turn", None, None)),
        # Without a call there is nothing to wait for.
        ([StopPiece("tools")], ("end_turn", None, None)),
        ([ToolCallPiece(0, "a", "f"), StopPiece("length")], ("max_tokens", None, None)),
        ([StopPiece("filter")], ("refusal", None, {"type": "refusal", "category": None, "explanation": None})),
        (
            [RefusalPiece("I "), RefusalPiece("will not."), StopPiece("end")],
            ("refusal", None, {"type": "refusal", "category": None, "explanation": "I will not."}),
        ),
    ],
)
def test_why_the_model_stopped_is_told_alike_in_streams_and_whole_answers(pieces, delta):
    told_delta = told(*pieces)[-2]["delta"]
    whole = json.loads(messages.write_answer(pieces, reply_for(meter_with())))
    assert tuple(told_delta.values()) == delta
    assert {name: whole[name] for name in told_delta} == told_delta


def test_a_refusal_can_be_read_where_answers_are():
    assert blocks_of(told(RefusalPiece("I "), RefusalPiece("will not."))) == [{"type": "text", "text": "I will not."}]


def test_an_answer_of_nothing_has_its_shape():
    events = told()
    assert [each["type"] for each in events] == ["message_start", "message_delta", "message_stop"]
    whole = json.loads(messages.write_answer([], reply_for(meter_with())))
    assert (whole["content"], whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == ([], 0, 0)
    anthropic.types.Message.model_validate(whole)


def test_an_output_that_nobody_counted_is_counted_here():
    meter = meter_with(text="Hello there")
    whole = json.loads(messages.write_answer([TextPiece("Hello there")], reply_for(meter)))
    assert whole["usage"]["output_tokens"] == meter.count_output() > 0
    meter.reported = TokenUsage(9, output_tokens=0)
    whole = json.loads(messages.write_answer([TextPiece("Hello there")], reply_for(meter)))
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (9, meter.count_output())


def test_a_whole_answer_is_written():
    pieces = [
        TextPiece("He"), TextPiece("llo"), ToolCallPiece(0, "a", "f"), ToolCallPiece(1, "b", "g"),
        ArgumentsPiece(1, ' {"x": '), ArgumentsPiece(1, "12345678901234567890123} "), ArgumentsPiece(2, "nobody's"),
        TextPiece("Bye"), ToolCallPiece(3, "c", "h"), ArgumentsPiece(3, '{"cut'), ToolCallPiece(4, "d", "i"),
        ArgumentsPiece(4, "[]"), StopPiece("tools"),
    ]  # fmt: skip
    answer = messages.write_answer(pieces, reply_for(meter_with(TokenUsage(9, output_tokens=20))))
    whole = json.loads(answer)
    anthropic.types.Message.model_validate(whole)
    assert whole["content"] == [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 12345678901234567890123}},
        {"type": "text", "text": "Bye"},
        # What is no object may not pass for an empty one: the tool would run.
        {"type": "tool_use", "id": "c", "name": "h", "input": {"INVALID_JSON": '{"cut'}},
        {"type": "tool_use", "id": "d", "name": "i", "input": {"INVALID_JSON": "[]"}},
    ]
    assert (whole["id"], whole["model"], whole["stop_reason"]) == ("msg_1", "real", "tool_use")
