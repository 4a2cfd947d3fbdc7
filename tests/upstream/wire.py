"""The bytes of both dialects: whole answers and event streams."""

import json

CREATED = 1_760_000_000
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def dumps(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class OpenAI:
    """Chat completions."""

    def __init__(self, script, request, body):
        self.script, self.request = script, request
        self.bill = script.bill(body)
        self.model = script.response_model or request.get("model")

    def usage(self, sent=None):
        if isinstance(self.script.usage, dict):
            return self.script.usage
        bill, output = self.bill, self.bill.output_tokens if sent is None else sent
        prompt = bill.input_tokens + bill.cache_read_tokens + bill.cache_write_tokens
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {
                "cached_tokens": bill.cache_read_tokens,
                "cache_write_tokens": bill.cache_write_tokens,
            },
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
        }
        if self.script.usage == "zero_twins":
            usage |= {"input_tokens": 0, "output_tokens": 0, "input_tokens_details": None}
        return usage

    def whole(self):
        answer = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(self.script.pieces_of_text), "refusal": None},
                    "logprobs": None,
                    "finish_reason": self.script.stop,
                }
            ],
        }
        if self.script.usage != "none":
            answer["usage"] = self.usage()
        return dumps(answer)

    def opening(self):
        yield self._chunk({"role": "assistant", "content": ""}, sent=0)

    def delta(self, text, sent):
        return self._chunk({"content": text}, sent=sent)

    def closing(self):
        yield self._chunk({}, finish=self.script.stop, sent=self.bill.output_tokens)
        if self._tells_usage():
            yield self._event({**self._head(), "choices": [], "usage": self.usage()})
        yield b"data: [DONE]\n\n"

    def error(self):
        error = {"message": "The scripted upstream broke.", "type": "server_error", "param": None, "code": "scripted"}
        yield self._event({"error": error})

    def _tells_usage(self):
        usage = self.script.usage
        asked = bool((self.request.get("stream_options") or {}).get("include_usage"))
        return usage == "unasked" or (usage not in ("none", "cumulative") and asked)

    def _head(self):
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": None,
        }

    def _chunk(self, delta, finish=None, sent=0):
        chunk = self._head() | {
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        if self.script.usage == "cumulative":
            chunk["usage"] = self.usage(sent)
        elif self._tells_usage():
            chunk["usage"] = None
        return self._event(chunk)

    def _event(self, value):
        return b"data: " + dumps(value) + b"\n\n"


class Anthropic:
    """Messages."""

    def __init__(self, script, request, body):
        self.script, self.request = script, request
        self.bill = script.bill(body)
        self.model = script.response_model or request.get("model")

    def usage(self, output):
        bill = self.bill
        return {
            "input_tokens": bill.input_tokens,
            "cache_creation_input_tokens": bill.cache_write_tokens,
            "cache_read_input_tokens": bill.cache_read_tokens,
            "output_tokens": output,
        }

    def whole(self):
        answer = self._message() | {
            "content": [{"type": "text", "text": "".join(self.script.pieces_of_text)}],
            "stop_reason": STOP_REASONS[self.script.stop],
        }
        if self.script.usage == "none":
            del answer["usage"]
        else:
            answer["usage"] = self._told(self.usage(self.bill.output_tokens))
        return dumps(answer)

    def opening(self):
        yield self._event({"type": "message_start", "message": self._message()})
        yield self._event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        yield self._event({"type": "ping"})

    def delta(self, text, sent):
        return self._event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})

    def closing(self):
        yield self._event({"type": "content_block_stop", "index": 0})
        end = {
            "type": "message_delta",
            "delta": {"stop_reason": STOP_REASONS[self.script.stop], "stop_sequence": None},
        }
        if self.script.usage != "none":
            end["usage"] = self._told({"output_tokens": self.bill.output_tokens})
        yield self._event(end)
        yield self._event({"type": "message_stop"})

    def error(self):
        error = {"type": "overloaded_error", "message": "The scripted upstream broke."}
        yield self._event({"type": "error", "error": error})

    def _told(self, usage):
        return self.script.usage if isinstance(self.script.usage, dict) else usage

    def _message(self):
        return {
            "id": "msg_scripted",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self.usage(1),
        }

    def _event(self, value):
        return b"event: " + value["type"].encode() + b"\ndata: " + dumps(value) + b"\n\n"


def model_list(names, anthropic):
    if anthropic:
        data = [{"type": "model", "id": n, "display_name": n, "created_at": "2026-01-01T00:00:00Z"} for n in names]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"data": data, "has_more": False, **ends}
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in names]
    return {"object": "list", "data": data}
