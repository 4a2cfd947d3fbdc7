"""Defines a usage tier of one's own, for scripts."""

import json

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from usage.management.commands.set_spend_limit import nanos_of
from usage.rate_limits import set_tier


class Command(BaseCommand):
    help = "Define or change a step of a ladder of usage tiers, beside those that are published."

    def add_arguments(self, parser):
        parser.add_argument("--slug", required=True, help="what commands know it by, say bronze")
        parser.add_argument("--name", required=True, help="what people know it by")
        parser.add_argument("--ladder", required=True, help="the steps of one ladder lead to each other")
        parser.add_argument("--step", type=int, required=True, help="its place on the ladder, from 1")
        parser.add_argument("--monthly-cap", metavar="100.00", help="in the organization's currency")
        parser.add_argument(
            "--rates",
            required=True,
            metavar="JSON",
            help='a list such as [{"requests_per_minute": 60}, {"models": ["gpt-5*"], "concurrent_requests": 5}]',
        )
        parser.add_argument("--after-spent", metavar="100.00", help="organizations rise to it once they spent so much")
        parser.add_argument("--after-days", type=int, metavar="N", help="and so many days after their first request")

    def handle(self, *, slug, name, ladder, step, monthly_cap, rates, after_spent, after_days, **options):
        try:
            tier = set_tier(
                ladder=ladder,
                step=step,
                slug=slug,
                name=name,
                rates=json.loads(rates),
                monthly_cap_nanos=None if monthly_cap is None else nanos_of(monthly_cap),
                after_spent_nanos=None if after_spent is None else nanos_of(after_spent),
                after_days=after_days,
            )
        except json.JSONDecodeError as error:
            raise CommandError(f"--rates: {error}") from None
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(tier.slug)
