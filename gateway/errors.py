"""
Why a call got no answer, raised anywhere and rendered once, at the edge, in the caller's dialect.

``code`` is stable and never translated; ``message`` is for people.
"""

from http import HTTPStatus

from providers import errors as upstream
from providers.request_body import InvalidRequest


class GatewayError(Exception):
    """
    An error with its HTTP ``status``, ``code``, ``message``, the parameter it is about and headers to send along.

    ``openai_type`` overrides that dialect's word for the status; ``outcome`` is how the request's row ends.
    """

    def __init__(
        self, status, code, message, *, param=None, headers=(), openai_type=None, outcome="refused", detail=""
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = list(headers)
        self.openai_type = openai_type
        self.outcome = outcome
        self.detail = detail


NO_RETRY = (b"x-should-retry", b"false")


def no_key():
    return GatewayError(
        401, "invalid_api_key", "No API key was sent. Send it as “Authorization: Bearer …” or “x-api-key”."
    )


def wrong_key():
    return GatewayError(401, "invalid_api_key", "This API key is not known here. It may be mistyped or revoked.")


def two_keys():
    return GatewayError(401, "invalid_api_key", "Two different API keys were sent. Send one.")


def disabled_key():
    return GatewayError(401, "invalid_api_key", "This API key is disabled.")


def expired_key():
    return GatewayError(401, "invalid_api_key", "This API key has expired.")


def unknown_model(name):
    return GatewayError(
        404, "model_not_found", f"The model “{name}” does not exist or is not available to this API key.", param="model"
    )


def unknown_path(method, path):
    hint = ""
    if path.startswith("/v1/v1/"):
        hint = " The base URL of Anthropic SDKs ends before /v1."
    elif not path.startswith(("/v1/", "/api/")):
        hint = " The base URL of OpenAI SDKs ends in /v1."
    return GatewayError(404, "not_found", f"There is nothing at {method} {path[:200]}.{hint}")


def wrong_method(method, path, allowed):
    return GatewayError(
        405,
        "method_not_allowed",
        f"{path} answers {allowed}, not {method}.",
        headers=[(b"allow", allowed.encode())],
    )


def too_large(limit):
    return GatewayError(413, "request_too_large", f"The request body is larger than {limit // 1024**2} MB.")


def body_cut():
    return GatewayError(400, "request_cut_off", "The request ended before its body did.")


def body_slow():
    return GatewayError(408, "request_timeout", "The request body took too long to arrive.")


def encoded_body(encoding):
    return GatewayError(415, "unsupported_encoding", f"A body with content-encoding “{encoding}” is not accepted here.")


def missing_version():
    return GatewayError(
        400, "invalid_request_error", "anthropic-version: header is required", param="anthropic-version"
    )


def invalid(error: InvalidRequest):
    return GatewayError(400, "invalid_request_error", error.message, param=error.param)


def storage_full():
    return GatewayError(
        503,
        "storage_full",
        "The server cannot record requests at the moment, so it does not make them.",
        headers=[(b"retry-after", b"5")],
    )


def not_ready():
    return GatewayError(
        503,
        "not_ready",
        "The server cannot look keys up at the moment: its database does not answer.",
        headers=[(b"retry-after", b"5")],
    )


def unusable_provider(name):
    return GatewayError(
        503, "provider_needs_key", f"The provider “{name}” has no usable credential.", headers=[NO_RETRY]
    )


def internal():
    return GatewayError(500, "internal_error", "The server failed. The request id says where its log has more.")


def from_provider(error: upstream.ProviderError, provider_name) -> GatewayError:
    """
    What the caller is told of a provider's failure.

    An error about this server's own account there is never passed on as if it were about the caller's.
    """
    failed = {"outcome": "upstream_error", "openai_type": "server_error", "detail": error.detail}
    match error:
        case upstream.TimedOut():
            return GatewayError(504, "provider_timeout", error.message, **failed | {"outcome": "timeout"})
        case upstream.Unreachable():
            return GatewayError(502, "provider_unreachable", f"{provider_name}: {error.message}", **failed)
        case upstream.OwnAccount():
            return GatewayError(
                502,
                "provider_refused_credential",
                f"{provider_name} refused the credential that this server uses there. An administrator can mend it.",
                headers=[NO_RETRY],
                **failed,
            )
        case upstream.Rejected(status=status) if status in {400, 404, 408, 409, 413, 422, 429}:
            headers = [] if error.retry_after is None else [(b"retry-after", b"%d" % error.retry_after)]
            code = error.code or HTTPStatus(status).name.lower()
            kind = None if status != 429 else "requests"
            return GatewayError(
                status,
                code,
                error.message,
                param=error.param,
                headers=headers,
                openai_type=kind,
                outcome="upstream_error",
                detail=error.detail,
            )
        case upstream.Rejected(status=status):
            overloaded = status in {503, 529}
            headers = [] if error.retry_after is None else [(b"retry-after", b"%d" % error.retry_after)]
            return GatewayError(
                503 if overloaded else 502,
                "provider_overloaded" if overloaded else "provider_failed",
                f"{provider_name}: {error.message}",
                headers=headers,
                **failed,
            )
    return GatewayError(502, "provider_failed", f"{provider_name}: {error.message}", **failed)
