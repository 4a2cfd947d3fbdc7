"""
How each provider's wire differs from the plain one: its base path, credential, usage, fields, order and errors.

What is here was read in their references or seen on their wires; a provider that is not told apart here speaks plainly.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from tests.upstream.responses import OpenAIResponses
from tests.upstream.wire import CREATED, Anthropic, Completions, OpenAI, Responses, model_list

CHAT = frozenset({"chat/completions", "models"})
ALL = frozenset(
    {"chat/completions", "completions", "responses", "embeddings", "moderations", "models", "messages",
     "messages/count_tokens"}
)  # fmt: skip


class Plain(OpenAI):
    """The three counters and no more, as smaller servers send them."""

    def usage(self, sent=None):
        usage = super().usage(sent)
        return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens") if name in usage}

    def dressed(self, answer):
        answer.pop("system_fingerprint", None)
        for choice in answer["choices"]:
            choice.pop("logprobs", None)
        return answer


class OpenAIItself(OpenAI):
    """Padding against eavesdroppers in each chunk, and the tier that answered."""

    def dressed(self, answer):
        answer["service_tier"] = "default"
        if answer["object"].endswith("chunk"):
            answer["obfuscation"] = "aZ3k9"
        return answer


class CloudTemple(Plain):
    id = "chatcmpl-ollama-6e5ad4f5-4ef2-4b4c-9d6f-1d0a0c1f7f0e"
    backend = {"engine_type": "engo", "machine_name": "ma02"}

    def usage(self, sent=None):
        return super().usage(sent) | {"reasoning_tokens": self.bill.reasoning_tokens}

    def dressed(self, answer):
        return {"backend": self.backend} | super().dressed(answer)


class CloudTempleCompletions(Completions):
    def usage(self, sent=None):
        told = super().usage(sent)
        counters = {name: told[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        return counters | {"reasoning_tokens": self.bill.reasoning_tokens}


class EvoLink(OpenAI):
    """Twins of the counters that are always zero."""

    id = "chatcmpl-20251010015944503180122WJNB8Eid"

    def usage(self, sent=None):
        usage = super().usage(sent)
        bill = self.bill
        return usage | {
            "prompt_tokens_details": {
                "cached_tokens": bill.cache_read_tokens,
                "text_tokens": usage["prompt_tokens"],
                "audio_tokens": 0,
                "image_tokens": 0,
            },
            "completion_tokens_details": {
                "text_tokens": 0,
                "audio_tokens": 0,
                "reasoning_tokens": bill.reasoning_tokens,
            },
            "input_tokens": 0,
            "output_tokens": 0,
            "input_tokens_details": None,
        }


class Ikalas(Plain):
    id = "conv_123456789"
    object = "conversation.completion"

    def __init__(self, script, request, body, path=""):
        super().__init__(script, request, body, path)
        self.model = script.response_model or request.get("modele")


class IkalasCompletions(Completions):
    id = "comp_123456789"
    object = "completion"

    def __init__(self, script, request, body, path=""):
        super().__init__(script, request, body, path)
        self.model = script.response_model or request.get("modele")


class Mistral(Plain):
    """Thoughts as parts of the content, calls in one chunk, usage in the last chunk unasked."""

    id = "cmpl-e5cc70bb28c444948073e77776eb30ef"
    whole_calls = True

    def message(self):
        message = super().message()
        del message["refusal"]
        if self.script.reasoning:
            text = {"type": "text", "text": self.script.whole_text}
            message["content"] = [self.thought("".join(self.script.reasoning)), text]
        return message

    def thought(self, text):
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

    def call(self, index, call, arguments):
        return {"id": call.id, "function": {"name": call.name, "arguments": arguments}, "index": index}

    def delta_of(self, piece):
        if piece.kind == "reasoning":
            return {"content": [self.thought(piece.text)]}
        return super().delta_of(piece)

    def _chunk(self, delta, finish=None, sent=0):
        chunk = self.dressed(self._head() | {"choices": [self.choice("delta", delta, finish)]})
        if finish:
            chunk["usage"] = self.usage()
        return self.unnamed_event(chunk | {"p": "abcdefgh"})

    def _tells_usage(self):
        return False

    @classmethod
    def refusal(cls, status, message):
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"object": "error", "message": message, "type": kind, "param": None, "code": "3051"}


class Gemini(Plain):
    """Usage in every chunk where it is asked for, calls in one chunk, and "stop" as their reason; errors in a list."""

    id = "TmXfaJKHGN2Nvs0P0e7L6AQ"
    whole_calls = True

    def finish(self):
        return self.script.stop

    def _chunk(self, delta, finish=None, sent=0):
        chunk = self.dressed(self._head() | {"choices": [self.choice("delta", delta, finish)]})
        if self._tells_usage():
            chunk["usage"] = self.usage(sent)
        return self.unnamed_event(chunk)

    def closing(self):
        yield self._chunk({"role": "assistant"}, finish=self.finish(), sent=self.bill.output_tokens)
        yield b"data: [DONE]\n\n"

    @classmethod
    def refusal(cls, status, message):
        words = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return [{"error": {"code": status, "message": message, "status": words.get(status, "INTERNAL")}}]


class Azure(OpenAI):
    """What its filters found, in each answer and in a first chunk without choices."""

    found = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}

    def dressed(self, answer):
        for choice in answer["choices"]:
            choice["content_filter_results"] = self.found
        if answer["object"] == self.object:
            answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": self.found}]
        return answer

    def opening(self):
        first = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
        found = [{"prompt_index": 0, "content_filter_results": self.found}]
        yield self.unnamed_event(first | {"prompt_filter_results": found})
        yield from super().opening()

    @classmethod
    def refusal(cls, status, message):
        return {"error": {"code": "BadRequest", "message": message, "innererror": {"code": "Scripted"}}}


class Groq(Plain):
    """How long it took, with its own usage once more beside the one that was asked for; calls in one chunk."""

    reasoning_field = "reasoning"
    whole_calls = True

    def usage(self, sent=None):
        times = {"queue_time": 0.01, "prompt_time": 0.002, "completion_time": 0.1, "total_time": 0.102}
        return times | super().usage(sent)

    def dressed(self, answer):
        answer = super().dressed(answer)
        answer["x_groq"] = {"id": "req_01jbd6g2qdfw2adyrt2az8hz4w"}
        if any(choice["finish_reason"] for choice in answer["choices"]) and answer["object"].endswith("chunk"):
            answer["x_groq"]["usage"] = self.usage()
        return answer


class DeepSeek(OpenAI):
    """Thoughts in a field of their own, cache hits and misses as counters of their own, comments while it waits."""

    id = "930c60df-bf64-41c9-a88e-3ec75f81e00e"
    reasoning_field = "reasoning_content"

    def usage(self, sent=None):
        usage, bill = super().usage(sent), self.bill
        return {
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": bill.cache_read_tokens},
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
            "prompt_cache_hit_tokens": bill.cache_read_tokens,
            "prompt_cache_miss_tokens": usage["prompt_tokens"] - bill.cache_read_tokens,
        }

    def opening(self):
        yield b": keep-alive\n\n"
        yield from super().opening()


class OpenRouter(OpenAI):
    """Comments while it waits, thoughts twice over, a price in the usage, and its usage in a chunk with a choice."""

    id = "gen-1760000000-hGd3kYbAVwV5vmG0PQzF"
    reasoning_field = "reasoning"

    def usage(self, sent=None):
        return super().usage(sent) | {"cost": 0.0012, "is_byok": False, "cost_details": {"upstream_inference_cost": 0}}

    def choice(self, name, value, finish):
        if thought := value.get("reasoning"):
            details = {"type": "reasoning.text", "text": thought, "format": "unknown", "index": 0}
            value = value | {"reasoning_details": [details]}
        return super().choice(name, value, finish) | {"native_finish_reason": finish and finish.upper()}

    def dressed(self, answer):
        return answer | {"provider": "Scripted"}

    def opening(self):
        yield b": OPENROUTER PROCESSING\n\n"
        yield from super().opening()

    def closing(self):
        yield self._chunk({"role": "assistant", "content": ""}, finish=self.finish())
        if self._tells_usage():
            last = self.choice("delta", {"role": "assistant", "content": ""}, None)
            yield self.unnamed_event(self.dressed(self._head() | {"choices": [last], "usage": self.usage()}))
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta, finish=None, sent=0):
        return self.unnamed_event(self.dressed(self._head() | {"choices": [self.choice("delta", delta, finish)]}))

    @classmethod
    def refusal(cls, status, message):
        metadata = {"raw": f'{{"error":{{"message":"{message}"}}}}', "provider_name": "Scripted"}
        return {"error": {"message": "Provider returned error", "code": status, "metadata": metadata}}


class Ollama(Plain):
    """The role in each chunk, calls in one chunk."""

    id = "chatcmpl-442"
    reasoning_field = "reasoning"
    whole_calls = True

    def delta_of(self, piece):
        delta = super().delta_of(piece)
        return None if delta is None else {"role": "assistant", "content": ""} | delta

    def dressed(self, answer):
        return super().dressed(answer) | {"system_fingerprint": "fp_ollama"}


class Vllm(Plain):
    """Thoughts in a field of their own, a second stop reason, errors that are flat."""

    id = "chatcmpl-8a0d3f6f2f0c4c0d8b5f"
    reasoning_field = "reasoning_content"

    def usage(self, sent=None):
        return super().usage(sent) | {"prompt_tokens_details": None}

    def choice(self, name, value, finish):
        return super().choice(name, value, finish) | {"stop_reason": None, "token_ids": None}

    @classmethod
    def refusal(cls, status, message):
        return {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}


class LlamaCpp(Plain):
    """Its timings where the answer ends."""

    id = "chatcmpl-oAcu8mBPHwFYDXYCBt3Zi5a0BDmR0dRk"
    reasoning_field = "reasoning_content"

    def dressed(self, answer):
        answer = super().dressed(answer) | {"system_fingerprint": "b6940-c5023daf6"}
        if any(choice["finish_reason"] for choice in answer["choices"]):
            answer["timings"] = {"prompt_n": 12, "predicted_n": 8, "predicted_per_second": 41.5}
        return answer

    @classmethod
    def refusal(cls, status, message):
        return {"error": {"code": status, "message": message, "type": "invalid_request_error"}}


class Claude(Anthropic):
    """All counters in the last usage of a stream, as it is today."""

    repeats_input = True


def temple_models(names, anthropic):
    permission = {"object": "model_permission", "created": CREATED, "allow_view": True, "organization": "*"}
    more = {"root": "scripted", "aliases": ["scripted-alias"], "parent": None, "max_model_len": 60_000}
    listed = model_list(names, anthropic)
    for item in listed["data"]:
        item |= more | {"permission": [permission | {"id": f"modelperm-{item['id']}-{CREATED}"}]}
    return listed


def bare_models(names, anthropic):
    """A list as Ektos sends it, told apart by type."""
    return {"data": [{"id": name, "object": "model", "type": "text-generation"} for name in names]}


@dataclass(frozen=True)
class Provider:
    """One provider: where it listens, how it wants to be asked, and what its answers look like."""

    base: str = "/v1"
    offers: frozenset[str] = ALL
    chat: type = OpenAI
    completions: type = Completions
    messages: type = Claude
    responses: type = Responses
    models: Callable = model_list
    auth: str = "authorization"  # the header that carries its credential
    headers: tuple[tuple[str, str], ...] = ()
    stream_options: bool = True
    base64: bool = True  # whether it gives vectors as base64
    model_field: str = "model"
    refuses: frozenset[str] = frozenset()  # fields that it does not know and will not have
    # A further path that it answers, beside those of the family
    paths: tuple[tuple[str, str], ...] = ()


PROVIDERS = {
    "openai": Provider(chat=OpenAIItself, responses=OpenAIResponses, offers=ALL | {"responses/input_tokens"}),
    # A server of the same shape that knows neither stream_options nor the newer fields
    "openai-compatible": Provider(
        chat=Plain,
        stream_options=False,
        base64=False,
        offers=ALL - {"responses", "messages", "messages/count_tokens"},
    ),
    "cloud-temple": Provider(
        chat=CloudTemple,
        completions=CloudTempleCompletions,
        offers=CHAT | {"completions"},
        models=temple_models,
        headers=(("id", str(uuid.UUID(int=7))), ("backend", "engine_type=engo; machine_name=ma02")),
    ),
    "evolink": Provider(chat=EvoLink, offers=frozenset({"chat/completions"})),
    "ektos": Provider(chat=Plain, offers=CHAT, models=bare_models),
    "ikalas": Provider(
        base="/api/v1",
        chat=Ikalas,
        completions=IkalasCompletions,
        offers=frozenset({"chat/completions", "completions", "embeddings", "moderations"}),
        stream_options=False,
        base64=False,
        model_field="modele",
        paths=(
            ("conversation", "chat/completions"),
            ("completion", "completions"),
            ("embedding", "embeddings"),
            ("moderation", "moderations"),
        ),
    ),
    "mistral": Provider(
        chat=Mistral,
        offers=CHAT | {"embeddings", "moderations"},
        stream_options=False,
        base64=False,
        refuses=frozenset({"max_completion_tokens", "seed", "user", "logprobs", "store", "logit_bias"}),
    ),
    "gemini": Provider(base="/v1beta/openai", chat=Gemini, offers=CHAT | {"embeddings"}, base64=False),
    "azure": Provider(base="/openai/v1", chat=Azure, offers=CHAT | {"responses", "embeddings"}, auth="api-key"),
    "groq": Provider(base="/openai/v1", chat=Groq, offers=CHAT | {"responses"}, refuses=frozenset({"logprobs"})),
    "deepseek": Provider(base="", chat=DeepSeek, offers=CHAT),
    "openrouter": Provider(base="/api/v1", chat=OpenRouter),
    "ollama": Provider(chat=Ollama, offers=ALL - {"moderations", "messages/count_tokens"}),
    "vllm": Provider(chat=Vllm, offers=ALL - {"moderations"}),
    "llama-cpp": Provider(chat=LlamaCpp, offers=ALL - {"moderations"}),
    "anthropic": Provider(offers=frozenset({"messages", "messages/count_tokens", "models"}), auth="x-api-key"),
    "foundry": Provider(
        base="/anthropic/v1", offers=frozenset({"messages", "messages/count_tokens"}), auth="x-api-key"
    ),
}
# Nobody in particular: the plainest answers of each family
FAMILY = Provider(messages=Anthropic)


def credential_of(name):
    """What the provider ``name`` wants to be shown."""
    return f"sk-{name}-0123456789"
