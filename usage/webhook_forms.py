"""What people type to add a webhook."""

from django import forms
from django.utils.translation import gettext_lazy as _

from providers.origins import origin_of


class WebhookForm(forms.Form):
    url = forms.CharField(
        label=_("Address"),
        max_length=500,
        widget=forms.URLInput(
            attrs={
                "placeholder": "https://hooks.example.org/comptoir",
                "autocomplete": "off",
                "spellcheck": "false",
                "class": "mono",
                "autofocus": True,
            }
        ),
        help_text=_("Gets a POST for each alert, over https."),
    )

    @property
    def origin_to_allow(self):
        """The origin that whoever runs the server would have to allow, where the form was refused for that."""
        codes = {error.code for error in self.errors.as_data().get("url", [])}
        if "private_origin" not in codes:
            return ""
        return origin_of(self.data["url"].strip().partition("?")[0])
