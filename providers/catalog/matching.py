"""By which names a model of the catalogue is asked for: clauses in JSON, such as ``{"starts_with": "gpt-4o"}``."""

import re
from functools import lru_cache

COMPACT_DATE = re.compile(r"-(20[0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$")
# Whose entries stand in where a seller's own list has none: clouds sell other makers' models under the makers' names.
STAND_INS = {
    "azure": ("openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
    "google": ("anthropic",),
}
# Sellers that speak a common format, by the host of their API.
HOSTS = {
    "api.arcee.ai": "arcee",
    "api.avian.io": "avian",
    "api.cerebras.ai": "cerebras",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.meta.ai": "meta",
    "api.minimax.io": "minimax",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.voyageai.com": "voyageai",
    "api.x.ai": "x-ai",
    "api.z.ai": "zai",
    "generativelanguage.googleapis.com": "google",
    "inference.baseten.co": "baseten",
    "oai.endpoints.kepler.ai.cloud.ovh.net": "ovhcloud",
    "open.bigmodel.cn": "zhipuai",
    "openrouter.ai": "openrouter",
}


def matches(clause: dict, name: str) -> bool:
    """Whether ``name``, in small letters, is one that ``clause`` means; a clause of no known kind means none."""
    (kind, value), *_ = clause.items()
    match kind:
        case "equals":
            return name == value
        case "starts_with":
            return name.startswith(value)
        case "ends_with":
            return name.endswith(value)
        case "contains":
            return value in name
        case "regex":
            return bool(_compiled(value).search(name))
        case "or":
            return any(matches(each, name) for each in value)
        case "and":
            return all(matches(each, name) for each in value)
    return False


@lru_cache(512)
def _compiled(pattern):
    return re.compile(pattern)


def spellings(name: str) -> list[str]:
    """The names to look for: as it is in small letters, and with a date such as -20250930 written with dashes."""
    name = name.lower()
    dashed = COMPACT_DATE.sub(r"-\1-\2-\3", name)
    return [name] if dashed == name else [name, dashed]
