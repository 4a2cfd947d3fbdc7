"""Which cells there are: who asks what of whom, what the upstream is told to say, and what is to be refused."""

from dataclasses import dataclass, field
from functools import cached_property

from providers.presets import PRESETS
from tests.server import ROOT
from tests.upstream import Script
from tests.upstream.scripts import ToolCall

SDK = ROOT / ".sdk"
PROGRAMS = ROOT / "tests/conformance/clients"

CHAT = ("plain", "stream", "tools", "tools_stream", "tool_result", "image", "structured", "reasoning", "refused")
# What no upstream has a part in.
HERE = ("unknown_model", "wrong_key", "bad_field", "list")


def asks_of(endpoint, *cases):
    return tuple(f"{endpoint}.{case}" for case in cases)


OPENAI = (
    *asks_of("chat", *CHAT, "unknown_model", "wrong_key", "bad_field"),
    *asks_of("completions", "plain", "stream"),
    *asks_of("embeddings", "plain"),
    *asks_of("moderations", "plain"),
    *asks_of("responses", "plain", "stream", "tools", "tools_stream", "stored"),
    *asks_of("models", "list"),
)
ANTHROPIC = (
    *asks_of("messages", *CHAT, "unknown_model", "wrong_key", "bad_field"),
    *asks_of("count_tokens", "plain"),
    *asks_of("models", "list"),
)
PROGRAM = ("plain", "stream", "tools", "tools_stream", "tool_result", "image", "structured", "refused")


@dataclass(frozen=True)
class Client:
    """A program or library as people install it, and what it can ask."""

    name: str
    title: str
    package: str  # whose version the page tells
    folder: str  # under .sdk; empty: the tests' own environment
    program: str
    asks: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def command(self):
        """The command line, and the variables that choose its environment."""
        import sys

        if self.program.endswith(".cjs"):
            node = SDK / self.folder / "node"
            return [str(node), str(PROGRAMS / self.program), *self.arguments], {
                "NODE_PATH": str(SDK / self.folder / "node_modules")
            }
        if self.folder:
            # Without site: nothing of the tests' own environment is there.
            return [sys.executable, "-S", str(PROGRAMS / self.program)], {"PYTHONPATH": str(SDK / self.folder)}
        return [sys.executable, str(PROGRAMS / self.program)], {"PYTHONPATH": ""}


CLIENTS = {
    client.name: client
    for client in (
        Client("openai-3", "OpenAI for Python, 3", "openai", "", "openai_sdk.py", OPENAI),
        Client("openai-1", "OpenAI for Python, 1", "openai", "openai-1", "openai_sdk.py", OPENAI),
        Client("openai-node", "OpenAI for Node", "openai", "npm", "node_sdks.cjs", OPENAI, ("openai",)),
        Client("anthropic-2", "Anthropic for Python, 2", "anthropic", "", "anthropic_sdk.py", ANTHROPIC),
        Client("anthropic-0", "Anthropic for Python, 0", "anthropic", "anthropic-0", "anthropic_sdk.py", ANTHROPIC),
        Client(
            *("anthropic-node", "Anthropic for Node", "@anthropic-ai/sdk", "npm", "node_sdks.cjs", ANTHROPIC),
            ("anthropic",),
        ),
        Client(
            *("llm", "the command llm", "llm", "llm", "llm_command.py"),
            (
                *asks_of("chat", "plain", "stream", "tool_loop", "tool_loop_stream", "image", "structured", "refused"),
                *asks_of("chat", "unknown_model", "wrong_key"),
                *asks_of("completions", "plain"),
                *asks_of("responses", "plain", "stream"),
                *asks_of("models", "list"),
            ),
        ),
        Client(
            *("langchain", "LangChain", "langchain-core", "langchain", "langchain_models.py"),
            (
                *asks_of("chat", *PROGRAM, "unknown_model", "wrong_key"),
                *asks_of("messages", *PROGRAM, "unknown_model", "wrong_key"),
                *asks_of("responses", "plain", "stream"),
                *asks_of("embeddings", "plain"),
            ),
        ),
        Client(
            *("litellm", "LiteLLM's client", "litellm", "litellm", "litellm_client.py"),
            (
                *asks_of("chat", *PROGRAM, "unknown_model", "wrong_key"),
                *asks_of("messages", *PROGRAM, "unknown_model", "wrong_key"),
                *asks_of("completions", "plain"),
                *asks_of("embeddings", "plain"),
                *asks_of("moderations", "plain"),
                *asks_of("responses", "plain"),
            ),
        ),
    )
}


# The model on this machine, which says what it will
LOCAL = "local"


@dataclass(frozen=True)
class UpstreamKind:
    """A provider behind Comptoir: its preset, and which of the scripted upstream's shapes plays it."""

    name: str
    kind: str = ""  # of its preset, where that is called otherwise
    tells_cache: bool = True  # whether its usage tells cached tokens apart
    tells_reasoning: bool = True
    tells_stream_usage: bool = True
    stops_for_tools: bool = True  # whether its answers with calls say so

    @property
    def preset(self):
        return PRESETS[self.kind or self.name]


UPSTREAMS = {
    upstream.name: upstream
    for upstream in (
        UpstreamKind("openai"),
        UpstreamKind("openai-compatible", tells_cache=False, tells_reasoning=False, tells_stream_usage=False),
        UpstreamKind("ektos", tells_cache=False, tells_reasoning=False),
        UpstreamKind("cloud-temple", tells_cache=False),
        UpstreamKind("evolink"),
        UpstreamKind("ikalas", tells_cache=False, tells_reasoning=False, tells_stream_usage=False),
        UpstreamKind("mistral", tells_cache=False, tells_reasoning=False),
        UpstreamKind("gemini", tells_cache=False, tells_reasoning=False, stops_for_tools=False),
        UpstreamKind("azure"),
        UpstreamKind("groq", tells_cache=False, tells_reasoning=False),
        UpstreamKind("deepseek"),
        UpstreamKind("openrouter"),
        UpstreamKind("ollama", tells_cache=False, tells_reasoning=False),
        UpstreamKind("vllm", tells_cache=False, tells_reasoning=False),
        UpstreamKind("llama-cpp", tells_cache=False, tells_reasoning=False),
        UpstreamKind("anthropic"),
        UpstreamKind("foundry"),
        UpstreamKind("bedrock"),
        UpstreamKind("vertex"),
        UpstreamKind(LOCAL),
    )
}
# Where the cells stand that no upstream has a part in.
ANY = "openai"


@dataclass(frozen=True, order=True)
class Cell:
    client: str
    ask: str
    upstream: str

    @property
    def id(self):
        """Its name in the tests, and in the prompts that it sends."""
        return f"{self.client}.{self.ask}.{self.upstream}"

    @property
    def endpoint(self):
        return self.ask.partition(".")[0]

    @property
    def case(self):
        return self.ask.partition(".")[2]

    @property
    def model(self):
        return f"{self.upstream}:{self.ask}"

    @property
    def is_here(self):
        return self.case in HERE

    @property
    def is_refused(self):
        """Whether no upstream of this kind has this endpoint, nor anything that it could be made of."""
        endpoints = UPSTREAMS[self.upstream].preset.endpoints
        return self.endpoint in ("embeddings", "moderations") and self.endpoint not in endpoints


def cells():
    """Every cell, a client's own together."""
    return [
        Cell(client.name, ask, upstream)
        for client in CLIENTS.values()
        for upstream in UPSTREAMS
        for ask in client.asks
        if is_asked(client.name, ask, upstream)
    ]


# Whom programs that speak both families ask in the second one: one provider of each way that its answers come about
SECOND = ("openai", "ikalas", "mistral", "gemini", "deepseek", "anthropic", "bedrock")


def is_asked(client, ask, upstream):
    endpoint, _, case = ask.partition(".")
    if case in HERE:
        return upstream == ANY
    if upstream == LOCAL:
        # It takes its time; tests/sdk has it speak with the official libraries for Python.
        return client in ("llm", "anthropic-node") and endpoint in ("chat", "messages") and case in ("plain", "stream")
    return client not in ("langchain", "litellm") or endpoint != "messages" or upstream in SECOND


# What is asked and what is said --------------------------------------------------------------------------------------

TOOL = {
    "name": "get_weather",
    "description": "Tell the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "population": {"type": "integer"}},
    "required": ["city", "population"],
    "additionalProperties": False,
}
CALLS = (
    ToolCall("call_a1B2c3D4", "get_weather", '{"city":"Málaga"}'),
    ToolCall("call_e5F6g7H8", "get_weather", '{"city":"Évora, Portugal"}'),
)
SHARED = {
    "system": "Answer in one line.",
    "tool": TOOL,
    "schema": SCHEMA,
    # One red pixel
    "image": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC",
    "limit": 8,
    "call": ["get_weather", {"city": "Málaga"}, "call_a1B2c3D4"],
    "result": "17 °C and clear",
}
REFUSAL = "The prompt does not fit this model."


@dataclass(frozen=True)
class Question:
    """What the upstream is told to answer to one ask."""

    scripts: tuple[Script, ...]
    text: str = ""
    data: dict | None = None
    calls: tuple[ToolCall, ...] = field(default=())


def question(ask, upstream):
    """The scripts of the model ``upstream:ask``, and what its answers say."""
    case = ask.partition(".")[2]
    words = ("Clear ", "skies ", "over ", "Málaga 🌤️ ", f"({upstream}, {ask})", ".")
    plain = Script(text=words, cache_read_tokens=4)
    match case:
        case "tools" | "tools_stream":
            return Question((plain.but(text=(), tools=CALLS),), calls=CALLS)
        case "tool_loop" | "tool_loop_stream":
            calls = CALLS[:1]
            return Question((plain.but(text=(), tools=calls), plain), text="".join(words), calls=calls)
        case "structured":
            words = ('{"city":', '"Málaga",', '"population":', "592346}")
            return Question((plain.but(text=words),), "".join(words), {"city": "Málaga", "population": 592_346})
        case "reasoning":
            return Question((plain.but(reasoning=("It is ", "November.")),), "".join(words))
        case "refused":
            return Question((Script(status=400, message=REFUSAL),))
    return Question((plain,), "".join(words))


@dataclass
class Seen:
    """What became of a cell: the client's answer, what reached the upstream, its bills, and the rows of it."""

    cell: Cell
    answer: dict
    received: list = field(default_factory=list)
    rows: list = field(default_factory=list)

    @cached_property
    def question(self):
        return question(self.cell.ask, self.cell.upstream)

    @property
    def billed(self):
        """The requests that the upstream answered; others it refused for a field that it does not know."""
        return [request for request in self.received if request.bill]

    @property
    def bills(self):
        return [request.bill for request in self.billed]
