"""The number that tells every gateway process that its snapshot is old."""

from django.db.models import F

from console.announcements import REVISION, announce
from console.models import Revision


def bump_revision():
    """Move the revision on; call it in the transaction of any change to keys, providers, models or prices."""
    if not Revision.objects.filter(pk=1).update(number=F("number") + 1):
        Revision.objects.get_or_create(pk=1, defaults={"number": 1})
    announce(REVISION)


def current_revision():
    """The revision now; 0 before the first change."""
    return Revision.objects.filter(pk=1).values_list("number", flat=True).first() or 0
