"""Anthropic callers, OpenAI providers: text, system prompts, stop reasons and usage, plain and streamed."""

import msgspec

from providers.formats import chat_completions as openai
from providers.request_body import InvalidRequest, decoded
from providers.sse import encode

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
CARRIED = {"model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "stop_sequences", "metadata"}
UNTRANSLATED = ("tools", "tool_choice")


def request(fields, target):
    """
    The body for ``target``'s provider as a dict of plain values, and the names of fields that have no counterpart.

    Raises ``InvalidRequest`` for what cannot be dropped without changing the meaning.
    """
    asked = decoded(fields)
    for name in UNTRANSLATED:
        if asked.get(name):
            raise InvalidRequest(f"{name}: not available for the model {target.public_name} in this dialect", name)
    messages = []
    if asked.get("system"):
        messages.append({"role": "system", "content": _text(asked["system"], "system")})
    for index, message in enumerate(asked["messages"]):
        where = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant", "system"):
            raise InvalidRequest(f"{where}.role: must be user or assistant", where)
        text = _text(message.get("content"), f"{where}.content")
        if messages and messages[-1]["role"] == message["role"]:
            # Consecutive turns of one role are one turn in this dialect.
            messages[-1]["content"] += "\n\n" + text
        else:
            messages.append({"role": message["role"], "content": text})
    body = {"model": target.upstream_name, "messages": messages, target.max_tokens_field: asked["max_tokens"]}
    for theirs, ours in (("temperature", "temperature"), ("top_p", "top_p"), ("stop_sequences", "stop")):
        if asked.get(theirs) is not None:
            body[ours] = asked[theirs]
    if isinstance(asked.get("metadata"), dict) and isinstance(asked["metadata"].get("user_id"), str):
        body["user"] = asked["metadata"]["user_id"]
    if asked.get("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body, sorted(set(asked) - CARRIED)


def answer(chunk, meter, request_id):
    """The message for the caller from a parsed ``openai.Chunk`` that holds the whole answer."""
    text = openai.content_of(chunk.choices[0].message) if chunk.choices and chunk.choices[0].message else ""
    return msgspec.json.encode(
        _message(request_id, meter)
        | {
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": stop_reason(meter.stop_reason),
            "stop_sequence": None,
            "usage": usage(meter.reported, counted=meter.count_output),
        }
    )


class Stream:
    """Turns the chunks of an OpenAI stream into the events of an Anthropic one."""

    def __init__(self, meter, request_id):
        self.meter = meter
        self.request_id = request_id
        self.begun = self.writing = False

    def feed(self, chunk):
        """The caller's events for one parsed ``openai.Chunk``."""
        events = [] if self.begun else self._begin()
        text = "".join(openai.content_of(choice.delta) for choice in chunk.choices or () if choice.delta is not None)
        if text:
            if not self.writing:
                self.writing = True
                events.append(
                    _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
                )
            events.append(
                _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            )
        return b"".join(events)

    def finish(self):
        """The events that end the stream, once the provider's has come to its proper end."""
        events = [] if self.begun else self._begin()
        if self.writing:
            events.append(_event({"type": "content_block_stop", "index": 0}))
        events.append(
            _event(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": stop_reason(self.meter.stop_reason), "stop_sequence": None},
                    "usage": usage(self.meter.reported, counted=self.meter.count_output),
                }
            )
        )
        events.append(_event({"type": "message_stop"}))
        return b"".join(events)

    def _begin(self):
        self.begun = True
        message = _message(self.request_id, self.meter) | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # What the prompt was counts at the end: providers of this shape say it with the last chunk.
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return [_event({"type": "message_start", "message": message})]


def stop_reason(finish_reason):
    """This dialect's word for why the model stopped."""
    return STOP_REASONS.get(finish_reason, "end_turn")


def usage(reported, *, counted):
    """The usage object of a message; ``counted()`` stands in for an output count that the provider did not report."""
    if reported is None:
        return {"input_tokens": 0, "output_tokens": counted()}
    output = reported.output_tokens
    return {
        "input_tokens": reported.input_tokens or 0,
        "cache_creation_input_tokens": reported.cache_write_tokens or 0,
        "cache_read_input_tokens": reported.cache_read_tokens or 0,
        "output_tokens": counted() if output is None else output,
    }


def _message(request_id, meter):
    name = meter.response_model or meter.requested_model
    return {"id": f"msg_{request_id.removeprefix('req_')}", "type": "message", "role": "assistant", "model": name}


def _event(document):
    return encode(document["type"].encode(), msgspec.json.encode(document))


def _text(content, where):
    """The text of a string or of text blocks; thinking is left out, anything else refused."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}: must be a string or a list of blocks", where)
    parts = []
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            parts.append(block["text"])
        elif kind not in ("thinking", "redacted_thinking"):
            raise InvalidRequest(f"{where}.{index}: this model takes text blocks only, not {kind!r}", where)
    return "\n\n".join(parts)
