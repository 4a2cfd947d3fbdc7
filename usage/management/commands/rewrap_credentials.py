from collections import Counter

from django.core.management.base import BaseCommand, CommandError

from console import sealing
from providers import credentials
from providers.credentials import CredentialUnreadable
from providers.models import Provider
from usage import webhooks
from usage.models import Webhook


class Command(BaseCommand):
    help = (
        "Rewrap every provider's credential and every webhook's secret with the newest key of CREDENTIAL_KEYS, so that "
        "older keys can be dropped. Safe to stop and to run again."
    )

    def add_arguments(self, parser):
        parser.add_argument("--dry-run", action="store_true", help="only count what each key seals")

    def handle(self, *, dry_run, **options):
        counts, unreadable = Counter(), []
        self._rewrap_providers(counts, unreadable, dry_run=dry_run)
        self._rewrap_webhooks(counts, unreadable, dry_run=dry_run)
        for key_id, count in sorted(counts.items()):
            if key_id == sealing.newest_key_id():
                note = "newest key"
            else:
                note = "older key" if key_id in sealing.known_key_ids() else "key not in CREDENTIAL_KEYS"
            self.stdout.write(f"{key_id}  {count}  {note}")
        for what in unreadable:
            self.stderr.write(f"Cannot be opened, {what}")
        if unreadable:
            raise CommandError(f"{len(unreadable)} could not be rewrapped; keep the older keys.")

    def _rewrap_providers(self, counts, unreadable, *, dry_run):
        sealed = (
            Provider.objects.exclude(sealed_credential=None)
            .exclude(sealed_credential=credentials.VOID)
            .select_related("organization")
        )
        for provider in list(sealed.order_by("pk")):
            key_id = sealing.wrapping_key_id(provider.sealed_credential)
            if not dry_run and not sealing.is_on_newest_key(provider.sealed_credential):
                try:
                    rewrapped = credentials.rewrap(provider)
                except CredentialUnreadable:
                    unreadable.append(f"enter it again: {provider.name} of {provider.organization}")
                else:
                    # Only over what was read: a credential that was set meanwhile is on the newest key already.
                    Provider.objects.filter(pk=provider.pk, sealed_credential=provider.sealed_credential).update(
                        sealed_credential=rewrapped
                    )
                    key_id = sealing.newest_key_id()
            counts[key_id] += 1

    def _rewrap_webhooks(self, counts, unreadable, *, dry_run):
        for webhook in Webhook.objects.select_related("organization").order_by("pk"):
            key_id = sealing.wrapping_key_id(webhook.sealed_secret)
            if not dry_run:
                try:
                    changed = webhooks.rewrap(webhook)
                except sealing.Unreadable:
                    unreadable.append(f"rotate its secret: webhook {webhook.uid} of {webhook.organization}")
                else:
                    if changed:
                        Webhook.objects.filter(pk=webhook.pk, sealed_secret=webhook.sealed_secret).update(**changed)
                    key_id = sealing.newest_key_id()
            counts[key_id] += 1
