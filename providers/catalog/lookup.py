"""Finding what the catalogue says of a provider's model."""

from urllib.parse import urlsplit

from providers.catalog.matching import HOSTS, STAND_INS, matches, spellings
from providers.models import CatalogModel, Provider


def catalogs_of(provider: Provider) -> tuple[str, ...]:
    """The price lists in which a provider's models stand, the first first; none for a seller that is not known."""
    own = provider.preset.catalog or HOSTS.get(urlsplit(provider.base_url).hostname or "")
    return (own, *STAND_INS.get(own, ())) if own else ()


def entry_of(provider: Provider, name: str) -> CatalogModel | None:
    """The entry for a model as ``provider`` names it."""
    return entries_of(provider, [name]).get(name)


def entries_of(provider: Provider, names: list[str]) -> dict[str, CatalogModel]:
    """The entries for models as ``provider`` names them, in two queries; a name without one is left out."""
    catalogs = catalogs_of(provider)
    if not catalogs or not names:
        return {}
    lists = {catalog: [] for catalog in catalogs}
    for pk, catalog, match in (
        CatalogModel.objects.filter(catalog__in=catalogs).order_by("position").values_list("pk", "catalog", "match")
    ):
        lists[catalog].append((pk, match))
    found = {name: pk for name in names if (pk := _find(name, lists.values())) is not None}
    rows = CatalogModel.objects.in_bulk(set(found.values()))
    return {name: rows[pk] for name, pk in found.items()}


def _find(name, lists):
    for spelling in spellings(name):
        for entries in lists:
            for pk, match in entries:
                if matches(match, spelling):
                    return pk
    return None


def names_of(provider: Provider) -> list[str]:
    """Every name in the price lists of a provider, for choosing one."""
    rows = CatalogModel.objects.filter(catalog__in=catalogs_of(provider))
    return list(rows.order_by("name").values_list("name", flat=True).distinct())
