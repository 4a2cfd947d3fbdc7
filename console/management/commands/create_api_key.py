"""Make an API key from the command line and print it, and nothing else."""

import datetime
import re

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from console.models import Flavour, Workspace
from console.services import create_api_key

TAKEN = "This workspace already has a key with that name: choose another --name, or revoke it under API keys."
UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Command(BaseCommand):
    help = "Create an API key of a workspace and print it; it is not shown again."
    requires_system_checks = []

    def add_arguments(self, parser):
        parser.add_argument("--workspace", required=True, help="the workspace's slug, say default")
        parser.add_argument("--name", required=True, help="what people will know the key by")
        parser.add_argument("--expires", metavar="30d", help="when it stops working: a number and h, d or w")
        parser.add_argument(
            "--answer-style", choices=Flavour.values, default="", help="whose extras its answers carry, say evolink"
        )
        parser.add_argument("--no-store", action="store_true", help="never store its responses, even where one asks")

    def handle(self, *, workspace, name, expires, answer_style, no_store, **options):
        found = Workspace.objects.filter(slug=workspace).first()
        if found is None:
            raise CommandError(f"There is no workspace {workspace!r}.")
        name = name.strip()
        try:
            _, secret = create_api_key(
                workspace=found,
                name=name,
                created_by=None,
                expires_at=timezone.now() + lifetime(expires) if expires else None,
                flavour=answer_style,
                stores_responses=not no_store,
            )
        except ValidationError as error:
            if not found.api_keys.is_free(name):
                raise CommandError(TAKEN) from None
            raise CommandError(" ".join(error.messages)) from None
        return secret


def lifetime(text):
    """The time span that ``30d`` and the like mean."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text.strip())
    if not match:
        raise CommandError(f"--expires takes a number and h, d or w, such as 30d, not {text!r}.")
    return datetime.timedelta(**{UNITS[match[2]]: int(match[1])})
