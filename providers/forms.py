"""What people type about providers, models and prices."""

import datetime
import json

from django import forms
from django.core.validators import MaxValueValidator
from django.utils.formats import get_format
from django.utils.translation import gettext_lazy as _

from providers.amounts import AmbiguousAmount, parse_amount
from providers.discovery import RemoteModel, is_model_name
from providers.endpoints import normal_base_url
from providers.origins import origin_of
from providers.presets import ADDABLE, PRESETS

LATEST = datetime.datetime(2100, 12, 31, tzinfo=datetime.UTC)
TYPED = {"autocomplete": "off", "spellcheck": "false"}


class ProviderForm(forms.Form):
    """A provider, new or changed; the credential goes in and never comes back."""

    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=[(kind, PRESETS[kind].name) for kind in ADDABLE],
        initial="openai",
        widget=forms.RadioSelect,
    )
    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("As it stands in lists, say “OpenAI” or “Lab server”."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
    base_url = forms.CharField(
        label=_("Base URL"),
        max_length=300,
        required=False,
        widget=forms.TextInput(attrs=TYPED | {"inputmode": "url", "class": "input--mono"}),
    )
    credential = forms.CharField(
        label=_("API key of the provider"),
        max_length=4_000,
        required=False,
        help_text=_("Kept sealed for this address. It is never shown again."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "class": "input--mono"}),
    )

    def clean(self):
        cleaned = super().clean()
        if not cleaned.get("base_url") and "base_url" not in self.errors:
            cleaned["base_url"] = PRESETS[cleaned["kind"]].base_url if "kind" in cleaned else ""
        return cleaned

    @property
    def origin_to_allow(self):
        """The origin that whoever runs the server would have to allow, where the form was refused for that."""
        codes = {error.code for error in self.errors.as_data().get("base_url", [])}
        return origin_of(normal_base_url(self.data["kind"], self.data["base_url"])) if "private_origin" in codes else ""


class ProviderEditForm(ProviderForm):
    """A provider that is there: its kind stays what it is."""

    kind = None

    def __init__(self, *args, provider, **kwargs):
        super().__init__(*args, initial={"name": provider.name, "base_url": provider.base_url}, **kwargs)
        self.kind_of_provider = provider.kind
        self.fields["base_url"].required = True
        self.fields["base_url"].help_text = _("Another host or port voids the key: it is given to nobody else.")
        self.fields["credential"].label = _("New API key")
        self.fields["credential"].help_text = _("Empty: the key stays as it is, unless the host or port changes.")

    @property
    def origin_to_allow(self):
        codes = {error.code for error in self.errors.as_data().get("base_url", [])}
        return (
            origin_of(normal_base_url(self.kind_of_provider, self.data["base_url"]))
            if "private_origin" in codes
            else ""
        )


class CredentialForm(forms.Form):
    """A credential in place of another."""

    credential = forms.CharField(
        label=_("API key of the provider"),
        max_length=4_000,
        help_text=_("Kept sealed for this address. It is never shown again."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "autofocus": True, "class": "input--mono"}),
    )


class TakeOverForm(forms.Form):
    """Models of a provider's list, and names typed where there is no list."""

    names = forms.CharField(
        label=_("Other names"),
        required=False,
        help_text=_("Names that the provider knows but does not list, one a line."),
        widget=forms.Textarea(attrs=TYPED | {"rows": 2, "class": "input--mono"}),
    )

    def clean(self):
        """Gather ``models``: what was ticked, then what was typed."""
        cleaned = super().clean()
        models = [model for value in self.data.getlist("model") if (model := _ticked(value))]
        for name in cleaned.get("names", "").splitlines():
            if not (name := name.strip()):
                continue
            if not is_model_name(name):
                self.add_error("names", _("A model’s name has no spaces and at most 200 characters."))
            models.append(RemoteModel(name))
        if not models and not self.errors:
            self.add_error(None, _("Tick a model or type a name."))
        cleaned["models"] = models
        return cleaned


def ticket(model):
    """A model of a provider's list as the value of its checkbox."""
    return json.dumps([model.name, model.context_window, model.max_output_tokens])


def _ticked(value):
    try:
        name, *counts = json.loads(value)
    except (ValueError, TypeError):
        return None
    if not isinstance(name, str) or len(counts) != 2:
        return None
    counts = [count if type(count) is int and 0 < count < 2**31 else None for count in counts]
    return RemoteModel(name, *counts)


class ModelNameForm(forms.Form):
    public_name = forms.CharField(
        label=_("Name"),
        max_length=200,
        help_text=_("What clients ask for. Requests for the old name are refused from the next second on."),
        widget=forms.TextInput(attrs=TYPED | {"autofocus": True, "class": "input--mono"}),
    )


class RateField(forms.DecimalField):
    """An amount per million tokens, written as 3, 3.00 or 3,00."""

    def __init__(self, **kwargs):
        widget = forms.TextInput(attrs=TYPED | {"inputmode": "decimal", "class": "input--number"})
        errors = {"min_value": _("A price cannot be below zero.")}
        super().__init__(max_digits=14, decimal_places=6, min_value=0, widget=widget, error_messages=errors, **kwargs)

    def to_python(self, value):
        if value is None or not str(value).strip():
            return None
        try:
            amount = parse_amount(value, get_format("DECIMAL_SEPARATOR")) if isinstance(value, str) else value
        except AmbiguousAmount as error:
            more, less = error.args
            message = _("This can be read in two ways. Write %(more)s or %(less)s.")
            raise forms.ValidationError(message, code="ambiguous", params={"more": more, "less": less}) from None
        except ValueError:
            raise forms.ValidationError(_("Write an amount such as 3.00 or 3,00."), code="invalid") from None
        return super().to_python(amount)


class PriceForm(forms.Form):
    """A new price per million tokens."""

    input_per_mtok = RateField(label=_("Input"))
    output_per_mtok = RateField(label=_("Output"))
    cache_read_per_mtok = RateField(label=_("Cache read"), required=False)
    cache_write_per_mtok = RateField(label=_("Cache write, 5 minutes"), required=False)
    cache_write_1h_per_mtok = RateField(label=_("Cache write, 1 hour"), required=False)
    valid_from = forms.DateTimeField(
        label=_("Valid from"),
        required=False,
        validators=[MaxValueValidator(LATEST)],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["input_per_mtok"].widget.attrs["autofocus"] = True
