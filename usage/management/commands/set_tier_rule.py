"""Says when organizations rise to a usage tier by themselves, for scripts."""

from django.core.management.base import BaseCommand, CommandError

from usage.management.commands.set_spend_limit import nanos_of
from usage.management.commands.set_usage_tier import named
from usage.rate_limits import set_rule


class Command(BaseCommand):
    help = "Have organizations rise to a tier from the one before once they have spent enough for long enough."

    def add_arguments(self, parser):
        parser.add_argument("--tier", metavar="SLUG", required=True)
        parser.add_argument("--after-spent", metavar="100.00", help="once so much was spent in all")
        parser.add_argument("--after-days", type=int, metavar="N", help="and so many days after the first request")
        parser.add_argument("--never", action="store_true", help="only somebody puts them there")

    def handle(self, *, tier, after_spent, after_days, never, **options):
        if never == (after_spent is not None or after_days is not None):
            raise CommandError("Name --after-spent, --after-days or both; or --never.")
        if after_days is not None and not 0 <= after_days < 100_000:
            raise CommandError("--after-days takes a number of days.")
        nanos = None if after_spent is None else nanos_of(after_spent)
        set_rule(tier=named(tier), after_spent_nanos=nanos, after_days=after_days)
