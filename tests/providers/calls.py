"""One model behind an adapter, without database or server: what goes out and what comes back."""

import msgspec

from providers.adapters import ADAPTERS
from providers.client import Upstream
from providers.credentials import Secret
from providers.presets import PRESETS
from providers.targets import Target

MESSAGE = {"model": "public", "max_tokens": 50, "messages": [{"role": "user", "content": "Bonjour, ça va ?"}]}


def make_target(kind, base_url, *, credential=None, headers=None, name="scripted-1", **fields):
    """The model ``name`` of a provider of ``kind`` at ``base_url``."""
    preset = PRESETS[kind]
    given = {
        "public_name": "public",
        "upstream_name": name,
        "provider_model_id": 1,
        "provider_id": 1,
        "provider_name": preset.name,
        "kind": kind,
        "dialect": preset.dialect,
        "adapter": preset.adapter,
        "endpoints": preset.endpoints,
        "base_url": base_url,
        "private_allowed": base_url.startswith("http:"),
        "headers": headers or {},
        "credential": Secret(credential) if credential else None,
        "is_usable": True,
        "created": 0,
        "context_window": None,
        "max_output_tokens": None,
    }
    return Target(**given | fields)


class Caller:
    """Calls one target as the pipeline does; an async context manager."""

    def __init__(self, target):
        self.target = target
        self.adapter = ADAPTERS[target.adapter]
        self.upstream = None

    async def __aenter__(self):
        self.upstream = Upstream()
        return self

    async def __aexit__(self, *_):
        await self.upstream.close()

    async def open(self, body, *, format="messages", stream=False, headers=None):
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.adapter.post(self.upstream, self.target, format, encoded, stream=stream, headers=headers)

    async def ask(self, body=MESSAGE, **how):
        """The whole answer to ``body``, as bytes."""
        answer = await self.open(body, **how)
        try:
            return await self.adapter.read(answer)
        finally:
            answer.close()

    async def chunks(self, body=MESSAGE, **how):
        """What a stream brings, chunk by chunk."""
        answer = await self.open({**body, "stream": True}, stream=True, **how)
        try:
            while chunk := await self.adapter.next_chunk(answer):
                yield chunk
        finally:
            answer.close()

    async def stream(self, body=MESSAGE, **how):
        """All bytes of a stream."""
        return b"".join([chunk async for chunk in self.chunks(body, **how)])
