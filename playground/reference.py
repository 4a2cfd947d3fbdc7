"""The API reference: a page made of the one description, and the description itself for machines."""

import functools
import json
from dataclasses import dataclass, field

from django.http import JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from gateway import openapi

# Deeper than that a reader is better served by an example.
DEEPEST = 3


@dataclass(frozen=True)
class Field:
    """A field of a request or an answer, as a reader meets it; ``fields`` are those within it."""

    name: str
    kind: str
    about: str
    is_required: bool
    values: tuple[str, ...] = ()
    fields: tuple["Field", ...] = field(default=())


@require_safe
def reference(request):
    """Every endpoint with its fields and a call to try. Open to all: it says nothing of this server but its address."""
    document = openapi.describe(request.build_absolute_uri("/").rstrip("/"))
    schemas = document["components"]["schemas"]
    groups = {tag["name"]: (tag["description"], []) for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]][1].append(_shown(path, method.upper(), operation, schemas))
    context = {"groups": [group for group in groups.values() if group[1]], "server_url": document["servers"][0]["url"]}
    return render(request, "playground/reference.html", context)


@require_safe
def description(request):
    """The description as OpenAPI 3.1, for generators and other programs."""
    return JsonResponse(openapi.describe(request.build_absolute_uri("/").rstrip("/")))


def _shown(path, method, operation, schemas):
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    content = operation["responses"]["200"]["content"]
    example = json.dumps(body["example"], indent=2, ensure_ascii=False) if body else ""
    versioned = next((each for each in operation["parameters"] if each["name"] == "anthropic-version"), None)
    return {
        "id": operation["operationId"],
        "path": path,
        "method": method,
        "summary": operation["summary"],
        "about": operation["description"],
        "example": example,
        "rows": example.count("\n") + 1,
        "parameters": [each for each in operation["parameters"] if each is not versioned],
        "version": versioned["schema"]["enum"][0] if versioned else "",
        "asked": fields_of(body["schema"], schemas) if body else (),
        "answered": fields_of(content["application/json"]["schema"], schemas),
        "streams": "text/event-stream" in content,
    }


def fields_of(schema, schemas, depth=1):
    """The fields of an object's schema, of a list's items, or of the first alternative that has any."""
    schema = _resolved(schema, schemas)
    if schema.get("type") == "array":
        return fields_of(schema["items"], schemas, depth)
    for alternative in schema.get("anyOf", ()):
        if found := fields_of(alternative, schemas, depth):
            return found
    required = set(schema.get("required", ()))
    found = [
        Field(
            name=name,
            kind=kind_of(each, schemas),
            about=_resolved(each, schemas).get("description", ""),
            is_required=name in required,
            values=tuple(values_of(each, schemas)),
            fields=fields_of(each, schemas, depth + 1) if depth < DEEPEST else (),
        )
        for name, each in schema.get("properties", {}).items()
    ]
    return tuple(sorted(found, key=lambda each: not each.is_required))


def kind_of(schema, schemas):
    """What a value may be, in a few words."""
    schema = _resolved(schema, schemas)
    if "anyOf" in schema:
        kinds = dict.fromkeys(kind_of(each, schemas) for each in schema["anyOf"])
        return functools.reduce(
            lambda first, second: _("%(first)s or %(second)s") % {"first": first, "second": second}, kinds
        )
    if "const" in schema:
        return json.dumps(schema["const"])
    match schema.get("type"):
        case "array":
            return _("list of %(items)s") % {"items": kind_of(schema["items"], schemas)}
        case "string":
            return _("text")
        case "integer":
            return _("whole number")
        case "number":
            return _("number")
        case "boolean":
            return _("true or false")
        case "null":
            return "null"
    return _("object")


def values_of(schema, schemas):
    """The words that a value may be, or the range that a number stands in."""
    schema = _resolved(schema, schemas)
    if "enum" in schema:
        return schema["enum"]
    for alternative in schema.get("anyOf", ()):
        if found := values_of(alternative, schemas):
            return found
    if schema.get("type") in ("integer", "number"):
        least, most = schema.get("minimum"), schema.get("maximum")
        if least is not None and most is not None:
            return [f"{least} – {most}"]
        if least:
            return [f"≥ {least}"]
    return []


def _resolved(schema, schemas):
    reference = schema.get("$ref")
    return schemas[reference.rsplit("/", 1)[1]] if reference else schema
