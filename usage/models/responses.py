"""Responses that callers had stored, to go on from."""

from django.db import models

from console.models import Workspace


class StoredResponse(models.Model):
    """
    A response that its caller asked to have stored, with what it answered; ``usage.stored_responses`` reads and writes.

    The bytes are compressed JSON. ``input`` are the items of this turn alone: those before it stand in the responses
    of the same ``thread``, back along ``previous_id``. ``output`` are the items as the model wrote them, which may
    hold more than the caller was told; ``response`` is the rest of what it was told. Nobody but callers of the same
    workspace gets to see any of it.
    """

    id = models.CharField(primary_key=True, max_length=64)
    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="+")
    thread = models.CharField(max_length=64, help_text="The response that it all began with.")
    previous_id = models.CharField(max_length=64, blank=True)
    provider_model_id = models.BigIntegerField(null=True, help_text="What answered, and can read the thoughts in it.")
    shows_reasoning = models.BooleanField(help_text="Whether the caller asked for encrypted thoughts.")
    input = models.BinaryField()
    output = models.BinaryField()
    response = models.BinaryField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["thread"], name="usage_storedresponse_thread"),  # a conversation that goes on
            models.Index(fields=["expires_at"], name="usage_storedresponse_expires"),  # what is deleted daily
        ]

    def __str__(self):
        return self.id


class StoredItem(models.Model):
    """An item of a stored response under its id, for requests that name it instead of repeating it."""

    response = models.ForeignKey(StoredResponse, models.CASCADE, related_name="items")
    item_id = models.CharField(max_length=200)

    class Meta:
        indexes = [models.Index(fields=["item_id"], name="usage_storeditem_item")]  # references in requests

    def __str__(self):
        return self.item_id
