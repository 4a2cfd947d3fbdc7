"""What a caller sends of the wrong type is refused as its mistake, or passed on; it never brings a translator down."""

import contextlib

import msgspec
import pytest

from providers import formats, translators
from providers.request_body import InvalidRequest
from tests.providers.exchange import raw, target

MESSAGES = {"dialect": "anthropic", "endpoints": {"messages": "/messages"}, "capabilities": ("chat",)}
TARGETS = {
    "chat_completions": target(max_output_tokens=100),
    "messages": target(**MESSAGES),
    "responses": target(endpoints={"responses": "/responses"}),
}
TOOLS = [{"type": "function", "name": "f", "parameters": {}}]
BODIES = {
    "chat_completions": {"model": "m", "messages": [{"role": "user", "content": "a"}]},
    "completions": {"model": "m", "prompt": "a"},
    "messages": {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "a"}]},
    "responses": {"model": "m", "input": "a", "tools": TOOLS},
}
FIELDS = (
    "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens", "stop",
    "stop_sequences", "n", "seed", "user", "metadata", "thinking", "reasoning_effort", "reasoning", "verbosity", "text",
    "service_tier", "parallel_tool_calls", "tools", "tool_choice", "functions", "function_call", "response_format",
    "output_config", "system", "instructions", "cache_control", "safety_identifier", "modalities", "suffix", "include",
    "truncation",
)  # fmt: skip
ODD = (
    True, 0, -1, 1.5, 10**25, "", "x", [], {}, [1], [[]], [{}], [None], {"type": "x"}, {"type": {}},
    {"type": "enabled"}, {"effort": {}}, {"format": {"type": []}},
    {"type": "allowed_tools", "mode": "auto", "tools": [{"name": {}}]},
)  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), [(a, b) for a in BODIES for b in TARGETS if a != b])
def test_a_field_of_the_wrong_type_is_said_or_refused(ours, theirs):
    for name in FIELDS:
        for value in ODD:
            fields = raw(BODIES[ours] | {name: value})
            with contextlib.suppress(InvalidRequest):
                formats.BY_NAME[ours].read_request(fields)
                conversation = translators.BY_NAME[ours].read_request(fields)
                msgspec.json.encode(translators.BY_NAME[theirs].write_request(conversation, TARGETS[theirs]))
                assert all(isinstance(dropped, str) for dropped in conversation.dropped())


def test_a_refused_option_is_named_as_its_caller_spells_it():
    fields = raw(BODIES["responses"] | {"reasoning": {"effort": 5}})

    with pytest.raises(InvalidRequest) as refused:
        translators.BY_NAME["responses"].read_request(fields)

    assert refused.value.param == "reasoning.effort"


def chat_of(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def messages_of(kind):
    return lambda url: [{"role": "user", "content": [{"type": kind, "source": {"type": "url", "url": url}}]}]


def result_of(url):
    image = {"type": "image", "source": {"type": "url", "url": url}}
    return [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [image]}]}]


def input_of(kind, name):
    return lambda url: [{"role": "user", "content": [{"type": kind, name: url}]}]


ADDRESSES = (
    ("chat_completions", "messages", chat_of, "messages[0].content[0].image_url.url"),
    ("messages", "messages", messages_of("image"), "messages[0].content[0].source.url"),
    ("messages", "messages", messages_of("document"), "messages[0].content[0].source.url"),
    ("messages", "messages", result_of, "messages[0].content[0].content[0].source.url"),
    ("responses", "input", input_of("input_image", "image_url"), "input[0].content[0].image_url"),
    ("responses", "input", input_of("input_file", "file_url"), "input[0].content[0].file_url"),
)


@pytest.mark.parametrize(("format", "field", "holding", "param"), ADDRESSES)
def test_only_addresses_that_anybody_may_open_go_on(format, field, holding, param):
    def read(url):
        return translators.BY_NAME[format].read_request(raw(BODIES[format] | {field: holding(url)}))

    for url in ("file:///etc/passwd", "FILE:/etc/passwd", "ftp://x.example/a.png", "s3://a/b", "/etc/passwd", " http:"):
        with pytest.raises(InvalidRequest) as refused:
            read(url)
        assert refused.value.param == param
        assert "http" in str(refused.value)
    for url in ("http://x.example/a.png", "HTTPS://x.example/a.png"):
        assert url in repr(read(url).turns)
    assert "aGk=" in repr(read("data:image/png;base64,aGk=").turns)


@pytest.mark.parametrize(
    ("format", "name"),
    [("chat_completions", "max_tokens"), ("chat_completions", "max_completion_tokens"), ("completions", "max_tokens"),
     ("messages", "max_tokens"), ("responses", "max_output_tokens")],
)  # fmt: skip
def test_a_limit_beyond_every_model_is_refused_with_the_bound(format, name):
    read = translators.BY_NAME[format].read_request
    assert read(raw(BODIES[format] | {name: 2**31 - 1})).options["max_tokens"] == 2**31 - 1
    for limit in (2**31, 10**12, 10**30):
        with pytest.raises(InvalidRequest) as refused:
            read(raw(BODIES[format] | {name: limit}))
        assert refused.value.param == name
        assert "2147483647" in str(refused.value)


@pytest.mark.parametrize("theirs", TARGETS)
def test_words_that_the_model_is_to_go_on_from_are_said_to_be_a_turn_where_they_are_one(theirs):
    def dropped(*turns):
        fields = raw(BODIES["messages"] | {"messages": [BODIES["messages"]["messages"][0], *turns]})
        conversation = translators.BY_NAME["messages"].read_request(fields)
        body = translators.request_for(TARGETS[theirs], theirs, conversation)
        assert "Once upon" in str(body)
        return conversation.dropped()

    words = {"role": "assistant", "content": "Once upon"}
    assert dropped(words) == ([] if theirs == "messages" else ["prefill"])
    assert dropped(words, {"role": "user", "content": "b"}) == []
