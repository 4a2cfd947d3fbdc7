"""Vectors and verdicts through the official OpenAI library: it asks for base64 and takes floats as well."""

import json
import struct

import httpx
import openai
import pytest

from providers.tokens import count_tokens
from tests.sdk.installation import set_up
from tests.server import Server
from tests.upstream import Script
from tests.upstream.wire import vector_of

# The second knows no base64, and answers with floats.
MODELS = {"vec-base64": "openai", "vec-floats": "openai-compatible"}
both = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(scope="module")
def serving(running_upstream, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("vectors")) as server:
        providers = [(kind, running_upstream.url_of(kind), [model]) for model, kind in MODELS.items()]
        providers[0][2].extend(["omni-moderation-latest", "moderation-priced"])
        server.api_key = set_up(
            server, providers, flavours=[""], priced=["vec-base64", "moderation-priced"], price=("2", "0")
        )[""]
        yield server


@pytest.fixture
def client(serving, upstream):
    with openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key=serving.api_key, max_retries=0) as client:
        yield client


def singles(vector):
    """The numbers as 32 bits hold them."""
    return list(struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)))


@both
def test_the_librarys_own_way_and_plain_floats_give_the_same_vectors(client, upstream, model):
    texts = ["Hello there", "Bonjour à tous"]
    expected = [singles(vector_of(text, 8)) for text in texts]
    by_default = client.embeddings.create(model=model, input=texts)
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    assert [call.json["encoding_format"] for call in upstream.requests] == ["base64", "float"]
    assert [entry.index for entry in by_default.data] == [0, 1]
    assert [singles(entry.embedding) for entry in by_default.data] == expected
    assert [singles(entry.embedding) for entry in floats.data] == expected


@both
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_caller_gets_the_encoding_that_it_asked_for(serving, upstream, model, encoding):
    answer = post(serving, "embeddings", {"model": model, "input": "Hello", "encoding_format": encoding})
    (entry,) = answer.json()["data"]
    assert isinstance(entry["embedding"], list if encoding == "float" else str)
    assert entry["object"] == "embedding"


def test_its_tokens_are_recorded_and_paid_for(client, serving, upstream):
    answer = client.embeddings.with_raw_response.create(model="vec-base64", input="Hello id=vectors", dimensions=4)
    row = serving.row(answer.headers["x-request-id"])
    (bill,) = upstream.ledger["vectors"]
    assert answer.parse().usage.prompt_tokens == bill.input_tokens
    assert (row["endpoint"], row["input_tokens"], row["output_tokens"]) == ("embeddings", bill.input_tokens, 0)
    assert row["usage_source"] == "reported"
    assert row["cost_nanos"] == bill.input_tokens * 2000


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("Hello there", count_tokens("Hello there")),
        (["Hello", "there"], count_tokens("Hello") + count_tokens("there")),
        ([15496, 612, 1], 3),
        ([[15496], [612, 1]], 3),
    ],
)
def test_what_the_provider_does_not_count_is_counted_here(serving, upstream, asked, count):
    body = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m"}
    upstream.play("vec-base64", Script(body=json.dumps(body).encode()))
    answer = post(serving, "embeddings", {"model": "vec-base64", "input": asked})
    row = serving.row(answer.headers["x-request-id"])
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("counted", count, 0)
    assert row["cost_nanos"] == count * 2000


def test_a_wrong_input_is_a_bad_request_and_asks_nobody(client, upstream):
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model="vec-base64", input=["a", ""])
    assert (raised.value.param, raised.value.body["message"]) == ("input", "input[1]: must not be empty")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="vec-base64", input=["a"] * 2049)
    assert upstream.requests == []


def test_a_large_batch_is_converted_whole(client, upstream):
    texts = [f"text {number}" for number in range(300)]
    answer = client.embeddings.create(model="vec-floats", input=texts, dimensions=64)
    assert [entry.index for entry in answer.data] == list(range(300))
    assert singles(answer.data[-1].embedding) == singles(vector_of(texts[-1], 64))


@pytest.mark.parametrize("status", [429, 500])
def test_a_providers_error_is_the_librarys_error(client, upstream, status):
    upstream.play("vec-base64", Script(status=status))
    with pytest.raises(openai.APIStatusError) as raised:
        client.embeddings.create(model="vec-base64", input="Hello")
    assert raised.value.status_code == (429 if status == 429 else 502)


def test_what_is_no_vector_is_a_providers_failure(client, upstream):
    upstream.play("vec-base64", Script(body=b'{"detail": "fine"}'))
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="vec-base64", input="Hello")


# Moderations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "flagged"),
    [
        ("I will kill it", [True]),
        (["Hello", "I will kill it"], [False, True]),
        ([{"type": "text", "text": "Hello"}], [False]),
    ],
)
def test_a_text_is_moderated(client, asked, flagged):
    answer = client.moderations.create(model="omni-moderation-latest", input=asked)
    assert [result.flagged for result in answer.results] == flagged
    assert answer.results[-1].categories.violence == flagged[-1]
    assert answer.model == "omni-moderation-latest"


def test_a_moderation_without_a_model_asks_the_usual_one(client, upstream):
    assert client.moderations.create(input="Hello").results[0].flagged is False
    assert len(upstream.requests) == 1


def test_a_moderation_is_counted_here_and_free_without_a_price(serving, upstream):
    for model, price in (("omni-moderation-latest", 0), ("moderation-priced", 2000)):
        answer = post(serving, "moderations", {"model": model, "input": "Hello there"})
        row = serving.row(answer.headers["x-request-id"])
        count = count_tokens("Hello there")
        assert (row["endpoint"], row["usage_source"]) == ("moderations", "counted")
        assert (row["input_tokens"], row["output_tokens"], row["cost_nanos"]) == (count, 0, count * price)


def test_a_wrong_moderation_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.moderations.create(model="omni-moderation-latest", input=[])
    assert raised.value.param == "input"


def post(server, endpoint, body):
    answer = httpx.post(
        f"{server.base_url}/v1/{endpoint}", json=body, headers={"authorization": f"Bearer {server.api_key}"}, timeout=20
    )
    assert answer.status_code == 200, answer.text
    return answer
