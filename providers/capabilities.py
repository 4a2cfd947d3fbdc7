"""What a model can do, as its entry says; a model whose entry says nothing may be asked for anything."""

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy


class Capability(models.TextChoices):
    """
    One thing that a model can do.

    ``chat`` is a conversation in whatever wire format; ``responses`` says that the provider takes the model in the
    Responses format, which for some is the only one.
    """

    CHAT = "chat", pgettext_lazy("capability", "Chat")
    RESPONSES = "responses", "Responses"
    COMPLETIONS = "completions", _("Completions")
    EMBEDDINGS = "embeddings", _("Embeddings")
    MODERATIONS = "moderations", _("Moderations")
    IMAGE_INPUT = "image_input", _("Images in")
    AUDIO_INPUT = "audio_input", _("Audio in")
    VIDEO_INPUT = "video_input", _("Video in")
    PDF_INPUT = "pdf_input", _("PDF in")
    IMAGE_OUTPUT = "image_output", _("Images out")
    AUDIO_OUTPUT = "audio_output", _("Audio out")
    TOOLS = "tools", _("Tools")
    STRUCTURED_OUTPUTS = "structured_outputs", _("Structured outputs")
    REASONING = "reasoning", _("Reasoning")


class ModelType(models.TextChoices):
    """What a model is for, as model lists sort them."""

    LLM = "llm", _("Language model")
    EMBEDDING = "embedding", _("Embedding")
    MODERATION = "moderation", _("Moderation")
    OTHER = "other", _("Other")


def type_of(capabilities) -> ModelType:
    """The type of a model; one that nothing is known of counts as a language model."""
    known = set(capabilities)
    if not known or known & {Capability.CHAT, Capability.RESPONSES, Capability.COMPLETIONS}:
        return ModelType.LLM
    if Capability.EMBEDDINGS in known:
        return ModelType.EMBEDDING
    if Capability.MODERATIONS in known:
        return ModelType.MODERATION
    return ModelType.OTHER


def in_order(capabilities) -> list[str]:
    """Each once, in the order in which they are declared."""
    known = set(capabilities)
    return [capability.value for capability in Capability if capability.value in known]


def validate_capabilities(value):
    """Refuse what is no list of different known capabilities."""
    if not isinstance(value, list) or value != in_order(value):
        raise ValidationError(_("This is no list of capabilities."))
