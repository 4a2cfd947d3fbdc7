from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from console.models import Organization
from providers import routes
from providers.models import ModelRoute


class Command(BaseCommand):
    help = "Add a route, a name that leads to models, and print its id. With --weight one of them is drawn by weight."

    def add_arguments(self, parser):
        parser.add_argument("--name", required=True, help="what clients ask for")
        parser.add_argument(
            "--to", action="append", required=True, metavar="MODEL", help="the name of a model; repeated, in order"
        )
        parser.add_argument(
            "--weight", action="append", type=int, default=[], metavar="N", help="its share; as often as --to, or never"
        )
        parser.add_argument("--organization", metavar="SLUG", help="needed where there is more than one")

    def handle(self, *, name, to, weight, organization, **options):
        if weight and len(weight) != len(to):
            raise CommandError("Give --weight as often as --to, or never.")
        organization = self.organization(organization)
        models = {model.public_name: model for model in organization.models.current()}
        if unknown := [each for each in to if each not in models]:
            raise CommandError(f"There is no model {unknown[0]!r}.")
        try:
            route = routes.create_route(
                organization=organization,
                name=name,
                strategy=ModelRoute.Strategy.WEIGHTED if weight else ModelRoute.Strategy.ORDERED,
                targets=[(models[each], share) for each, share in zip(to, weight or [1] * len(to), strict=True)],
                actor=None,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write(route.uid)

    def organization(self, slug):
        organizations = list(Organization.objects.filter(slug=slug) if slug else Organization.objects.all()[:2])
        if len(organizations) != 1:
            raise CommandError(
                f"There is no organization {slug!r}." if slug else "Name the organization: --organization SLUG."
            )
        return organizations[0]
