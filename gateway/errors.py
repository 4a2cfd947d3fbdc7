"""
Why a call got no answer, raised anywhere and rendered once, at the edge, in the caller's dialect and language.

``code`` is stable and never translated; the message is for people.
"""

from http import HTTPStatus

from django.conf import settings
from django.utils.translation import gettext, gettext_noop, override

from console.formatting import money
from providers import errors as upstream
from providers.request_body import InvalidRequest, Term

_ = gettext_noop
NO_RETRY = (b"x-should-retry", b"false")
ASK_FOR_MORE = _("More can be asked for at %(place)s.")


class GatewayError(Exception):
    """
    An error with its HTTP ``status``, ``code``, message, the parameter it is about and headers to send along.

    ``template`` is a text marked for translation whose ``%(name)s`` are filled from ``values``. ``openai_type``
    overrides that dialect's word for the status; ``outcome`` is how the request's row ends; ``is_relayed`` says that
    the message is a provider's own, in whatever language; ``page`` is the path of a page on which to ask for more.
    """

    def __init__(
        self,
        status,
        code,
        template,
        *,
        values=None,
        param=None,
        headers=(),
        openai_type=None,
        outcome="refused",
        detail="",
        is_relayed=False,
        page="",
    ):
        self.template = template
        self.values = values or {}
        self.message = template % values if values else template
        super().__init__(self.message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = list(headers)
        self.openai_type = openai_type
        self.outcome = outcome
        self.detail = detail
        self.is_relayed = is_relayed
        self.page = page

    def speak(self, language, origin=""):
        """
        Say the message in ``language``, one of ``settings.LANGUAGES``; English is what it is written in.

        It ends with where to ask for more, where there is such a page and ``origin`` or settings know this server's
        address.
        """
        origin = self.page and (settings.PUBLIC_URL or origin)
        if language != "en" or origin:
            with override(language):
                values = {k: gettext(v) if isinstance(v, Term) else v for k, v in self.values.items()}
                self.message = gettext(self.template) % values if values else gettext(self.template)
                if origin:
                    self.message += " " + gettext(ASK_FOR_MORE) % {"place": origin + self.page}
        return self


def no_key():
    return GatewayError(
        401, "invalid_api_key", _("No API key was sent. Send it as “Authorization: Bearer …” or “x-api-key”.")
    )


def wrong_key():
    # LiteLLM knows a wrong key by the first four words.
    return GatewayError(
        401, "invalid_api_key", _("Incorrect API key provided. It is not known here: it may be mistyped or revoked.")
    )


def two_keys():
    return GatewayError(401, "invalid_api_key", _("Two different API keys were sent. Send one."))


def disabled_key():
    return GatewayError(401, "invalid_api_key", _("This API key is disabled."))


def expired_key():
    return GatewayError(401, "invalid_api_key", _("This API key has expired."))


def unknown_model(name):
    return GatewayError(
        404,
        "model_not_found",
        _("The model “%(model)s” does not exist or is not available to this API key."),
        values={"model": name},
        param="model",
    )


def unable_model(name, ability):
    """The model exists and does something else; ``ability`` is a text marked for translation."""
    return GatewayError(
        400,
        "model_not_supported",
        _("The model “%(model)s” does not offer %(ability)s."),
        values={"model": name, "ability": Term(ability)},
        param="model",
    )


def unknown_path(method, path):
    message = _("There is nothing at %(method)s %(path)s.")
    if path.startswith("/v1/v1/"):
        message = _("There is nothing at %(method)s %(path)s. The base URL of Anthropic SDKs ends before /v1.")
    elif "/v1/" not in path and not path.startswith("/api/"):
        message = _("There is nothing at %(method)s %(path)s. The base URL of OpenAI SDKs ends in /v1.")
    return GatewayError(404, "not_found", message, values={"method": method, "path": path[:200]})


def wrong_method(method, path, allowed):
    return GatewayError(
        405,
        "method_not_allowed",
        _("%(path)s answers %(allowed)s, not %(method)s."),
        values={"path": path[:200], "allowed": allowed, "method": method},
        headers=[(b"allow", allowed.encode())],
    )


def too_large(limit):
    return GatewayError(
        413, "request_too_large", _("The request body is larger than %(limit)s MB."), values={"limit": limit // 1024**2}
    )


def body_cut():
    return GatewayError(400, "request_cut_off", _("The request ended before its body did."))


def body_slow():
    return GatewayError(408, "request_timeout", _("The request body took too long to arrive."))


def encoded_body(encoding):
    return GatewayError(
        415,
        "unsupported_encoding",
        _("A body with content-encoding “%(encoding)s” is not accepted here."),
        values={"encoding": encoding},
    )


def missing_version():
    # In the words that clients of that API know.
    return GatewayError(
        400, "invalid_request_error", _("anthropic-version: header is required"), param="anthropic-version"
    )


def invalid(error: InvalidRequest):
    code = getattr(error, "code", None) or "invalid_request_error"
    return GatewayError(400, code, error.message, values=error.values, param=error.param)


def storage_full():
    return GatewayError(
        503,
        "storage_full",
        _("The server cannot record requests at the moment, so it does not make them."),
        headers=[(b"retry-after", b"5")],
    )


def not_ready():
    return GatewayError(
        503,
        "not_ready",
        _("The server cannot look keys up at the moment: its database does not answer."),
        headers=[(b"retry-after", b"5")],
    )


def stopping():
    return GatewayError(
        503,
        "stopping",
        _("The server was restarted before this answer was complete. Please try again."),
        headers=[(b"retry-after", b"1")],
    )


PERIODS = {"day": _("daily"), "week": _("weekly"), "month": _("monthly")}
SCOPES = {
    "organization": _("organization"),
    "workspace": _("workspace"),
    "api_key": _("API key"),
    "member": _("member"),
}


def _named(limit):
    return {"period": Term(PERIODS[limit.period]), "scope": Term(SCOPES[limit.scope]), "name": limit.name}


def spend_limit_reached(limit, spending, key, grant, asked):
    """
    A hard spend limit has not enough left for a request that can cost ``asked`` nanos; ``grant`` says how it stands.

    Waiting does not help, so nobody should try again.
    """
    amounts = {"amount": grant.amount, "spent": grant.settled, "held": grant.held, "asked": asked}
    return GatewayError(
        429,
        "insufficient_quota",
        _(
            "The %(period)s spend limit (%(scope)s “%(name)s”) does not allow this request: %(spent)s of %(amount)s "
            "are spent, %(held)s are set aside for requests under way and to come, and it could cost up to "
            "%(asked)s. It begins anew on %(reset)s."
        ),
        values=_named(limit)
        | {name: Money(nanos, spending.currency) for name, nanos in amounts.items()}
        | {"reset": f"{key.end.astimezone(spending.calendar.zone):%Y-%m-%d %H:%M} ({spending.time_zone})"},
        headers=[NO_RETRY],
        openai_type="insufficient_quota",
        page=f"/limits/{limit.uid}/",
    )


def nothing_allowed(limit):
    """A spend limit of zero."""
    return GatewayError(
        429,
        "insufficient_quota",
        _("The %(period)s spend limit (%(scope)s “%(name)s”) is zero: no request is allowed."),
        values=_named(limit),
        headers=[NO_RETRY],
        openai_type="insufficient_quota",
        page=f"/limits/{limit.uid}/",
    )


def unpriced_model(name):
    """What a model costs cannot be limited without a price, or without a rate for the price's currency."""
    return GatewayError(
        403,
        "model_not_priced",
        _(
            "The model “%(model)s” has no price, or none in a currency with an exchange rate, and a spend limit "
            "applies. An administrator can enter the price or the rate, or let models without a price pass."
        ),
        values={"model": name},
        param="model",
        headers=[NO_RETRY],
    )


def ledger_unavailable():
    return GatewayError(
        503,
        "limits_unavailable",
        _("The server cannot check a spend limit at the moment: its database does not answer."),
        headers=[(b"retry-after", b"5")],
    )


class Money:
    """An amount of nanos that is written as the language of the moment writes it."""

    def __init__(self, nanos, currency):
        self.nanos, self.currency = nanos, currency

    def __str__(self):
        # As many decimals as it takes to say all of it.
        extra = next(n for n in range(8) if n == 7 or not self.nanos % 10 ** (7 - n))
        return money(self.nanos, self.currency, extra_digits=extra)


def unusable_provider(name):
    return GatewayError(
        503,
        "provider_needs_key",
        _("The provider “%(provider)s” has no usable credential."),
        values={"provider": name},
        headers=[NO_RETRY],
    )


def internal():
    return GatewayError(500, "internal_error", _("The server failed. The request id says where its log has more."))


def from_provider(error: upstream.ProviderError, provider_name) -> GatewayError:
    """
    What the caller is told of a provider's failure.

    An error about this server's own account there is never passed on as if it were about the caller's.
    """
    failed = {"outcome": "upstream_error", "openai_type": "server_error", "detail": error.detail}
    named = {"values": {"provider": provider_name, "message": Term(error.message)}}
    attributed = _("%(provider)s: %(message)s")
    match error:
        case upstream.TimedOut():
            return GatewayError(504, "provider_timeout", error.message, **failed | {"outcome": "timeout"})
        case upstream.Unreachable():
            return GatewayError(502, "provider_unreachable", attributed, **named, **failed)
        case upstream.OwnAccount(status=status) if status in {402, 429}:
            return GatewayError(
                503,
                "provider_quota_exhausted",
                _(
                    "%(provider)s: the account that this server uses there has no quota or credit left. "
                    "An administrator can mend it."
                ),
                values={"provider": provider_name},
                headers=[NO_RETRY],
                **failed,
            )
        case upstream.OwnAccount():
            return GatewayError(
                502,
                "provider_refused_credential",
                _("%(provider)s refused the credential that this server uses there. An administrator can mend it."),
                values={"provider": provider_name},
                headers=[NO_RETRY],
                **failed,
            )
        case upstream.Rejected(status=status) if status in {400, 404, 408, 409, 413, 422, 429}:
            return GatewayError(
                status,
                error.code or HTTPStatus(status).name.lower(),
                error.message,
                param=error.param,
                headers=_wait(error),
                openai_type=None if status != 429 else "requests",
                outcome="upstream_error",
                detail=error.detail,
                is_relayed=True,
            )
        case upstream.Rejected(status=status):
            overloaded = status in {503, 529}
            return GatewayError(
                503 if overloaded else 502,
                "provider_overloaded" if overloaded else "provider_failed",
                attributed,
                **named,
                headers=_wait(error),
                **failed,
            )
    return GatewayError(502, "provider_failed", attributed, **named, **failed)


def _wait(error):
    return [] if error.retry_after is None else [(b"retry-after", b"%d" % error.retry_after)]
