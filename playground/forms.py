"""What a person sends to a model: the model, how it is told to answer, and the words."""

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from console.formatting import integer
from playground import parameters

MOST_BYTES = 200_000
MAIN_NUMBERS = ["temperature", "max_tokens"]
# The settings stand beside the form that sends them.
FORM_ID = "composer"


def validate_size(text):
    """Refuse a text over 200 kB."""
    if len(text.encode()) > MOST_BYTES:
        raise ValidationError(_("This text is over 200 kB; shorten it."))


class SettingsForm(forms.Form):
    """
    Model, system prompt and the parameters that the chosen model takes; what is empty is not sent.

    ``models`` are those to choose from (``services.enabled_models``). The fields follow the model in ``data``, else
    in ``initial``, else the first.
    """

    system_prompt = forms.CharField(
        label=_("System prompt"),
        required=False,
        strip=False,
        validators=[validate_size],
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": _("Optional: who answers, and how")}),
    )

    def __init__(self, models, data=None, initial=None):
        initial = dict(initial or {})
        super().__init__(data, initial=initial, auto_id="setting-%s")
        self.models = models
        self.chosen = self._chosen(data, initial)
        self.fields["model"] = forms.ChoiceField(
            label=_("Model"),
            choices=by_provider(models),
            widget=forms.Select(attrs={"class": "input"}),
            initial=self.chosen and self.chosen.uid,
            error_messages={
                "required": _("Choose a model."),
                "invalid_choice": _("This model is not available any more; choose another."),
            },
        )
        if self.chosen:
            for name, limits in parameters.ranges_of(self.chosen).items():
                self.fields[name] = parameters.NumberField(limits)
            self.fields["stop"] = parameters.StopField()
            for name, value in parameters.required_defaults(self.chosen).items():
                self.fields[name].widget.attrs["placeholder"] = integer(value)
        for field in self.fields.values():
            field.widget.attrs["form"] = FORM_ID

    def _chosen(self, data, initial):
        uid = data.get("model") if data is not None else initial.get("model")
        by_uid = {model.uid: model for model in self.models}
        return by_uid.get(uid) or next(iter(self.models), None)

    @property
    def parameter_names(self):
        return [name for name in self.fields if name not in {"model", "system_prompt"}]

    @property
    def main_numbers(self):
        return [self[name] for name in MAIN_NUMBERS if name in self.fields]

    @property
    def other_numbers(self):
        return [self[name] for name in self.parameter_names if name not in {*MAIN_NUMBERS, "stop"}]

    @property
    def has_more(self):
        """Whether something is set, or wrong, among the numbers that are folded away."""
        return any(field.value() not in {None, ""} or field.errors for field in self.other_numbers)

    def clean_model(self):
        return self.chosen

    def clean_system_prompt(self):
        return self.cleaned_data["system_prompt"].strip()

    def chosen_parameters(self):
        """What was set, as it is kept and sent."""
        return {name: self.cleaned_data[name] for name in self.parameter_names if self.cleaned_data[name] is not None}


def by_provider(models):
    """Choices grouped by provider, in the order of ``models``; routes have a group of their own."""
    groups = {}
    for model in models:
        heading = _("Routes") if hasattr(model, "route") else model.provider.shown_name
        groups.setdefault(str(heading), []).append((model.uid, model.public_name))
    return list(groups.items())


class MessageForm(forms.Form):
    """The words of one message."""

    message = forms.CharField(
        label=_("Message"),
        strip=False,
        validators=[validate_size],
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": _("Write a message")}),
        error_messages={"required": _("Write a message first.")},
    )

    def clean_message(self):
        text = self.cleaned_data["message"].replace("\r\n", "\n").strip()
        if not text:
            raise ValidationError(self.fields["message"].error_messages["required"])
        return text
