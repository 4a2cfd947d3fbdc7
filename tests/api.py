"""Raw calls to a server, in both dialects, for tests that look at bytes, headers and rows."""

import contextlib
import json
from dataclasses import dataclass

import httpx

from tests.server import Server


@dataclass(frozen=True)
class Dialect:
    """What tests know of a wire format on their own, without asking the product."""

    name: str
    path: str
    request_id_header: str
    headers: dict

    def body(self, model, text, **fields):
        """The least that a call needs."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        if self.name == "anthropic":
            body["max_tokens"] = 64
        return body | fields

    def error_of(self, document):
        """``(type, code, message)`` of an error body, whose shape must be exact."""
        if self.name == "anthropic":
            assert document["type"] == "error"
            assert set(document) == {"type", "error", "request_id"}
            error = document["error"]
            return error["type"], (error.get("details") or {}).get("error_code"), error["message"]
        assert set(document) == {"error"}
        error = document["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error["type"], error["code"], error["message"]

    def text_of(self, document):
        if self.name == "anthropic":
            return "".join(block["text"] for block in document["content"] if block["type"] == "text")
        return document["choices"][0]["message"]["content"]

    def events_of(self, raw):
        """The JSON of every event in a stream's bytes, without OpenAI's last word."""
        lines = raw.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip() != "[DONE]"]

    def streamed_text(self, raw):
        events = self.events_of(raw)
        if self.name == "anthropic":
            return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
        return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", []))

    def is_ended(self, raw):
        return (b"message_stop" if self.name == "anthropic" else b"data: [DONE]") in raw


OPENAI = Dialect("openai", "/v1/chat/completions", "x-request-id", {})
ANTHROPIC = Dialect("anthropic", "/v1/messages", "request-id", {"anthropic-version": "2023-06-01"})


class Api:
    """A caller with a key, speaking one dialect."""

    def __init__(self, server: Server, key, dialect=OPENAI):
        self.server, self.key, self.dialect = server, key, dialect
        self.client = httpx.Client(base_url=server.base_url, timeout=20, follow_redirects=False)

    def close(self):
        self.client.close()

    @property
    def headers(self):
        return self.dialect.headers | {"authorization": f"Bearer {self.key}"}

    def ask(self, model, text="Hello", *, headers=None, **fields):
        """The whole answer to one question."""
        body = self.dialect.body(model, text, **fields)
        return self.client.post(self.dialect.path, json=body, headers=self.headers | (headers or {}))

    @contextlib.contextmanager
    def streaming(self, model, text="Hello", **fields):
        """An open stream of the answer."""
        body = self.dialect.body(model, text, stream=True, **fields)
        with self.client.stream("POST", self.dialect.path, json=body, headers=self.headers) as answer:
            yield answer

    def post(self, path=None, **options):
        """A request as it is told, with this caller's headers unless others are given."""
        return self.client.post(path or self.dialect.path, **{"headers": self.headers} | options)

    def request_id(self, answer):
        return answer.headers[self.dialect.request_id_header]

    def row(self, answer):
        """The usage row of an answer."""
        return self.server.row(self.request_id(answer))
