"""
What a provider says when it refuses, in whichever of the shapes in use: who is meant, and what is to be told.

Each family of providers wraps its errors in its own way, and gateways in front of them in theirs, whatever format was
asked for; so the body decides how it is read, not the endpoint.
"""

import email.utils
import re
import time
from typing import Any, NamedTuple

import msgspec
from django.utils.translation import gettext_noop

from providers.errors import OwnAccount, Rejected

_ = gettext_noop

LONGEST_RETRY_AFTER = 3600
MOST_NESTED = 3
# What is about the account that this server uses there, whatever the status that comes with it.
OWN_ACCOUNT_STATUSES = {401, 402, 403}
CREDENTIAL_CODES = {
    "account_deactivated", "access_terminated", "api_key_scope_missing", "invalid_api_key",
    # Amazon
    "AccessDeniedException", "ExpiredTokenException", "IncompleteSignature", "InvalidSignatureException",
    "MissingAuthenticationToken", "UnrecognizedClientException",
    # Google
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "CONSUMER_SUSPENDED",
    "PERMISSION_DENIED", "SERVICE_DISABLED", "UNAUTHENTICATED",
}  # fmt: skip
MONEY_CODES = {
    "billing_error", "billing_hard_limit_reached", "billing_not_active", "contract_spend_limit_reached",
    "enforced_spend_limit_reached", "insufficient_balance", "insufficient_quota", "insufficient_user_quota",
    "linked_organization_spend_limit_reached", "BILLING_DISABLED", "ServiceQuotaExceededException",
}  # fmt: skip
# What llama.cpp says, as a failure of its own, of what its model cannot take; further on it advises who runs it.
_UNABLE = re.compile(r"(?:image|audio|video) input is not supported")
# Anthropic has no code for it. At the beginning alone: further on an error may repeat what a prompt says.
MONEY_WORDS = ("your credit balance is too low", "credit balance is too low")


class Said(NamedTuple):
    """What an error body says; ``reasons`` are further codes in it, ``retry_after`` is in seconds."""

    message: str | None = None
    code: str | None = None
    param: str | None = None
    reasons: frozenset[str] = frozenset()
    retry_after: float | None = None


NOTHING = Said()


def rejection(status, headers, body: bytes, scrub) -> Rejected:
    """
    The error to raise for an answer that is none; ``scrub`` takes this server's credential out of a text.

    Texts are scrubbed before they are cut: of a credential across the cut the beginning would stay.
    An account without quota or credit has the status 402 or 429, whichever one the provider has for that.
    """
    said, answered = read_error(body), status
    message = scrub(said.message)
    code = said.code or _amazon_code(headers)
    retry_after = _retry_after(headers)
    if retry_after is None and said.retry_after is not None:
        retry_after = _whole_seconds(said.retry_after)
    if status == 403 and "flagged_input" in said.reasons:
        # OpenRouter's word for what its moderation refuses: about the prompt, not about the account.
        status, code = 400, "content_filter"
    if status >= 500 and (unable := _UNABLE.match(message or "")):
        status, message = 400, unable[0]
    codes = said.reasons | {code}
    lacks_money = not MONEY_CODES.isdisjoint(codes) or (message or "").lower().startswith(MONEY_WORDS)
    is_own = lacks_money or status in OWN_ACCOUNT_STATUSES or not CREDENTIAL_CODES.isdisjoint(codes)
    if lacks_money and status != 429:
        status = 402
    kind = OwnAccount if is_own else Rejected
    return kind(
        (message or _("The provider answered with an error and did not say why."))[:1000],
        status=status,
        code=code and scrub(code)[:60],
        param=said.param and scrub(said.param)[:200],
        retry_after=retry_after,
        detail=f"{answered} {message or scrub(body.decode(errors='replace'))[:300]}"[:500],
    )


def read_error(body: bytes | str) -> Said:
    """What a body says that should hold an error; all of it may be unknown."""
    return _read(body, MOST_NESTED)


def _read(body, depth):
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return NOTHING
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, str):
        return Said(_text(document))
    if not isinstance(document, dict):
        return NOTHING
    error = document.get("error", document)
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, str):
        # A message, or a code as OAuth has it with its description beside it.
        described = _text(document.get("error_description")) or _text(document.get("message"))
        return Said(described or error, error if described else None)
    if not isinstance(error, dict):
        return NOTHING
    message, param = _message(error)
    details, reasons, retry_after, particular = error.get("details"), set(), None, None
    for detail in details if isinstance(details, list) else [details]:
        # Google's further particulars; Anthropic's, which are one object.
        if isinstance(detail, dict):
            particular = particular or _text(detail.get("error_code"))
            reasons |= {text} if (text := _text(detail.get("reason"))) else set()
            retry_after = retry_after or _duration(detail.get("retryDelay"))
            param = param or _violated(detail)
    if isinstance(metadata := error.get("metadata"), dict):
        # OpenRouter's, with the error of whom it asked.
        reasons |= {"flagged_input"} if metadata.get("flagged_input") or metadata.get("reasons") else set()
        raw = _text(metadata.get("raw"))
        nested = _read(raw, depth - 1) if raw and depth else NOTHING
        message = nested.message or (raw if raw and raw[0] not in "<[{" else message)
    inner = error.get("innererror")
    if isinstance(inner, dict) and (text := _text(inner.get("code"))):
        reasons.add(text)
    codes = [error.get("code"), particular, *(error.get(name) for name in ("status", "type", "__type"))]
    named = [code for code in map(_text, codes) if code and not code.isdigit() and code != "error"]
    code = named[0].rpartition("#")[2] if named else None
    return Said(message, code, param, frozenset(reasons), retry_after)


def _message(error):
    """The message of an error object, and the parameter that a list of mistakes in the body begins with."""
    for name in ("message", "detail", "Message", "msg"):
        value = error.get(name)
        if isinstance(value, dict):
            value = value.get("detail") or value.get("message")
        if text := _text(value):
            return text, _text(error.get("param"))
        if isinstance(value, list):
            mistakes = [mistake for mistake in map(_mistake, value) if mistake]
            if mistakes:
                return "; ".join(": ".join(filter(None, mistake)) for mistake in mistakes), mistakes[0][0]
    return None, _text(error.get("param"))


def _mistake(item):
    """Where and what one mistake is, as FastAPI's validation lists them; ``None`` for anything else."""
    if not isinstance(item, dict):
        return None
    where = item.get("loc")
    path = [str(step) for step in where if step != "body"] if isinstance(where, list) else []
    message = _text(item.get("msg")) or _text(item.get("message"))
    return (".".join(path) or None, message) if message else None


def _violated(detail):
    violations: Any = detail.get("fieldViolations")
    first = violations[0] if isinstance(violations, list) and violations else None
    return _text(first.get("field")) if isinstance(first, dict) else None


def _text(value):
    return value if isinstance(value, str) and value else None


def _duration(value):
    """The seconds of a duration as Google writes it, ``"37.5s"``."""
    text = _text(value)
    try:
        return float(text.removesuffix("s")) if text else None
    except ValueError:
        return None


def _amazon_code(headers):
    kind = headers.get("x-amzn-errortype")
    return kind.partition(":")[0].rpartition("#")[2] or None if kind else None


def _retry_after(headers):
    """Whole seconds from the headers that providers use for it; ``None`` where they say nothing."""
    if milliseconds := headers.get("retry-after-ms"):
        try:
            return _whole_seconds(float(milliseconds) / 1000)
        except ValueError:
            pass
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return _whole_seconds(float(value))
    except ValueError:
        pass
    try:
        return _whole_seconds(email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _whole_seconds(seconds):
    """``seconds`` rounded up, within [0, LONGEST_RETRY_AFTER]; ``None`` for what is no number."""
    if seconds != seconds:
        return None
    return int(min(max(seconds, 0), LONGEST_RETRY_AFTER) + 0.999)
