"""Providers of the OpenAI shape."""

from providers.adapters.base import Adapter
from providers.dialects import openai

ADAPTER = Adapter(
    dialect=openai.NAME,
    path="/chat/completions",
    read_error=openai.read_error,
    request_id_headers=("x-request-id", "id"),
)
