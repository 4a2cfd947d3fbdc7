"""The OpenAI dialect: its headers, errors and models."""

import msgspec
from django.utils.translation import gettext_noop

from providers.sse import encode

_ = gettext_noop
NAME = "openai"
REQUEST_ID_HEADER = b"x-request-id"
ORGANIZATION_HEADER = b"openai-organization"
WORKSPACE_HEADER = b"openai-project"
UNTOLD = _("The provider reported an error.")


# Errors ----------------------------------------------------------------------------------------------------------


def error_status(error):
    """The status of an error answer."""
    return error.status


def error_body(error, request_id):
    """The body of an error answer; ``error`` is a ``gateway.errors.GatewayError``."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": _type_of(error), "param": error.param, "code": error.code}}
    )


def error_event(error, request_id):
    """The event that tells of an error after the stream has begun."""
    return encode(None, error_body(error, request_id))


def _type_of(error):
    if error.status == 429:
        return error.openai_type or "rate_limit_error"
    return error.openai_type or ("server_error" if error.status >= 500 else "invalid_request_error")


def told(error):
    """``(message, code)`` of an error object in a stream."""
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return UNTOLD, None
    message, code = error.get("message"), error.get("code") or error.get("type")
    return (message if isinstance(message, str) else UNTOLD), (str(code) if code else None)


# Models ----------------------------------------------------------------------------------------------------------


def model_item(target):
    """A model as this dialect lists it."""
    return {
        "id": target.public_name,
        "object": "model",
        "created": target.created,
        "owned_by": target.provider_name,
        # None that is known of.
        "shutdown_date": None,
    }


def model_list(targets, query_string=b""):
    """Every model, whatever is asked, as ``GET /v1/models`` answers."""
    return {"object": "list", "data": [model_item(target) for target in targets]}
