from collections import Counter

from django.core.management.base import BaseCommand, CommandError

from providers import credentials
from providers.credentials import CredentialUnreadable
from providers.models import Provider


class Command(BaseCommand):
    help = (
        "Rewrap every provider's credential with the newest key of CREDENTIAL_KEYS, so that older keys can be dropped. "
        "Safe to stop and to run again."
    )

    def add_arguments(self, parser):
        parser.add_argument("--dry-run", action="store_true", help="only count the credentials of each key")

    def handle(self, *, dry_run, **options):
        counts, unreadable = Counter(), []
        sealed = (
            Provider.objects.exclude(sealed_credential=None)
            .exclude(sealed_credential=credentials.VOID)
            .select_related("organization")
        )
        for provider in list(sealed.order_by("pk")):
            key_id = credentials.wrapping_key_id(provider.sealed_credential)
            if not dry_run and not credentials.is_on_newest_key(provider.sealed_credential):
                try:
                    rewrapped = credentials.rewrap(provider)
                except CredentialUnreadable:
                    unreadable.append(provider)
                else:
                    # Only over what was read: a credential that was set meanwhile is on the newest key already.
                    Provider.objects.filter(pk=provider.pk, sealed_credential=provider.sealed_credential).update(
                        sealed_credential=rewrapped
                    )
                    key_id = credentials.newest_key_id()
            counts[key_id] += 1
        for key_id, count in sorted(counts.items()):
            if key_id == credentials.newest_key_id():
                note = "newest key"
            else:
                note = "older key" if key_id in credentials.known_key_ids() else "key not in CREDENTIAL_KEYS"
            self.stdout.write(f"{key_id}  {count}  {note}")
        for provider in unreadable:
            self.stderr.write(f"Cannot be opened, enter it again: {provider.name} of {provider.organization}")
        if unreadable:
            raise CommandError(f"{len(unreadable)} credentials could not be rewrapped; keep the older keys.")
