"""The catalogue: what it knows, how it is found and written, and what it does to models that were taken over."""

import datetime
import json
import re
import subprocess
import sys
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from providers import services
from providers.capabilities import ModelType, type_of, validate_capabilities
from providers.catalog import update
from providers.catalog.lookup import catalogs_of, entries_of, entry_of
from providers.catalog.matching import matches, spellings
from providers.discovery import RemoteModel
from providers.models import CatalogModel, Price
from providers.rates import validate_tiers
from tests.factories import make_model, make_organization, make_provider
from tests.providers.servers import serving

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def library():
    from providers.catalog import library

    return library


@pytest.fixture(scope="module")
def rows(library):
    return library.read(fetch=False, now=TODAY)


def row(rows, catalog, name):
    return next(row for row in rows if (row.catalog, row.name) == (catalog, name))


def make_entry(name="claude-sonnet-9", catalog="anthropic", **fields):
    fields = {
        "position": CatalogModel.objects.count(),
        "match": {"starts_with": name},
        "context_window": 200_000,
        "max_output_tokens": 64_000,
        "capabilities": ["chat", "image_input"],
        "rates": {"input": "3", "output": "15", "cache_read": "0.3", "batch_input": "1.5"},
        "tiers": [{"above": 200_000, "input": "6", "output": "22.5"}],
        "source": "genai-prices 0.0.1",
        "checked_on": datetime.date(2026, 11, 1),
    } | fields
    return CatalogModel.objects.create(catalog=catalog, name=name, **fields)


# What it knows ---------------------------------------------------------------------------------------------------


def test_three_hundred_models_are_known_with_context_longest_answer_and_price(rows):
    complete = [row for row in rows if row.context_window and row.max_output_tokens and row.rates]
    assert len(complete) > 800
    assert {row.catalog for row in complete} >= {"openai", "anthropic", "mistral", "google", "aws", "groq", "deepseek"}
    assert sum(bool(row.capabilities) for row in complete) == len(complete)


def test_every_row_is_one_that_the_models_take(rows):
    for entry in rows:
        validate_tiers(entry.tiers)
        validate_capabilities(entry.capabilities)
        assert entry.source and entry.checked_on and entry.match
        assert not entry.rates or {"input", "output"} <= entry.rates.keys()
        assert len(entry.source) <= 80


def test_tiers_cache_and_batch_rates_are_those_of_the_library(rows, library):
    sonnet = row(rows, "anthropic", "claude-sonnet-4-5")
    assert sonnet.rates | {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_1h": "6"} == sonnet.rates
    assert sonnet.rates["batch_output"] == "7.5"
    assert [tier["above"] for tier in sonnet.tiers] == [200_000]
    assert sonnet.tiers[0] | {"input": "6", "output": "22.5", "batch_input": "3"} == sonnet.tiers[0]


def test_a_rate_without_tiers_stays_in_the_tier_of_the_others(library):
    from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice, Tier, TieredPrices

    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(1000, Decimal(2))])
    prices = ModelPrice(input_mtok=tiered, output_mtok=Decimal(5))
    rates, tiers, _ = library._prices(ModelInfo(id="x", match=ClauseEquals("x"), prices=prices), TODAY)
    assert (rates, tiers) == ({"input": "1", "output": "5"}, [{"above": 1000, "input": "2", "output": "5"}])


def test_our_arithmetic_is_the_librarys(rows):
    """Ours on both sides of every tier, for all models of four makers, to a nano."""
    from genai_prices.data import providers
    from genai_prices.types import Usage

    from providers.tokens import TokenUsage
    from usage.costs import cost_of, rates_of

    compared = 0
    for provider in providers:
        if provider.id not in ("openai", "anthropic", "google", "mistral"):
            continue
        for model in provider.models:
            entry = row(rows, provider.id, model.id)
            if not entry.rates:
                continue
            rates = {f"{kind}_per_mtok": Decimal(rate) for kind, rate in entry.rates.items()}
            price = Price(tiers=entry.tiers, **rates)
            prices = vars(model.get_prices(TODAY))
            if "output_reasoning_mtok" in prices:
                continue
            for total in [900, *(above + more for tier in entry.tiers for above in [tier["above"]] for more in (0, 1))]:
                # Of a kind that the library has no rate for, it takes the input's, as we do.
                usage = TokenUsage(total - 300, 200, 100, 0, 77)
                theirs = model.get_prices(TODAY).calc_price(
                    Usage(input_tokens=total, cache_read_tokens=200, cache_write_tokens=100, output_tokens=77)
                )
                ours = cost_of(usage, rates_of(price))
                assert abs(ours - theirs["total_price"] * 10**9) <= 1, (model.id, total)
                compared += 1
    assert compared > 150


def test_a_model_that_costs_more_at_some_hours_is_priced_at_its_dearest(rows):
    flash = row(rows, "deepseek", "deepseek-flash")
    assert (flash.rates["input"], flash.source.endswith(", peak hours")) == ("0.3", True)


def test_what_is_not_sold_by_the_token_has_no_price(rows):
    assert row(rows, "openai", "whisper-1").rates == {}
    assert row(rows, "openai", "moderation").rates == {}
    assert row(rows, "openai", "text-embedding-3-small").rates == {"input": "0.02", "output": "0"}


def test_the_facts_say_where_they_are_from():
    facts = json.loads((ROOT / "providers/catalog/facts.json").read_text())
    assert datetime.date.fromisoformat(facts["checked"])
    assert "models.dev" in facts["source"]


def test_the_server_never_imports_the_price_library():
    code = (
        "import config.asgi, providers.tasks, sys; "
        "print([name for name in ('genai_prices', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# Finding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "yes", "no"),
    [
        ({"equals": "gpt-4o"}, "gpt-4o", "gpt-4o-mini"),
        ({"starts_with": "claude-3"}, "claude-3-opus", "my-claude-3"),
        ({"ends_with": ":free"}, "x:free", "x:freed"),
        ({"contains": "llama"}, "meta-llama-3", "lama"),
        ({"regex": r"^o1-\d{4}$"}, "o1-2024", "o1-20245"),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", "c"),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "a-z", "a-y"),
    ],
)
def test_a_clause_matches_what_it_means(clause, yes, no):
    assert matches(clause, yes)
    assert not matches(clause, no)


def test_a_clause_of_a_kind_that_is_not_known_matches_nothing():
    assert not matches({"like": "gpt-4o"}, "gpt-4o")


def test_a_date_is_found_in_both_spellings():
    assert spellings("GPT-5.2-20251211") == ["gpt-5.2-20251211", "gpt-5.2-2025-12-11"]
    assert spellings("claude-opus-5") == ["claude-opus-5"]


@pytest.mark.parametrize(
    ("kind", "base_url", "catalogs"),
    [
        ("openai", "https://api.openai.com/v1", ("openai",)),
        ("openai", "https://lab.example.org/v1", ()),
        ("openai-compatible", "https://api.x.ai/v1", ("x-ai",)),
        (
            "azure",
            "https://us.openai.azure.com/openai/v1",
            ("azure", "openai", "anthropic", "deepseek", "x-ai", "moonshotai"),
        ),
        ("vertex", "https://aiplatform.googleapis.com/v1/projects/p/locations/global", ("google", "anthropic")),
        ("ollama", "http://localhost:11434/v1", ()),
    ],
)
def test_a_provider_has_the_price_lists_of_its_kind_or_its_host(db, kind, base_url, catalogs):
    provider = make_provider(make_organization(), kind=kind, base_url=base_url)
    assert catalogs_of(provider) == catalogs


def test_a_model_is_found_in_the_own_list_first_and_by_the_first_entry(db):
    make_entry("gpt-9", "openai")
    own = make_entry("gpt-9", "azure")
    other = make_entry("o9", "openai", position=1)
    make_entry("o9-mini", "openai", position=2)
    azure = make_provider(make_organization(), kind="azure", base_url="https://us.openai.azure.com/openai/v1")

    found = entries_of(azure, ["gpt-9-mine", "o9-mini", "my-deployment"])

    assert found == {"gpt-9-mine": own, "o9-mini": other}


# Writing -----------------------------------------------------------------------------------------------------------


def update_catalog(**options):
    out = StringIO()
    call_command("update_catalog", stdout=out, **options)
    return out.getvalue()


def test_the_command_writes_every_model_and_says_how_many(db, rows):
    text = update_catalog()

    assert re.search(rf"has {len(rows)} models, [0-9]+ of them with a price", text)
    assert CatalogModel.objects.count() == len(rows)
    assert update.is_current()
    assert update_catalog(if_needed=True).strip() == "The catalogue is current."


def test_an_entry_that_stays_keeps_its_id_and_one_that_goes_leaves_the_model(db, rows):
    stays = make_entry("claude-sonnet-4-5")
    goes = make_entry("claude-nobody")
    provider = make_provider(make_organization(), kind="anthropic", base_url="https://api.anthropic.com")
    kept = make_model(provider, "claude-sonnet-4-5", catalog_model=stays)
    left = make_model(provider, "claude-nobody", catalog_model=goes, context_window=7)
    found = make_model(provider, "claude-haiku-5-5")

    update.write(rows)

    for model in (kept, left, found):
        model.refresh_from_db()
    assert kept.catalog_model_id == stays.pk
    assert (left.catalog_model, left.context_window) == (None, 7)
    assert found.catalog_model.name == "claude-haiku-5-5"


def test_changed_prices_are_told_and_given_to_models_that_follow(db):
    entry = make_entry("claude-sonnet-4-5", rates={"input": "9", "output": "9"}, tiers=[])
    provider = make_provider(make_organization(), kind="anthropic", base_url="https://api.anthropic.com", name="Claude")
    follows = make_model(provider, "claude-sonnet-4-5", catalog_model=entry, follows_catalog=True)
    stays = make_model(provider, "claude-sonnet-4-5-20250929", catalog_model=entry)

    text = update_catalog()

    assert "claude-sonnet-4-5 (Claude): now 3 in, 15 out per million tokens in the catalogue; it follows" in text
    assert "claude-sonnet-4-5-20250929 (Claude): now 3 in, 15 out" in text
    price = follows.prices.get()
    assert (price.input_per_mtok, price.batch_input_per_mtok, price.source) == (
        3,
        Decimal("1.5"),
        update.installed_source(),
    )
    assert price.tiers[0]["above"] == 200_000
    assert price.valid_from <= timezone.now()
    assert not stays.prices.exists()
    assert "now 3 in" not in update_catalog()


def test_nothing_is_priced_in_another_currency_than_the_catalogues(db):
    entry = make_entry("claude-sonnet-4-5", rates={"input": "9", "output": "9"})
    organization = make_organization(currency="EUR")
    provider = make_provider(organization, kind="anthropic", base_url="https://api.anthropic.com")
    follows = make_model(provider, "claude-sonnet-4-5", catalog_model=entry, follows_catalog=True)

    assert "its price here stays as it is" in update_catalog()
    assert not follows.prices.exists()


def fetch_from(monkeypatch, url):
    """Let the price library look for newer data at ``url``."""
    from genai_prices.update_prices import UpdatePrices

    init = UpdatePrices.__init__
    monkeypatch.setattr(UpdatePrices, "__init__", lambda self: init(self, url=url))


def test_a_network_that_is_not_there_leaves_the_catalogue_as_it_is(db, monkeypatch):
    fetch_from(monkeypatch, "http://127.0.0.1:9/")
    entry = make_entry()
    with pytest.raises(CommandError, match="could not be updated"):
        update_catalog(fetch=True)
    assert CatalogModel.objects.get() == entry


def test_newer_data_is_fetched_at_the_operators_word(db, monkeypatch):
    new = {"id": "claude-new", "match": {"equals": "Claude-New"}, "prices": {"input_mtok": 2, "output_mtok": 4}}
    published = [{"id": "anthropic", "name": "Anthropic", "api_pattern": "x", "models": [new]}]
    with serving({"/data.json": (200, {}, published)}) as made:
        fetch_from(monkeypatch, f"{made.origin}/data.json")
        update_catalog(fetch=True)

    entry = CatalogModel.objects.get()
    assert (entry.name, entry.match, entry.rates) == (
        "claude-new",
        {"equals": "claude-new"},
        {"input": "2", "output": "4"},
    )
    assert ", fetched " in entry.source
    assert update.is_current()


# Taking over -------------------------------------------------------------------------------------------------------


@pytest.fixture
def anthropic(organization):
    return make_provider(organization, kind="anthropic", base_url="https://api.anthropic.com", name="Claude")


def test_a_model_that_is_taken_over_gets_what_the_catalogue_says(anthropic, alice):
    entry = make_entry(lifecycle="deprecated")

    [model] = services.take_over_models(provider=anthropic, models=[RemoteModel("claude-sonnet-9")], actor=alice)

    model.refresh_from_db()
    assert (model.context_window, model.max_output_tokens) == (200_000, 64_000)
    assert (model.capabilities, model.lifecycle, model.catalog_model) == (["chat", "image_input"], "deprecated", entry)
    price = model.prices.get()
    assert (price.input_per_mtok, price.cache_read_per_mtok, price.batch_input_per_mtok) == (
        3,
        Decimal("0.3"),
        Decimal("1.5"),
    )
    assert (price.tiers, price.source, price.created_by) == (entry.tiers, "genai-prices 0.0.1", alice)


def test_what_the_provider_says_of_its_model_comes_first(anthropic, alice):
    make_entry()
    remote = RemoteModel("claude-sonnet-9", context_window=1000, max_output_tokens=10)
    [model] = services.take_over_models(provider=anthropic, models=[remote], actor=alice)
    assert (model.context_window, model.max_output_tokens) == (1000, 10)


def test_in_another_currency_it_is_not_priced(anthropic, alice):
    make_entry()
    anthropic.currency = "EUR"
    anthropic.save()
    [model] = services.take_over_models(provider=anthropic, models=[RemoteModel("claude-sonnet-9")], actor=alice)
    assert model.catalog_model
    assert not model.prices.exists()


def test_a_model_that_the_catalogue_does_not_know_may_be_asked_anything_and_is_not_priced(anthropic, alice):
    [model] = services.take_over_models(provider=anthropic, models=[RemoteModel("claude-mine")], actor=alice)
    assert (model.capabilities, model.catalog_model, model.type) == ([], None, ModelType.LLM)
    assert not model.prices.exists()


def test_the_same_name_at_another_seller_is_another_model(organization, alice):
    make_entry()
    lab = make_provider(organization, kind="anthropic-compatible", base_url="https://lab.example.org")
    [model] = services.take_over_models(provider=lab, models=[RemoteModel("claude-sonnet-9")], actor=alice)
    assert entry_of(lab, "claude-sonnet-9") is None
    assert not model.prices.exists()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], ModelType.LLM),
        (["chat", "tools"], ModelType.LLM),
        (["responses"], ModelType.LLM),
        (["embeddings"], ModelType.EMBEDDING),
        (["moderations"], ModelType.MODERATION),
        (["audio_output"], ModelType.OTHER),
    ],
)
def test_a_models_type_follows_from_what_it_can_do(capabilities, expected):
    assert type_of(capabilities) == expected
