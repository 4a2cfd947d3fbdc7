"""Prints what was used, counted once from the request rows and once from the rollups."""

import json

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Count, Sum

from console.models import ApiKey, Workspace
from usage.models import RequestLog, UsageRollup

KINDS = ("input", "cache_read", "cache_write", "output")
COLUMNS = (*(f"{kind}_tokens" for kind in KINDS), "cache_write_1h_tokens", "cost_nanos")


class Command(BaseCommand):
    help = "Print what was used: requests, tokens and cost of the rows, and whether the rollups say the same."

    def add_arguments(self, parser):
        parser.add_argument("--workspace", metavar="W", help="the slug of a workspace; all of them without it")
        parser.add_argument("--key", metavar="NAME", help="the name of an API key, revoked ones of that name included")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *, workspace=None, key=None, **options):
        rows, rollups = RequestLog.objects.all(), UsageRollup.objects.filter(width=UsageRollup.Width.DAY)
        keys = ApiKey.objects.all()
        if workspace is not None:
            found = Workspace.objects.filter(slug=workspace).first()
            if found is None:
                raise CommandError(f"No workspace has the slug {workspace!r}.")
            rows, rollups, keys = (each.filter(workspace=found) for each in (rows, rollups, keys))
        if key is not None:
            ids = list(keys.filter(name=key).values_list("pk", flat=True))
            if not ids:
                raise CommandError(f"No API key is called {key!r}.")
            rows, rollups = rows.filter(api_key_id__in=ids), rollups.filter(api_key_id__in=ids)
        total = usage_total(rows, rollups)
        self.stdout.write(json.dumps(total) if options["json"] else in_words(total))


@transaction.atomic
def usage_total(rows, rollups):
    """Both sums as one object. ``agree`` is whether requests, outcomes, tokens and cost are the same in both."""
    sums = {column: Sum(column) for column in COLUMNS}
    of_rows = rows.aggregate(requests=Count("pk"), **sums)
    of_rollups = rollups.aggregate(requests=Sum("requests"), **sums)
    outcomes = dict(rows.order_by().values_list("outcome").annotate(Count("pk")))
    rollup_outcomes = dict(rollups.order_by().values_list("outcome").annotate(Sum("requests")))
    of_rows, of_rollups = ({name: value or 0 for name, value in found.items()} for found in (of_rows, of_rollups))
    tokens = {kind: of_rows[f"{kind}_tokens"] for kind in KINDS}
    tokens["cache_write"] += of_rows["cache_write_1h_tokens"]
    return {
        "rows": of_rows["requests"],
        "outcomes": outcomes,
        "tokens": tokens,
        # The ledger of limits comes with them; until then nobody keeps a third account.
        "cost_nanos": {"rows": of_rows["cost_nanos"], "rollups": of_rollups["cost_nanos"], "ledger": None},
        "agree": of_rows == of_rollups and outcomes == rollup_outcomes,
    }


def in_words(total):
    """One line for a person."""
    tokens, cost = total["tokens"], total["cost_nanos"]
    counts = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in tokens.items())
    verdict = "rows and rollups agree" if total["agree"] else f"rollups differ: {cost['rollups'] / 10**9:.9f}"
    return f"{total['rows']} requests; tokens: {counts}; cost {cost['rows'] / 10**9:.9f}; {verdict}."
