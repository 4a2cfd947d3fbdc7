"""How each provider is called: one module a wire format, all with the shape of ``base.Adapter``."""

from providers.adapters import anthropic, openai

ADAPTERS = {"openai": openai.ADAPTER, "anthropic": anthropic.ADAPTER}
