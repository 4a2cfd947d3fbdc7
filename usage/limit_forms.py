"""What people type about limits."""

import datetime
from decimal import Decimal

from babel.numbers import format_decimal
from django import forms
from django.core.validators import MaxValueValidator
from django.utils import timezone
from django.utils.formats import get_format
from django.utils.translation import gettext_lazy as _

from console.formatting import NANOS, reader_locale
from providers.amounts import AmbiguousAmount, parse_amount
from usage.calendar import first_instant
from usage.models import Scope, SpendLimit, SpendPeriod
from usage.spend_limits import DEFAULT_THRESHOLDS, LEAST_PERCENT, MOST_PERCENT

MOST_THRESHOLDS = 8
MOST_UNITS = 4 * 10**9
LATEST_DAY = datetime.date(2100, 12, 31)
TYPED = {"autocomplete": "off", "spellcheck": "false"}


class MoneyField(forms.DecimalField):
    """An amount in the organization's currency, typed as 25, 25.00 or 25,00; its value is in nanos."""

    def __init__(self, **kwargs):
        widget = forms.TextInput(attrs=TYPED | {"inputmode": "decimal", "class": "input--number"})
        errors = {
            "min_value": _("An amount cannot be below zero."),
            "max_value": _("That is more than can be counted here."),
            "max_decimal_places": _("An amount has at most nine decimals."),
        }
        kwargs = {"widget": widget, "error_messages": errors} | kwargs
        super().__init__(min_value=0, max_value=MOST_UNITS, decimal_places=9, **kwargs)

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

    def clean(self, value):
        amount = super().clean(value)
        return None if amount is None else int(amount * NANOS)

    @staticmethod
    def typed(nanos):
        """An amount as somebody would type it."""
        return format_decimal(Decimal(nanos) / NANOS, format="0.00#######", locale=reader_locale())


class PercentsField(forms.CharField):
    """Percentages with commas or spaces between them."""

    def clean(self, value):
        words = super().clean(value).replace("%", " ").replace(",", " ").replace(";", " ").split()
        if not words or len(words) > MOST_THRESHOLDS or not all(word.isdecimal() and len(word) < 5 for word in words):
            raise forms.ValidationError(_("Write up to eight percentages, such as 80, 100."))
        percents = sorted({int(word) for word in words})
        if percents[0] < LEAST_PERCENT or percents[-1] > MOST_PERCENT:
            limits = {"least": LEAST_PERCENT, "most": MOST_PERCENT}
            raise forms.ValidationError(_("From %(least)s to %(most)s percent."), params=limits)
        return percents

    @staticmethod
    def typed(percents):
        return ", ".join(map(str, percents))


class LimitForm(forms.Form):
    """What a limit says: how much, whether it refuses, and when somebody is told."""

    HARD, SOFT = "hard", "soft"

    amount = MoneyField(label=_("Amount"))
    effect = forms.ChoiceField(
        label=_("When it is reached"),
        choices=[(HARD, _("Refuse requests (hard)")), (SOFT, _("Only tell of it (soft)"))],
        initial=HARD,
        widget=forms.RadioSelect,
    )
    thresholds = PercentsField(
        label=_("Tell at, in percent"),
        max_length=80,
        initial=PercentsField.typed(DEFAULT_THRESHOLDS),
        widget=forms.TextInput(attrs=TYPED | {"inputmode": "numeric", "class": "input--number"}),
    )
    allows_unpriced = forms.BooleanField(
        label=_("Let models without a price pass"),
        required=False,
        widget=forms.CheckboxInput(attrs={"aria-required": "false"}),
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["amount"].widget.attrs["autofocus"] = True

    @classmethod
    def initial_of(cls, limit):
        """What the form shows of a limit that is there."""
        return {
            "amount": MoneyField.typed(limit.amount_nanos),
            "effect": cls.HARD if limit.is_hard else cls.SOFT,
            "thresholds": PercentsField.typed(limit.thresholds),
            "allows_unpriced": limit.allows_unpriced,
        }

    @property
    def values(self):
        """Arguments of ``set_spend_limit``."""
        return {
            "amount_nanos": self.cleaned_data["amount"],
            "is_hard": self.cleaned_data["effect"] == self.HARD,
            "thresholds": self.cleaned_data["thresholds"],
            "allows_unpriced": self.cleaned_data["allows_unpriced"],
        }


class NewLimitForm(LimitForm):
    """A limit where there is none: also whose, and by the day, week or month. ``subjects`` are whose it may be."""

    subject = forms.ChoiceField(label=_("Whose spending"))
    period = forms.ChoiceField(label=_("In each"), choices=SpendPeriod.choices, initial=SpendPeriod.MONTH)

    field_order = ["subject", "amount", "period", "effect", "thresholds", "allows_unpriced"]

    def __init__(self, *args, organization, subjects, **kwargs):
        super().__init__(*args, **kwargs)
        self.organization = organization
        self.subjects = {subject.target: subject for subject in subjects}
        groups = {}
        for subject in subjects:
            groups.setdefault(Scope(subject.scope), []).append((subject.target, subject.name))
        self.fields["subject"].choices = [(scope.label, choices) for scope, choices in groups.items()]

    def clean_subject(self):
        return self.subjects[self.cleaned_data["subject"]]

    def clean(self):
        cleaned = super().clean()
        subject, period = cleaned.get("subject"), cleaned.get("period")
        if subject and period:
            there = SpendLimit.objects.filter(
                organization=self.organization, scope=subject.scope, scope_id=subject.scope_id, period=period
            )
            if there.exists():
                self.add_error("period", _("There is already a limit for that period. Change that one."))
        return cleaned


class UntilForm(forms.Form):
    """How much more, and until the end of which day in the organization's zone."""

    amount = MoneyField(label=_("How much more"))
    last_day = forms.DateField(
        label=_("Until the end of"),
        validators=[MaxValueValidator(LATEST_DAY)],
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["last_day"].widget.attrs["min"] = timezone.localdate().isoformat()

    def clean_amount(self):
        if self.cleaned_data["amount"] == 0:
            raise forms.ValidationError(_("More is an amount above zero."))
        return self.cleaned_data["amount"]

    def clean_last_day(self):
        if self.cleaned_data["last_day"] < timezone.localdate():
            raise forms.ValidationError(_("That day has passed."))
        return self.cleaned_data["last_day"]

    @property
    def until(self):
        """The instant from which it no longer holds."""
        after = self.cleaned_data["last_day"] + datetime.timedelta(days=1)
        return first_instant(after, timezone.get_current_timezone())


class AskForm(UntilForm):
    """A wish for more."""

    reason = forms.CharField(
        label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off"})
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["amount"].widget.attrs["autofocus"] = True


class AnswerForm(UntilForm):
    """An answer to a wish: how much of it and until when, or no."""

    APPROVE, DENY = "approve", "deny"

    answer = forms.CharField(
        label=_("Answer"),
        required=False,
        max_length=300,
        help_text=_("Whoever asked reads it."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    decision = forms.ChoiceField(choices=[(APPROVE, APPROVE), (DENY, DENY)], widget=forms.HiddenInput)

    def __init__(self, *args, increase, **kwargs):
        kwargs["initial"] = {
            "amount": MoneyField.typed(increase.amount_nanos),
            "last_day": timezone.localdate(increase.until - datetime.timedelta(microseconds=1)),
        }
        super().__init__(*args, **kwargs)
        if self.is_denied:
            # Then nobody needs to mend an amount that is not granted.
            for name in ("amount", "last_day"):
                field = self.fields[name]
                self.fields[name] = forms.CharField(label=field.label, required=False, widget=field.widget)

    @property
    def is_denied(self):
        return self.is_bound and self.data.get("decision") == self.DENY

    def clean_amount(self):
        return self.cleaned_data["amount"] if self.is_denied else super().clean_amount()

    def clean_last_day(self):
        return self.cleaned_data["last_day"] if self.is_denied else super().clean_last_day()
