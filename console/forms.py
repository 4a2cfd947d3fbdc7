"""What people type into the console's pages."""

from datetime import date, datetime, time, timedelta

from django import forms
from django.conf import settings
from django.core.validators import MaxValueValidator
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from console.formatting import day
from console.models import ApiKey, Flavour, User


class SignInForm(forms.Form):
    email = forms.EmailField(
        label=_("E-mail"), widget=forms.EmailInput(attrs={"autocomplete": "username", "autofocus": True})
    )
    password = forms.CharField(
        label=_("Password"),
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def ask_again(self):
        """Put the cursor where the mistake most likely is, once a pair did not match."""
        self.fields["email"].widget.attrs["autofocus"] = False
        self.fields["password"].widget.attrs["autofocus"] = True

    @property
    def credentials(self):
        return {"username": self.cleaned_data["email"], "password": self.cleaned_data["password"]}


class PreferencesForm(forms.Form):
    """One choice of the account menu or of the sign-in page's foot."""

    theme = forms.ChoiceField(choices=User.Theme, required=False)
    language = forms.ChoiceField(choices=settings.LANGUAGES, required=False)


# What each flavour adds to an answer, in few words.
EXTRAS = {
    Flavour.OPENAI: _("OpenAI, without extras"),
    Flavour.IKALAS: _("Ikalas: its paths, names and limits"),
    Flavour.CLOUD_TEMPLE: _("Cloud Temple: which machine answered"),
    Flavour.EVOLINK: _("EvoLink: ranges and usage in full"),
    Flavour.EKTOS: _("Ektos: models by type"),
}


STORED = {True: _("Thirty days, unless asked not to"), False: _("Never, whatever a request says")}


class StoringForm(forms.Form):
    """Whether responses may be stored; where nothing is said it stays as it is."""

    stores_responses = forms.TypedChoiceField(
        label=_("Stored responses"),
        choices=STORED,
        required=False,
        coerce=lambda value: value == "True",
        empty_value=None,
        help_text=_("What the responses API keeps here, so that later requests can go on from it."),
        widget=forms.Select(attrs={"aria-required": "false"}),
    )

    def clean_stores_responses(self):
        stores = self.cleaned_data["stores_responses"]
        return self.initial.get("stores_responses", True) if stores is None else stores


class ApiKeyEditForm(StoringForm):
    """A key's name, how its answers are dressed, and whether its responses may be stored."""

    name = forms.CharField(
        label=_("Name"),
        max_length=80,
        help_text=_("Say what uses it. Names can be changed later."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
    flavour = forms.ChoiceField(
        label=_("Answer style"),
        required=False,
        help_text=_(
            "Extras in OpenAI-shaped answers. A base URL that ends in /evolink/v1 or the like takes precedence."
        ),
        widget=forms.Select(attrs={"aria-required": "false"}),
    )

    def __init__(self, *args, workspace, **kwargs):
        super().__init__(*args, **kwargs)
        default = gettext("As the workspace (%(name)s)") % {"name": workspace.get_flavour_display()}
        self.fields["flavour"].choices = [("", default), *EXTRAS.items()]
        # No key stores what its workspace does not.
        inherited = gettext("As the workspace (for thirty days)")
        if not workspace.stores_responses:
            inherited = gettext("As the workspace (never)")
        self.fields["stores_responses"].choices = [(True, inherited), (False, STORED[False])]


class ApiKeyForm(ApiKeyEditForm):
    """A new key: also until when it works."""

    NEVER, ON_DATE = "never", "date"
    DAYS = (30, 90, 365)

    expiry = forms.ChoiceField(label=_("Expires"), initial=NEVER)
    expires_on = forms.DateField(
        label=_("Last day"),
        required=False,
        help_text=_("The key works until the end of that day."),
        validators=[MaxValueValidator(date(2100, 12, 31))],
        widget=forms.DateInput(attrs={"type": "date", "aria-required": "true"}, format="%Y-%m-%d"),
    )

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        today = timezone.localdate()
        in_days = [
            (str(days), gettext("In %(days)s days, %(day)s") % {"days": days, "day": day(today + timedelta(days=days))})
            for days in self.DAYS
        ]
        self.fields["expiry"].choices = [(self.NEVER, _("Never")), *in_days, (self.ON_DATE, _("On a date"))]
        self.fields["expires_on"].widget.attrs["min"] = today.isoformat()

    def clean(self):
        cleaned = super().clean()
        if cleaned.get("expiry") == self.ON_DATE and "expires_on" in cleaned:
            if cleaned["expires_on"] is None:
                self.add_error("expires_on", _("Choose the last day."))
            elif cleaned["expires_on"] < timezone.localdate():
                self.add_error("expires_on", _("That day has passed."))
        return cleaned

    @property
    def expires_at(self):
        """The instant from which the key is refused, or ``None``."""
        expiry = self.cleaned_data["expiry"]
        if expiry == self.NEVER:
            return None
        if expiry == self.ON_DATE:
            after = self.cleaned_data["expires_on"] + timedelta(days=1)
            return timezone.make_aware(datetime.combine(after, time.min))
        return timezone.now() + timedelta(days=int(expiry))


class WorkspaceForm(StoringForm):
    """A workspace's name, how the answers of its keys are dressed, and whether their responses may be stored."""

    name = forms.CharField(
        label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True})
    )
    flavour = forms.ChoiceField(
        label=_("Answer style"),
        choices=EXTRAS,
        required=False,
        help_text=_("Extras in OpenAI-shaped answers, for keys that ask for no others."),
        widget=forms.Select(attrs={"aria-required": "false"}),
    )

    def clean_flavour(self):
        return self.cleaned_data["flavour"] or self.initial.get("flavour") or Flavour.OPENAI


class ConfirmationForm(forms.Form):
    """The name of what cannot be brought back, typed once more."""

    confirmation = forms.CharField(
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True, "spellcheck": "false"})
    )

    def __init__(self, *args, name, **kwargs):
        super().__init__(*args, **kwargs)
        self.name = name
        self.fields["confirmation"].label = gettext("Type %(name)s to confirm") % {"name": name}

    def clean_confirmation(self):
        if self.cleaned_data["confirmation"] != self.name:
            raise forms.ValidationError(_("This is not the name."))
        return self.name


class ApiKeyFilterForm(forms.Form):
    """What narrows the list of keys; unknown values narrow nothing."""

    ALL = "all"

    q = forms.CharField(required=False, max_length=80)
    status = forms.ChoiceField(required=False, choices=[*ApiKey.Status.choices, (ALL, _("All"))])

    def value(self, name, default=""):
        """What the reader asked for where it is valid, else ``default``."""
        self.is_valid()
        return self.cleaned_data.get(name) or default
