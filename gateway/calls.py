"""A call on its way through the gateway, and who makes it."""

import time
from dataclasses import dataclass, field

from usage.records import Closed, Opened
from usage.ulid import new_ulid, request_id


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for which workspace. ``user_id`` is the person at the playground, or the key's creator."""

    organization_id: int
    organization_uid: str
    workspace_id: int
    workspace_uid: str
    api_key_id: int | None
    user_id: int | None
    source: str


@dataclass(slots=True)
class Call:
    """One request for a model's answer. ``fields`` are the body's top-level fields as raw JSON."""

    dialect: object
    endpoint: str
    caller: Caller
    fields: dict
    client: str | None = None
    client_retries: int | None = None
    provider_headers: dict = field(default_factory=dict)
    model: str | None = None
    stream: bool = False
    client_gone: bool = False
    recorded: bool = False
    dropped: list = field(default_factory=list)
    ulid: bytes = field(default_factory=new_ulid)
    id: str = ""
    received_at: float = field(default_factory=time.time)
    received: float = field(default_factory=time.perf_counter)
    # The second half of its record, once it has ended.
    closed: Closed | None = None

    def __post_init__(self):
        self.id = self.id or request_id(self.ulid)

    def elapsed(self):
        """Seconds since the request came in."""
        return time.perf_counter() - self.received

    def opened(self, target=None, price_id=None) -> Opened:
        """The first half of its record."""
        caller = self.caller
        return Opened(
            id=self.id,
            started_us=int(self.received_at * 1_000_000),
            organization_id=caller.organization_id,
            workspace_id=caller.workspace_id,
            api_key_id=caller.api_key_id,
            user_id=caller.user_id,
            source=caller.source,
            endpoint=self.endpoint,
            dialect=self.dialect.NAME,
            stream=self.stream,
            requested_model=self.model,
            provider_id=target and target.provider_id,
            provider_model_id=target and target.provider_model_id,
            price_id=price_id,
            upstream_model=target and target.upstream_name,
            client=self.client,
            client_retries=self.client_retries,
            input_estimate=estimate_input(self.fields) if target else None,
        )


def estimate_input(fields):
    """A rough token count of the prompt, four bytes a token: for a request whose process dies under it."""
    size = sum(len(bytes(fields[name])) for name in ("messages", "system", "tools") if name in fields)
    return size // 4
