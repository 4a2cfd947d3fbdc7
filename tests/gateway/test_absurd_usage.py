"""
What a provider says of its tokens and cannot be right: more than a thousand reports, through the pipeline as it is.

Whatever is said, the answer arrives as it was written, its row has figures that the request can have come to, and says
whose they are. Only the network is made here.
"""

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import pytest
import structlog

from gateway import metrics
from gateway.admission import Admission
from gateway.calls import Call, Caller
from gateway.drainer import Drainer
from gateway.health import Health
from gateway.journal import Journal, SegmentReader
from gateway.metering import Meter
from gateway.pipeline import complete, count_prompt
from gateway.routing import Router
from providers import formats
from providers.sse import EventSplitter
from providers.targets import Route
from providers.tokens import count_tokens
from tests.books import ledger_differences
from tests.gateway.test_routing import target
from usage.costs import Rates
from usage.models import RequestLog
from usage.rollups import disagreements

RATES = Rates(7, 3_000_000, 300_000, 3_750_000, 6_000_000, 15_000_000)
WINDOW, MAX_TOKENS = 8_192, 64
COUNTERS = (
    "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens",
    "reasoning_tokens",
)  # fmt: skip
PROMPT, ANSWER = "Hello there, who is it?", "It is I, Leclerc."
# The most that any of these requests can be charged: some four windows to read, and four times what it asked for.
MOST = 40_000 * 6_000 + 4_300 * 15_000


class Odd(str):
    """A number as it stands on the wire, which JSON or Python cannot hold."""


NO_COUNTS = [-1, -(2**63), True, "12", "many", "", [], {}, [5], 10**9, 10**18, 2**63, 2**64, 10**30, 1e300]
NO_COUNTS += [Odd("NaN"), Odd("-Infinity"), Odd("1e999"), Odd("9" * 5000)]
# Counts by themselves, if not of this request.
TOO_MANY = [200_000, 50_000_000, 99_999_999, 1e7]


@dataclass(frozen=True)
class Wire:
    """
    How a provider tells of the answer: ``usage`` is a good report, ``main`` the fields without which it is none.

    ``adding`` are the fields that make the sum of what was read larger, and so wrong, where they are too large.
    """

    usage: dict
    main: tuple
    adding: tuple

    def cases(self):
        """``(path, value, whether the row's figures must be counted here)`` for each absurd report."""
        for path in paths(self.usage):
            for value in NO_COUNTS:
                yield path, value, path in self.main
            for value in TOO_MANY:
                yield path, value, path in self.main or path in self.adding


def paths(usage):
    for name, value in usage.items():
        if isinstance(value, dict):
            yield from ((name, *path) for path in paths(value))
        else:
            yield (name,)


CHAT = Wire(
    {
        "prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
    main=(("prompt_tokens",), ("completion_tokens",)),
    adding=(("prompt_tokens_details", "cached_tokens"), ("prompt_tokens_details", "cache_write_tokens")),
)  # fmt: skip
MESSAGES = Wire(
    {
        "input_tokens": 4, "output_tokens": 6, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
        "output_tokens_details": {"thinking_tokens": 1},
    },
    main=(("input_tokens",), ("output_tokens",)),
    adding=(
        ("cache_read_input_tokens",), ("cache_creation_input_tokens",),
        ("cache_creation", "ephemeral_5m_input_tokens"), ("cache_creation", "ephemeral_1h_input_tokens"),
    ),
)  # fmt: skip
RESPONSES = Wire(
    {
        "input_tokens": 9, "output_tokens": 6, "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 1},
    },
    main=(("input_tokens",), ("output_tokens",)),
    adding=(("input_tokens_details", "cached_tokens"), ("input_tokens_details", "cache_write_tokens")),
)  # fmt: skip
WIRES = {"chat_completions": CHAT, "completions": CHAT, "messages": MESSAGES, "responses": RESPONSES}
# What one is asked in, and what its provider is asked in.
PAIRS = [
    ("chat_completions", "chat_completions"), ("completions", "completions"), ("messages", "messages"),
    ("responses", "responses"), ("messages", "chat_completions"), ("chat_completions", "messages"),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    asked: str
    provider: str
    stream: bool
    path: tuple
    value: object
    is_counted: bool

    def __str__(self):
        value = str(self.value) if isinstance(self.value, Odd) else repr(self.value)
        way = self.asked if self.asked == self.provider else f"{self.asked} by {self.provider}"
        return f"{way}, {'stream' if self.stream else 'plain'}, {'.'.join(self.path)} = {value[:40]}"


def every_case():
    for (asked, provider), stream in itertools.product(PAIRS, (False, True)):
        for path, value, is_counted in WIRES[provider].cases():
            yield Case(asked, provider, stream, path, value, is_counted)


CASES = list(every_case())


# The network -------------------------------------------------------------------------------------------------------


def written(document):
    """``document`` as JSON, with odd numbers as they are."""
    if isinstance(document, Odd):
        return str(document)
    if isinstance(document, dict):
        return "{%s}" % ",".join(f"{json.dumps(name)}:{written(value)}" for name, value in document.items())  # noqa: UP031
    if isinstance(document, list):
        return f"[{','.join(map(written, document))}]"
    return json.dumps(document)


def event(document, name=None):
    return (f"event: {name}\n" if name else "") + f"data: {written(document)}\n\n"


def replaced(usage, path, value):
    name, *rest = path
    return usage | {name: replaced(usage[name], rest, value) if rest else value}


def whole_answer(format, usage):
    if format == "messages":
        answer = {"type": "message", "content": [{"type": "text", "text": ANSWER}], "stop_reason": "end_turn"}
    elif format == "responses":
        item = {"type": "message", "content": [{"type": "output_text", "text": ANSWER}]}
        answer = {"id": "resp_1", "object": "response", "status": "completed", "output": [item]}
    else:
        choice = {"index": 0, "text": ANSWER, "message": {"role": "assistant", "content": ANSWER}}
        answer = {"id": "c", "choices": [choice | {"finish_reason": "stop"}]}
    return written(answer | {"model": "m", "usage": usage})


def streamed_answer(format, usage):
    """The events of a stream, and those of them that a caller gets who did not ask for its usage."""
    if format == "messages":
        start = {"content": [], "model": "m", "usage": usage}
        events = [
            event({"type": "message_start", "message": start}, "message_start"),
            event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}}),
            event({"type": "content_block_stop", "index": 0}),
            event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}),
            event({"type": "message_stop"}, "message_stop"),
        ]
        return events, events
    if format == "responses":
        events = [
            event({"type": "response.output_text.delta", "output_index": 0, "delta": ANSWER}),
            event({"type": "response.completed", "response": {"status": "completed", "model": "m", "usage": usage}}),
        ]
        return events, events
    choice = {"index": 0, "text": ANSWER, "delta": {"content": ANSWER}}
    events = [
        event({"id": "c", "model": "m", "choices": [choice]}),
        event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        event({"id": "c", "model": "m", "choices": [], "usage": usage}),
        "data: [DONE]\n\n",
    ]
    return events, [*events[:2], events[3]]


class Network:
    """Gives ``body`` as the answer to whatever is asked; as a session, a response and its content."""

    status, connection = 200, None

    def __init__(self, body, stream):
        self.parts = [body]
        self.content_type = "text/event-stream" if stream else "application/json"
        self.headers = {"content-type": self.content_type}
        self.content_length = len(body)
        self.content = self

    def session_for(self, base_url, private_allowed):
        return self

    async def post(self, url, **request):
        return self

    async def readany(self):
        return self.parts.pop() if self.parts else b""

    async def read(self, size):
        return await self.readany()

    def close(self):
        pass


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    journal = Journal(tmp_path_factory.mktemp("journal"))
    yield journal
    journal.close()


def request_of(format, caller, *, prompt=PROMPT, stream=False, **fields):
    if format in ("chat_completions", "messages"):
        fields = {"messages": [{"role": "user", "content": prompt}]} | fields
    else:
        fields = {"input" if format == "responses" else "prompt": prompt} | fields
    length = "max_output_tokens" if format == "responses" else "max_tokens"
    fields = {"model": "fast", length: MAX_TOKENS} | fields
    raws = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}
    return Call(getattr(formats, format), caller, raws, model="fast", stream=stream)


async def answered(call, journal, body, provider=None, *, window=WINDOW, **fields):
    """The bytes that the caller of ``call`` gets where its provider, asked in ``provider``, answers ``body``."""
    name = provider or call.format.NAME
    dialect = "anthropic" if name == "messages" else "openai"
    model = target(
        1, endpoints={name: "/x"}, dialect=dialect, context_window=window, prices=((0.0, RATES),), **fields
    )  # fmt: skip
    organization_id = call.caller.organization_id
    snapshot = SimpleNamespace(routes={organization_id: {"fast": Route("fast", (model,))}}, spending={})
    keeper = SimpleNamespace(current=snapshot)
    alerts = SimpleNamespace(succeeded=lambda target: None, failed=lambda target, error: None)
    runtime = SimpleNamespace(
        router=Router(keeper, Health(), alerts),
        journal=journal,
        upstream=Network(body.encode(), call.stream),
        admission=Admission(keeper, None),
    )
    async with contextlib.aclosing(complete(call, runtime)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def ask(case, journal, caller):
    """The call of a case, what its provider sent and must arrive, and what arrived."""
    usage = replaced(WIRES[case.provider].usage, case.path, case.value)
    call = request_of(case.asked, caller, stream=case.stream)
    if case.stream:
        sent, due = map("".join, streamed_answer(case.provider, usage))
    else:
        sent = due = whole_answer(case.provider, usage)
    return call, due, (await answered(call, journal, sent, case.provider)).decode()


# The table ---------------------------------------------------------------------------------------------------------

CALLER = Caller(1, "org_1", 1, "wrkspc_1", 1, 1, "api")


WAYS = [(asked, provider, stream) for (asked, provider), stream in itertools.product(PAIRS, (False, True))]


def test_the_table_is_long_enough():
    assert len({str(case) for case in CASES}) == len(CASES) >= 300


@pytest.mark.anyio
@pytest.mark.parametrize(("asked", "provider", "stream"), WAYS)
async def test_what_cannot_be_right_is_counted_here(asked, provider, stream, journal):
    wrong = []
    for case in CASES:
        if (case.asked, case.provider, case.stream) == (asked, provider, stream):
            call, due, arrived = await ask(case, journal, CALLER)
            wrong += [f"{case}: {problem}" for problem in problems(case, call.closed, due, arrived)]
    assert wrong == []


def problems(case, closed, due, arrived):
    """What is not as it must be with the answer of a case and the record of it."""
    if arrived != due if case.asked == case.provider else ANSWER not in arrived:
        yield f"arrived as {arrived}"
    if (closed.outcome, closed.status) != ("completed", 200):
        yield f"is recorded as {closed.outcome}, {closed.status}"
    if closed.usage_source != ("counted" if case.is_counted else "reported"):
        yield f"is {closed.usage_source}"
    counts = [getattr(closed, name) for name in COUNTERS]
    if min(count or 0 for count in counts) < 0:
        yield f"has {counts}"
    # As counted here, or as the fields say that were good.
    read = sum(count or 0 for count in counts[:4])
    if not (4 <= read <= 14 and closed.output_tokens in {count_tokens(ANSWER), 6}):
        yield f"read and wrote {counts}"
    if (closed.reasoning_tokens or 0) > closed.output_tokens:
        yield f"thought {closed.reasoning_tokens}"
    if not 0 < closed.cost_nanos <= MOST:
        yield f"costs {closed.cost_nanos}"


@pytest.mark.django_db(transaction=True)
def test_they_are_rows_that_the_books_agree_with(workspace, tmp_path):
    caller = Caller(workspace.organization_id, "org_1", workspace.pk, "wrkspc_1", None, None, "api")
    journal = Journal(tmp_path)

    async def ask_all():
        # Every fifth, of each field and value some: enough to see that the database takes them.
        return [(await ask(case, journal, caller))[0] for case in CASES[::5]]

    calls = asyncio.run(ask_all())
    drainer = Drainer(journal, keep_hours=24)
    drainer.start()
    drainer.stop(timeout=60)
    journal.close()

    columns = ("usage_source", "cost_nanos", *COUNTERS)
    rows = dict(RequestLog.objects.values_list("pk", "usage_source"))
    assert len(rows) >= 300
    assert rows == {call.id: call.closed.usage_source for call in calls}
    for row in RequestLog.objects.values("pk", *columns):
        assert min(row[name] or 0 for name in COUNTERS) >= 0 < row["cost_nanos"] <= MOST
    assert (disagreements(), ledger_differences()) == ([], [])


# One by one --------------------------------------------------------------------------------------------------------


def chat(usage, text=ANSWER):
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return written({"id": "c", "choices": [choice], "usage": usage})


def tokens(read, wrote, **details):
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote} | details


THOUGHTS = {"completion_tokens_details": {"reasoning_tokens": 29_990}}
CACHE = {"prompt_tokens_details": {"cached_tokens": 30_000}}
PHOTO = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}]
PICTURE = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
SEARCH = [{"type": "web_search"}]
FUNCTION = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("usage", "request_fields", "model"),
    [
        # More than was asked for, by a little or by much where that is little; and several answers.
        (tokens(9, 70), {}, {}),
        (tokens(9, 3_000), {}, {}),
        (tokens(9, 30_000), {"max_tokens": 8_000}, {}),
        (tokens(9, 30_000), {"max_tokens": None, "max_completion_tokens": 8_000}, {}),
        (tokens(9, 30_000), {"n": 128}, {}),
        # Thoughts that the provider does not count as the answer, and those that it does not name where nobody said
        # how much to write.
        (tokens(9, 30_000, **THOUGHTS), {}, {}),
        (tokens(9, 30_000), {"max_tokens": None}, {}),
        (tokens(9, 100_000), {"max_tokens": None}, {"window": None}),
        (tokens(9, 90_000), {"max_tokens": None}, {"max_output_tokens": 32_000}),
        # A model of which the catalogue knows less than its caller.
        (tokens(9, 60_000), {"max_tokens": 64_000}, {"max_output_tokens": 8_000}),
        # A length that a provider may understand.
        (tokens(9, 3_000), {"max_tokens": "5000"}, {}),
        (tokens(9, 3_000), {"max_tokens": -1}, {}),
        # Prompts of the provider's own, tools, pictures, and a model whose window is not known.
        (tokens(8_000, 6), {}, {}),
        (tokens(30_000, 6, **CACHE), {}, {}),
        (tokens(150_000, 6), {}, {"window": None}),
        (tokens(150_000, 6), {}, {"window": 200_000}),
        (tokens(60_000, 6), {"messages": [{"role": "user", "content": PICTURE}]}, {"window": 64_000}),
        (tokens(900_000, 6), {"messages": [{"role": "user", "content": PICTURE}]}, {"window": 1_000_000}),
        (tokens(200_000, 6), {"tools": SEARCH}, {}),
        (tokens(200_000, 6), {"web_search_options": {}}, {}),
        (tokens(120_000, 6), {"messages": [{"role": "user", "content": PHOTO}]}, {"window": 128_000}),
        (tokens(120_000, 6), {"messages": [{"role": "user", "content": PHOTO}]}, {"window": None}),
        # A long prompt for a model that is said to read less.
        (tokens(45_000, 6), {"prompt": "a few words " * 15_000}, {}),
    ],
)
async def test_what_can_be_right_is_believed(usage, request_fields, model, journal):
    call = request_of("chat_completions", CALLER, **request_fields)
    await answered(call, journal, chat(usage), **model)
    closed = call.closed
    read = closed.input_tokens + (closed.cache_read_tokens or 0)
    assert (closed.usage_source, read, closed.output_tokens) == (
        "reported", usage["prompt_tokens"], usage["completion_tokens"],
    )  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("usage", "request_fields", "model"),
    [
        (tokens(9, 30_000), {}, {}),
        (tokens(9, 30_000), {"max_tokens": None, "max_completion_tokens": 64}, {}),
        (tokens(9, 50_000_000), {"n": 8}, {}),
        (tokens(9, 50_000_000, completion_tokens_details={"reasoning_tokens": 50_000_000}), {}, {}),
        (tokens(9, 900_000), {"max_tokens": None}, {"window": None}),
        (tokens(9, 50_000), {"max_tokens": None}, {"max_output_tokens": 8_000}),
        (tokens(9, 900_000), {"max_tokens": 10**9}, {"max_output_tokens": 8_000}),
        # What Gemini thought stands in the total alone.
        (tokens(9, 6, total_tokens=50_000_000), {}, {}),
        (tokens(60_000, 6), {}, {}),
        (tokens(60_000, 6, prompt_tokens_details={"cached_tokens": 59_000}), {}, {}),
        (tokens(9, 6, prompt_tokens_details={"cached_tokens": 60_000}), {}, {}),
        (tokens(60_000, 6), {"tools": FUNCTION}, {}),
        (tokens(900_000, 6), {"tools": SEARCH}, {}),
        (tokens(900_000, 6), {}, {"window": 1_000_000}),
        (tokens(900_000, 6), {}, {"window": None}),
        (tokens(300_000, 6), {"messages": [{"role": "user", "content": PICTURE}]}, {"window": 32_000}),
        (tokens(5_000_000, 6), {"messages": [{"role": "user", "content": PICTURE}]}, {"window": None}),
        (tokens(2_500_000, 6), {"messages": [{"role": "user", "content": PHOTO}]}, {"window": 128_000}),
    ],
)
async def test_what_cannot_be_right_is_not(usage, request_fields, model, journal):
    call = request_of("chat_completions", CALLER, **request_fields)
    await answered(call, journal, chat(usage), **model)
    closed = call.closed
    assert closed.usage_source == "counted"
    assert closed.output_tokens in {6, count_tokens(ANSWER)}
    assert closed.input_tokens + (closed.cache_read_tokens or 0) <= 20


@pytest.mark.anyio
async def test_a_long_answer_speaks_for_itself(journal):
    call = request_of("chat_completions", CALLER)
    await answered(call, journal, chat(tokens(9, 25_000), text="词" * 25_000))
    assert (call.closed.usage_source, call.closed.output_tokens) == ("reported", 25_000)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("usage", "source", "read"),
    [
        (tokens(700_000, 0), "reported", 700_000),
        ({"prompt_tokens": -5, "total_tokens": 11}, "reported", 11),
        ({"prompt_tokens": 9, "total_tokens": 50_000_000}, "reported", 9),
        ({"prompt_tokens": 0, "total_tokens": 50_000_000}, "counted", 400_000),
        (tokens(50_000_000, 0), "counted", 400_000),
        ({"prompt_tokens": "many"}, "counted", 400_000),
    ],
)
async def test_a_batch_of_texts_may_be_larger_than_the_window(usage, source, read, journal):
    call = request_of("chat_completions", CALLER)
    fields = {"model": msgspec.Raw(b'"fast"'), "input": msgspec.Raw(json.dumps([" word" * 400] * 1_000).encode())}
    call = Call(formats.embeddings, CALLER, fields, model="fast")
    body = written({"data": [{"embedding": [0.5]}], "usage": usage})
    assert await answered(call, journal, body) == body.encode()
    if source == "counted":
        # Too many to be counted here, in which the process would do nothing else.
        assert call.closed.usage_source == "estimated"
        assert call.closed.input_tokens == pytest.approx(read, rel=0.5)
    else:
        assert (call.closed.usage_source, call.closed.input_tokens) == (source, read)
    assert call.closed.output_tokens == 0


@pytest.mark.anyio
async def test_a_moderation_writes_nothing_that_costs(journal):
    call = Call(formats.moderations, CALLER, {"input": msgspec.Raw(b'"Hello there"')}, model="fast")
    await answered(call, journal, written({"results": [{}], "usage": tokens(3, 50_000_000)}))
    assert (call.closed.usage_source, call.closed.output_tokens) == ("counted", 0)
    assert call.closed.cost_nanos == 3 * 3_000


def in_every_chunk(*usages):
    """A stream whose every chunk has the usage so far."""
    words = [{"index": 0, "delta": {"content": word}} for word in ANSWER.split(" ")]
    chunks = itertools.zip_longest(words, usages, fillvalue=usages[-1])
    events = [event({"id": "c", "choices": [word], "usage": usage}) for word, usage in chunks]
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usages[-1]}
    return "".join([*events, event(end), "data: [DONE]\n\n"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("usages", "source", "wrote"),
    [
        ([tokens(9, 50_000_000)], "counted", count_tokens(" ".join(ANSWER.split(" ")))),
        ([tokens(9, 1), tokens(9, 50_000_000), tokens(9, 3), tokens(9, 5)], "reported", 5),
        ([tokens(9, 1), tokens(9, 2) | {"completion_tokens": Odd("1e999")}, tokens(9, 3), tokens(9, 5)], "reported", 5),
    ],
)
async def test_of_usage_in_every_chunk_the_last_counts(usages, source, wrote, journal):
    usages = [usage | {"total_tokens": None} for usage in usages]
    call = request_of("chat_completions", CALLER, stream=True)
    arrived = await answered(call, journal, in_every_chunk(*usages), kind="gemini")
    assert b"usage" not in arrived and arrived.count(b"content") == len(ANSWER.split(" "))
    closed = call.closed
    assert (closed.usage_source, closed.input_tokens) == (source, 9)
    assert abs(closed.output_tokens - wrote) <= 1


# What else rests on it ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_request_that_dies_under_its_process_is_charged_nothing_absurd(tmp_path):
    journal = Journal(tmp_path)
    call = request_of("messages", CALLER, stream=True)
    events, _ = streamed_answer("messages", MESSAGES.usage | {"input_tokens": 50_000_000, "output_tokens": 50_000_000})
    model = target(1, endpoints={"messages": "/x"}, dialect="anthropic", context_window=WINDOW)
    meter = Meter(call, count_prompt, call.estimate_input())
    meter.ask(model, RATES)
    meter.dispatch()
    entry = journal.open(call.ulid, call.opened(model, RATES, meter.input_estimate))
    reader = formats.messages.StreamReader(meter)
    for each in EventSplitter().feed("".join(events[:5]).encode()):
        reader.saw(each)
    entry.progress(meter.progress())
    (record,) = SegmentReader(journal.segments[0].path).rest()
    journal.close()
    assert record.closed.outcome == "interrupted"
    assert record.closed.input_tokens == call.estimate_input() and record.closed.output_tokens < 10
    assert (record.closed.cache_read_tokens, record.closed.cache_write_tokens) == (None, None)


@pytest.mark.anyio
async def test_who_leaves_early_is_charged_what_was_written(journal):
    usage = tokens(9, 50_000_000)
    call = request_of("chat_completions", CALLER, stream=True)
    meter = Meter(call, count_prompt, call.estimate_input())
    meter.ask(target(1), RATES)
    meter.dispatch()
    reader = formats.chat_completions.StreamReader(meter)
    for each in EventSplitter().feed(in_every_chunk(usage).encode()):
        reader.saw(each)
    call.client_gone = True
    meter.cancelled()
    closed = meter.closed()
    assert (closed.outcome, closed.usage_source) == ("client_cancelled", "counted")
    assert (closed.input_tokens, closed.output_tokens) == (9, meter.count_output())


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("usage", "side", "said"),
    [
        (tokens(9, 50_000_000), "output", {"output_tokens": 50_000_000}),
        (tokens(9, -5, total_tokens=4), "output", {"completion_tokens": -5}),
        ({"prompt_tokens": 9, "completion_tokens": "six"}, "output", {"completion_tokens": "str"}),
        ({"prompt_tokens": 9, "completion_tokens": Odd("9" * 350)}, "output", {"completion_tokens": "int"}),
        (tokens(900_000, 6), "input", {"input_tokens": 900_000}),
    ],
)
@pytest.mark.parametrize("asked", ["chat_completions", "messages"])
async def test_what_is_not_believed_is_told_once(asked, usage, side, said, journal):
    told = {each: metrics.DISBELIEVED.labels(each)._value.get() for each in ("input", "output")}
    call = request_of(asked, CALLER)
    with structlog.testing.capture_logs() as logs:
        await answered(call, journal, chat(usage), "chat_completions")
    (line,) = [each for each in logs if each["event"] == "usage not believed"]
    assert (line["provider"], line["model"], line["request_id"]) == ("Provider 1", "model-1", call.id)
    assert line["said"] == said
    assert line["believed"] == {"input_tokens": call.closed.input_tokens, "output_tokens": call.closed.output_tokens}
    grown = {each: metrics.DISBELIEVED.labels(each)._value.get() - count for each, count in told.items()}
    assert grown == {"input": 0, "output": 0} | {side: 1}


@pytest.mark.anyio
@pytest.mark.parametrize("usage", [tokens(9, 6), None, {}, tokens(9, 0), tokens(0, 0)])
async def test_what_is_believed_or_was_never_said_is_not_told(usage, journal):
    with structlog.testing.capture_logs() as logs:
        await answered(request_of("chat_completions", CALLER), journal, chat(usage))
    assert logs == []


@pytest.mark.anyio
async def test_a_text_of_fewer_tokens_than_it_can_have_been_is_told(journal):
    with structlog.testing.capture_logs() as logs:
        await answered(request_of("chat_completions", CALLER), journal, chat(tokens(9, 2), text=ANSWER * 20))
    assert [each["said"] for each in logs] == [{"output_tokens": 2}]
