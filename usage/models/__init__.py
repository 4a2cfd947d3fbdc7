"""How much, and may it: request rows and their sums, stored responses, and what limits allow."""

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
from usage.models.requests import Outcome, RequestLog, Source, UsageRollup, UsageSource
from usage.models.responses import StoredItem, StoredResponse

__all__ = [
    "GatewayProcess",
    "LedgerPeriod",
    "LimitAlert",
    "LimitIncrease",
    "Outcome",
    "RequestLog",
    "Scope",
    "Source",
    "SpendLease",
    "SpendLimit",
    "SpendPeriod",
    "StoredItem",
    "StoredResponse",
    "UsageRollup",
    "UsageSource",
]
