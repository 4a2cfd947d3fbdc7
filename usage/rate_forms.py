"""What people type about rates, groups of models and tiers."""

import re

from django import forms
from django.utils.translation import gettext_lazy as _

from console.formatting import integer
from usage.models import RateLimit, Scope
from usage.rate_limits import MOST

TYPED = {"autocomplete": "off", "spellcheck": "false"}
# 2000000, or with the signs that languages put between thousands.
WHOLE = re.compile(r"\d+|\d{1,3}(?:[ .,'’\u00a0\u202f]\d{3})+")
EVERY = ""


class CountField(forms.IntegerField):
    """A whole number, with or without signs between its thousands; empty is no limit."""

    def __init__(self, **kwargs):
        widget = forms.TextInput(
            attrs=TYPED | {"inputmode": "numeric", "class": "input--number", "aria-required": "false"}
        )
        errors = {"max_value": _("A limit is a whole number from 0 to 1,000,000,000,000.")}
        super().__init__(
            min_value=0, max_value=MOST, required=False, widget=widget, error_messages=errors, localize=False, **kwargs
        )

    def to_python(self, value):
        text = str(value or "").strip()
        if text and not WHOLE.fullmatch(text):
            raise forms.ValidationError(_("Write a whole number, such as 60 or 2,000,000."), code="invalid")
        return super().to_python(re.sub(r"\D", "", text))


class RateForm(forms.Form):
    """The four figures of a rate limit."""

    requests_per_minute = CountField(label=_("Requests a minute"))
    input_tokens_per_minute = CountField(
        label=_("Input tokens a minute"), help_text=_("What is read from a cache is not counted.")
    )
    output_tokens_per_minute = CountField(label=_("Output tokens a minute"))
    concurrent_requests = CountField(label=_("Requests at the same time"))

    @classmethod
    def initial_of(cls, limit):
        figures = {name: getattr(limit, name) for name in RateLimit.FIGURES}
        return {name: integer(figure) for name, figure in figures.items() if figure is not None}

    def clean(self):
        cleaned = super().clean()
        if not self.errors and all(cleaned.get(name) is None for name in RateLimit.FIGURES):
            raise forms.ValidationError(_("A rate limit needs at least one figure."))
        return cleaned

    @property
    def figures(self):
        """Arguments of ``set_rate_limit``."""
        return {name: self.cleaned_data[name] for name in RateLimit.FIGURES}


class NewRateForm(RateForm):
    """A rate limit where there is none: also whose, and for which models."""

    subject = forms.ChoiceField(label=_("Whose requests"))
    models = forms.ChoiceField(label=_("Models"), required=False, widget=forms.Select(attrs={"aria-required": "false"}))

    field_order = ["subject", "models", *RateLimit.FIGURES]

    def __init__(self, *args, organization, subjects, names, groups, **kwargs):
        super().__init__(*args, **kwargs)
        self.organization = organization
        self.subjects = {subject.target: subject for subject in subjects}
        self.groups = {f"group:{group.uid}": group for group in groups}
        choices = {}
        for subject in subjects:
            choices.setdefault(Scope(subject.scope), []).append((subject.target, subject.name))
        self.fields["subject"].choices = [(scope.label, chosen) for scope, chosen in choices.items()]
        self.fields["models"].choices = [(EVERY, _("Every model together"))] + [
            (label, chosen)
            for label, chosen in (
                (_("Groups of models"), [(value, group.name) for value, group in self.groups.items()]),
                (_("Models"), [(f"model:{name}", name) for name in names]),
            )
            if chosen
        ]

    def clean_subject(self):
        return self.subjects[self.cleaned_data["subject"]]

    def clean_models(self):
        """Arguments of ``set_rate_limit``: a model's name, a group, or neither."""
        value = self.cleaned_data["models"]
        if value in self.groups:
            return {"group": self.groups[value]}
        return {"model": value.removeprefix("model:")}

    def clean(self):
        cleaned = super().clean()
        subject, models = cleaned.get("subject"), cleaned.get("models")
        if subject and models is not None:
            there = RateLimit.objects.filter(
                organization=self.organization,
                scope=subject.scope,
                scope_id=subject.scope_id,
                **({"model": "", "group": None} | models),
            )
            if there.exists():
                self.add_error("models", _("There is already a rate limit for that. Change that one."))
        return cleaned


class ModelGroupForm(forms.Form):
    """Models that share a limit."""

    name = forms.CharField(label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    patterns = forms.CharField(
        label=_("Models"),
        max_length=4_000,
        help_text=_("One name a line, as clients ask for it; * stands for any characters, as in claude-opus-4*."),
        widget=forms.Textarea(attrs=TYPED | {"rows": 4, "class": "input--mono"}),
    )

    def clean_patterns(self):
        return [line.strip() for line in self.cleaned_data["patterns"].splitlines() if line.strip()]


class TierForm(forms.Form):
    """The tier that an organization stands on, or none."""

    tier = forms.ChoiceField(label=_("Tier"), required=False, widget=forms.Select(attrs={"aria-required": "false"}))

    def __init__(self, *args, tiers, **kwargs):
        super().__init__(*args, **kwargs)
        self.tiers = {tier.slug: tier for tier in tiers}
        ladders = {}
        for tier in tiers:
            ladders.setdefault(tier.ladder, []).append((tier.slug, tier.name))
        self.fields["tier"].choices = [(EVERY, _("None: only the organization’s own limits hold")), *ladders.items()]
        self.fields["tier"].widget.attrs["autofocus"] = True

    def clean_tier(self):
        return self.tiers.get(self.cleaned_data["tier"])
