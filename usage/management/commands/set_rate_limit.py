"""Sets, changes or removes a limit by the minute, for scripts."""

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from usage.models import ModelGroup, RateLimit, Scope
from usage.rate_limits import remove_rate_limit, set_rate_limit
from usage.rate_queries import is_known
from usage.scopes import add_arguments, chosen

FIGURES = {
    "rpm": "requests_per_minute",
    "input_tpm": "input_tokens_per_minute",
    "output_tpm": "output_tokens_per_minute",
    "concurrent": "concurrent_requests",
}


class Command(BaseCommand):
    help = "Limit what an organization, a workspace or a key may ask in a minute; figures not named stay as they are."

    def add_arguments(self, parser):
        add_arguments(parser, Scope.ORGANIZATION, Scope.WORKSPACE, Scope.API_KEY)
        models = parser.add_mutually_exclusive_group()
        models.add_argument("--model", default="", help="the public name of one model; every model together without it")
        models.add_argument("--group", metavar="NAME", help="a group of models, see set_model_group")
        parser.add_argument("--rpm", type=figure, metavar="N", help="requests a minute")
        parser.add_argument("--input-tpm", type=figure, metavar="N", help="input tokens a minute, cached ones are free")
        parser.add_argument("--output-tpm", type=figure, metavar="N", help="output tokens a minute")
        parser.add_argument("--concurrent", type=figure, metavar="N", help="requests at the same time")
        parser.add_argument("--remove", action="store_true", help="take the limit away, with all its figures")

    def handle(self, *, model, group, remove, **options):
        organization, scope, scope_id = chosen(options)
        if group is not None:
            group = ModelGroup.objects.filter(organization=organization, name=group).first() or missing(group)
        where = {"organization": organization, "scope": scope, "scope_id": scope_id, "model": model, "group": group}
        figures = {name: options[short] for short, name in FIGURES.items() if options[short] is not None}
        if remove:
            if figures:
                raise CommandError("--remove takes no figures.")
            limit = RateLimit.objects.filter(**where).first()
            if limit is None:
                raise CommandError("There is no such limit.")
            remove_rate_limit(limit=limit)
            return
        if not figures:
            raise CommandError("Name at least one figure: --rpm, --input-tpm, --output-tpm or --concurrent.")
        try:
            limit = set_rate_limit(**where, **figures)
        except ValidationError as error:
            raise CommandError(told(error)) from None
        if model and not is_known(organization, model):
            self.stderr.write(
                f"No model or route is called {model!r} yet: the limit holds nobody back until one is.",
                self.style.WARNING,
            )
        self.stdout.write(limit.uid)


def figure(text):
    """A whole number from 0 on, thousands set apart or not."""
    number = int(text.replace("_", "").replace(",", ""))
    if number < 0:
        raise ValueError(text)
    return number


def missing(name):
    raise CommandError(f"There is no group of models {name!r}.")


def told(error):
    """A validation error in one line that names what it is about."""
    if not hasattr(error, "message_dict"):
        return " ".join(error.messages)
    names = {name: f"--{short.replace('_', '-')}" for short, name in FIGURES.items()}
    return " ".join(
        f"{names[field]}: {message}" if field in names else message
        for field, messages in error.message_dict.items()
        for message in messages
    )
