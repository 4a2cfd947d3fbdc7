"""EvoLink: parameters within stated ranges, ids that tell the time, and usage in full."""

import datetime

from django.utils.translation import gettext_noop

from providers.flavours.plain import DRESSED, ID_PREFIXES, Flavour, decoded
from providers.request_body import InvalidRequest, field
from providers.tokens import count_of

_ = gettext_noop

# The least and the most of each parameter; ``None``: no most.
RANGES = {
    "max_tokens": (int, 1, None),
    "temperature": (float, 0, 2),
    "top_p": (float, 0, 1),
    "top_k": (int, 1, None),
}


class EvoLink(Flavour):
    name = "evolink"

    def read(self, format_name, fields):
        """Refuse a parameter outside its range."""
        if format_name == "chat_completions":
            for name, (kind, least, most) in RANGES.items():
                require_range(fields, name, kind, least, most)
        return fields

    def rewrites(self, format_name, target):
        return format_name in DRESSED

    def dress(self, fields, answer):
        dressed = fields
        if answer.target.kind != "evolink":
            dressed = fields | {"id": ID_PREFIXES[answer.format] + moment_of(answer.call)}
        usage = decoded(fields, "usage")
        return dressed | {"usage": in_full(usage, media_of(answer.call))} if isinstance(usage, dict) else dressed


def require_range(fields, name, kind, least, most):
    """Refuse a field that is given and not a number from ``least`` to ``most``."""
    value = field(fields, name, kind, what=_("a whole number") if kind is int else _("a number"))
    if value is None or (value >= least and (most is None or value <= most)):
        return
    if most is None:
        raise InvalidRequest(_("%(name)s: must be %(least)s or more"), name, name=name, least=least)
    message = _("%(name)s: must be from %(least)s to %(most)s")
    raise InvalidRequest(message, name, name=name, least=least, most=most)


def moment_of(call):
    """What follows the prefix of an id: the UTC time to the nanosecond, then eight characters by chance."""
    whole, fraction = divmod(call.received_at, 1)
    moment = datetime.datetime.fromtimestamp(whole, datetime.UTC)
    return f"{moment:%Y%m%d%H%M%S}{int(fraction * 1e9):09d}{call.id[-8:]}"


def media_of(call):
    """
    What besides text may be a part of ``call``: ``audio`` and ``images`` of what it asks, ``speech`` of its answer.

    Its messages are looked through once, however many chunks carry usage.
    """
    if call.media is None:
        prompt = bytes(call.fields.get("messages", b""))
        found = {
            "audio": b'"input_audio"' in prompt,
            # A file may hold pages that are seen.
            "images": b'"image_url"' in prompt or b'"file"' in prompt,
            "speech": "audio" in call.fields,
        }
        call.media = frozenset(name for name, is_there in found.items() if is_there)
    return call.media


def in_full(usage, media):
    """
    ``usage`` with every count that this system documents.

    Counts that follow from the others are worked out and the twins are true. A split that the provider does not give is
    ``null`` where ``media``, as ``media_of`` has it, names what may have been counted; of what it does not there are
    none.
    """
    prompt, output = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    if prompt is None or output is None:
        return usage
    details, spent = _details(usage, "prompt_tokens_details"), _details(usage, "completion_tokens_details")
    audio = _told(details, "audio_tokens", None if "audio" in media else 0)
    images = _told(details, "image_tokens", None if "images" in media else 0)
    spoken = _told(spent, "audio_tokens", None if "speech" in media else 0)
    reasoning = _told(spent, "reasoning_tokens", 0)
    return usage | {
        "total_tokens": usage.get("total_tokens", prompt + output),
        "prompt_tokens_details": details
        | {
            "cached_tokens": _told(details, "cached_tokens", 0),
            "text_tokens": _told(details, "text_tokens", None) or _rest(prompt, audio, images),
            "audio_tokens": audio,
            "image_tokens": images,
        },
        "completion_tokens_details": spent
        | {
            "text_tokens": _told(spent, "text_tokens", None) or _rest(output, spoken, reasoning),
            "audio_tokens": spoken,
            "reasoning_tokens": reasoning,
        },
        "input_tokens": usage.get("input_tokens") or prompt,
        "output_tokens": usage.get("output_tokens") or output,
        "input_tokens_details": usage.get("input_tokens_details"),
    }


def _details(usage, name):
    details = usage.get(name)
    return details if isinstance(details, dict) else {}


def _told(details, name, otherwise):
    told = count_of(details.get(name))
    return otherwise if told is None else told


def _rest(whole, *parts):
    """What ``parts`` leave of ``whole``; ``None`` where one of them is not known."""
    return None if None in parts else max(whole - sum(parts), 0)
