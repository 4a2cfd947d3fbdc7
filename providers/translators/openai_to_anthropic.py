"""OpenAI callers, Anthropic providers: text, system prompts, stop reasons and usage, plain and streamed."""

import time

import msgspec

from providers.formats.chat_completions import DONE
from providers.request_body import InvalidRequest, decoded
from providers.sse import encode

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
CARRIED = {
    "model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "temperature", "top_p",
    "top_k", "stop", "user", "n",
}  # fmt: skip
UNTRANSLATED = ("tools", "tool_choice", "functions", "response_format")
DEFAULT_MAX_TOKENS = 4096


def request(fields, target):
    """
    The body for ``target``'s provider as a dict of plain values, and the names of fields that have no counterpart.

    Raises ``InvalidRequest`` for what cannot be dropped without changing the meaning.
    """
    asked = decoded(fields)
    for name in UNTRANSLATED:
        if asked.get(name) and asked[name] not in ("none", {"type": "text"}):
            raise InvalidRequest(f"{name}: not available for the model {target.public_name} in this dialect", name)
    if asked.get("n") not in (None, 1):
        raise InvalidRequest(f"n: the model {target.public_name} gives one choice", "n")
    system, messages = [], []
    for index, message in enumerate(asked["messages"]):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise InvalidRequest(f"{where}.role: must be system, developer, user or assistant", where)
        text = _text(message.get("content"), where)
        if role in ("system", "developer"):
            system.append(text)
        else:
            messages.append({"role": role, "content": text})
    if not messages:
        raise InvalidRequest("messages: needs a message of the user", "messages")
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or target.max_output_tokens
    body = {"model": target.upstream_name, "messages": messages, "max_tokens": limit or DEFAULT_MAX_TOKENS}
    if system:
        body["system"] = "\n\n".join(system)
    if isinstance(asked.get("temperature"), int | float):
        body["temperature"] = min(asked["temperature"], 1)
    for name in ("top_p", "top_k"):
        if asked.get(name) is not None:
            body[name] = asked[name]
    if asked.get("stop"):
        body["stop_sequences"] = [asked["stop"]] if isinstance(asked["stop"], str) else asked["stop"]
    if isinstance(asked.get("user"), str):
        body["metadata"] = {"user_id": asked["user"]}
    if asked.get("stream"):
        body["stream"] = True
    return body, sorted(set(asked) - CARRIED)


def answer(message, meter, request_id):
    """The completion for the caller from a parsed ``anthropic.Message``."""
    text = "".join(block.text for block in message.content if block.type == "text" and isinstance(block.text, str))
    return msgspec.json.encode(
        _head(request_id, meter, "chat.completion")
        | {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": finish_reason(meter.stop_reason),
                }
            ],
            "usage": usage(meter.reported, counted=meter.count_output),
        }
    )


class Stream:
    """Turns the events of an Anthropic stream into the chunks of an OpenAI one."""

    def __init__(self, meter, request_id, *, with_usage):
        self.meter = meter
        self.request_id = request_id
        self.with_usage = with_usage
        self.begun = False
        self._head = None

    def feed(self, event):
        """The caller's chunks for one parsed ``anthropic.StreamEvent``."""
        chunks = b"" if self.begun else self._begin()
        delta = event.delta if event.type == "content_block_delta" else None
        if delta is not None and isinstance(delta.text, str) and delta.text:
            chunks += self._chunk({"content": delta.text})
        return chunks

    def finish(self):
        """The chunks that end the stream, once the provider's has come to its proper end."""
        chunks = b"" if self.begun else self._begin()
        chunks += self._chunk({}, finish_reason(self.meter.stop_reason))
        if self.with_usage:
            closing = self._head | {"choices": [], "usage": usage(self.meter.reported, counted=self.meter.count_output)}
            chunks += encode(None, msgspec.json.encode(closing))
        return chunks + DONE

    def _begin(self):
        self.begun = True
        self._head = _head(self.request_id, self.meter, "chat.completion.chunk")
        return self._chunk({"role": "assistant", "content": ""})

    def _chunk(self, delta, finish=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        extra = {"usage": None} if self.with_usage else {}
        return encode(None, msgspec.json.encode(self._head | {"choices": [choice]} | extra))


def finish_reason(stop_reason):
    """This dialect's word for why the model stopped."""
    return FINISH_REASONS.get(stop_reason, "stop")


def usage(reported, *, counted):
    """The usage object of a completion; ``counted()`` stands in for an output count that was not reported."""
    prompt = (reported.total_input if reported else None) or 0
    output = reported.output_tokens if reported and reported.output_tokens is not None else counted()
    details = {"cached_tokens": (reported.cache_read_tokens if reported else None) or 0}
    if reported and reported.cache_write_tokens is not None:
        details["cache_write_tokens"] = reported.cache_write_tokens + (reported.cache_write_1h_tokens or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": (reported.reasoning_tokens if reported else None) or 0},
    }


def _head(request_id, meter, kind):
    return {
        "id": f"chatcmpl-{request_id.removeprefix('req_')}",
        "object": kind,
        "created": int(time.time()),
        "model": meter.response_model or meter.requested_model,
    }


def _text(content, where):
    """The text of a string or of text parts; anything else is refused."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}.content: must be a string or a list of parts", where)
    parts = []
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise InvalidRequest(f"{where}.content[{index}]: this model takes text parts only, not {kind!r}", where)
        parts.append(part["text"])
    return "\n\n".join(parts)
