"""Claude on Amazon's and Google's clouds behind the real server, asked in both dialects, and what is counted."""

import json

import pytest

from tests.api import ANTHROPIC, Api
from tests.upstream import Script
from tests.upstream.bedrock import BedrockUpstream
from tests.upstream.vertex import VertexUpstream

MODELS = {"bedrock": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "vertex": "claude-sonnet-4-5@20250929"}


@pytest.fixture(scope="module")
def running(shared_server):
    with BedrockUpstream() as bedrock, VertexUpstream() as vertex:
        running = {"bedrock": bedrock, "vertex": vertex}
        for kind, upstream in running.items():
            shared_server.add_provider(
                upstream.url, MODELS[kind], kind=kind, name=kind, credential=upstream.credential_json()
            )
        yield running


@pytest.fixture(params=MODELS)
def cloud(request, running, server):
    """The scripted cloud, which knows its model's name."""
    cloud = running[request.param]
    cloud.requests.clear()
    cloud.model = MODELS[request.param]
    cloud.play(cloud.model, Script(text=("Ça ", "va ", "bien."), input_tokens=21, cache_read_tokens=4))
    yield cloud
    assert not cloud.mistakes


def counted(row):
    assert row["outcome"] == "completed"
    assert row["usage_source"] == "reported"
    return row["input_tokens"], row["cache_read_tokens"], row["output_tokens"]


def test_an_answer_of_a_cloud_is_an_answer_like_any_other(api, cloud):
    answer = api.ask(cloud.model)
    assert answer.status_code == 200, answer.text
    assert api.dialect.text_of(answer.json()) == "Ça va bien."
    assert counted(api.row(answer)) == (21, 4, 3)


@pytest.mark.parametrize("piece", [None, 3])
def test_a_stream_of_a_cloud_is_a_stream_like_any_other(api, cloud, piece):
    script = Script(text=("Ça ", "va ", "bien."), input_tokens=21, cache_read_tokens=4, piece=piece)
    cloud.play(cloud.model, script)
    with api.streaming(cloud.model) as answer:
        raw = answer.read()
    assert api.dialect.streamed_text(raw) == "Ça va bien."
    assert api.dialect.is_ended(raw)
    assert b"amazon" not in raw
    assert counted(api.row(answer)) == (21, 4, 3)


def test_an_error_in_mid_stream_is_told_and_what_came_before_is_counted(api, cloud):
    cloud.play(cloud.model, Script(error_after=3))
    with api.streaming(cloud.model) as answer:
        raw = answer.read()
    assert not api.dialect.is_ended(raw)
    assert api.dialect.error_of(api.dialect.events_of(raw)[-1])[2]
    row = api.row(answer)
    assert row["outcome"] == "upstream_error"
    assert row["output_tokens"]


def test_a_stream_that_is_cut_off_is_said_to_be(api, cloud):
    cloud.play(cloud.model, Script(cut_at=700))
    with api.streaming(cloud.model) as answer:
        raw = answer.read()
    assert not api.dialect.is_ended(raw)
    assert api.row(answer)["outcome"] == "upstream_error"


def test_what_a_cloud_says_of_the_request_is_passed_on(api, cloud):
    cloud.play(cloud.model, Script(status=400, message="The prompt is too long."))
    answer = api.ask(cloud.model)
    assert answer.status_code == 400
    assert "The prompt is too long." in api.dialect.error_of(answer.json())[2]


def test_a_cloud_counts_tokens(server, cloud):
    api = Api(server, server.api_key, ANTHROPIC)
    body = {"model": cloud.model, "messages": [{"role": "user", "content": "Hello"}]}
    answer = api.post("/v1/messages/count_tokens", json=body)
    assert answer.json() == {"input_tokens": 21}
    api.close()


def test_what_a_caller_asks_of_claude_reaches_it(server, cloud):
    api = Api(server, server.api_key, ANTHROPIC)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    headers = {"anthropic-beta": "context-1m-2025-08-07"}
    assert api.ask(cloud.model, headers=headers, max_tokens=2048, thinking=thinking).status_code == 200
    sent = json.loads(cloud.calls[-1].sent)
    assert sent["thinking"] == thinking
    told = sent.get("anthropic_beta") or [cloud.calls[-1].headers.get("anthropic-beta")]
    assert told == ["context-1m-2025-08-07"]
    api.close()
