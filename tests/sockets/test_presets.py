"""A provider of a kind with words of its own is asked in them, in the same format and in a translated one."""

import httpx
import pytest

from tests.upstream.providers import credential_of


@pytest.fixture(scope="module")
def mistral(shared_server, running_upstream):
    shared_server.add_provider(
        running_upstream.url_of("mistral"), "mistral-test", kind="mistral", credential=credential_of("mistral")
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_limit_is_called_as_the_provider_calls_it(server, upstream, mistral, path):
    ours = "max_tokens" if path == "/v1/messages" else "max_completion_tokens"
    body = {"model": "mistral-test", ours: 7, "messages": [{"role": "user", "content": "Hello"}]}
    if path == "/v1/chat/completions":
        body |= {"seed": 3, "user": "me"}
    headers = {"authorization": f"Bearer {server.api_key}"}
    if path == "/v1/messages":
        headers["anthropic-version"] = "2023-06-01"
    answer = httpx.post(f"{server.base_url}{path}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    sent = upstream.requests[-1].json
    assert sent["max_tokens"] == 7
    assert sent.keys() & {"max_completion_tokens", "seed", "user"} == set()
    assert sent.get("random_seed") == (3 if path == "/v1/chat/completions" else None)
