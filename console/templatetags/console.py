"""The filters and tags that every template has: figures in the reader's language, icons, badges, copying."""

from datetime import timedelta

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from console import commands, formatting, navigation
from console.models import ApiKey

register = template.Library()

register.filter("integer", formatting.integer)
register.filter("compact", formatting.compact)
register.filter("percent", formatting.percent)
register.filter("duration", formatting.duration)
register.filter("ago", formatting.ago)
register.filter("moment", formatting.moment)
register.filter("day", formatting.day)
register.filter("month", formatting.month)
register.filter("clock", formatting.clock)
register.simple_tag(formatting.money_exact)
register.simple_tag(commands.comptoir)

LAST_WEEK = timedelta(days=7)
PROVENANCE = {
    "reported": (_("Reported"), _("Reported by the provider")),
    "counted": (_("Counted"), _("Counted here")),
    "estimated": (_("Estimated"), _("Estimated from what passed")),
    "none": (_("Unknown"), _("Neither reported nor counted")),
}
OUTCOMES = {
    "completed": (_("Completed"), "ok", "check"),
    "upstream_error": (_("Provider failed"), "danger", "alert"),
    "client_cancelled": (_("Cancelled"), "plain", "stop"),
    "timeout": (_("Timed out"), "danger", "clock"),
    "interrupted": (_("Interrupted"), "warn", "alert"),
    "refused": (_("Refused"), "danger", "close"),
}


@register.filter
def money(nanos, currency):
    """The amount with two decimals, or as many as its currency has: for lists and totals."""
    return formatting.money(nanos, currency)


@register.filter
def money4(nanos, currency):
    """The amount with two decimals more than its currency has: where one request stands alone."""
    return formatting.money(nanos, currency, extra_digits=2)


@register.filter
def money_total(nanos, currency):
    """As ``money``; a total below the cent is written as finely as the requests that it is of."""
    return formatting.money_total(nanos, currency)


@register.filter
def unbroken(text):
    """Text that stays on one line inside a sentence, such as an instant."""
    return text.replace(" ", formatting.NO_BREAK)


@register.filter
def clock_seconds(instant):
    """14:32:08."""
    return formatting.clock(instant, seconds=True)


@register.filter
def initials(text):
    """One or two letters for a tile: of a name's first and last word, or of an address's first."""
    words = str(text).split("@")[0].replace(".", " ").replace("-", " ").replace("_", " ").split()
    if "@" in str(text) or len(words) < 2:
        return (words[0] if words else "?")[0].upper()
    return (words[0][0] + words[-1][0]).upper()


@register.simple_tag
def icon(name, size=""):
    """A sign of ``img/icons.svg``, hidden from the ear: the words beside it must say the same."""
    return format_html(
        '<svg class="icon{}" aria-hidden="true"><use href="{}#{}"/></svg>',
        f" icon--{size}" if size else "",
        static("img/icons.svg"),
        name,
    )


@register.simple_tag
def badge(text, tone="plain", sign=""):
    """A small tinted label; ``tone`` is ok, warn, danger, accent or plain."""
    return format_html(
        '<span class="badge{}">{}{}</span>',
        "" if tone == "plain" else f" badge--{tone}",
        icon(sign) if sign else "",
        text,
    )


@register.simple_tag
def provenance(source):
    """How a figure is known: a full, half or empty disc, or a dash, and its word."""
    label, meaning = PROVENANCE[source]
    return format_html('<span class="provenance provenance--{}" title="{}">{}</span>', source, meaning, label)


@register.simple_tag
def outcome(name, status=None):
    """How a request ended, as a badge; a provider that answered with a 4xx found fault with the request."""
    if name == "upstream_error" and status and 400 <= status < 500:
        return badge(_("Refused by the provider"), "danger", "close")
    return badge(*OUTCOMES[name])


@register.simple_tag
def api_key_status(api_key, now):
    """Whether a key works, as a badge; its last week is said in days."""
    if api_key.status != ApiKey.Status.ACTIVE:
        return badge(
            api_key.status.label, "plain", {"disabled": "stop", "expired": "clock", "revoked": "close"}[api_key.status]
        )
    if api_key.expires_at and (left := api_key.expires_at - now) < LAST_WEEK:
        text = _("Expires within a day")
        if left.days:
            text = ngettext("Expires in %(days)s day", "Expires in %(days)s days", left.days) % {"days": left.days}
        return badge(text, "warn", "clock")
    return badge(api_key.status.label, "ok", "check")


@register.inclusion_tag("components/_copy_button.html")
def copy_button(label, value=""):
    """
    A button that puts ``value`` on the clipboard, or without one the text of the code that it stands beside.

    It must stand inside a ``.code``, ``.command`` or ``.secret``; ``label`` says what it copies.
    """
    return {"label": label, "value": value}


@register.inclusion_tag("components/_field.html")
def field(bound_field, hint=""):
    """A form's field with its label, and beneath it the hint or, in its place, the error."""
    hint = hint or bound_field.help_text
    attrs = {} if getattr(bound_field.field.widget, "input_type", "") in {"checkbox", "radio"} else {"class": "input"}
    attrs |= {"class": f"{attrs.get('class', '')} {bound_field.field.widget.attrs.get('class', '')}".strip()}
    if bound_field.form.errors:
        # The focus goes where something is to be mended.
        attrs["autofocus"] = bool(bound_field.errors)
    note = "error" if bound_field.errors else "hint" if hint else ""
    if note:
        attrs["aria-describedby"] = f"{bound_field.auto_id}_{note}"
    return {
        "field": bound_field,
        "widget": bound_field.as_widget(attrs=attrs),
        "hint": hint,
        "is_optional": not bound_field.field.required and "aria-required" not in bound_field.field.widget.attrs,
    }


@register.simple_tag
def section_url(workspace, section=""):
    """The page of ``workspace`` that stands where this one stands."""
    return navigation.section_url(workspace, section)


@register.simple_tag
def waiting(section, member):
    """How much waits for ``member`` on the pages of a section of the sidebar."""
    return navigation.waiting(section, member)
