"""How much, and may it: request rows and their sums, stored responses, and what limits allow."""

from usage.models.books import BooksCheck
from usage.models.limits import (
    GatewayProcess,
    LedgerPeriod,
    LimitAlert,
    LimitIncrease,
    Scope,
    SpendLease,
    SpendLimit,
    SpendPeriod,
)
from usage.models.rates import ModelGroup, RateLimit, TierPlace, UsageTier
from usage.models.requests import Outcome, RequestLog, Source, UsageRollup, UsageSource
from usage.models.responses import StoredItem, StoredResponse
from usage.models.webhooks import MailDelivery, Sweep, Webhook, WebhookDelivery

__all__ = [
    "BooksCheck",
    "GatewayProcess",
    "LedgerPeriod",
    "LimitAlert",
    "LimitIncrease",
    "MailDelivery",
    "ModelGroup",
    "Outcome",
    "RateLimit",
    "RequestLog",
    "Scope",
    "Source",
    "SpendLease",
    "SpendLimit",
    "SpendPeriod",
    "StoredItem",
    "StoredResponse",
    "Sweep",
    "TierPlace",
    "UsageRollup",
    "UsageSource",
    "UsageTier",
    "Webhook",
    "WebhookDelivery",
]
