"""The description of the API and the API: each operation answers its own example in the shape that it promises."""

import json

import pytest
from jsonschema import Draft202012Validator

from gateway import endpoints
from gateway.openapi import MODEL, OPERATIONS, describe
from providers import flavours
from tests.api import Api
from tests.upstream import Script

WITH_EXAMPLE = [operation for operation in OPERATIONS if operation.example]
DESCRIBED = describe()


@pytest.fixture
def caller(server):
    caller = Api(server, server.api_key)
    yield caller
    caller.close()


def holds_to(name, document):
    """Whether ``document`` is what the schema ``name`` says; fails with every difference."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DESCRIBED["components"]}
    errors = Draft202012Validator(schema).iter_errors(document)
    differences = [f"{error.json_path}: {error.message}" for error in errors]
    assert not differences, differences


def body_of(operation, model):
    return json.loads(json.dumps(operation.example).replace(MODEL, model))


def headers_of(operation, caller):
    version = {"anthropic-version": "2023-06-01"} if operation.dialect == "anthropic" else {}
    return {"authorization": f"Bearer {caller.key}"} | version


def test_every_endpoint_is_described_and_every_description_has_its_endpoint():
    served = {(method, path) for path, methods in endpoints.EXACT.items() for method in methods}
    served |= {(method, prefix + "{}" + suffix) for prefix, suffix, methods in endpoints.PATTERNS for method in methods}

    def plain(path):
        _, path = flavours.at_path(path)
        return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))

    assert {(operation.method, plain(operation.path)) for operation in OPERATIONS} == served


def test_the_schemas_are_valid_and_every_reference_leads_somewhere():
    for name, schema in DESCRIBED["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        holds = json.dumps(schema)
        for reference in (piece.split('"')[0] for piece in holds.split("#/components/schemas/")[1:]):
            assert reference in DESCRIBED["components"]["schemas"], f"{name} → {reference}"


@pytest.mark.parametrize("operation", WITH_EXAMPLE, ids=lambda operation: operation.name)
@pytest.mark.parametrize("model", ["gpt-test", "claude-test"])
def test_an_example_is_answered_as_described(caller, operation, model):
    if model == "claude-test" and operation.answer in {"Embeddings", "Moderation"}:
        pytest.skip("providers of that shape have none")
    holds_to(operation.request, body_of(operation, model))
    answer = caller.client.post(operation.path, json=body_of(operation, model), headers=headers_of(operation, caller))
    assert answer.status_code == 200, answer.text
    holds_to(operation.answer, answer.json())


@pytest.mark.parametrize("operation", [each for each in WITH_EXAMPLE if each.event], ids=lambda each: each.name)
@pytest.mark.parametrize("model", ["gpt-test", "claude-test"])
def test_a_stream_is_made_of_the_events_described(caller, operation, model):
    body = body_of(operation, model) | {"stream": True}
    answer = caller.client.post(operation.path, json=body, headers=headers_of(operation, caller))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events
    for event in events:
        if event != "[DONE]":
            holds_to(operation.event, json.loads(event))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_errors_are_as_described(caller, upstream, operation):
    upstream.default = Script.refuse(500)
    path = operation.path.replace("{response_id}", "resp_nowhere").replace("{model}", "nowhere")
    error = "AnthropicError" if operation.dialect == "anthropic" else "OpenAIError"
    stranger = headers_of(operation, caller) | {"authorization": "Bearer no"}
    refused = caller.client.request(operation.method, path, headers=stranger)
    assert refused.status_code == 401
    holds_to(error, refused.json())
    for body in (b"", b"[]", b'{"model": 7}', b'{"model":"gpt-test","messages":7,"input":7,"prompt":7}'):
        answer = caller.client.request(operation.method, path, content=body, headers=headers_of(operation, caller))
        if answer.status_code != 200:
            assert answer.status_code in {400, 404, 502}, answer.text
            holds_to(error, answer.json())
