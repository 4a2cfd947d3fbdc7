"""What a model can be told beside the words: by the dialect that its provider speaks."""

from dataclasses import dataclass
from decimal import Decimal

from django import forms
from django.core.exceptions import ValidationError
from django.utils import formats
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

DEFAULT_MAX_TOKENS = 1024
MOST_MAX_TOKENS = 1_000_000
SLIDER_MAX_TOKENS = 4096
MOST_STOPS, MOST_STOP_LENGTH = 4, 100


@dataclass(frozen=True)
class Range:
    """A number from ``least`` to ``most``; ``usual`` is where its slider rests while it is not set."""

    least: Decimal
    most: Decimal
    step: Decimal
    usual: Decimal
    whole: bool = False
    label: object = ""
    slider: bool = True

    @property
    def slider_attributes(self):
        """The range input's attributes; what lies beyond its end can still be typed."""
        most = min(self.most, SLIDER_MAX_TOKENS)
        return format_html(
            ' min="{}" max="{}" step="{}" value="{}"', str(self.least), str(most), str(self.step), str(self.usual)
        )


def _range(least, most, step, usual, label, **fields):
    return Range(Decimal(least), Decimal(most), Decimal(step), Decimal(usual), label=label, **fields)


TEMPERATURE = _("Temperature")
RANGES = {
    "openai": {
        "temperature": _range("0", "2", "0.1", "1", TEMPERATURE),
        "top_p": _range("0", "1", "0.05", "1", _("Top P")),
        "seed": _range("0", "2147483647", "1", "0", _("Seed"), whole=True, slider=False),
        "frequency_penalty": _range("-2", "2", "0.1", "0", _("Frequency penalty")),
        "presence_penalty": _range("-2", "2", "0.1", "0", _("Presence penalty")),
    },
    "anthropic": {
        "temperature": _range("0", "1", "0.1", "1", TEMPERATURE),
        "top_p": _range("0", "1", "0.05", "1", _("Top P")),
        "top_k": _range("1", "1000", "1", "40", _("Top K"), whole=True, slider=False),
    },
}


def ranges_of(model):
    """The numbers that ``model`` takes, by name, in the order they are shown."""
    ranges = dict(RANGES[model.provider.dialect])
    most = model.max_output_tokens or MOST_MAX_TOKENS
    max_tokens = Range(
        least=Decimal(1),
        most=Decimal(most),
        step=Decimal(1),
        usual=Decimal(min(DEFAULT_MAX_TOKENS, most)),
        whole=True,
        label=_("Max output tokens"),
    )
    return {"temperature": ranges.pop("temperature"), "max_tokens": max_tokens} | ranges


def required_defaults(model):
    """What is sent although nobody set it: Anthropic's dialect wants a maximum."""
    if model.provider.dialect != "anthropic":
        return {}
    return {"max_tokens": min(DEFAULT_MAX_TOKENS, model.max_output_tokens or DEFAULT_MAX_TOKENS)}


class NumberField(forms.DecimalField):
    """A number that may be left empty; a comma is as good as a point, also to browsers: it is a field of text."""

    def __init__(self, limits, **kwargs):
        self.limits = limits
        super().__init__(
            required=False,
            label=limits.label,
            decimal_places=0 if limits.whole else 3,
            widget=forms.TextInput,
            **kwargs,
        )

    def widget_attrs(self, widget):
        return super().widget_attrs(widget) | {
            "class": "input input--number",
            "inputmode": "numeric" if self.limits.whole else "decimal",
            "placeholder": _("default"),
            "autocomplete": "off",
        }

    def prepare_value(self, value):
        return str(value).replace(".", formats.get_format("DECIMAL_SEPARATOR")) if isinstance(value, float) else value

    def to_python(self, value):
        return super().to_python(value.strip().replace(",", ".") if isinstance(value, str) else value)

    def clean(self, value):
        number = super().clean(value)
        if number is None:
            return None
        if not self.limits.least <= number <= self.limits.most:
            bounds = {
                "least": formats.number_format(self.limits.least),
                "most": formats.number_format(self.limits.most),
            }
            raise ValidationError(_("From %(least)s to %(most)s.") % bounds)
        return int(number) if self.limits.whole else float(number)


class StopField(forms.CharField):
    r"""Texts that end the answer, one a line; ``\n`` stands for a line break."""

    default_error_messages = {
        "too_many": ngettext_lazy("At most %(most)d sequence.", "At most %(most)d sequences.", "most"),
        "too_long": _("A sequence has at most %(most)d characters."),
    }

    def __init__(self, **kwargs):
        super().__init__(
            required=False,
            label=_("Stop sequences"),
            help_text=_("One a line; \\n stands for a line break."),
            strip=False,
            widget=forms.Textarea(attrs={"rows": 2, "class": "input input--mono", "spellcheck": "false"}),
            **kwargs,
        )

    def clean(self, value):
        lines = super().clean(value).splitlines()
        stops = [line.replace("\\n", "\n") for line in lines if line.strip()]
        if len(stops) > MOST_STOPS:
            raise ValidationError(self.error_messages["too_many"] % {"most": MOST_STOPS})
        if any(len(stop) > MOST_STOP_LENGTH for stop in stops):
            raise ValidationError(self.error_messages["too_long"] % {"most": MOST_STOP_LENGTH})
        return stops or None

    def prepare_value(self, value):
        return "\n".join(stop.replace("\n", "\\n") for stop in value) if isinstance(value, list) else value
