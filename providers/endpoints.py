"""What a provider's base URL and credential become on the wire: pure functions for adapters and console alike."""

from providers.credentials import Secret
from providers.origins import BaseUrl, parse_base_url
from providers.presets import PRESETS, Preset

ANTHROPIC_VERSION = "2023-06-01"


def normal_base_url(kind: str, text: str) -> str:
    """
    The base URL as it is stored; raises ``InvalidBaseUrl``.

    OpenAI-shaped ones end where their SDK's do, mostly in ``/v1``; of Anthropic-shaped ones a final ``/v1`` is
    dropped, so that both spellings in use mean the same.
    """
    url = parse_base_url(text.strip())
    if PRESETS[kind].dialect == "anthropic" and url.path.endswith("/v1"):
        url = BaseUrl(url.origin, url.path.removesuffix("/v1"))
    return str(url)


def endpoint_url(dialect: str, base_url: str, path: str) -> str:
    """Where ``path``, say ``/chat/completions`` or ``/messages``, stands under a stored base URL."""
    return f"{base_url}/v1{path}" if dialect == "anthropic" else f"{base_url}{path}"


def auth_headers(preset: Preset, secret: Secret | None) -> dict[str, str]:
    """
    The headers that tell a provider who calls; without a credential none, as where each request is signed by itself.
    """
    headers = {"anthropic-version": ANTHROPIC_VERSION} if preset.dialect == "anthropic" else {}
    if not secret:
        return headers
    match preset.auth:
        case "bearer":
            headers["authorization"] = f"Bearer {secret.reveal()}"
        case "x-api-key" | "api-key":
            headers[preset.auth] = secret.reveal()
    return headers
