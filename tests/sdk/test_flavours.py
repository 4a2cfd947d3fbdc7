"""Clients of the five OpenAI-shaped systems with a changed base URL, whoever answers behind it."""

import json
import re
import time

import httpx
import openai
import pytest

from providers.tokens import count_tokens
from tests.sdk.installation import set_up
from tests.server import Server
from tests.upstream import Script

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello id=sdk"}]
# What is asked for, and which provider has it.
MODELS = {
    "gpt-plain": "openai",
    "temple:8b": "cloud-temple",
    "evo-pro": "evolink",
    "phi-3": "ektos",
    "ikalas-v1": "ikalas",
    "claude-plain": "anthropic",
}
MORE = {"ikalas": ["vectors", "verdicts"]}
ROOTS = {
    "openai": "/openai/v1",
    "cloud-temple": "/cloud-temple/v1",
    "evolink": "/evolink/v1",
    "ektos": "/ektos/v1",
    "ikalas": "/ikalas/api/v1",
}
IDS = {
    "openai": re.compile(r"chatcmpl-.+"),
    "cloud-temple": re.compile(r"chatcmpl-.+"),
    "evolink": re.compile(r"chatcmpl-20\d{12}\d{9}[0-9A-Za-z]{8}"),
    "ektos": re.compile(r"chatcmpl-.+"),
    "ikalas": re.compile(r"conv_.+"),
}
every_flavour = pytest.mark.parametrize("flavour", ROOTS)
every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def serving(running_upstream, tmp_path_factory):
    """A server with a provider of each kind, and a key for each style of answers."""
    with Server(tmp_path_factory.mktemp("flavours")) as server:
        providers = [
            (kind, running_upstream.url_of(kind), [model, *MORE.get(kind, ())]) for model, kind in MODELS.items()
        ]
        server.keys = set_up(server, providers, flavours=["", *ROOTS])
        yield server


@pytest.fixture
def server(serving, upstream):
    return serving


def client_of(server, flavour=None, *, key=""):
    root = "/v1" if flavour is None else ROOTS[flavour]
    return openai.OpenAI(base_url=server.base_url + root, api_key=server.keys[key], max_retries=0)


def http_of(server, key=""):
    return httpx.Client(base_url=server.base_url, headers={"authorization": f"Bearer {server.keys[key]}"}, timeout=20)


# Every client against every provider -----------------------------------------------------------------------------


@every_flavour
@every_model
def test_a_client_gets_the_answer_of_its_own_system_from_any_provider(server, upstream, flavour, model):
    with client_of(server, flavour) as client:
        answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=50)
    assert answer.object == ("conversation.completion" if flavour == "ikalas" else "chat.completion")
    assert IDS[flavour].fullmatch(answer.id)
    assert answer.model == model
    assert answer.choices[0].message.content == "token " * 8
    assert answer.choices[0].finish_reason == "stop"
    (bill,) = upstream.ledger["sdk"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (bill.input_tokens, 8)
    assert answer.usage.total_tokens == bill.input_tokens + 8


@every_flavour
@every_model
def test_a_client_gets_the_stream_of_its_own_system_from_any_provider(server, upstream, flavour, model):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with client_of(server, flavour) as client:
        chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, **options))
    expected = "conversation.completion.chunk" if flavour == "ikalas" else "chat.completion.chunk"
    assert {chunk.object for chunk in chunks} == {expected}
    (chunk_id,) = {chunk.id for chunk in chunks}
    assert IDS[flavour].fullmatch(chunk_id)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "token " * 8
    assert chunks[-1].choices == []
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    upstream.wait_until(lambda u: u.ledger["sdk"])
    (bill,) = upstream.ledger["sdk"]
    if MODELS[model] == "ikalas":
        # It has no stream_options and tells nothing: what the chunk says was counted here.
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens == count_tokens("token " * 8)
    else:
        assert (usage.prompt_tokens, usage.completion_tokens) == (bill.input_tokens, 8)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_caller_that_asked_gets_the_usage_that_a_provider_refuses_to_tell(server, upstream, path):
    upstream.play("gpt-plain", Script(stream_options=False))
    asked = {"messages": MESSAGES} if "chat" in path else {"prompt": "Hello id=sdk"}
    with http_of(server) as http:
        body = asked | {"model": "gpt-plain", "stream": True, "stream_options": {"include_usage": True}}
        answer = http.post(path, json=body)
    assert answer.text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    row = server.row(answer.headers["x-request-id"])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {
        "prompt_tokens": row["input_tokens"],
        "completion_tokens": row["output_tokens"],
        "total_tokens": row["input_tokens"] + row["output_tokens"],
    }
    assert (row["usage_source"], row["output_tokens"]) == ("counted", count_tokens("token " * 8))
    assert {event["id"] for event in events} == {events[0]["id"]}
    assert not any("usage" in event for event in events[:-1])


@every_flavour
def test_the_record_is_the_same_whatever_the_answer_is_dressed_in(server, upstream, flavour):
    upstream.play("evo-pro", Script(usage="zero_twins", cache_read_tokens=40, reasoning_tokens=3))
    with client_of(server, flavour) as client:
        answer = client.chat.completions.with_raw_response.create(model="evo-pro", messages=MESSAGES)
    row = server.row(answer.headers["x-request-id"])
    (bill,) = upstream.ledger["sdk"]
    counted = (row["input_tokens"], row["cache_read_tokens"], row["output_tokens"], row["reasoning_tokens"])
    assert counted == (bill.input_tokens, 40, 8, 3)
    assert row["usage_source"] == "reported"


# Which flavour applies -------------------------------------------------------------------------------------------


def test_a_key_says_the_flavour_where_the_path_does_not(server):
    for name in ROOTS:
        with client_of(server, key=name) as client:
            answer = client.chat.completions.create(model="gpt-plain", messages=MESSAGES)
        assert IDS[name].fullmatch(answer.id)
        assert hasattr(answer, "backend") == (name == "cloud-temple")
        assert hasattr(answer.usage, "input_tokens") == (name == "evolink")


def test_the_path_goes_before_the_key(server):
    with client_of(server, "openai", key="evolink") as client:
        answer = client.chat.completions.create(model="gpt-plain", messages=MESSAGES, temperature=2.5)
    assert not hasattr(answer.usage, "input_tokens")
    with client_of(server, "evolink", key="ikalas") as client:
        assert IDS["evolink"].fullmatch(client.chat.completions.create(model="gpt-plain", messages=MESSAGES).id)


def test_the_workspaces_style_is_that_of_its_keys_without_one(server):
    """Within a second of its being changed, and not of keys that have one of their own."""

    def set_style(flavour):
        server.manage(
            *("shell", "-v0", "-c"),
            "from console import models, services\n"
            "workspace = models.Workspace.objects.get(slug='default')\n"
            f"services.edit_workspace(workspace=workspace, name=workspace.name, flavour={flavour!r}, actor=None)",
        )

    def dressed(key):
        with client_of(server, key=key) as client:
            answer = client.chat.completions.create(model="gpt-plain", messages=MESSAGES)
        return hasattr(answer.usage, "input_tokens")

    assert not dressed("")
    set_style("evolink")
    try:
        time.sleep(1)
        assert dressed("")
        assert not dressed("openai")
    finally:
        set_style("openai")
        time.sleep(1)
    assert not dressed("")


def test_a_flavour_is_nothing_to_a_client_of_the_other_dialect(server):
    body = {"model": "claude-plain", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    for key in ("cloud-temple", "ikalas", "evolink"):
        with http_of(server, key) as http:
            answer = http.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
        assert answer.status_code == 200
        assert set(answer.json()) >= {"type", "role", "content", "usage"}
        assert "backend" not in answer.json()
        assert "backend" not in answer.headers
        assert server.row(answer.headers["request-id"])["dialect"] == "anthropic"


# Cloud Temple ----------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("stream", [False, True])
def test_cloud_temples_headers_and_body_say_who_answered(server, model, stream):
    own = {"engine_type": "engo", "machine_name": "ma02"}
    kind = MODELS[model]
    expected = own if kind == "cloud-temple" else {"engine_type": kind, "machine_name": f"my-{kind}"}
    with http_of(server) as http:
        body = {"model": model, "messages": MESSAGES, "stream": stream}
        answer = http.post("/cloud-temple/v1/chat/completions", json=body)
    assert answer.headers["id"] == answer.headers["x-request-id"]
    assert answer.headers["backend"] == "engine_type={engine_type}; machine_name={machine_name}".format(**expected)
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    documents = [json.loads(event) for event in events] if stream else [answer.json()]
    assert documents
    assert all(document["backend"] == expected for document in documents)
    if not stream:
        assert documents[0]["usage"]["reasoning_tokens"] == 0


def test_every_answer_of_cloud_temple_has_an_id(server):
    with http_of(server) as http:
        answers = [
            http.get("/cloud-temple/v1/models"),
            http.get("/cloud-temple/v1/models/nothing"),
            http.get("/cloud-temple/v1/nothing"),
            http.post("/cloud-temple/v1/chat/completions", json={}),
            http.get("/cloud-temple/v1/models", headers={"authorization": "Bearer sk-wrong"}),
        ]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 400, 401]
    assert all(answer.headers["id"] == answer.headers["x-request-id"] for answer in answers)
    assert not any("backend" in answer.headers for answer in answers)


def test_cloud_temple_tells_reasoning_in_the_usage(server, upstream):
    upstream.play("gpt-plain", Script(reasoning_tokens=5))
    with client_of(server, "cloud-temple") as client:
        answer = client.chat.completions.create(model="gpt-plain", messages=MESSAGES)
    assert answer.usage.reasoning_tokens == 5


def test_cloud_temple_lists_models_with_what_they_hold(server):
    with client_of(server, "cloud-temple") as client:
        listed = {model.id: model for model in client.models.list()}
        assert client.models.retrieve("temple:8b") == listed["temple:8b"]
    assert set(MODELS) <= set(listed)
    assert listed["temple:8b"].owned_by == "CloudTemple"
    assert listed["temple:8b"].root == "temple:8b"
    assert "temple:8b" in listed["temple:8b"].aliases
    assert listed["gpt-plain"].permission[0]["allow_sampling"] is True


# EvoLink ---------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": 0}, "max_tokens: must be 1 or more"),
        ({"temperature": 2.1}, "temperature: must be from 0 to 2"),
        ({"top_p": 1.5}, "top_p: must be from 0 to 1"),
        ({"extra_body": {"top_k": 0}}, "top_k: must be 1 or more"),
    ],
)
def test_evolink_refuses_what_is_out_of_range_and_asks_nobody(server, upstream, model, fields, said):
    with client_of(server, "evolink") as client, pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=model, messages=MESSAGES, **fields)
    assert raised.value.body["message"] == said
    assert raised.value.param == said.split(":")[0]
    assert raised.value.type == "invalid_request_error"
    assert upstream.calls == []


def test_evolinks_top_k_reaches_the_provider(server, upstream):
    with client_of(server, "evolink") as client:
        for model in ("evo-pro", "claude-plain"):
            client.chat.completions.create(model=model, messages=MESSAGES, extra_body={"top_k": 40})
    assert [call.json.get("top_k") for call in upstream.calls] == [40, 40]


@every_model
def test_evolinks_usage_is_whole_and_its_twins_are_true(server, upstream, model):
    upstream.play(model, Script(input_tokens=13))
    with client_of(server, "evolink") as client:
        usage = client.chat.completions.create(model=model, messages=MESSAGES).usage.model_dump()
    assert usage["input_tokens"] == usage["prompt_tokens"] == 13
    assert usage["output_tokens"] == usage["completion_tokens"] == 8
    prompt, output = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    assert {name: prompt[name] for name in ("cached_tokens", "text_tokens", "audio_tokens", "image_tokens")} == {
        "cached_tokens": 0,
        "text_tokens": 13,
        "audio_tokens": 0,
        "image_tokens": 0,
    }
    assert {name: output[name] for name in ("text_tokens", "audio_tokens", "reasoning_tokens")} == {
        "text_tokens": 8,
        "audio_tokens": 0,
        "reasoning_tokens": 0,
    }


# Ektos -----------------------------------------------------------------------------------------------------------


def test_ektos_lists_models_by_type(server):
    with http_of(server) as http:
        everything = http.get("/ektos/v1/models").json()["data"]
        found = http.get("/ektos/v1/models?type=LLM").json()["data"]
        assert http.get("/ektos/v1/models?type=Speech").json() == {"object": "list", "data": []}
    assert found == [model for model in everything if model["type"] == "LLM"]
    assert {model["id"] for model in found} >= set(MODELS)


# Ikalas ----------------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("name", ["modele", "model"])
def test_ikalas_converses(server, upstream, model, name):
    with http_of(server) as http:
        answer = http.post("/api/v1/conversation", json={"messages": MESSAGES, name: model, "temperature": 0.7})
    assert answer.status_code == 200
    document = answer.json()
    assert document["id"].startswith("conv_")
    assert document["object"] == "conversation.completion"
    assert document["model"] == model
    assert document["choices"][0]["message"]["content"] == "token " * 8
    (call,) = upstream.calls
    # Each provider is asked by the name that it knows.
    assert call.json["modele" if MODELS[model] == "ikalas" else "model"] == model
    assert ("modele" in call.json) == (MODELS[model] == "ikalas")


def test_ikalas_streams(server):
    body = {"messages": MESSAGES, "modele": "gpt-plain", "stream": True}
    with http_of(server) as http:
        answer = http.post("/api/v1/conversation", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert {event["object"] for event in events} == {"conversation.completion.chunk"}
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == "token " * 8


@pytest.mark.parametrize("model", ["gpt-plain", "ikalas-v1"])
def test_ikalas_completes_a_text(server, model):
    with http_of(server) as http:
        answer = http.post("/api/v1/completion", json={"prompt": "Once", "modele": model})
        plain = http.post("/v1/completions", json={"prompt": "Once", "model": model})
    assert answer.json()["id"].startswith("comp_")
    assert answer.json()["object"] == "completion"
    assert plain.json()["id"].startswith("cmpl-")
    assert plain.json()["object"] == "text_completion"
    assert answer.json()["choices"] == plain.json()["choices"]
    assert answer.json()["choices"][0]["text"]


def test_ikalas_embeds_and_moderates(server):
    with http_of(server) as http:
        vectors = http.post("/api/v1/embedding", json={"input": ["a", "b"], "modele": "vectors"}).json()
        verdict = http.post("/api/v1/moderation", json={"input": "I will kill it", "modele": "verdicts"}).json()
    assert [entry["object"] for entry in vectors["data"]] == ["embedding", "embedding"]
    assert vectors["usage"]["prompt_tokens"] > 0
    assert verdict["results"][0]["flagged"] is True


def test_ikalas_refuses_more_than_16000_tokens_of_messages(server, upstream):
    long = [{"role": "user", "content": "word " * 20_000}]
    with http_of(server) as http:
        answer = http.post("/api/v1/conversation", json={"messages": long, "modele": "gpt-plain"})
        assert http.post("/v1/chat/completions", json={"messages": long, "model": "gpt-plain"}).status_code == 200
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    )
    assert len(upstream.calls) == 1
    assert server.row(answer.headers["x-request-id"])["outcome"] == "refused"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"messages": MESSAGES}, 400, "modele"),
        ({"messages": MESSAGES, "modele": "unknown"}, 404, "model"),
        ({"modele": "gpt-plain"}, 400, "messages"),
        ({"modele": 7, "messages": MESSAGES}, 400, "model"),
    ],
)
def test_ikalas_errors_have_the_shape_of_openais(server, body, status, param):
    with http_of(server) as http:
        answer = http.post("/api/v1/conversation", json=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param


@every_model
def test_a_client_of_the_other_dialect_can_ask_ikalas_too(server, model):
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    with http_of(server) as http:
        answer = http.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
    assert answer.json()["content"] == [{"type": "text", "text": "token " * 8}]
    assert answer.json()["id"].startswith("msg_")
