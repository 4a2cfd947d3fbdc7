"""What a provider's base URL and credential become on the wire: pure functions for adapters and console alike."""

from providers.credentials import Secret
from providers.models import Provider
from providers.origins import BaseUrl, parse_base_url

ANTHROPIC_VERSION = "2023-06-01"
# As each kind's own SDK writes it.
DEFAULT_BASE_URLS = {
    Provider.Kind.OPENAI: "https://api.openai.com/v1",
    Provider.Kind.ANTHROPIC: "https://api.anthropic.com",
}


def normal_base_url(kind: str, text: str) -> str:
    """
    The base URL as it is stored; raises ``InvalidBaseUrl``.

    OpenAI-shaped ones end where their SDK's do, mostly in ``/v1``; of Anthropic-shaped ones a final ``/v1`` is
    dropped, so that both spellings in use mean the same.
    """
    url = parse_base_url(text.strip())
    if kind == Provider.Kind.ANTHROPIC and url.path.endswith("/v1"):
        url = BaseUrl(url.origin, url.path.removesuffix("/v1"))
    return str(url)


def endpoint_url(dialect: str, base_url: str, path: str) -> str:
    """Where ``path``, say ``/chat/completions`` or ``/messages``, stands under a stored base URL."""
    return f"{base_url}/v1{path}" if dialect == "anthropic" else f"{base_url}{path}"


def auth_headers(dialect: str, secret: Secret | None) -> dict[str, str]:
    """The headers by which ``dialect`` is told who calls; a provider without a credential gets none."""
    if dialect == "anthropic":
        headers = {"anthropic-version": ANTHROPIC_VERSION}
        return headers | {"x-api-key": secret.reveal()} if secret else headers
    return {"authorization": f"Bearer {secret.reveal()}"} if secret else {}
