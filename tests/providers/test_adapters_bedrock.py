"""Claude on Bedrock, as far as it can be without Amazon: the signature is recomputed where it arrives."""

import binascii
import itertools
import json
import random
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapters import bedrock
from providers.adapters.bedrock import invoking_body, place_of
from providers.credentials import Secret
from providers.errors import Broken, OwnAccount, Rejected, TimedOut
from providers.sse import EventSplitter
from tests.providers.calls import MESSAGE, Caller, make_target
from tests.upstream import Script, Upstream
from tests.upstream.bedrock import BedrockUpstream, frame, frame_of

pytestmark = pytest.mark.anyio

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture(scope="module")
def running():
    with BedrockUpstream() as running:
        yield running


@pytest.fixture
def amazon(running):
    running.forget()
    yield running
    assert not running.mistakes


def caller(amazon, credential=None, name=MODEL, **fields):
    headers = {"anthropic-version": "2023-06-01"}
    credential = amazon.credential_json() if credential is None else credential
    return Caller(make_target("bedrock", amazon.url, credential=credential, headers=headers, name=name, **fields))


def events_of(raw):
    splitter = EventSplitter()
    return [(event.name.decode(), json.loads(event.data)) for event in [*splitter.feed(raw), *splitter.rest()]]


@pytest.mark.parametrize(
    "name",
    [
        MODEL,
        "anthropic.claude-x",
        "arn:aws:bedrock:eu-west-3:123456789012:application-inference-profile/a1b2c3",
        "é ~*",
    ],
)
async def test_the_signature_is_good_whatever_the_model_is_called(amazon, name):
    amazon.play(name, Script(text=("Très bien.",)))
    async with caller(amazon, name=name) as call:
        answer = json.loads(await call.ask())
    assert answer["content"] == [{"type": "text", "text": "Très bien."}]
    assert answer["model"] == name
    sent = json.loads(amazon.requests[-1].sent)
    assert sent == {"anthropic_version": "bedrock-2023-05-31"} | {k: v for k, v in MESSAGE.items() if k != "model"}
    assert not {"anthropic-version", "anthropic-beta"} & set(amazon.requests[-1].headers)


async def test_temporary_keys_are_signed_with_their_token():
    with BedrockUpstream(session_token="FwoGZXIvYXdzEPT//scripted==") as amazon:
        async with caller(amazon) as call:
            assert b"token" in await call.ask()
        with pytest.raises(OwnAccount):
            async with caller(amazon, amazon.credential_json(session_token="another")) as call:
                await call.ask()


async def test_an_api_key_is_sent_as_it_is(amazon):
    async with caller(amazon, "bedrock-api-key-scripted") as call:
        assert b"token" in await call.ask()
        assert b"message_stop" in await call.stream()


@pytest.mark.parametrize(
    "change",
    [
        {"secret_access_key": "wrong"},
        {"access_key_id": "AKIDWRONG"},
        {"region": "us-east-1"},
        {"region": None},
        {"more": "x"},
        {"access_key_id": 5},
    ],
    ids=repr,
)
async def test_a_credential_that_is_not_right_is_this_servers_own_matter(amazon, change):
    credential = amazon.credential_json(**change)
    async with caller(amazon, credential) as call:
        with pytest.raises(OwnAccount) as refused:
            await call.ask()
    assert "scripted/secret" not in refused.value.message + refused.value.detail
    assert not amazon.calls


async def test_a_provider_without_a_credential_is_called_without_one(amazon):
    async with Caller(make_target("bedrock", amazon.url, name=MODEL)) as call:
        with pytest.raises(OwnAccount) as refused:
            await call.ask()
    assert refused.value.code == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("base_url", "place"),
    [
        ("https://bedrock-runtime.us-east-1.amazonaws.com", ("bedrock", "us-east-1")),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", ("bedrock", "us-gov-west-1")),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", ("bedrock", "cn-north-1")),
        ("https://bedrock-runtime.eu-west-3.api.aws", ("bedrock", "eu-west-3")),
        ("https://vpce-0a1b-c2d3.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", ("bedrock", "ap-southeast-2")),
        ("https://bedrock-mantle.eu-west-1.api.aws/anthropic", ("bedrock-mantle", "eu-west-1")),
        ("https://gateway.example.org/bedrock", ("bedrock", "eu-south-9")),
    ],
)
def test_service_and_region_come_from_the_host_before_the_credential(base_url, place):
    assert place_of(base_url, bedrock.Keys("id", "secret", region="eu-south-9")) == place


async def test_a_stream_of_frames_comes_out_as_claudes_own_events(amazon):
    amazon.play(MODEL, Script(text=("Ça ", "va ", "bien.")))
    async with caller(amazon) as call:
        raw = await call.stream(headers={"anthropic-beta": "context-1m-2025-08-07, other"})
    events = events_of(raw)
    assert [name for name, data in events] == [data["type"] for name, data in events]
    assert events[0][0] == "message_start"
    assert events[-1] == ("message_stop", {"type": "message_stop"})
    assert "".join(d["delta"]["text"] for n, d in events if n == "content_block_delta") == "Ça va bien."
    sent = json.loads(amazon.requests[-1].sent)
    assert sent["anthropic_beta"] == ["context-1m-2025-08-07", "other"]
    assert "stream" not in sent


@pytest.mark.parametrize("piece", [1, 3, 7, 61])
async def test_a_stream_is_the_same_however_the_network_cuts_it(amazon, piece):
    whole, cut = Script(text=("Ça ", "va.")), Script(text=("Ça ", "va."), piece=piece)
    amazon.play(MODEL, whole, cut)
    async with caller(amazon) as call:
        assert await call.stream() == await call.stream()


async def test_the_answer_says_what_it_is_and_how_it_is_called(amazon):
    async with caller(amazon) as call:
        answer = await call.open(MESSAGE, stream=True)
        assert answer.content_type == "text/event-stream"
        assert call.adapter.request_id(answer).startswith("upstream-")
        answer.close()


async def test_an_exception_before_anything_else_is_a_refusal(amazon):
    body = frame(
        {":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"Too many tokens"}'
    )
    amazon.play(MODEL, Script(body=body, content_type="application/vnd.amazon.eventstream"))
    async with caller(amazon) as call:
        with pytest.raises(Rejected) as refused:
            await call.stream()
    assert (refused.value.status, refused.value.code) == (429, "throttlingException")
    assert refused.value.message == "Too many tokens"


async def test_an_exception_in_mid_stream_becomes_an_error_event(amazon):
    amazon.play(MODEL, Script(error_after=2))
    async with caller(amazon) as call:
        events = events_of(await call.stream())
    message = "The scripted upstream broke."
    assert events[-1] == ("error", {"type": "error", "error": {"type": "rate_limit_error", "message": message}})


async def test_what_a_frame_of_another_kind_says_is_passed_over(amazon):
    said = msgspec.json.encode({"bytes": b'{"type":"ping"}'})
    frames = [
        frame({":message-type": "event", ":event-type": "metadata"}, b"{}"),
        frame({":message-type": "event", ":event-type": "chunk"}, said),
        frame({":message-type": "error", ":error-code": "InternalServerException", ":error-message": "Oh"}, b""),
    ]
    amazon.play(MODEL, Script(body=b"".join(frames), content_type="application/vnd.amazon.eventstream"))
    async with caller(amazon) as call:
        ping, error = events_of(await call.stream())
    assert ping == ("ping", {"type": "ping"})
    assert error == ("error", {"type": "error", "error": {"type": "api_error", "message": "Oh"}})


async def test_frames_that_cannot_be_read_end_the_stream_after_the_good_ones(amazon):
    good = frame({":message-type": "event", ":event-type": "chunk"}, msgspec.json.encode({"bytes": b'{"type":"ping"}'}))
    bad = bytearray(good)
    bad[-6] ^= 1
    amazon.play(MODEL, Script(body=good + bytes(bad) + good, content_type="application/vnd.amazon.eventstream"))
    seen = []
    async with caller(amazon) as call:
        with pytest.raises(Broken):
            async for chunk in call.chunks():
                seen.append(chunk)
    assert b"".join(seen) == b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"bytes":"%%"}', b'{"bytes":"bm8="}', b'{"bytes":"e30="}'])
async def test_a_frame_whose_payload_is_nonsense_invents_nothing(amazon, payload):
    nonsense = frame({":message-type": "event", ":event-type": "chunk"}, payload)
    amazon.play(MODEL, Script(body=nonsense, content_type="application/vnd.amazon.eventstream"))
    async with caller(amazon) as call:
        try:
            assert await call.stream() == b""
        except Broken:
            pass


GOOD = [
    {"type": "message_start", "message": {"model": "m", "content": []}},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in ("é", "\n", "")),
    {"type": "message_stop"},
]


def test_frames_that_were_damaged_on_the_way_invent_nothing():
    stream, whole = b"".join(map(frame_of, GOOD)), b"".join(fed(b"".join(map(frame_of, GOOD))))
    chance = random.Random(7)
    for _ in range(3000):
        damaged = bytearray(stream)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] ^= chance.randint(1, 255)
        cut = chance.randrange(len(damaged))
        parts = [bytes(damaged[:cut]), bytes(damaged[cut:])] if chance.random() < 0.7 else [stream[:cut]]
        assert whole.startswith(b"".join(fed(*parts)))


@given(st.sets(st.integers(1, 700)))
def test_frames_are_the_same_however_they_are_cut(cuts):
    stream = b"".join(map(frame_of, GOOD))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    parts = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert b"".join(fed(*parts)) == b"".join(fed(stream))


def fed(*parts):
    """What comes out of frames that are fed in ``parts``, until they cannot be read any more."""
    frames = bedrock.Frames()
    for part in parts:
        if not frames.failure:
            yield frames.feed(part)


async def test_a_frame_without_end_is_given_up(amazon):
    endless = struct.pack("!II", 20_000_000, 0)
    endless += struct.pack("!I", binascii.crc32(endless)) + bytes(8_000_000)
    amazon.play(MODEL, Script(body=endless, content_type="application/vnd.amazon.eventstream"))
    async with caller(amazon) as call:
        with pytest.raises(Broken):
            await call.stream()


@pytest.mark.parametrize("status", [400, 404, 408, 424, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_bedrock_says_of_a_request_is_read(amazon, status, stream):
    amazon.play(MODEL, Script(status=status, message="Input is too long."))
    async with caller(amazon) as call:
        with pytest.raises(Rejected) as refused:
            await (call.stream() if stream else call.ask())
    assert not isinstance(refused.value, OwnAccount)
    assert refused.value.status == status
    assert refused.value.message == "Input is too long."
    assert refused.value.code.endswith("Exception")


async def test_silence_in_a_stream_of_frames_ends_it(amazon):
    amazon.play(MODEL, Script(stall_after=2))
    async with caller(amazon, idle_timeout=0.2) as call:
        with pytest.raises(TimedOut) as silent:
            await call.stream()
    assert silent.value.timeout == "idle"


async def test_tokens_are_counted_by_bedrock_and_told_as_claude_tells_them(amazon):
    amazon.play(MODEL, Script(input_tokens=123))
    body = {k: v for k, v in MESSAGE.items() if k != "max_tokens"}
    async with caller(amazon) as call:
        assert json.loads(await call.ask(body, format="count_tokens")) == {"input_tokens": 123}
        thinking = {"type": "enabled", "budget_tokens": 5000}
        await call.ask(body | {"thinking": thinking}, format="count_tokens")
    sent = json.loads(amazon.requests[-1].body)
    assert sent["max_tokens"] > 5000


async def test_bodies_keep_what_python_cannot_hold():
    body = invoking_body(
        b'{"model":"m","max_tokens":1,"messages":[1e999,{"a":-0.0}],"x":12345678901234567890123}', None
    )
    assert body == (
        b'{"max_tokens":1,"messages":[1e999,{"a":-0.0}],"x":12345678901234567890123,'
        b'"anthropic_version":"bedrock-2023-05-31"}'
    )


async def test_the_paths_of_claude_itself_are_called_with_claudes_own_bodies():
    endpoints = {"messages": "/v1/messages"}
    with Upstream() as upstream:
        target = make_target("bedrock", upstream.origin, credential="key", endpoints=endpoints)
        async with Caller(target) as call:
            assert b"message_stop" in await call.stream(headers={"anthropic-version": "2026-10-21"})
    assert json.loads(upstream.requests[0].body) == MESSAGE | {"stream": True}
    assert upstream.requests[0].headers["anthropic-version"] == "2026-10-21"


def test_the_keys_of_a_credential_show_nowhere():
    secret = Secret('{"access_key_id":"AKID","secret_access_key":"s3cr3t"}')
    keys = bedrock.keys_of(secret)
    assert (keys.access_key, keys.secret_key) == ("AKID", "s3cr3t")
    assert "s3cr3t" not in repr(keys)
