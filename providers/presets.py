"""
What is known of each kind of provider: address, wire format, credential, endpoints and quirks. Data, no behaviour.

Each entry names the page that it was checked against and the day. What a provider's prices and models are stands in
the catalogue.
"""

import re
import urllib.parse
from dataclasses import dataclass, field
from types import MappingProxyType

from django.utils.translation import gettext_lazy as _

# The formats in which a provider may be asked; ``Preset.endpoints`` has those that it documents.
FORMATS = (
    "chat_completions", "completions", "responses", "embeddings", "moderations", "messages", "count_tokens", "models",
)  # fmt: skip

PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Blank:
    """A part of a base URL that each customer has for themselves, say the name of an Azure resource."""

    name: str
    label: str
    example: str
    pattern: str = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
    initial: str = ""


@dataclass(frozen=True, slots=True)
class Preset:
    """
    One kind of provider.

    ``dialect`` is the wire format it speaks: ``openai`` or ``anthropic``. ``base_url`` is empty where the user must
    give one and may hold ``{blanks}``. ``auth`` says how the credential travels: ``bearer``, ``x-api-key``,
    ``api-key``, ``aws``, ``google`` or ``none``. ``endpoints`` are the paths of the formats, as
    ``endpoints.endpoint_url`` takes them. ``drops`` are top-level request fields that it documents to refuse,
    ``renames`` those that it calls otherwise. One that ``repeats_usage`` sends the sum so far in every chunk of a
    stream. ``catalog`` is its id in the catalogue.
    """

    kind: str
    name: str
    dialect: str
    base_url: str
    auth: str
    endpoints: MappingProxyType = field(repr=False)
    model_field: str = "model"
    max_tokens_field: str = "max_tokens"
    adapter: str = "http"
    stream_options: bool = True
    drops: frozenset[str] = frozenset()
    renames: MappingProxyType = MappingProxyType({})
    repeats_usage: bool = False
    catalog: str | None = None
    blanks: tuple[Blank, ...] = ()
    needs_credential: bool = True
    credential_hint: str = ""
    docs_url: str = ""
    keys_url: str = ""
    checked: str = "2026-11-21"

    @property
    def needs(self):
        """What somebody who adds one of this kind must have at hand."""
        parts = [blank.label for blank in self.blanks] or ([] if self.base_url else [_("Base URL")])
        if self.needs_credential:
            parts.append({"aws": _("access keys"), "google": _("service account")}.get(self.auth, _("API key")))
        return parts

    def fill(self, values: dict[str, str]) -> str:
        """The base URL with its blanks filled in."""
        if self.kind == "vertex":
            values = {"host": vertex_host(values["region"])} | values
        return PLACEHOLDER.sub(lambda found: values[found[1]], self.base_url)


def vertex_host(region: str) -> str:
    """The host of Google's Vertex AI for a region, a multi-region or ``global``."""
    if region == "global":
        return "aiplatform.googleapis.com"
    if region in ("us", "eu"):
        return f"aiplatform.{region}.rep.googleapis.com"
    return f"{region}-aiplatform.googleapis.com"


_OPENAI_PATHS = {
    "chat_completions": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
    "models": "/models",
}


def _paths(*formats, **others):
    """The usual paths of ``formats``, and ``others`` where they are not usual."""
    return MappingProxyType({name: _OPENAI_PATHS[name] for name in formats} | others)


_ALL = (
    # Any service of either shape
    Preset(
        kind="openai-compatible",
        name=_("OpenAI-compatible"),
        dialect="openai",
        base_url="",
        auth="bearer",
        endpoints=_paths("chat_completions", "completions", "responses", "embeddings", "moderations", "models"),
        needs_credential=False,
        credential_hint=_("Where the service wants one."),
    ),
    Preset(
        kind="anthropic-compatible",
        name=_("Anthropic-compatible"),
        dialect="anthropic",
        base_url="",
        auth="x-api-key",
        endpoints=_paths("messages", "count_tokens", "models"),
        needs_credential=False,
        credential_hint=_("Where the service wants one."),
    ),
    # Services
    Preset(
        kind="openai",
        name="OpenAI",
        dialect="openai",
        base_url="https://api.openai.com/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "completions", "responses", "embeddings", "moderations", "models"),
        max_tokens_field="max_completion_tokens",
        catalog="openai",
        credential_hint="sk-…",
        docs_url="https://platform.openai.com/docs/api-reference",
        keys_url="https://platform.openai.com/api-keys",
    ),
    Preset(
        kind="anthropic",
        name="Anthropic",
        dialect="anthropic",
        base_url="https://api.anthropic.com",
        auth="x-api-key",
        endpoints=_paths("messages", "count_tokens", "models"),
        catalog="anthropic",
        credential_hint="sk-ant-…",
        docs_url="https://platform.claude.com/docs/en/api/overview",
        keys_url="https://platform.claude.com/settings/keys",
    ),
    Preset(
        kind="ektos",
        name="Ektos AI",
        dialect="openai",
        base_url="https://api.ektos.ai/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "models"),
        docs_url="https://docs.ektos.ai",
    ),
    Preset(
        kind="cloud-temple",
        name="Cloud Temple",
        dialect="openai",
        base_url="https://api.ai.cloud-temple.com/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "completions", "models"),
        docs_url="https://docs.cloud-temple.com/llmaas/llmaas",
    ),
    Preset(
        kind="evolink",
        name="EvoLink",
        dialect="openai",
        base_url="https://api.evolink.ai/v1",
        auth="bearer",
        endpoints=_paths("chat_completions"),
        docs_url="https://docs.evolink.ai",
        keys_url="https://evolink.ai/dashboard/keys",
    ),
    Preset(
        kind="ikalas",
        name="Ikalas",
        dialect="openai",
        # Its documentation gives the paths and no host.
        base_url="",
        auth="bearer",
        endpoints=_paths(
            chat_completions="/conversation",
            completions="/completion",
            embeddings="/embedding",
            moderations="/moderation",
        ),
        model_field="modele",
        stream_options=False,
    ),
    Preset(
        kind="mistral",
        name="Mistral AI",
        dialect="openai",
        base_url="https://api.mistral.ai/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "embeddings", "moderations", "models"),
        # It refuses fields that it does not know, and sends the usage of a stream without being asked.
        stream_options=False,
        renames=MappingProxyType({"max_completion_tokens": "max_tokens", "seed": "random_seed"}),
        drops=frozenset({
            "audio", "logit_bias", "modalities", "safety_identifier", "store", "stream_options", "user", "verbosity",
            "web_search_options",
        }),
        catalog="mistral",
        docs_url="https://docs.mistral.ai/api",
        keys_url="https://console.mistral.ai/api-keys",
    ),
    Preset(
        kind="gemini",
        name="Google Gemini",
        dialect="openai",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        auth="bearer",
        endpoints=_paths("chat_completions", "embeddings", "models"),
        repeats_usage=True,
        catalog="google",
        credential_hint="AIza…",
        docs_url="https://ai.google.dev/gemini-api/docs/openai",
        keys_url="https://aistudio.google.com/apikey",
    ),
    Preset(
        kind="azure",
        name="Azure OpenAI",
        dialect="openai",
        base_url="https://{resource}.openai.azure.com/openai/v1",
        auth="api-key",
        endpoints=_paths("chat_completions", "responses", "embeddings", "models"),
        max_tokens_field="max_completion_tokens",
        catalog="azure",
        blanks=(Blank("resource", _("Azure resource"), "my-resource"),),
        docs_url="https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle",
        keys_url="https://portal.azure.com",
    ),
    Preset(
        kind="foundry",
        name=_("Claude on Microsoft Foundry"),
        dialect="anthropic",
        base_url="https://{resource}.services.ai.azure.com/anthropic",
        auth="x-api-key",
        endpoints=_paths("messages", "count_tokens"),
        catalog="anthropic",
        blanks=(Blank("resource", _("Foundry resource"), "my-resource"),),
        docs_url="https://platform.claude.com/docs/en/build-with-claude/claude-in-microsoft-foundry",
        keys_url="https://ai.azure.com",
    ),
    Preset(
        kind="bedrock",
        name=_("Claude on Amazon Bedrock"),
        dialect="anthropic",
        base_url="https://bedrock-runtime.{region}.amazonaws.com",
        auth="aws",
        endpoints=_paths(messages="/model/{model}/invoke", count_tokens="/model/{model}/count-tokens"),
        adapter="bedrock",
        catalog="aws",
        blanks=(Blank("region", _("AWS region"), "eu-west-3", r"[a-z]{2}(-[a-z]+)+-[0-9]"),),
        docs_url="https://docs.aws.amazon.com/bedrock/latest/userguide/inference-messages-api.html",
        keys_url="https://console.aws.amazon.com/iam",
    ),
    Preset(
        kind="vertex",
        name=_("Claude on Google Vertex AI"),
        dialect="anthropic",
        base_url="https://{host}/v1/projects/{project}/locations/{region}",
        auth="google",
        endpoints=_paths(
            messages="/publishers/anthropic/models/{model}:rawPredict",
            count_tokens="/publishers/anthropic/models/count-tokens:rawPredict",
        ),
        adapter="vertex",
        catalog="google",
        blanks=(
            Blank("project", _("Google Cloud project"), "my-project", r"[a-z][a-z0-9:.-]{4,62}"),
            Blank("region", _("Region"), "europe-west1", r"[a-z]{2,6}(-[a-z]+[0-9]+)?", "global"),
        ),
        docs_url="https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai",
        keys_url="https://console.cloud.google.com/iam-admin/serviceaccounts",
    ),
    Preset(
        kind="openrouter",
        name="OpenRouter",
        dialect="openai",
        base_url="https://openrouter.ai/api/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "completions", "responses", "embeddings", "messages", "models"),
        catalog="openrouter",
        credential_hint="sk-or-…",
        docs_url="https://openrouter.ai/docs/api/reference/overview",
        keys_url="https://openrouter.ai/settings/keys",
    ),
    Preset(
        kind="groq",
        name="Groq",
        dialect="openai",
        base_url="https://api.groq.com/openai/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "responses", "models"),
        drops=frozenset({"logit_bias", "logprobs", "top_logprobs"}),
        catalog="groq",
        credential_hint="gsk_…",
        docs_url="https://console.groq.com/docs/openai",
        keys_url="https://console.groq.com/keys",
    ),
    Preset(
        kind="deepseek",
        name="DeepSeek",
        dialect="openai",
        base_url="https://api.deepseek.com",
        auth="bearer",
        endpoints=_paths("chat_completions", "models"),
        catalog="deepseek",
        credential_hint="sk-…",
        docs_url="https://api-docs.deepseek.com",
        keys_url="https://platform.deepseek.com/api_keys",
    ),
    # Programs that answer on machines of one's own
    Preset(
        kind="ollama",
        name="Ollama",
        dialect="openai",
        base_url="http://localhost:11434/v1",
        auth="bearer",
        endpoints=_paths("chat_completions", "completions", "responses", "embeddings", "messages", "models"),
        needs_credential=False,
        docs_url="https://docs.ollama.com/api/openai-compatibility",
    ),
    Preset(
        kind="vllm",
        name="vLLM",
        dialect="openai",
        base_url="http://localhost:8000/v1",
        auth="bearer",
        endpoints=_paths(
            "chat_completions", "completions", "responses", "embeddings", "messages", "count_tokens", "models"
        ),
        needs_credential=False,
        docs_url="https://docs.vllm.ai/en/stable/serving/online_serving.html",
    ),
    Preset(
        kind="llama-cpp",
        name="llama.cpp",
        dialect="openai",
        base_url="http://localhost:8080/v1",
        auth="bearer",
        endpoints=_paths(
            "chat_completions", "completions", "responses", "embeddings", "messages", "count_tokens", "models"
        ),
        needs_credential=False,
        docs_url="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Preset(
        kind="local",
        name=_("On this machine"),
        dialect="openai",
        base_url="",
        auth="none",
        endpoints=_paths("chat_completions", "completions", "count_tokens", "models"),
        needs_credential=False,
    ),
)  # fmt: skip
PRESETS: dict[str, Preset] = {preset.kind: preset for preset in _ALL}
# What a person can add: the model on this machine is the server's own.
ADDABLE = tuple(kind for kind in PRESETS if kind != "local")


# As the page shows them that asks for a kind.
_COMMON = ("openai", "anthropic", "openai-compatible", "anthropic-compatible")
_CLOUDS = ("azure", "foundry", "bedrock", "vertex")
_OWN = ("ollama", "vllm", "llama-cpp")


def preset_groups():
    """The presets that a person can add, in groups, each with its heading."""
    others = [kind for kind in ADDABLE if kind not in _COMMON + _CLOUDS + _OWN]
    groups = [
        (_("Most asked for"), _COMMON),
        (_("Services"), others),
        (_("Clouds"), _CLOUDS),
        (_("On machines of one’s own"), _OWN),
    ]
    return [(heading, [PRESETS[kind] for kind in kinds]) for heading, kinds in groups]


def kind_choices():
    """The kinds as choices of a model field."""
    return [(preset.kind, preset.name) for preset in PRESETS.values()]


def preset_of(kind: str, base_url: str) -> Preset:
    """
    The preset of a provider.

    ``openai`` and ``anthropic`` at an address of their own are any service of that shape: nothing is known of its
    models, its prices or the spelling that the maker's newer models want.
    """
    preset = PRESETS[kind]
    if kind in ("openai", "anthropic") and _host(base_url) != _host(preset.base_url):
        return PRESETS[f"{kind}-compatible"]
    return preset


def _host(url):
    return urllib.parse.urlsplit(url).netloc
