"""Checks of the books that somebody asked for."""

from django.conf import settings
from django.db import models
from django.utils import timezone

from console.ids import new_id
from console.models import Organization


def new_check_id():
    return new_id("check")


class BooksCheck(models.Model):
    """One pass over an organization's rows that compares all other accounts with them, as far as it has come."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="books_checks")
    uid = models.CharField(max_length=40, unique=True, default=new_check_id, editable=False)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    started_at = models.DateTimeField(default=timezone.now, editable=False)
    seen_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    days = models.PositiveIntegerField(default=0)
    days_done = models.PositiveIntegerField(default=0)
    result = models.JSONField(null=True, help_text="As usage_total prints it; none where the check broke off.")

    class Meta:
        indexes = [models.Index(fields=["organization", "-id"], name="usage_bookscheck_latest")]

    def __str__(self):
        return self.uid
