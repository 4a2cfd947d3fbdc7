"""What the addresses of the usage pages may say. What they cannot mean is named and left out; the rest still holds."""

import datetime

from django import forms
from django.core import validators
from django.utils.translation import gettext_lazy as _

from usage.explain import DIALECTS, PATHS
from usage.models import Outcome, Source
from usage.periods import LONGEST_DAYS, Period, Span

MEASURES = [("cost", _("Cost")), ("tokens", _("Tokens")), ("requests", _("Requests"))]
GROUPS = [("model", _("Group by model")), ("key", _("Group by key"))]
UNKNOWN = _("nothing here has the id “%(value)s”; choose from the list. Until then all are shown.")
EARLIEST, LATEST = datetime.date(2020, 1, 1), datetime.date(2100, 12, 31)


class UidChoiceField(forms.ChoiceField):
    """One of ``objects`` by its uid; its value is the object itself, or ``None`` for all. Removed ones stand apart."""

    def __init__(self, everything, objects, label):
        self.objects = {item.uid: item for item in objects}
        choices, removed = [("", everything)], []
        for uid, item in self.objects.items():
            (removed if getattr(item, "removed_at", None) else choices).append((uid, str(item)))
        if removed:
            choices.append((_("Removed"), removed))
        super().__init__(choices=choices, required=False, label=label, error_messages={"invalid_choice": UNKNOWN})

    def clean(self, value):
        return self.objects.get(super().clean(value))


class FilterForm(forms.Form):
    """The filters that the dashboard and the request list share."""

    source = forms.ChoiceField(choices=[("", _("All sources")), *Source.choices], required=False, label=_("Source"))

    use_required_attribute = False
    defaults = {}

    def __init__(self, data, *, keys, models):
        super().__init__(data, auto_id="filter_%s")
        self.fields["key"] = UidChoiceField(_("All keys"), keys, _("API key"))
        self.fields["model"] = UidChoiceField(_("All models"), models, _("Model"))
        for bound in self:
            if not bound.is_hidden:
                bound.field.widget.attrs |= {"class": "input", "aria-label": bound.label}

    @property
    def filters(self):
        """The filters as keyword arguments of ``usage.queries``."""
        return {
            "api_key": self.cleaned_data.get("key"),
            "provider_model": self.cleaned_data.get("model"),
            "source": self.cleaned_data.get("source", ""),
        }

    @property
    def is_filtered(self):
        return any(self.filters.values())

    def query(self, **changes):
        """The address's parameters with ``changes``, without what is empty or the default."""
        values = self.parameters() | changes
        return {name: value for name, value in values.items() if value and value != self.defaults.get(name)}

    def parameters(self):
        """What the address would say in full."""
        found = self.filters
        return {
            "key": found["api_key"].uid if found["api_key"] else "",
            "model": found["provider_model"].uid if found["provider_model"] else "",
            "source": found["source"],
        }


class UsageForm(FilterForm):
    """Period, grouping, measure and filters of the dashboard."""

    period = forms.ChoiceField(choices=Span.choices, required=False, label=_("Period"))
    measure = forms.ChoiceField(choices=MEASURES, required=False, label=_("Measure"))
    by = forms.ChoiceField(choices=GROUPS, required=False, label=_("Group by"))

    defaults = {"period": Span.WEEK.value, "measure": "cost", "by": "model"}

    def __init__(self, data, *, workspace, **choices):
        super().__init__(data, **choices)
        self.workspace = workspace
        today = Period.of(Span.TODAY, workspace.organization.time_zone).today
        self.fields["from"] = _date_field(_("From"), today)
        self.fields["to"] = _date_field(_("To"), today)

    def clean(self):
        cleaned = super().clean()
        if cleaned.get("period") == Span.CUSTOM and not self.errors:
            first, last = cleaned.get("from"), cleaned.get("to")
            if not first or not last:
                self.add_error(None, _("Choose both days of the period."))
            elif first > last:
                self.add_error(None, _("The period ends before it begins."))
            elif (last - first).days >= LONGEST_DAYS:
                self.add_error(None, _("A period has at most two years."))
        return cleaned

    def choice(self, name):
        return self.cleaned_data.get(name) or self.defaults[name]

    @property
    def shown_by(self):
        return self.choice("by")

    @property
    def shown_measure(self):
        return self.choice("measure")

    @property
    def shown_period(self):
        """The period to show; the default one where the address asks for an impossible one."""
        span = self.choice("period")
        if self.errors and span == Span.CUSTOM:
            span = self.defaults["period"]
        return Period.of(
            span,
            self.workspace.organization.time_zone,
            first=self.cleaned_data.get("from"),
            last=self.cleaned_data.get("to"),
        )

    def parameters(self):
        period = self.shown_period
        custom = period.span == Span.CUSTOM
        return super().parameters() | {
            "period": period.span,
            "from": period.first.isoformat() if custom else "",
            "to": period.last.isoformat() if custom else "",
            "measure": self.shown_measure,
            "by": self.shown_by,
        }


class RequestFilterForm(FilterForm):
    """Filters of the request list, and the id below which a page begins."""

    outcome = forms.ChoiceField(choices=[("", _("All outcomes")), *Outcome.choices], required=False, label=_("Outcome"))
    api = forms.ChoiceField(
        choices=[("", _("All endpoints")), *PATHS.items(), (_("Dialect"), [*DIALECTS.items()])],
        required=False,
        label=_("Endpoint or dialect"),
    )
    before = forms.RegexField(r"^req_[0-9A-Z]{26}$", required=False, widget=forms.HiddenInput)

    @property
    def filters(self):
        api = self.cleaned_data.get("api", "")
        return super().filters | {
            "outcome": self.cleaned_data.get("outcome", ""),
            "endpoint": api if api in PATHS else "",
            "dialect": api if api in DIALECTS else "",
        }

    def parameters(self):
        found = self.filters
        return super().parameters() | {"outcome": found["outcome"], "api": found["endpoint"] or found["dialect"]}


def _date_field(label, today):
    widget = forms.DateInput(
        format="%Y-%m-%d",
        attrs={
            "type": "date",
            "class": "input",
            "aria-label": label,
            "min": EARLIEST.isoformat(),
            "max": today.isoformat(),
        },
    )
    return forms.DateField(
        label=label,
        required=False,
        widget=widget,
        input_formats=["%Y-%m-%d"],
        validators=[validators.MinValueValidator(EARLIEST), validators.MaxValueValidator(LATEST)],
    )
