import os
import re
from argparse import ArgumentTypeError

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from console.models import Organization
from providers import services
from providers.amounts import AmbiguousAmount, parse_amount
from providers.discovery import RemoteModel
from providers.presets import ADDABLE, PRESETS


class Command(BaseCommand):
    help = (
        "Add a provider with its models and print its id. --allow-private is the operator's word for a private address."
    )

    def add_arguments(self, parser):
        parser.add_argument("--kind", required=True, choices=ADDABLE)
        parser.add_argument("--name", required=True)
        parser.add_argument("--base-url", help="default: where the maker of this kind serves it")
        blanks = {blank.name: blank for preset in PRESETS.values() for blank in preset.blanks}
        for name, blank in sorted(blanks.items()):
            kinds = [kind for kind, preset in PRESETS.items() if name in [blank.name for blank in preset.blanks]]
            parser.add_argument(f"--{name}", metavar="NAME", help=f"for {', '.join(kinds)}: such as {blank.example}")
        parser.add_argument(
            "--credential-env", metavar="VAR", help="the environment variable that holds the credential"
        )
        parser.add_argument(
            "--model", action="append", default=[], dest="models", metavar="NAME", help="may be repeated"
        )
        parser.add_argument(
            "--input-per-mtok", type=_amount, metavar="PRICE", help="per million tokens, for every --model"
        )
        parser.add_argument("--output-per-mtok", type=_amount, metavar="PRICE")
        parser.add_argument("--currency", metavar="USD", help="of its prices; default: the organization's")
        parser.add_argument(
            "--allow-private", action="store_true", help="let this exact origin be private or plain http"
        )
        parser.add_argument("--organization", metavar="SLUG", help="needed where there is more than one")

    def handle(self, *, kind, name, base_url, models, input_per_mtok, output_per_mtok, allow_private, **options):
        if (input_per_mtok is None) != (output_per_mtok is None):
            raise CommandError("Give both --input-per-mtok and --output-per-mtok, or neither.")
        try:
            with transaction.atomic():
                provider = services.create_provider(
                    organization=self.organization(options["organization"]),
                    kind=kind,
                    name=name,
                    base_url=base_url or self.base_url(PRESETS[kind], options),
                    credential=self.credential(options["credential_env"]),
                    currency=(options["currency"] or "").upper(),
                    allow_private=allow_private,
                    actor=None,
                )
                remote = [RemoteModel(model) for model in models]
                for model in services.take_over_models(
                    provider=provider, models=remote, actor=None, priced=input_per_mtok is None
                ):
                    if input_per_mtok is not None:
                        services.set_price(
                            model=model, input_per_mtok=input_per_mtok, output_per_mtok=output_per_mtok, actor=None
                        )
        except ValidationError as error:
            words = " ".join(error.messages)
            if any(each.code == "private_origin" for each in getattr(error, "error_dict", {}).get("base_url", [])):
                words += (
                    " Here that is you: add --allow-private, or list the origin in COMPTOIR_ALLOWED_PRIVATE_ORIGINS."
                )
            raise CommandError(words) from None
        if not models:
            self.stderr.write("It has no models yet: take them over on its page, or give --model.")
        self.stdout.write(provider.uid)

    def base_url(self, preset, options):
        """The address of a kind, its blanks filled in."""
        values = {blank.name: options[blank.name] or blank.initial for blank in preset.blanks}
        if not preset.base_url or not all(values.values()):
            needed = " and ".join(f"--{name}" for name, value in values.items() if not value) or "--base-url"
            raise CommandError(f"A provider of kind {preset.kind} needs {needed}.")
        for blank in preset.blanks:
            if not re.fullmatch(blank.pattern, values[blank.name]):
                raise CommandError(f"{values[blank.name]!r} is no {blank.name}: one looks like {blank.example}.")
        return preset.fill(values)

    def organization(self, slug):
        organizations = list(Organization.objects.filter(slug=slug) if slug else Organization.objects.all()[:2])
        if len(organizations) != 1:
            raise CommandError(
                f"There is no organization {slug!r}." if slug else "Name the organization: --organization SLUG."
            )
        return organizations[0]

    def credential(self, variable):
        if not variable:
            return None
        if not (credential := os.environ.get(variable, "").strip()):
            raise CommandError(f"The environment variable {variable} is not set.")
        return credential


def _amount(text):
    try:
        amount = parse_amount(text)
    except AmbiguousAmount as error:
        raise ArgumentTypeError("write {} or {}, not {}".format(*error.args, text)) from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(text)
    return amount


_amount.__name__ = "price"  # argparse: "invalid price value: …"
