"""Writing the catalogue, and what its changes mean for the models that organizations have taken over."""

import importlib.metadata
from dataclasses import dataclass

from django.db import transaction

from providers.catalog.lookup import entry_of
from providers.models import CatalogModel, ProviderModel

PACKAGE = "genai-prices"
FIELDS = (
    "position", "display_name", "match", "context_window", "max_output_tokens", "capabilities", "lifecycle",
    "currency", "rates", "tiers", "source", "checked_on",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A taken-over model whose price in the catalogue is another than it was."""

    model: ProviderModel
    before: CatalogModel
    after: CatalogModel


@dataclass(frozen=True, slots=True)
class Update:
    """What came of writing the catalogue."""

    count: int
    priced: int
    changes: tuple[Change, ...]


def installed_source() -> str:
    """The price library and its version, as rows that were read from its wheel name them."""
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def is_current() -> bool:
    """Whether the catalogue was written from the price library that is installed, or from newer data by it."""
    return CatalogModel.objects.filter(source__startswith=installed_source()).exists()


@transaction.atomic
def write(rows: list[CatalogModel]) -> Update:
    """
    Make ``rows`` the catalogue; those that stay keep their ids. What models of organizations say stays as it is.

    Models that had no entry get theirs where there is one now.
    """
    before = {(row.catalog, row.name): row for row in CatalogModel.objects.all()}
    CatalogModel.objects.bulk_create(
        rows, batch_size=500, update_conflicts=True, unique_fields=["catalog", "name"], update_fields=FIELDS
    )
    names = {(row.catalog, row.name) for row in rows}
    gone = [row.pk for key, row in before.items() if key not in names]
    for start in range(0, len(gone), 500):
        CatalogModel.objects.filter(pk__in=gone[start : start + 500]).delete()
    old = {row.pk: row for row in before.values()}
    changes = []
    for model in ProviderModel.objects.current().select_related("provider__organization", "catalog_model"):
        entry = model.catalog_model
        if entry is None:
            if entry := entry_of(model.provider, model.name):
                ProviderModel.objects.filter(pk=model.pk).update(catalog_model=entry)
            continue
        was = old[entry.pk]
        if (was.rates, was.tiers) != (entry.rates, entry.tiers):
            changes.append(Change(model, was, entry))
    return Update(len(rows), sum(bool(row.rates) for row in rows), tuple(changes))
