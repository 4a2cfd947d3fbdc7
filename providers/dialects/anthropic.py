"""The Anthropic dialect: its headers, errors and models."""

import datetime

import msgspec

from providers.sse import encode

NAME = "anthropic"
REQUEST_ID_HEADER = b"request-id"
ORGANIZATION_HEADER = b"anthropic-organization-id"

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


# Errors ----------------------------------------------------------------------------------------------------------


def error_status(error):
    """The status of an error answer: this dialect has one of its own for an overloaded provider."""
    return 529 if error.code == "provider_overloaded" else error.status


def error_type(error):
    """This dialect's word for an error's status."""
    status = error_status(error)
    return ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_document(error, request_id):
    return {"type": "error", "error": {"type": error_type(error), "message": error.message}, "request_id": request_id}


def error_body(error, request_id):
    """The body of an error answer; ``error`` is a ``gateway.errors.GatewayError``."""
    return msgspec.json.encode(error_document(error, request_id))


def error_event(error, request_id):
    """The event that tells of an error after the stream has begun."""
    return encode(b"error", error_body(error, request_id))


def told(error):
    """``(message, code)`` of an error object in a stream."""
    if not isinstance(error, dict):
        return "The provider reported an error.", None
    message, kind = error.get("message"), error.get("type")
    return (
        message if isinstance(message, str) else "The provider reported an error.",
        kind if isinstance(kind, str) else None,
    )


def read_error(body):
    """``(message, code, param)`` of a provider's error body; ``None`` for what it does not say."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None, None, None
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return None, None, None
    message, kind = error.get("message"), error.get("type")
    return message if isinstance(message, str) else None, kind if isinstance(kind, str) else None, None


# Models ----------------------------------------------------------------------------------------------------------


def model_item(target):
    """A model as this dialect lists it."""
    created = datetime.datetime.fromtimestamp(target.created, datetime.UTC)
    return {
        "type": "model",
        "id": target.public_name,
        "display_name": target.public_name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": target.context_window,
        "max_tokens": target.max_output_tokens,
    }


def model_list(targets):
    """Every model, on one page."""
    items = [model_item(target) for target in targets]
    return {
        "data": items,
        "has_more": False,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
    }
