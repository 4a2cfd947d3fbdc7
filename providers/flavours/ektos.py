"""Ektos: the OpenAI shape, with a model list that says and asks what a model is for."""

import urllib.parse

from providers.capabilities import ModelType, type_of
from providers.flavours.plain import Flavour

TYPES = {
    ModelType.LLM: "LLM",
    ModelType.EMBEDDING: "Embedding",
    ModelType.MODERATION: "Moderation",
    ModelType.OTHER: "Other",
}


class Ektos(Flavour):
    name = "ektos"

    def model_item(self, target):
        return super().model_item(target) | {"type": TYPES[type_of(target.capabilities)]}

    def model_list(self, targets, query_string=b""):
        """The models; with ``?type=LLM``, in any case, those of that type."""
        listed = super().model_list(targets)
        query = urllib.parse.parse_qs(query_string.decode("ascii", "replace"))
        if wanted := [kind.casefold() for kind in query.get("type", ())]:
            listed["data"] = [item for item in listed["data"] if item["type"].casefold() in wanted]
        return listed
