"""Puts an organization on a usage tier, for scripts."""

from django.core.management.base import BaseCommand, CommandError

from usage.models import Scope, UsageTier
from usage.rate_limits import install_presets, put_on_tier, take_off_tier
from usage.scopes import add_arguments, chosen


class Command(BaseCommand):
    help = "Put an organization on a usage tier, with its rates and its monthly cap, or take it off."

    def add_arguments(self, parser):
        add_arguments(parser, Scope.ORGANIZATION)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--tier", metavar="SLUG", help="claude-start, claude-build, claude-scale, ikalas-standard, …")
        what.add_argument("--remove", action="store_true", help="let only the organization's own limits hold")

    def handle(self, *, tier, remove, **options):
        organization, _scope, _scope_id = chosen(options)
        if remove:
            take_off_tier(organization=organization)
            return
        found = named(tier)
        put_on_tier(organization=organization, tier=found)
        self.stdout.write(found.slug)


def named(slug):
    """The tier of that name, those that are published among them; raises ``CommandError`` where there is none."""
    install_presets()
    found = UsageTier.objects.filter(slug=slug).first()
    if found is None:
        known = ", ".join(UsageTier.objects.values_list("slug", flat=True))
        raise CommandError(f"There is no tier {slug!r}; there are {known}.")
    return found
