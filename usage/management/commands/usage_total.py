"""Prints what was used, by the request rows, the rollups and the ledger, and whether all accounts agree."""

import json

from django.core.management.base import BaseCommand, CommandError

from console.models import ApiKey, Workspace
from usage import books


class Command(BaseCommand):
    help = (
        "Print what was used: requests, tokens and cost of the rows, what rollups and ledger make of them, whether "
        "they and the leases on limits agree, and where they do not."
    )

    def add_arguments(self, parser):
        parser.add_argument("--workspace", metavar="W", help="the slug of a workspace; all of them without it")
        parser.add_argument("--key", metavar="NAME", help="the name of an API key, revoked ones of that name included")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *, workspace=None, key=None, **options):
        asked, keys = books.Asked(), ApiKey.objects.all()
        if workspace is not None:
            found = Workspace.objects.filter(slug=workspace).first()
            if found is None:
                raise CommandError(f"No workspace has the slug {workspace!r}.")
            asked, keys = asked._replace(workspace_id=found.pk), keys.filter(workspace=found)
        if key is not None:
            ids = tuple(keys.filter(name=key).values_list("pk", flat=True))
            if not ids:
                raise CommandError(f"No API key is called {key!r}.")
            asked = asked._replace(api_key_ids=ids)
        total = books.total(asked)
        if options["json"]:
            self.stdout.write(json.dumps(total))
            return
        self.stdout.write(in_words(total))
        for difference in total["differences"]:
            self.stdout.write(f"  {books.in_words(difference)}")
        if (more := total["difference_count"] - len(total["differences"])) > 0:
            self.stdout.write(f"  and {more} more")


def in_words(total):
    """One line for a person."""
    tokens, cost = total["tokens"], total["cost_nanos"]
    counts = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in tokens.items())
    verdict = "rows, rollups, ledger and leases agree"
    if not total["agree"]:
        verdict = f"they differ: rollups {cost['rollups'] / 10**9:.9f}, ledger {cost['ledger'] / 10**9:.9f}"
    return f"{total['rows']} requests; tokens: {counts}; cost {cost['rows'] / 10**9:.9f}; {verdict}."
