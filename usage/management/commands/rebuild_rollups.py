from django.core.management.base import BaseCommand

from usage import rollups
from usage.models import UsageRollup


class Command(BaseCommand):
    help = "Sum every request row again, for the case that check_books found the rollups wrong."

    def handle(self, *args, **options):
        rollups.rebuild_rollups()
        self.stdout.write(f"{UsageRollup.objects.count()} rollups")
