"""The Anthropic dialect: its headers, errors and models."""

import datetime
import re
import urllib.parse

import msgspec
from django.utils.translation import gettext_noop

from providers.dialects.openai import UNTOLD
from providers.request_body import InvalidRequest
from providers.sse import encode

_ = gettext_noop
NAME = "anthropic"
REQUEST_ID_HEADER = b"request-id"
ORGANIZATION_HEADER = b"anthropic-organization-id"
WORKSPACE_HEADER = b"anthropic-workspace-id"

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# This dialect's word for a code, where it has one: clients raise errors of their own for it.
ERROR_CODES = {"insufficient_quota": "enforced_spend_limit_reached"}


# Errors ----------------------------------------------------------------------------------------------------------


def error_status(error):
    """The status of an error answer: this dialect has one of its own for an overloaded provider."""
    return 529 if error.code == "provider_overloaded" else error.status


def error_type(error):
    """This dialect's word for an error's status."""
    status = error_status(error)
    return ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_document(error, request_id):
    """An error as this dialect says it; clients tell those of one type apart by ``details.error_code``."""
    told = {"type": error_type(error), "message": error.message}
    code = ERROR_CODES.get(error.code, error.code)
    if code and code != told["type"]:
        told["details"] = {"error_code": code}
    return {"type": "error", "error": told, "request_id": request_id}


def error_body(error, request_id):
    """The body of an error answer; ``error`` is a ``gateway.errors.GatewayError``."""
    return msgspec.json.encode(error_document(error, request_id))


def error_event(error, request_id):
    """The event that tells of an error after the stream has begun."""
    return encode(b"error", error_body(error, request_id))


def told(error):
    """``(message, code)`` of an error object in a stream."""
    if not isinstance(error, dict):
        return UNTOLD, None
    message, kind = error.get("message"), error.get("type")
    return (message if isinstance(message, str) else UNTOLD), (kind if isinstance(kind, str) else None)


# Models ----------------------------------------------------------------------------------------------------------

DEFAULT_PAGE, LARGEST_PAGE = 20, 1000
LIFECYCLES = ("active", "deprecated", "retired")
LINE = re.compile(r"(?<![a-z])claude\b.*\b(haiku|sonnet|opus|fable|mythos)\b")
# What this server neither offers nor knows of a model: an item names every capability.
UNKNOWN_SUPPORT = ("batch", "citations", "code_execution")
EFFORTS = {"low", "medium", "high"}


def model_item(target):
    """A model as this dialect lists it; of one that nothing is known about, the capabilities are null."""
    created = datetime.datetime.fromtimestamp(target.created, datetime.UTC)
    line = LINE.search(target.upstream_name.lower())
    return {
        "type": "model",
        "id": target.public_name,
        "display_name": target.public_name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": target.lifecycle,
        "line": line and line[1],
        "max_input_tokens": target.context_window,
        "max_tokens": target.max_output_tokens,
        "deprecated_at": None,
        "retires_at": None,
        "capabilities": _capabilities(set(target.capabilities)) if target.capabilities else None,
    }


def _capabilities(known):
    def support(is_given):
        return {"supported": is_given}

    reasons = "reasoning" in known
    no = support(False)
    return dict.fromkeys(UNKNOWN_SUPPORT, no) | {
        "image_input": support("image_input" in known),
        "pdf_input": support("pdf_input" in known),
        "structured_outputs": support("structured_outputs" in known),
        "context_management": no
        | dict.fromkeys(("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112"), no),
        "effort": support(reasons)
        | {name: support(reasons and name in EFFORTS) for name in ("low", "medium", "high", "xhigh", "max")},
        "thinking": support(reasons)
        | {
            "types": {
                "adaptive": support(reasons),
                "enabled": support(reasons),
                "between_tools": no,
                "disabled": support(True),
            }
        },
        "server_tools": no | {"web_search": no, "code_execution": no},
    }


def model_list(targets, query_string=b""):
    """
    A page of the models, the newest first, as ``query_string`` asks for it.

    ``limit`` is the size of a page, ``after_id`` or ``before_id`` the model that it follows or precedes, and
    ``lifecycle[]`` the stages to list, which are those in use by default. Raises ``InvalidRequest``.
    """
    query = urllib.parse.parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    limit = _limit(query.get("limit", [str(DEFAULT_PAGE)])[-1])
    stages = _stages([*query.get("lifecycle[]", ()), *query.get("lifecycle", ())])
    listed = sorted((each for each in targets if each.lifecycle in stages), key=lambda each: -each.created)
    names = [each.public_name for each in listed]
    after, before = (_place(query, name, names) for name in ("after_id", "before_id"))
    if after is not None and before is not None:
        raise InvalidRequest(_("before_id: cannot be given together with after_id"), "before_id")
    if before is not None:
        start, end = max(before - limit, 0), before
        has_more = start > 0
    else:
        start = 0 if after is None else after + 1
        end = start + limit
        has_more = end < len(listed)
    page = listed[start:end]
    return {
        "data": [model_item(each) for each in page],
        "has_more": has_more,
        "first_id": page[0].public_name if page else None,
        "last_id": page[-1].public_name if page else None,
    }


def _limit(text):
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LARGEST_PAGE:
        return int(text)
    raise InvalidRequest(_("limit: must be a whole number from 1 to %(most)s"), "limit", most=LARGEST_PAGE)


def _stages(asked):
    if not set(asked) <= set(LIFECYCLES):
        raise InvalidRequest(_("lifecycle: must be active, deprecated or retired"), "lifecycle")
    return asked or LIFECYCLES[:2]


def _place(query, name, names):
    """Where the model that the query's ``name`` says stands in the list; ``None`` where it says none."""
    wanted = query.get(name, [""])[-1]
    if not wanted:
        return None
    if wanted not in names:
        raise InvalidRequest(_("%(name)s: the list has no model of this id"), name, name=name)
    return names.index(wanted)
