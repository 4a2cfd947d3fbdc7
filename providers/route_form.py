"""What people type about a route: its name, and the models that it leads to, one a row."""

from dataclasses import dataclass

from django import forms
from django.utils.translation import gettext_lazy as _

from providers.discovery import is_model_name
from providers.models import ModelRoute
from providers.routes import MOST_TARGETS, MOST_WEIGHT, WEIGHTED, described

ARRANGEMENTS = ("up", "down", "remove")


@dataclass
class Row:
    """One target as it is typed: the uid of a model and a weight; ``error`` is of the weight."""

    uid: str = ""
    weight: str = "1"
    label: str = ""
    error: str = ""


class RouteForm(forms.Form):
    """
    A route; ``cleaned_data["targets"]`` are pairs of a model and its weight.

    ``models`` are those to choose from. Rows are posted as ``target`` and ``weight``, each as often as there are rows;
    a row without a model is none. ``arranged`` is the form again after a button that moves, removes or adds a row.
    """

    name = forms.CharField(
        label=_("Name"),
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "class": "input--mono"}),
    )
    strategy = forms.ChoiceField(
        label=_("Who is asked"),
        choices=[
            (ModelRoute.Strategy.ORDERED.value, _("The first that answers, in order")),
            (WEIGHTED.value, _("One drawn by weight, the others when it fails")),
        ],
        widget=forms.RadioSelect,
        initial=ModelRoute.Strategy.ORDERED.value,
    )

    def __init__(self, models, data=None, *, initial=None, rows=None):
        super().__init__(data, initial=initial)
        self.models = {model.uid: model for model in models}
        self.focus = None
        self.target_error = ""
        if data is not None:
            rows = _rows_in(data)
        self.rows = rows or [Row(), Row()]
        for row in self.rows:
            row.label = self.models[row.uid].public_name if row.uid in self.models else ""
        self.choices = [(model.uid, _label(model)) for model in models]

    @classmethod
    def arranged(cls, models, data, how):
        """The form with its rows as ``how`` says, such as ``up:1``, and nothing checked yet."""
        rows = _rows_in(data)
        kind, _sign, place = how.partition(":")
        index = int(place) if place.isascii() and place.isdigit() and len(place) < 3 else len(rows)
        focus = None
        if kind == "add" and len(rows) < MOST_TARGETS:
            rows.append(Row())
            focus = ("target", len(rows) - 1)
        elif kind in ARRANGEMENTS and index < len(rows):
            row = rows.pop(index)
            if kind == "remove":
                rows = rows or [Row()]
                focus = ("target", min(index, len(rows) - 1))
            else:
                place = max(0, index - 1) if kind == "up" else min(len(rows), index + 1)
                rows.insert(place, row)
                # At either end the button that was pressed is gone from there.
                focus = ("down" if place == 0 else "up" if place == len(rows) - 1 else kind, place)
        form = cls(models, initial={"name": data.get("name", ""), "strategy": data.get("strategy")}, rows=rows)
        form.focus = focus
        return form

    @property
    def may_add(self):
        return len(self.rows) < MOST_TARGETS

    @property
    def preview(self):
        """What the route would do, in a sentence; empty where there is nothing to say yet."""
        chosen = [
            (_label(self.models[row.uid]), int(row.weight) if _is_weight(row.weight) else 0)
            for row in self.rows
            if row.uid in self.models
        ]
        return described((self["name"].value() or "").strip(), self["strategy"].value(), chosen)

    @property
    def takes_place(self):
        """Whether a model bears the name that is typed."""
        name = (self["name"].value() or "").strip()
        return any(model.public_name == name for model in self.models.values())

    def clean_name(self):
        name = self.cleaned_data["name"].strip()
        if not is_model_name(name):
            raise forms.ValidationError(_("A route’s name has no spaces and at most 200 characters."))
        return name

    def clean(self):
        targets = []
        for row in self.rows:
            if not row.uid:
                continue
            if row.uid not in self.models:
                self.target_error = _("This model is not available any more; choose another.")
            elif not _is_weight(row.weight):
                row.error = _("A weight is a whole number from 0 to %(most)d.") % {"most": MOST_WEIGHT}
                self.target_error = self.target_error or row.error
            else:
                targets.append((self.models[row.uid], int(row.weight)))
        if not targets and not self.target_error:
            self.target_error = _("Choose at least one model.")
        if self.target_error:
            self.add_error(None, self.target_error)
        return self.cleaned_data | {"targets": targets}


def _label(model):
    """A model as the closed list and the preview name it: other providers may sell the same."""
    return f"{model.public_name} ({model.provider.shown_name})"


def _rows_in(data):
    """The rows of a posted form."""
    weights = data.getlist("weight")
    rows = []
    for index, uid in enumerate(data.getlist("target")[: MOST_TARGETS + 1]):
        weight = weights[index].strip() if index < len(weights) else "1"
        rows.append(Row(uid[:40], weight[:6] or "1"))
    return rows


def _is_weight(text):
    return text.isascii() and text.isdigit() and int(text) <= MOST_WEIGHT
