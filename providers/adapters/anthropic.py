"""Providers of the Anthropic shape."""

from providers.adapters.base import Adapter
from providers.dialects import anthropic

COUNT_PATH = "/messages/count_tokens"

ADAPTER = Adapter(
    dialect=anthropic.NAME,
    path="/messages",
    read_error=anthropic.read_error,
    request_id_headers=("request-id", "x-request-id"),
)
