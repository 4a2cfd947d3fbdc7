"""A provider's bytes through the gateway's own machinery, without sockets: what the caller gets, what is counted."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
from multidict import CIMultiDict

from gateway import pipeline
from gateway.admission import Admission
from gateway.calls import Call, Caller
from gateway.errors import GatewayError
from gateway.health import Health
from gateway.metering import Meter
from gateway.routing import Router
from providers import flavours, formats
from providers.adapters import vertex
from providers.adapters.bedrock import EVENT_STREAM
from providers.request_body import parse_body
from providers.targets import Route
from providers.tokens import TokenUsage
from providers.translators import chat_completions, responses
from tests.providers.calls import make_target
from usage.costs import Rates
from usage.ulid import request_id

RATES = Rates(7, 3_000_000, 300_000, 3_750_000, 6_000_000, 15_000_000)
ULID = bytes(range(16))
WHEN = 1_762_317_021.25
CALLER = Caller(1, "org_1", 1, "wrkspc_1", 1, 1, "api")
PROMPT = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": PROMPT}]
BODIES = {
    "chat_completions": {"messages": MESSAGES},
    "completions": {"prompt": PROMPT},
    "messages": {"messages": MESSAGES, "max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "responses": {"input": PROMPT, "store": False},
}
WITH_USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True, eq=False)
class Asked:
    """How a caller asks: the format, what else stands in the request, and the flavour of the answer."""

    name: str
    format: str
    fields: dict = field(default_factory=dict)
    flavour: str = "openai"


ASKED = (
    Asked("chat", "chat_completions"),
    Asked("chat-with-all", "chat_completions", WITH_USAGE | {"include_reasoning": True}),
    Asked("functions", "chat_completions", WITH_USAGE | {"functions": [{"name": "weather"}]}),
    Asked("completions", "completions", WITH_USAGE),
    Asked("messages", "messages"),
    Asked("responses", "responses"),
    Asked("ikalas", "chat_completions", WITH_USAGE | {"modele": "public"}, "ikalas"),
    Asked("cloud-temple", "chat_completions", WITH_USAGE, "cloud-temple"),
    Asked("evolink", "chat_completions", WITH_USAGE, "evolink"),
    Asked("ektos", "completions", {}, "ektos"),
)


class Told(NamedTuple):
    """What came of a call: the caller's bytes, the code of the failure that ended them, and what was recorded."""

    bytes: bytes
    failure: str | None
    refused: bool
    usage: TokenUsage
    source: str
    cost: int | None
    outcome: str
    stop_reason: str | None
    model: str | None
    text: str


class _Body:
    """A response whose body comes in ``pieces``, as aiohttp has it."""

    status = 200
    connection = None

    def __init__(self, pieces, content_type):
        self._pieces = iter(pieces)
        self.content = self
        self.content_type = content_type
        self.headers = CIMultiDict({"content-type": content_type, "x-request-id": "theirs"})

    async def readany(self):
        # What has no bytes would be the end.
        return next((piece for piece in self._pieces if piece), b"")

    def close(self):
        pass


class _Seeing(Meter):
    """The meter, within reach once the call is over."""

    last = None

    def __init__(self, *given):
        super().__init__(*given)
        _Seeing.last = self


class Replay:
    """Calls one target whose provider sends what it is told to; everything else is the product's own."""

    def __init__(self, kind, format_name):
        self.content_type = EVENT_STREAM if kind == "bedrock" else "text/event-stream"
        preset = make_target(kind, "https://provider.example/v1")
        self.target = make_target(
            kind,
            "https://provider.example/v1",
            credential="credential-0123456789",
            endpoints={format_name: preset.endpoints.get(format_name, "/asked")},
            provider_name="Scripted",
            prices=((0.0, RATES),),
        )
        snapshot = SimpleNamespace(routes={1: {"public": Route("public", (self.target,))}}, spending={})
        keeper = SimpleNamespace(current=snapshot)
        alerts = SimpleNamespace(succeeded=lambda target: None, failed=lambda target, error: None)
        entry = SimpleNamespace(progress=lambda mark: None, close=lambda closed: None)
        self.runtime = SimpleNamespace(
            router=Router(keeper, Health(), alerts),
            admission=Admission(keeper, None),
            journal=SimpleNamespace(open=lambda ulid, opened: entry),
            upstream=self,
        )
        self.requests = {}

    # What is asked of a pool of connections
    def session_for(self, base_url, private_allowed):
        return self

    async def post(self, url, **request):
        return _Body(self.pieces, self.content_type)

    async def ask(self, asked, pieces):
        """What comes of a call when the provider's bytes arrive in ``pieces``."""
        self.pieces = pieces
        call = self._call(asked)
        told, failure, has_begun = [], None, False
        try:
            async for chunk in pipeline.complete(call, self.runtime):
                has_begun = True
                told.append(chunk)
        except GatewayError as error:
            failure = error
            if has_begun:
                told.append(call.format.error_event(error, call.id, call.sequence + 1))
        closed, counted = call.closed, TokenUsage.__struct_fields__
        return Told(
            b"".join(told),
            failure and failure.code,
            not has_begun,
            TokenUsage(*[getattr(closed, name) for name in counted]),
            closed.usage_source,
            closed.cost_nanos,
            closed.outcome,
            closed.stop_reason,
            closed.response_model,
            "".join(_Seeing.last.text),
        )

    def _call(self, asked):
        if asked not in (requests := self.requests):
            body = {"model": "public", "stream": True} | BODIES[asked.format] | asked.fields
            flavour, format = flavours.BY_NAME[asked.flavour], formats.BY_NAME[asked.format]
            fields = flavour.read(asked.format, parse_body(msgspec.json.encode(body)))
            assert format.read_request(fields, None) == ("public", True)
            requests[asked] = format, fields, flavour
        format, fields, flavour = requests[asked]
        return Call(
            format=format,
            caller=CALLER,
            fields=fields,
            flavour=flavour,
            model="public",
            stream=True,
            ulid=ULID,
            id=request_id(ULID),
            received_at=WHEN,
        )


def stand_still(patch):
    """Have ids and clocks say the same each time, with ``patch`` a ``pytest.MonkeyPatch``."""
    patch.setattr(pipeline, "Meter", _Seeing)
    patch.setattr(chat_completions, "secrets", SimpleNamespace(token_hex=lambda size: "ab" * size))
    patch.setattr(responses, "time", SimpleNamespace(time=lambda: WHEN + 1))

    async def token_of(target):
        return "ya29.token"

    patch.setattr(vertex, "token_of", token_of)
    patch.setattr(pipeline, "log", SimpleNamespace(warning=_silent, info=_silent, error=_silent))


def _silent(event, **said):
    pass


def in_two(stream, place):
    return stream[:place], stream[place:]


def in_bytes(stream):
    return [stream[place : place + 1] for place in range(len(stream))]


def in_parts(stream, places):
    return [stream[start:end] for start, end in itertools.pairwise([0, *sorted(places), len(stream)])]
