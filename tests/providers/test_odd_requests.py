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
