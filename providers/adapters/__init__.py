"""How each provider is called: by the adapter that its preset names."""

from providers.adapters.bedrock import Bedrock
from providers.adapters.http import Adapter
from providers.adapters.vertex import Vertex

ADAPTERS = {"http": Adapter(), "bedrock": Bedrock(), "vertex": Vertex()}
