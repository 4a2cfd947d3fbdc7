"""The first start: one organization, one workspace and the person who owns both."""

import os
import re
import secrets
import zoneinfo
from pathlib import Path

from babel.numbers import list_currencies
from django.core.exceptions import ValidationError
from django.db import transaction

from console import audit
from console.models import Member, Organization, User, Workspace
from console.revision import bump_revision

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


@transaction.atomic
def bootstrap(*, email, password, currency, time_zone):
    """
    Create organization "Default", workspace "default" and their owner, unless an organization exists.

    Returns the owner, or None where there was nothing to do. Raises ``ValidationError`` for values that cannot be.
    """
    if Organization.objects.exists():
        return None
    if currency not in list_currencies():
        raise ValidationError(f"COMPTOIR_CURRENCY must be a currency's three letters, not {currency!r}.")
    if time_zone not in zoneinfo.available_timezones():
        raise ValidationError(f"COMPTOIR_TIME_ZONE must be a time zone such as Europe/Paris, not {time_zone!r}.")
    organization = Organization.objects.create(name="Default", slug="default", currency=currency, time_zone=time_zone)
    workspace = Workspace.objects.create(organization=organization, name="default", slug="default")
    if owner := User.objects.filter(email=email.strip().lower()).first():
        owner.set_password(password)
        owner.save(update_fields=["password"])
    else:
        owner = User.objects.create_user(email, password, last_workspace=workspace)
    Member.objects.create(organization=organization, user=owner, role=Member.Role.OWNER)
    audit.record(organization=organization, actor=None, action="organization.created", target=organization)
    bump_revision()
    return owner


def new_password():
    """Sixteen characters without look-alikes, in four groups: 79 random bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(4))


def machine_time_zone():
    """The name of this machine's time zone, or ``UTC`` where it does not say."""
    candidates = [os.environ.get("TZ", "").lstrip(":")]
    try:
        candidates.append(Path("/etc/timezone").read_text().strip())
    except OSError:
        pass
    candidates.append(re.sub(r".*/zoneinfo/(?:posix/|right/)?", "", str(Path("/etc/localtime").resolve())))
    known = zoneinfo.available_timezones()
    return next((name for name in candidates if name in known and not name.startswith("Etc/")), "UTC")
