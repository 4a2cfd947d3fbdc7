"""What people type about providers, models and prices."""

import datetime
import json
from decimal import Decimal

from django import forms
from django.core.validators import MaxValueValidator
from django.utils.formats import get_format, number_format
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from providers.adapters.http import CONNECT_SECONDS, FIRST_BYTE_SECONDS, IDLE_SECONDS
from providers.amounts import AmbiguousAmount, parse_amount
from providers.capabilities import Capability
from providers.currencies import choices_with
from providers.discovery import RemoteModel, is_model_name
from providers.endpoints import normal_base_url
from providers.models import Lifecycle
from providers.origins import is_private_allowed, origin_of, origin_verdict, parse_base_url
from providers.presets import PRESETS
from providers.rates import BATCH_KINDS, KINDS, MOST_TIERS, text_of

LATEST = datetime.datetime(2100, 12, 31, tzinfo=datetime.UTC)
TYPED = {"autocomplete": "off", "spellcheck": "false"}
# Of fields that one of several ways to fill the form in wants: nothing says that they are optional.
WANTED = TYPED | {"aria-required": "true"}
NUMBER = TYPED | {"inputmode": "numeric", "class": "input--number"}


class SecretField(forms.CharField):
    """A part of a credential: it goes in and never comes back."""

    def __init__(self, **kwargs):
        attrs = {"autocomplete": "new-password", "class": "input--mono"}
        super().__init__(max_length=4_000, widget=forms.PasswordInput(attrs=attrs), **kwargs)


class CredentialFields(forms.Form):
    """
    What a credential of a preset consists of; ``credential`` is what it comes to.

    One line for most; for Google's cloud the key file of a service account, for Amazon's an API key or a key pair.
    """

    def __init__(self, *args, preset, **kwargs):
        super().__init__(*args, **kwargs)
        self.preset = preset
        sealed = _("Kept sealed for this address. It is never shown again.")
        match preset.auth:
            case "google":
                attrs = TYPED | {"rows": 4, "class": "input--mono", "placeholder": '{"type": "service_account", …}'}
                self.fields["credential"] = forms.CharField(
                    label=_("Key file of a service account"),
                    max_length=16_000,
                    required=False,
                    help_text=_("The whole JSON file. Kept sealed for this address, and never shown again."),
                    widget=forms.Textarea(attrs=attrs),
                )
            case "aws":
                ways = [("keys", _("Access keys")), ("api_key", _("Bedrock API key"))]
                self.fields["way"] = forms.ChoiceField(
                    label=_("Signs in with"), choices=ways, initial="keys", required=False, widget=forms.RadioSelect
                )
                self.fields["access_key_id"] = forms.CharField(
                    label=_("Access key ID"),
                    max_length=200,
                    required=False,
                    widget=forms.TextInput(attrs=WANTED | {"class": "input--mono", "placeholder": "AKIA…"}),
                )
                self.fields["secret_access_key"] = SecretField(label=_("Secret access key"), required=False)
                self.fields["secret_access_key"].widget.attrs["aria-required"] = "true"
                self.fields["session_token"] = SecretField(
                    label=_("Session token"), required=False, help_text=_("Of temporary keys only.")
                )
                self.fields["credential"] = SecretField(label=_("Bedrock API key"), required=False, help_text=sealed)
            case _:
                self.fields["credential"] = SecretField(
                    label=_("API key of the provider"), required=False, help_text=sealed
                )
                if preset.credential_hint and preset.needs_credential:
                    self.fields["credential"].widget.attrs["placeholder"] = preset.credential_hint

    def clean(self):
        cleaned = super().clean()
        if self.preset.auth == "aws":
            pair = {name: cleaned.pop(name, "") for name in ("access_key_id", "secret_access_key", "session_token")}
            if cleaned.pop("way", "") != "api_key":
                cleaned["credential"] = self._pair(pair)
        return cleaned

    def _pair(self, pair):
        """The text of a key pair; empty where none was typed."""
        if not any(pair.values()):
            return ""
        for name in ("access_key_id", "secret_access_key"):
            if not pair[name] and name not in self.errors:
                self.add_error(name, _("Both parts of the key are needed."))
        return json.dumps({name: value for name, value in pair.items() if value})


class ProviderForm(CredentialFields):
    """A new provider of one kind; the address is made of what the kind leaves blank."""

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

    def __init__(self, *args, preset, currency, **kwargs):
        super().__init__(*args, preset=preset, **kwargs)
        self.fields["currency"] = forms.ChoiceField(
            label=_("Currency of its prices"),
            choices=choices_with(currency),
            initial=currency,
            required=False,
            widget=forms.Select(attrs={"aria-required": "false"}),
        )
        address = self.fields["base_url"]
        address.widget.attrs["placeholder"] = preset.base_url or PLACEHOLDERS.get(preset.kind, PLACEHOLDERS["openai"])
        if not preset.kind.endswith("-compatible"):
            self.fields["name"].initial = preset.name
        if not preset.base_url:
            address.widget.attrs["aria-required"] = "true"
        for blank in preset.blanks:
            self.fields[blank.name] = forms.RegexField(
                rf"^(?:{blank.pattern})\Z",
                label=blank.label,
                initial=blank.initial,
                required=False,
                error_messages={"invalid": _("This is no name of that kind.")},
                widget=forms.TextInput(attrs=WANTED | {"class": "input--mono", "placeholder": blank.example}),
            )

    @property
    def blanks(self):
        """The fields of what the address of its kind leaves blank."""
        return [self[blank.name] for blank in self.preset.blanks]

    @property
    def asks_for_address(self):
        """Whether somebody has to type the whole address."""
        return not self.preset.base_url

    def clean(self):
        cleaned = super().clean()
        values = {blank.name: cleaned.pop(blank.name, "") for blank in self.preset.blanks}
        if cleaned.get("base_url") or "base_url" in self.errors:
            return cleaned
        if not self.preset.base_url:
            self.add_error("base_url", self.fields["base_url"].error_messages["required"])
            return cleaned
        for name, value in values.items():
            if not value and name not in self.errors:
                self.add_error(name, self.fields[name].error_messages["required"])
        if not self.errors:
            cleaned["base_url"] = self.preset.fill(values)
        return cleaned

    @property
    def origin_to_allow(self):
        """
        The origin that whoever runs the server would have to allow: where the form was refused for that, or where the
        kind's own address is such a one.
        """
        if not self.is_bound:
            return self._own_private_origin()
        codes = {error.code for error in self.errors.as_data().get("base_url", [])}
        if "private_origin" not in codes:
            return ""
        return origin_of(normal_base_url(self.preset.kind, self.data.get("base_url") or self.preset.base_url))

    def _own_private_origin(self):
        base_url = self.preset.base_url
        if not base_url.startswith("http://"):
            return ""
        origin = parse_base_url(base_url).origin
        return str(origin) if origin_verdict(origin, private_allowed=is_private_allowed(base_url, "")) else ""


PLACEHOLDERS = {
    "openai": "https://llm.example.org/v1",
    "anthropic-compatible": "https://llm.example.org",
    "ikalas": "https://ikalas.example.org/api/v1",
}


class ProviderEditForm(ProviderForm):
    """A provider that is there: its kind stays what it is."""

    def __init__(self, *args, provider, **kwargs):
        names = ("name", "base_url", *TIMEOUTS)
        initial = {name: getattr(provider, name) for name in names}
        super().__init__(*args, preset=PRESETS[provider.kind], currency=provider.currency, initial=initial, **kwargs)
        for blank in self.preset.blanks:
            del self.fields[blank.name]
        self.fields["base_url"].required = True
        self.fields["base_url"].help_text = _("Another host or port voids the key: it is given to nobody else.")
        kept = _("Empty: the key stays as it is, unless the host or port changes.")
        self.fields["credential"].help_text = kept
        if self.preset.auth not in ("aws", "google"):
            self.fields["credential"].label = _("New API key")
        for name, (label, default) in TIMEOUTS.items():
            self.fields[name] = forms.IntegerField(
                label=label,
                min_value=1,
                max_value=3600,
                required=False,
                widget=forms.TextInput(
                    attrs=TYPED | {"inputmode": "numeric", "class": "input--number", "placeholder": default}
                ),
            )

    @property
    def timeouts(self):
        return [self[name] for name in TIMEOUTS]

    @property
    def has_timeouts(self):
        """Whether one is set or wrong."""
        return any(field.value() or field.errors for field in self.timeouts)

    @property
    def blanks(self):
        return []

    @property
    def asks_for_address(self):
        return True


# Each with what the server itself waits for, in seconds.
TIMEOUTS = {
    "connect_timeout_s": (_("To connect"), CONNECT_SECONDS),
    "first_byte_timeout_s": (_("To the first byte"), FIRST_BYTE_SECONDS),
    "idle_timeout_s": (_("Between two pieces"), IDLE_SECONDS),
}


class CredentialForm(CredentialFields):
    """A credential in place of another."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        first = next(iter(self.fields.values()))
        first.widget.attrs["autofocus"] = True

    def clean(self):
        cleaned = super().clean()
        if not cleaned.get("credential") and not self.errors:
            target = "access_key_id" if self.data.get("way") == "keys" else "credential"
            self.add_error(target, self.fields[target].error_messages["required"])
        return cleaned


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


class AmountField(forms.DecimalField):
    """An amount written as 3, 3.00 or 3,00."""

    def __init__(self, **kwargs):
        widget = forms.TextInput(attrs=TYPED | {"inputmode": "decimal", "class": "input--number"})
        super().__init__(widget=widget, **kwargs)

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


class RateField(AmountField):
    """An amount per million tokens."""

    def __init__(self, **kwargs):
        errors = {"min_value": _("A price cannot be below zero.")}
        super().__init__(max_digits=14, decimal_places=6, min_value=0, error_messages=errors, **kwargs)


class ModelForm(forms.Form):
    """What a model can do, and which entry of its provider's price lists it is."""

    context_window = forms.IntegerField(
        label=_("Context window"),
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        widget=forms.TextInput(attrs=NUMBER),
    )
    max_output_tokens = forms.IntegerField(
        label=_("Longest answer"),
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        widget=forms.TextInput(attrs=NUMBER),
    )
    capabilities = forms.MultipleChoiceField(
        label=_("Can do"), choices=Capability, required=False, widget=forms.CheckboxSelectMultiple
    )
    lifecycle = forms.ChoiceField(label=_("Lifecycle"), choices=Lifecycle)
    catalog_name = forms.CharField(
        label=_("Entry in the catalogue"),
        max_length=200,
        required=False,
        help_text=_("Where the provider calls the model by a name of one’s own, the name that everybody knows."),
        widget=forms.TextInput(attrs=TYPED | {"class": "input--mono", "list": "catalogue-names"}),
    )
    follows_catalog = forms.BooleanField(
        label=_("Follow the catalogue: a new price there is the price here from then on"), required=False
    )


def _any_filled(fields):
    """Whether something stands in one of the fields or is wrong with it, so that it must be in sight."""
    return any(field.value() or field.errors for field in fields)


def beginning():
    """From when on something is valid; empty, from now on."""
    return forms.DateTimeField(
        label=_("Valid from"),
        required=False,
        validators=[MaxValueValidator(LATEST)],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )


class PriceForm(forms.Form):
    """A new price per million tokens, with its tiers: those of ``tiers`` and room for one more."""

    input_per_mtok = RateField(label=_("Input"))
    output_per_mtok = RateField(label=_("Output"))
    cache_read_per_mtok = RateField(label=_("Cache read"), required=False)
    cache_write_per_mtok = RateField(label=_("Cache write, 5 minutes"), required=False)
    cache_write_1h_per_mtok = RateField(label=_("Cache write, 1 hour"), required=False)
    batch_input_per_mtok = RateField(label=_("Input"), required=False)
    batch_output_per_mtok = RateField(label=_("Output"), required=False)
    batch_cache_read_per_mtok = RateField(label=_("Cache read"), required=False)
    batch_cache_write_per_mtok = RateField(label=_("Cache write, 5 minutes"), required=False)
    batch_cache_write_1h_per_mtok = RateField(label=_("Cache write, 1 hour"), required=False)
    valid_from = beginning()

    def __init__(self, *args, tiers=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["input_per_mtok"].widget.attrs["autofocus"] = True
        self.tier_count = min(len(tiers) + 1, MOST_TIERS)
        for number in range(self.tier_count):
            tier = tiers[number] if number < len(tiers) else {}
            self.fields[f"tier{number}_above"] = forms.IntegerField(
                label=_("Above, in tokens of input"),
                min_value=1,
                max_value=10**9 - 1,
                required=False,
                initial=tier.get("above"),
                widget=forms.TextInput(attrs=NUMBER),
            )
            for kind in (*KINDS, *BATCH_KINDS):
                initial = number_format(Decimal(tier[kind])) if kind in tier else None
                label = self.fields[f"{kind}_per_mtok"].label
                self.fields[f"tier{number}_{kind}"] = RateField(label=label, required=False, initial=initial)

    @property
    def has_cache(self):
        return _any_filled(self.cache_rates)

    @property
    def has_batch(self):
        return _any_filled(self.batch_rates)

    @property
    def has_tiers(self):
        return any(_any_filled([above, *plain, *batch]) for above, plain, batch in self.tiers)

    @property
    def cache_rates(self):
        return [self[f"{kind}_per_mtok"] for kind in KINDS[2:]]

    @property
    def batch_rates(self):
        return [self[f"{kind}_per_mtok"] for kind in BATCH_KINDS]

    @property
    def tiers(self):
        """Each tier as its threshold, the rates of plain requests and those of a batch."""
        return [
            (
                self[f"tier{number}_above"],
                [self[f"tier{number}_{kind}"] for kind in KINDS],
                [self[f"tier{number}_{kind}"] for kind in BATCH_KINDS],
            )
            for number in range(self.tier_count)
        ]

    def clean(self):
        """Gather ``tiers`` as ``providers.rates`` has them; one of which nothing was typed is none."""
        cleaned = super().clean()
        found = []
        for number in range(self.tier_count):
            above = cleaned.pop(f"tier{number}_above", None)
            names = {kind: f"tier{number}_{kind}" for kind in (*KINDS, *BATCH_KINDS)}
            rates = {
                kind: text_of(rate) for kind, name in names.items() if (rate := cleaned.pop(name, None)) is not None
            }
            if above is None and not rates:
                continue
            missing = [kind for kind in ("input", "output") if kind not in rates and names[kind] not in self.errors]
            for kind in missing:
                self.add_error(names[kind], _("A tier has a rate for input and for output."))
            if above is None and f"tier{number}_above" not in self.errors:
                self.add_error(f"tier{number}_above", _("Say above how many tokens these rates apply."))
            elif above in [tier["above"] for tier in found]:
                self.add_error(f"tier{number}_above", _("Another tier begins there."))
            found.append({"above": above, **rates})
        cleaned["tiers"] = found
        return cleaned


class ExchangeRateForm(forms.Form):
    """What another currency is worth in ``currency``, the organization's."""

    from_currency = forms.ChoiceField(label=_("Currency"), widget=forms.Select(attrs={"aria-required": "false"}))
    rate = AmountField(
        label=pgettext_lazy("exchange", "Rate"),
        max_digits=18,
        decimal_places=10,
        min_value=Decimal("0.0000000001"),
        error_messages={"min_value": _("A rate is more than zero.")},
    )
    valid_from = beginning()
    source = forms.CharField(
        label=_("Source"),
        max_length=80,
        required=False,
        help_text=_("Where the rate was taken from, say a central bank or an invoice."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args, currency, **kwargs):
        super().__init__(*args, **kwargs)
        self.fields["from_currency"].choices = choices_with(self.initial.get("from_currency"), without=currency)
        self.fields["rate"].widget.attrs["autofocus"] = True
