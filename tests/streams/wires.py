"""The streams in ``wires/``: who sends each, in which format, and what is to be counted of it."""

import json
from pathlib import Path
from typing import NamedTuple

from providers.sse import EventSplitter
from providers.tokens import TokenUsage, count_tokens
from tests.streams.replay import ASKED, PROMPT
from tests.upstream.bedrock import frame_of

FOLDER = Path(__file__).parent / "wires"
ASKED_TOKENS = count_tokens(PROMPT)


class Wire(NamedTuple):
    """
    One stream. ``text`` is all that the model wrote in it, thoughts and calls of tools included.

    ``failure`` is the code of the error that ends it, ``None`` where it comes to its proper end.
    """

    name: str
    kind: str
    format: str
    source: str
    usage: TokenUsage
    text: str
    stop: str | None
    failure: str | None = None

    @property
    def events(self):
        """Its events as text, before anything is framed."""
        splitter = EventSplitter()
        blocks = (FOLDER / f"{self.name}.txt").read_bytes()
        return [event.raw for event in [*splitter.feed(blocks), *splitter.rest()]]

    @property
    def bytes(self):
        if self.kind == "bedrock":
            return self.framed(self.events)
        return (FOLDER / f"{self.name}.txt").read_bytes()

    @property
    def callers(self):
        """Those who can be answered from it: completions are passed on and never translated."""
        return [asked for asked in ASKED if self.format != "completions" or asked.format == "completions"]

    def framed(self, events):
        """``events`` as this provider puts them on the wire."""
        if self.kind != "bedrock":
            return b"".join(events)
        return b"".join(frame_of(json.loads(event.partition(b"data: ")[2])) for event in events)


def reported(input, output, *, read=None, written=None, written_1h=None, thought=None):
    return "reported", TokenUsage(input, read, written, written_1h, output, thought)


def counted(text, *, input=ASKED_TOKENS, **known):
    """What is said of a text whose tokens were counted here."""
    return "counted", TokenUsage(input_tokens=input, output_tokens=count_tokens(text), **known)


def chat(name, kind, how, text, stop="stop", failure=None, format="chat_completions"):
    return Wire(name, kind, format, *how, text, stop, failure)


def claude(name, how, text, stop="end_turn", failure=None, kind="anthropic"):
    return Wire(name, kind, "messages", *how, text, stop, failure)


def response(name, how, text, stop="completed", failure=None):
    return Wire(name, "openai", "responses", *how, text, stop, failure)


BROKEN = "provider_failed"
WIRES = [
    chat("openai-text", "openai", reported(11, 12, read=20, thought=5), "Grüße, Welt 🌍!"),
    chat(
        "openai-tools", "openai", reported(18, 41, read=0, written=64),
        'get_weather{"city":"Zürich"}get_time{"tz":"CET"}', "tool_calls",
    ),
    chat("openai-refusal", "openai", reported(60, 11), "I’m sorry, I can’t help with that."),
    chat("openai-logprobs-without-usage", "openai", counted("Sí, claro"), "Sí, claro", "length"),
    chat("openai-audio", "openai", reported(14, 20, thought=0), "Good evening."),
    chat("openai-two-choices", "openai", reported(10, 4), "HeadsTails"),
    chat("openai-functions", "openai", reported(44, 9), 'look_up{"q":"a\\"b"}', "function_call"),
    chat("openai-completions", "openai", reported(3, 16), " upon a tíme", "length", format="completions"),
    chat("azure-text", "azure", reported(15, 5, read=0, thought=0), "Bonjour à tous"),
    chat("azure-filtered", "azure", counted("First, take"), "First, take", "content_filter"),
    chat("groq-reasoning", "groq", reported(210, 25), "We need weather.Sunny."),
    chat("groq-tool", "groq", reported(210, 25), "weather{}", "tool_calls"),
    chat("deepseek-reasoning", "deepseek", reported(32, 30, read=64, thought=18), "9.11 < 9.89.8 更大"),
    chat("deepseek-overloaded", "deepseek", reported(9, 2), "Half an", "insufficient_system_resource"),
    chat("mistral-thinking", "mistral", reported(21, 48), "D’abord, compter.Il y a trois r."),
    chat("mistral-tools", "mistral", reported(120, 32), 'pay{"id": "T1"}pay{"id": "T2"}', "tool_calls"),
    chat("gemini-thoughts-in-the-total", "gemini", reported(11, 153, thought=146), "Der Himmel ist blau."),
    chat("gemini-tool", "gemini", reported(40, 62, thought=38), 'weather{"city":"Lyon"}weather{"city":"Nice"}'),
    chat("openrouter-reasoning", "openrouter", reported(20, 17, read=32, thought=9), "Consider both.Both work."),
    chat("openrouter-error", "openrouter", counted("The first"), "The first", None, BROKEN),
    chat("ollama-thinking", "ollama", reported(18, 9), "Two plus two.4"),
    chat("ollama-tool", "ollama", counted('add{"a":1,"b":2}'), 'add{"a":1,"b":2}', "tool_calls"),
    chat("vllm-continuous-usage", "vllm", reported(25, 3), "HmmJawohl"),
    chat("llama-cpp-timings", "llama-cpp", reported(12, 8), "OkayHéllo"),
    chat("llama-cpp-without-usage", "llama-cpp", counted("Hello there"), "Hello there"),
    chat("cloud-temple-text", "cloud-temple", reported(70, 200, thought=40), "La Tour Eiffel."),
    chat("evolink-zero-twins", "evolink", reported(13, 1891, read=0, thought=1480), "Quantenphysik"),
    chat("ektos-text", "ektos", reported(7, 4), "Hola mundo"),
    chat("ikalas-conversation", "ikalas", reported(24, 30), "Bonjour, que puis-je ?"),
    chat("xai-thoughts-beside", "openai-compatible", reported(16, 103, read=4, thought=100), "FirstHi!"),
    chat("compatible-without-done", "openai-compatible", counted("No last word"), "No last word"),
    chat("compatible-crlf", "openai-compatible", reported(6, 3), "Line énds"),
    claude("anthropic-text", reported(25, 12, read=0, written=0, written_1h=0), "Grüße, Welt 🌍"),
    claude(
        "anthropic-thinking", reported(4, 60, read=1000, written=100, written_1h=200, thought=48),
        "27 × 453: multiply.12 231",
    ),
    claude(
        "anthropic-tools", reported(25, 65, read=0, written=0, written_1h=0),
        'I’ll look.weather{"city": "São Paulo"}now', "tool_use",
    ),
    claude("anthropic-search", reported(2300, 90, read=0, written=0, written_1h=0), '{"query":"rain"}It rains.'),
    claude("anthropic-refusal", reported(18, 5, read=0, written=0, written_1h=0), "", "refusal"),
    claude("anthropic-stop-sequence", reported(25, 4, read=0, written=0, written_1h=0), "one two", "stop_sequence"),
    claude(
        "anthropic-error",
        counted("Only so", input=25, cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0),
        "Only so", None, BROKEN,
    ),
    claude("foundry-text", reported(25, 4), "Azure’s Claude.", "max_tokens", kind="foundry"),
    claude("vertex-text", reported(25, 8, read=0, written=0, written_1h=0), "Ciao a tutti", kind="vertex"),
    claude(
        "bedrock-thinking", reported(25, 21, read=0, written=0, written_1h=0), "Très simple.Voilà.", kind="bedrock"
    ),
    claude(
        "bedrock-tool", reported(25, 30, read=0, written=0, written_1h=0), 'add{"a":1}', "tool_use", kind="bedrock"
    ),
    claude(
        "bedrock-throttled",
        counted("Cut", input=25, cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0),
        "Cut", None, BROKEN, kind="bedrock",
    ),
    response("responses-text", reported(11, 12, read=20, thought=0), "Grüße, Welt 🌍"),
    response(
        "responses-calls", reported(20, 40, read=0, written=50, thought=0), 'tool_0{"n":"ö0"}tool_1{"n":"ö1"}'
    ),
    response("responses-reasoning", reported(22, 80, read=0, thought=64), "**Adding** upFour."),
    response("responses-incomplete", reported(9, 16, read=0, thought=0), "Too lo", "max_output_tokens"),
    response("responses-failed", counted("Start"), "Start", "failed", BROKEN),
    response("responses-refusal", reported(30, 6, read=0, thought=0), "I can’t."),
]  # fmt: skip
