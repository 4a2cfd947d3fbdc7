"""
A provider that costs next to nothing: fixed answers in both dialects from a bare protocol object.

One process, keep-alive, no work: what is measured through it is the gateway. The model ``m-50-0`` streams 50 chunks
without delay, each handed to the socket on its own; ``m-50-5`` 5 ms apart.
"""

import argparse
import asyncio
import functools
import json
import re

import httptools
import uvloop

PACED_MODEL = re.compile(rb'"model"\s*:\s*"[^"]*m-(\d+)-(\d+)')
STREAM = re.compile(rb'"stream"\s*:\s*true')
INPUT_TOKENS, OUTPUT_TOKENS = 12, 8
EVENT_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def answer(value, status="200 OK"):
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def event(value, name=None):
    """One event of a stream, framed as one HTTP chunk."""
    data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())
    if name:
        data = b"event: " + name.encode() + b"\n" + data
    return b"%x\r\n%s\n\n\r\n" % (len(data) + 2, data)


COMPLETION = answer(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello! How can I help?", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "system_fingerprint": None,
    }
)
MESSAGE = answer(
    {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [{"type": "text", "text": "Hello! How can I help?"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }
)
NOTHING = answer({"error": {"message": "Nothing here.", "type": "not_found_error"}}, "404 Not Found")


@functools.cache
def completion_stream(chunks):
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "bench"}

    def chunk(delta, finish=None):
        return event(head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": chunks,
        "total_tokens": INPUT_TOKENS + chunks,
    }
    return [
        chunk({"role": "assistant", "content": ""}),
        *[chunk({"content": "token "})] * chunks,
        chunk({}, "stop"),
        event(head | {"choices": [], "usage": usage}),
        event(b"[DONE]") + b"0\r\n\r\n",
    ]


@functools.cache
def message_stream(chunks):
    def named(value):
        return event(value, value["type"])

    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "token "}}
    message = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "bench",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1},
    }
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": chunks},
    }
    return [
        named({"type": "message_start", "message": message}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *[named(delta)] * chunks,
        named({"type": "content_block_stop", "index": 0}),
        named(end),
        named({"type": "message_stop"}) + b"0\r\n\r\n",
    ]


class Provider(asyncio.Protocol):
    """One connection: parse a request, write its answer."""

    def __init__(self, loop):
        self.loop = loop
        self.gone = False

    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def connection_lost(self, error):
        self.gone = True

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self):
        self.body = b""

    def on_url(self, url):
        self.url = url

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        is_message = b"/messages" in self.url
        if not is_message and b"/chat/completions" not in self.url:
            self.transport.write(NOTHING)
        elif not STREAM.search(self.body):
            self.transport.write(MESSAGE if is_message else COMPLETION)
        else:
            paced = PACED_MODEL.search(self.body)
            chunks, delay = (int(paced[1]), int(paced[2]) / 1000) if paced else (50, 0)
            events = message_stream(chunks) if is_message else completion_stream(chunks)
            self.transport.write(EVENT_STREAM + events[0])
            self.later(delay, events, 1)

    def later(self, delay, events, position):
        if delay:
            self.loop.call_later(delay, self.step, delay, events, position)
        else:
            self.loop.call_soon(self.step, delay, events, position)

    def step(self, delay, events, position):
        if self.gone:
            return
        self.transport.write(events[position])
        if position + 1 < len(events):
            self.later(delay, events, position + 1)


async def serve(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(loop), "127.0.0.1", port, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.upstream", description="Run the bare upstream by hand.")
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))
