"""A call on its way through the gateway, and who makes it."""

import time
from dataclasses import dataclass, field
from types import ModuleType

from providers import flavours
from usage.records import Closed, Opened
from usage.ulid import new_ulid, request_id


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Who asks, and for which workspace. ``user_id`` is the person at the playground, or the key's creator.

    ``flavour`` names how the key or its workspace wants answers dressed; ``None`` is plainly. ``stores`` says whether
    they let anything be stored.
    """

    organization_id: int
    organization_uid: str
    workspace_id: int
    workspace_uid: str
    api_key_id: int | None
    user_id: int | None
    source: str
    flavour: str | None = None
    stores: bool = True


@dataclass(slots=True)
class Call:
    """
    One request for a model's answer.

    ``format`` is a module of ``providers.formats``, ``fields`` the body's top-level fields as raw JSON, ``rules`` the
    version of its dialect that the caller holds to, ``sequence`` the number of the last event of its stream, where
    its format numbers them, ``plan`` the targets that are asked, once it is routed.
    """

    format: ModuleType
    caller: Caller
    fields: dict
    client: str | None = None
    client_retries: int | None = None
    provider_headers: dict = field(default_factory=dict)
    rules: str | None = None
    flavour: object = flavours.OPENAI
    model: str | None = None
    stream: bool = False
    client_gone: bool = False
    recorded: bool = False
    dropped: list = field(default_factory=list)
    answer_headers: list = field(default_factory=list)
    size: int = 0
    sequence: int = -1
    plan: object = None
    # What it holds of spend limits, and whether its caller takes a shorter answer where the whole cannot be afforded.
    reservation: object = None
    takes_less: bool = False
    limit_headers: list = field(default_factory=list)
    # What it takes of limits by the minute, where any holds.
    ticket: object = None
    # Kinds of what is no text in it, where somebody has looked.
    media: frozenset | None = None
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

    def opened(self, target=None, rates=None, input_estimate=None) -> Opened:
        """The first half of its record; ``rates`` are those that it is charged by."""
        caller = self.caller
        flavour = self.flavour
        return Opened(
            id=self.id,
            started_us=int(self.received_at * 1_000_000),
            organization_id=caller.organization_id,
            workspace_id=caller.workspace_id,
            api_key_id=caller.api_key_id,
            user_id=caller.user_id,
            source=caller.source,
            endpoint=self.format.NAME,
            dialect=self.format.DIALECT.NAME if flavour is flavours.OPENAI else flavour.name,
            stream=self.stream,
            requested_model=self.model,
            provider_id=target and target.provider_id,
            provider_model_id=target and target.provider_model_id,
            price_id=rates and rates.price_id,
            upstream_model=target and target.upstream_name,
            client=self.client,
            client_retries=self.client_retries,
            input_estimate=input_estimate,
            exchange_rate=rates and rates.exchange,
            leases=self.reservation.lease_ids if self.reservation is not None else (),
            held_nanos=self.reservation.nanos if self.reservation is not None else 0,
        )

    def estimate_input(self):
        """A rough token count of the prompt, four bytes a token: for a request whose process dies under it."""
        fields, size = self.fields, 0
        for name in self.format.PROMPT_FIELDS:
            if name in fields:
                size += len(fields[name])
        return size // 4
