"""Sets, changes or removes a spend limit, for scripts."""

from decimal import Decimal, InvalidOperation

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from console.formatting import NANOS
from usage.models import Scope, SpendLimit, SpendPeriod
from usage.scopes import add_arguments, chosen
from usage.spend_limits import remove_spend_limit, set_spend_limit


class Command(BaseCommand):
    help = "Limit what an organization, a workspace, a key or a member may spend in a day, a week or a month."

    def add_arguments(self, parser):
        add_arguments(parser, Scope.ORGANIZATION, Scope.WORKSPACE, Scope.API_KEY, Scope.MEMBER)
        parser.add_argument("--period", choices=SpendPeriod.values, required=True)
        amount = parser.add_mutually_exclusive_group(required=True)
        amount.add_argument("--amount", metavar="5.00", help="in the organization's currency")
        amount.add_argument("--remove", action="store_true", help="take the limit away")
        parser.add_argument("--soft", action="store_true", help="tell of it, and let requests pass")
        parser.add_argument("--allow-unpriced", action="store_true", help="let models without a price pass")

    def handle(self, *, period, amount=None, remove=False, soft=False, allow_unpriced=False, **options):
        organization, scope, scope_id = chosen(options)
        if remove:
            limit = SpendLimit.objects.filter(
                organization=organization, scope=scope, scope_id=scope_id, period=period
            ).first()
            if limit is None:
                raise CommandError("There is no such limit.")
            remove_spend_limit(limit=limit)
            return
        try:
            limit = set_spend_limit(
                organization=organization,
                scope=scope,
                scope_id=scope_id,
                period=period,
                amount_nanos=nanos_of(amount),
                is_hard=not soft,
                allows_unpriced=allow_unpriced,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(limit.uid)


def nanos_of(text):
    """An amount such as 5.00 in nanos; raises ``CommandError`` for what is none, or finer than a nano."""
    try:
        nanos = Decimal(text) * NANOS
    except InvalidOperation:
        raise CommandError(f"{text!r} is not an amount.") from None
    if not nanos.is_finite() or not 0 <= nanos < 2**62 or nanos != int(nanos):
        raise CommandError(f"{text!r} is not an amount from 0 on with at most nine decimals.")
    return int(nanos)
