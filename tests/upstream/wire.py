"""The bytes of every wire format: whole answers, event streams, vectors, verdicts and lists of models."""

import base64
import hashlib
import json
import struct

CREATED = 1_760_000_000
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}
CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def dumps(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Answer:
    """
    What one answer looks like in one wire format.

    ``opening``, ``delta`` for each piece and ``closing`` are a stream; ``whole`` is the same in one body.
    """

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, script, request, body, path=""):
        self.script, self.request, self.path = script, request, path
        self.bill = script.bill(body)
        self.model = script.response_model or request.get("model")

    def unnamed_event(self, value):
        return b"data: " + dumps(value) + b"\n\n"

    def named_event(self, value):
        return b"event: " + value["type"].encode() + b"\ndata: " + dumps(value) + b"\n\n"


class OpenAI(Answer):
    """Chat completions."""

    id = "chatcmpl-scripted"
    object = "chat.completion"
    reasoning_field = None  # where a provider shows what its model thinks
    whole_calls = False  # whether a stream brings a tool call in one chunk

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
            "id": self.id,
            "object": self.object,
            "created": CREATED,
            "model": self.model,
            "choices": [self.choice("message", self.message(), self.finish())],
        }
        if self.script.usage != "none":
            answer["usage"] = self.usage()
        return dumps(self.dressed(answer))

    def message(self):
        calls = self.script.tools
        message = {
            "role": "assistant",
            "content": None if calls and not self.script.text else self.script.whole_text,
            "refusal": None,
        }
        if self.reasoning_field and self.script.reasoning:
            message[self.reasoning_field] = "".join(self.script.reasoning)
        if calls:
            message["tool_calls"] = [self.call(index, call, call.arguments) for index, call in enumerate(calls)]
        return message

    def call(self, index, call, arguments):
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}

    def finish(self):
        return "tool_calls" if self.script.tools else self.script.stop

    def choice(self, name, value, finish):
        return {"index": 0, name: value, "logprobs": None, "finish_reason": finish}

    def dressed(self, answer):
        """``answer``, a whole one or a chunk, with what this provider adds to it."""
        return answer

    def opening(self):
        yield self._chunk({"role": "assistant", "content": ""}, sent=0)

    def delta(self, piece, sent):
        if (delta := self.delta_of(piece)) is not None:
            yield self._chunk(delta, sent=sent)

    def delta_of(self, piece):
        """What a chunk says of one piece, ``None`` where it says nothing."""
        match piece.kind:
            case "text":
                return {"content": piece.text}
            case "reasoning":
                return {self.reasoning_field: piece.text} if self.reasoning_field else None
            case "call":
                arguments = piece.call.arguments if self.whole_calls else ""
                return {"tool_calls": [{"index": piece.index} | self.call(piece.index, piece.call, arguments)]}
        if self.whole_calls:
            return None
        return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}

    def closing(self):
        yield self._chunk({}, finish=self.finish(), sent=self.bill.output_tokens)
        if self._tells_usage():
            yield self.unnamed_event(self.dressed({**self._head(), "choices": [], "usage": self.usage()}))
        yield b"data: [DONE]\n\n"

    def error(self):
        error = {"message": "The scripted upstream broke.", "type": "server_error", "param": None, "code": "scripted"}
        yield self.unnamed_event({"error": error})

    @classmethod
    def refusal(cls, status, message):
        """The body of an answer of ``status``, as this provider words it."""
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def _tells_usage(self):
        usage = self.script.usage
        asked = bool((self.request.get("stream_options") or {}).get("include_usage"))
        return usage == "unasked" or (usage not in ("none", "cumulative") and asked)

    def _head(self):
        return {
            "id": self.id,
            "object": f"{self.object}.chunk",
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": None,
        }

    def _chunk(self, delta, finish=None, sent=0):
        chunk = self._head() | {"choices": [self.choice("delta", delta, finish)]}
        if self.script.usage == "cumulative":
            chunk["usage"] = self.usage(sent)
        elif self._tells_usage():
            chunk["usage"] = None
        return self.unnamed_event(self.dressed(chunk))


class Completions(OpenAI):
    """Text completions: a prompt in, its continuation out."""

    id = "cmpl-scripted"
    object = "text_completion"

    def message(self):
        return self.script.whole_text

    def choice(self, name, value, finish):
        return {"index": 0, "text": value or "", "logprobs": None, "finish_reason": finish}

    def opening(self):
        return ()

    def delta_of(self, piece):
        return piece.text if piece.kind == "text" else None

    def _head(self):
        return {"id": self.id, "object": self.object, "created": CREATED, "model": self.model}


class Anthropic(Answer):
    """Messages."""

    repeats_input = False  # whether a stream's last usage has the input once more
    block = None  # the kind and index of the block that is open in the stream
    blocks = 0

    def usage(self, output):
        bill = self.bill
        usage = {
            "input_tokens": bill.input_tokens,
            "cache_creation_input_tokens": bill.cache_write_tokens,
            "cache_read_input_tokens": bill.cache_read_tokens,
            "output_tokens": output,
        }
        if bill.reasoning_tokens and output > 1:
            usage["output_tokens_details"] = {"thinking_tokens": bill.reasoning_tokens}
        return usage

    def whole(self):
        script, content = self.script, []
        if script.reasoning:
            content.append({"type": "thinking", "thinking": "".join(script.reasoning), "signature": SIGNATURE})
        if script.text or not script.tools:
            content.append({"type": "text", "text": script.whole_text})
        for call in script.tools:
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)})
        answer = self._message() | {"content": content, "stop_reason": self._stop_reason()}
        if self.script.usage == "none":
            del answer["usage"]
        else:
            answer["usage"] = self._told(self.usage(self.bill.output_tokens))
        return dumps(answer)

    def opening(self):
        yield self.named_event({"type": "message_start", "message": self._message()})
        pieces = self.script.pieces
        if not pieces or pieces[0].kind == "text":
            yield from self._open("text", {"type": "text", "text": ""})
        yield self.named_event({"type": "ping"})

    def delta(self, piece, sent):
        match piece.kind:
            case "reasoning":
                yield from self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                yield self._delta({"type": "thinking_delta", "thinking": piece.text})
            case "text":
                yield from self._open("text", {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": piece.text})
            case "call":
                block = {"type": "tool_use", "id": piece.call.id, "name": piece.call.name, "input": {}}
                yield from self._open(f"call {piece.index}", block)
                yield self._delta({"type": "input_json_delta", "partial_json": ""})
            case "arguments":
                yield self._delta({"type": "input_json_delta", "partial_json": piece.text})

    def closing(self):
        yield from self._close()
        end = {"type": "message_delta", "delta": {"stop_reason": self._stop_reason(), "stop_sequence": None}}
        if self.script.usage != "none":
            output = self.bill.output_tokens
            end["usage"] = self._told(self.usage(output) if self.repeats_input else {"output_tokens": output})
        yield self.named_event(end)
        yield self.named_event({"type": "message_stop"})

    def error(self):
        error = {"type": "overloaded_error", "message": "The scripted upstream broke."}
        yield self.named_event({"type": "error", "error": error})

    @classmethod
    def refusal(cls, status, message):
        kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
        error = {"type": kinds.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": "req_scripted"}

    def _open(self, kind, block):
        if self.block == kind:
            return
        yield from self._close()
        self.block = kind
        yield self.named_event({"type": "content_block_start", "index": self.blocks, "content_block": block})

    def _delta(self, delta):
        return self.named_event({"type": "content_block_delta", "index": self.blocks, "delta": delta})

    def _close(self):
        if self.block == "thinking":
            yield self._delta({"type": "signature_delta", "signature": SIGNATURE})
        if self.block is not None:
            yield self.named_event({"type": "content_block_stop", "index": self.blocks})
            self.block, self.blocks = None, self.blocks + 1

    def _stop_reason(self):
        return STOP_REASONS["tool_calls" if self.script.tools else self.script.stop]

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


SIGNATURE = base64.b64encode(b"signed by the scripted upstream").decode()


class Responses(Answer):
    """Responses, whole and as their events."""

    id = "resp_scripted"
    events = 0

    def usage(self):
        if isinstance(self.script.usage, dict):
            return self.script.usage
        bill = self.bill
        prompt = bill.input_tokens + bill.cache_read_tokens + bill.cache_write_tokens
        return {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": bill.cache_read_tokens,
                "cache_write_tokens": bill.cache_write_tokens,
            },
            "output_tokens": bill.output_tokens,
            "output_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
            "total_tokens": prompt + bill.output_tokens,
        }

    def whole(self):
        return dumps(self._response(*self._ending()[1:]))

    def opening(self):
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress", None))
        self.output, self.item, self.said = [], None, ""

    def delta(self, piece, sent):
        match piece.kind:
            case "reasoning":
                return
            case "text":
                if self.item is None:
                    self.item = self._message("", "in_progress")
                    yield self._item_event("added", self.item | {"content": []})
                    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                    yield self._part_event("content_part.added", part=part)
                self.said += piece.text
                yield self._part_event("output_text.delta", delta=piece.text, logprobs=[])
            case "call":
                yield from self._close()
                self.item = self._call(piece.call) | {"arguments": "", "status": "in_progress"}
                yield self._item_event("added", self.item)
            case "arguments":
                self.said += piece.text
                yield self._call_event("delta", delta=piece.text)

    def closing(self):
        yield from self._close()
        kind, status, details = self._ending()
        yield self._event(kind, response=self._response(status, details))

    def error(self):
        yield self._event("error", code="server_error", message="The scripted upstream broke.", param=None)

    refusal = OpenAI.refusal

    def _close(self):
        if self.item is None:
            return
        if self.item["type"] == "message":
            item = self._message(self.said, "completed")
            yield self._part_event("output_text.done", text=self.said, logprobs=[])
            yield self._part_event("content_part.done", part=item["content"][0])
        else:
            item = self.item | {"arguments": self.said, "status": "completed"}
            yield self._call_event("done", arguments=self.said, name=item["name"])
        yield self._item_event("done", item)
        self.output.append(item)
        self.item, self.said = None, ""

    def _ending(self):
        if self.script.stop == "stop":
            return "response.completed", "completed", None
        reason = "content_filter" if self.script.stop == "content_filter" else "max_output_tokens"
        return "response.incomplete", "incomplete", {"reason": reason}

    def _response(self, status, details):
        ended = status != "in_progress"
        return {
            "id": self.id,
            "object": "response",
            "created_at": CREATED,
            "completed_at": CREATED + 1 if ended else None,
            "status": status,
            "model": self.model,
            "error": None,
            "incomplete_details": details,
            "instructions": self.request.get("instructions"),
            "max_output_tokens": self.request.get("max_output_tokens"),
            "metadata": self.request.get("metadata") or {},
            "output": self._output() if ended else [],
            "parallel_tool_calls": True,
            "previous_response_id": self.request.get("previous_response_id"),
            "store": self.request.get("store", True),
            "temperature": 1.0,
            "text": self.request.get("text") or {"format": {"type": "text"}},
            "tool_choice": self.request.get("tool_choice", "auto"),
            "tools": self.request.get("tools", []),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self.usage() if ended and self.script.usage != "none" else None,
        }

    def _output(self):
        script, output = self.script, []
        if script.text or not script.tools:
            output.append(self._message(script.whole_text, "completed"))
        return output + [self._call(call) for call in script.tools]

    def _message(self, text, status):
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"id": "msg_scripted", "type": "message", "role": "assistant", "status": status, "content": [part]}

    def _call(self, call):
        return {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }

    def _item_event(self, what, item):
        return self._event(f"response.output_item.{what}", output_index=len(self.output), item=item)

    def _part_event(self, what, **fields):
        place = {"item_id": self.item["id"], "output_index": len(self.output), "content_index": 0}
        return self._event(f"response.{what}", **place, **fields)

    def _call_event(self, what, **fields):
        place = {"item_id": self.item["id"], "output_index": len(self.output)}
        return self._event(f"response.function_call_arguments.{what}", **place, **fields)

    def _event(self, kind, **fields):
        event = {"type": kind, "sequence_number": self.events} | fields
        self.events += 1
        return self.named_event(event)


# What is no text ---------------------------------------------------------------------------------------------------


def vector_of(text, dimensions=8):
    """The vector of a text: the same each time, exact in 32 bits, another one for another text."""
    digest = hashlib.shake_128(text.encode()).digest(dimensions)
    return [byte / 128 - 1 for byte in digest]


def texts_of(given):
    """The texts of an ``input``; tokens stand for themselves."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [json.dumps(given)]
    return [text if isinstance(text, str) else json.dumps(text) for text in given]


def embeddings(request, bill, *, base64_known=True):
    """Vectors, as base64 where that is asked for and the provider knows it."""
    data = []
    for index, text in enumerate(texts_of(request.get("input"))):
        vector = vector_of(text, request.get("dimensions") or 8)
        if base64_known and request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": bill.input_tokens, "total_tokens": bill.input_tokens}
    return {"object": "list", "data": data, "model": request.get("model"), "usage": usage}


def moderations(request):
    """One verdict for each text: a text with "kill" in it is violent."""
    results = []
    for text in texts_of(request.get("input")):
        flagged = "kill" in text
        results.append(
            {
                "flagged": flagged,
                "categories": {name: flagged and name == "violence" for name in CATEGORIES},
                "category_scores": {name: 0.9 if flagged and name == "violence" else 0.01 for name in CATEGORIES},
                "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
            }
        )
    return {"id": "modr-scripted", "model": request.get("model") or "omni-moderation-latest", "results": results}


def model_list(names, anthropic):
    if anthropic:
        data = [{"type": "model", "id": n, "display_name": n, "created_at": "2026-01-01T00:00:00Z"} for n in names]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"data": data, "has_more": False, **ends}
    data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in names]
    return {"object": "list", "data": data}
