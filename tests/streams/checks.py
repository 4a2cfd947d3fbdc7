"""What a caller's bytes must be: events that the official SDKs take, and the words that stand in them."""

import functools
import json
from typing import NamedTuple

import anthropic
import openai._streaming
import pydantic
from anthropic._streaming import SSEDecoder as AnthropicDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from openai import NOT_GIVEN
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

DONE = "[DONE]"


class Heard(NamedTuple):
    """What a client makes of a stream: each piece of text in its order, its usage object, and whether it ended well."""

    pieces: list[str]
    usage: dict | None
    is_whole: bool


@functools.cache
def _adapter(kind):
    return pydantic.TypeAdapter(kind)


def heard(asked, told):
    """What the SDK of the caller's format makes of ``told``; it fails where the SDK would."""
    return _READERS[asked.format](asked, told)


def _openai_events(told):
    return list(openai._streaming.SSEDecoder().iter_bytes(iter([told])))


def _ends_well(events):
    """Whether there is one last word and nothing after it, or an error in its place."""
    places = [index for index, event in enumerate(events) if event.data.startswith(DONE)]
    assert places in ([], [len(events) - 1]), "the last word is not the last"
    errors = [index for index, event in enumerate(events) if '"error":{' in event.data[:12]]
    assert errors in ([], [len(events) - 1]), "something follows an error"
    assert bool(places) != bool(errors), "neither ended nor failed"
    return bool(places)


def _chat(asked, told):
    events = _openai_events(told)
    is_whole = _ends_well(events)
    state, pieces, usage, finishes = (
        ChatCompletionStreamState(input_tools=NOT_GIVEN, response_format=NOT_GIVEN),
        [],
        None,
        [],
    )
    for event in events[:-1]:
        document = json.loads(event.data)
        if asked.flavour == "ikalas":
            document["object"] = "chat.completion.chunk"
        chunk = ChatCompletionChunk.model_validate(document)
        state.handle_chunk(chunk)
        usage = document.get("usage") or usage
        for choice in document["choices"]:
            finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
            delta = choice["delta"]
            pieces += [delta[name] for name in ("reasoning_content", "content", "refusal") if delta.get(name)]
            for function in [*(each["function"] for each in delta.get("tool_calls", ())), delta.get("function_call")]:
                pieces += [function[name] for name in ("name", "arguments") if function and function.get(name)]
    assert len(finishes) == is_whole, "not one reason for the end"
    return Heard(pieces, usage, is_whole)


def _completions(asked, told):
    events = _openai_events(told)
    is_whole, pieces, usage = _ends_well(events), [], None
    for event in events[:-1]:
        document = json.loads(event.data)
        if document["choices"] and not is_whole:
            # An SDK takes chunks without a reason as they come.
            document["choices"][0]["finish_reason"] = "stop"
        for choice in document["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            pieces += [choice["text"]] if choice["text"] else []
        usage = document.get("usage") or usage
        Completion.model_validate(document)
    return Heard(pieces, usage, is_whole)


def _messages(asked, told):
    state, pieces, buffers, kinds, usage = None, [], {}, [], None
    for event in AnthropicDecoder().iter_bytes(iter([told])):
        document = json.loads(event.data)
        assert event.event == document["type"]
        kinds.append(event.event)
        if event.event == "error":
            anthropic.types.ErrorResponse.model_validate(document)
            continue
        parsed = _adapter(RawMessageStreamEvent).validate_python(document)
        state = accumulate_event(event=parsed, current_snapshot=state, json_bufs=buffers)
        if event.event == "message_delta":
            usage = document["usage"]
        block = document.get("content_block") or document.get("delta") or {}
        names = ("name", "text", "thinking", "partial_json")
        pieces += [block[name] for name in names if block.get(name)]
    assert kinds[0] == "message_start" and kinds.count("message_start") == 1
    assert kinds[-1] in ("message_stop", "error") and kinds.count("message_stop") + kinds.count("error") == 1
    if is_whole := kinds[-1] == "message_stop":
        assert kinds.count("content_block_start") == kinds.count("content_block_stop")
    return Heard(pieces, usage, is_whole)


def _responses(asked, told):
    pieces, usage, last, items = [], None, None, {}
    for number, event in enumerate(_openai_events(told)):
        document = json.loads(event.data)
        assert event.event == document["type"]
        assert document["sequence_number"] == number
        _adapter(ResponseStreamEvent).validate_python(document)
        last = event.event
        if last.endswith(".delta"):
            pieces.append(document["delta"])
        if last == "response.output_item.added":
            items[document["output_index"]] = document["item"]
            pieces += [document["item"]["name"]] if document["item"].get("name") else []
        if last == "response.output_item.done":
            assert items.pop(document["output_index"])["id"] == document["item"]["id"]
        if last in ("response.completed", "response.incomplete"):
            usage = document["response"]["usage"]
    is_whole = last in ("response.completed", "response.incomplete")
    assert is_whole or last == "error"
    assert not (is_whole and items), "an item did not end"
    return Heard(pieces, usage, is_whole)


_READERS = {
    "chat_completions": _chat,
    "completions": _completions,
    "messages": _messages,
    "responses": _responses,
}
