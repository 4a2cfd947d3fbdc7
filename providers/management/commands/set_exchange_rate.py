import datetime
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from console.models import Organization
from providers.exchange_rates import set_exchange_rate


class Command(BaseCommand):
    help = "Say what one unit of a currency is worth in the organization's own, from now on or from a later moment."

    def add_arguments(self, parser):
        parser.add_argument("--from", dest="from_currency", required=True, metavar="USD")
        parser.add_argument("--rate", required=True, metavar="0.9231", help="with at most ten decimals")
        parser.add_argument(
            "--valid-from", metavar="2026-12-01T00:00", help="in the organization's time zone; default: now"
        )
        parser.add_argument("--source", default="", help="where the rate was taken from")
        parser.add_argument("--organization", metavar="SLUG", help="needed where there is more than one")

    def handle(self, *, from_currency, rate, valid_from, source, organization, **options):
        organization = self.organization(organization)
        try:
            exchange_rate = set_exchange_rate(
                organization=organization,
                from_currency=from_currency.upper(),
                rate=_amount(rate),
                valid_from=_moment(valid_from, organization) if valid_from else None,
                source=source,
                actor=None,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(
            f"1 {exchange_rate.from_currency} = {exchange_rate.rate.normalize():f} {organization.currency} "
            f"from {exchange_rate.valid_from:%Y-%m-%d %H:%M:%S} UTC"
        )

    def organization(self, slug):
        organizations = list(Organization.objects.filter(slug=slug) if slug else Organization.objects.all()[:2])
        if len(organizations) != 1:
            raise CommandError(
                f"There is no organization {slug!r}." if slug else "Name the organization: --organization SLUG."
            )
        return organizations[0]


def _amount(text):
    try:
        return Decimal(text)
    except InvalidOperation:
        raise CommandError(f"{text!r} is not a rate: one looks like 0.9231.") from None


def _moment(text, organization):
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is not a moment: one looks like 2026-12-01T00:00.") from None
    if timezone.is_naive(moment):
        moment = moment.replace(tzinfo=ZoneInfo(organization.time_zone))
    return moment.astimezone(datetime.UTC)
