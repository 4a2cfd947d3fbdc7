import datetime

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from providers import services
from providers.catalog import update


class Command(BaseCommand):
    help = (
        "Write the catalogue of models and prices from the price library that is installed. Models that follow the "
        "catalogue get its new prices; the other models whose price there has changed are listed."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--fetch", action="store_true", help="let the library get what its makers publish today, from the network"
        )
        parser.add_argument(
            "--if-needed", action="store_true", help="do nothing where the catalogue is that of the installed library"
        )

    def handle(self, *, fetch, if_needed, **options):
        if if_needed and update.is_current():
            return "The catalogue is current."
        # Half a second and much memory: only where it is used.
        from providers.catalog import library

        try:
            rows = library.read(fetch=fetch, now=datetime.datetime.now(datetime.UTC))
        except library.FetchFailed as error:
            raise CommandError(f"The price library could not be updated: {error}.") from None
        with transaction.atomic():
            written = update.write(rows)
            for change in written.changes:
                self.stdout.write(self._told(change))
        return f"The catalogue has {written.count} models, {written.priced} of them with a price."

    def _told(self, change):
        model, rates = change.model, change.after.rates
        price = f"{rates['input']} in, {rates['output']} out" if rates else "no price any more"
        told = f"{model.public_name} ({model.provider.name}): now {price} per million tokens in the catalogue"
        if services.follow_catalog(model=model):
            return f"{told}; it follows, and has that price from now on."
        return f"{told}; its price here stays as it is."
