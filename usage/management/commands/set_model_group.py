"""Names models that share limits, for scripts."""

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from usage.models import ModelGroup, Scope
from usage.rate_limits import remove_model_group, set_model_group
from usage.rate_queries import unmatched
from usage.scopes import add_arguments, chosen


class Command(BaseCommand):
    help = "Give models a name under which they share limits."

    def add_arguments(self, parser):
        add_arguments(parser, Scope.ORGANIZATION)
        parser.add_argument("--name", required=True)
        parser.add_argument("--model", action="append", default=[], help="a public name, or a pattern such as gpt-5*")
        parser.add_argument("--remove", action="store_true", help="forget the group, with the limits that are for it")

    def handle(self, *, name, model, remove, **options):
        organization, _scope, _scope_id = chosen(options)
        if remove:
            group = ModelGroup.objects.filter(organization=organization, name=name).first()
            if group is None:
                raise CommandError(f"There is no group of models {name!r}.")
            remove_model_group(group=group)
            return
        try:
            group = set_model_group(organization=organization, name=name, patterns=model)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        for pattern in unmatched(group):
            self.stderr.write(
                f"No model or route matches {pattern!r} yet: by it, the group holds nobody back until one does.",
                self.style.WARNING,
            )
        self.stdout.write(group.uid)
