"""Models as the Anthropic dialect lists them, in pages; and how its errors bear their codes."""

import json

import pytest
from anthropic.types import ModelInfo

from gateway.errors import GatewayError
from providers.dialects import anthropic
from providers.request_body import InvalidRequest
from tests.providers.exchange import target

NAMES = [f"model-{number}" for number in range(5)]
TARGETS = [target(public_name=name, created=1_760_000_000 + number) for number, name in enumerate(NAMES)]


def page(query=b"", targets=TARGETS):
    listed = anthropic.model_list(targets, query)
    return [item["id"] for item in listed["data"]], listed["has_more"], listed["first_id"], listed["last_id"]


def test_the_newest_model_stands_first():
    assert page() == (NAMES[::-1], False, "model-4", "model-0")
    assert page(targets=[]) == ([], False, None, None)


def test_a_list_is_read_page_by_page_from_both_ends():
    assert page(b"limit=2") == (["model-4", "model-3"], True, "model-4", "model-3")
    assert page(b"limit=2&after_id=model-3") == (["model-2", "model-1"], True, "model-2", "model-1")
    assert page(b"limit=2&after_id=model-1") == (["model-0"], False, "model-0", "model-0")
    assert page(b"limit=2&after_id=model-0") == ([], False, None, None)
    assert page(b"limit=2&before_id=model-0") == (["model-2", "model-1"], True, "model-2", "model-1")
    assert page(b"limit=2&before_id=model-3&after_id=") == (["model-4"], False, "model-4", "model-4")


def test_a_page_holds_twenty_unless_it_is_asked_for_more():
    many = [target(public_name=f"m{number}", created=number) for number in range(1001)]
    assert len(page(targets=many)[0]) == 20
    assert [len(page(b"limit=1000", many)[0]), page(b"limit=1000", many)[1]] == [1000, True]


def test_retired_models_are_listed_to_those_who_ask():
    stages = [target(public_name=stage, lifecycle=stage) for stage in ("active", "deprecated", "retired")]
    assert page(targets=stages)[0] == ["active", "deprecated"]
    assert page(b"lifecycle[]=retired", stages)[0] == ["retired"]
    assert page(b"lifecycle%5B%5D=active&lifecycle%5B%5D=retired", stages)[0] == ["active", "retired"]
    assert page(b"lifecycle=deprecated", stages)[0] == ["deprecated"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=1001", "limit"),
        (b"limit=", "limit"),
        (b"limit=-1", "limit"),
        (b"limit=two", "limit"),
        (b"limit=\xb2", "limit"),
        (b"limit=" + b"9" * 5000, "limit"),
        (b"after_id=nobody", "after_id"),
        (b"before_id=nobody", "before_id"),
        (b"after_id=model-1&before_id=model-2", "before_id"),
        (b"lifecycle[]=young", "lifecycle"),
        (b"lifecycle[]=", "lifecycle"),
    ],
)
def test_what_cannot_be_asked_of_the_list_is_named(query, param):
    with pytest.raises(InvalidRequest) as refused:
        page(query)
    assert refused.value.param == param


def test_an_item_says_what_is_known():
    item = anthropic.model_item(
        target(
            public_name="best", upstream_name="eu.anthropic.Claude-Sonnet-4-5-v1:0", created=1_760_032_810,
            context_window=200_000, max_output_tokens=64_000, lifecycle="deprecated",
            capabilities=("chat", "image_input", "tools", "reasoning"),
        )
    )  # fmt: skip
    known = ModelInfo.model_validate(item)
    assert item["created_at"] == "2025-10-09T18:00:10Z"
    assert (known.id, known.type, known.display_name) == ("best", "model", "best")
    assert (known.lifecycle, known.line, known.max_input_tokens, known.max_tokens) == (
        "deprecated",
        "sonnet",
        200_000,
        64_000,
    )
    able = known.capabilities
    assert (able.image_input.supported, able.pdf_input.supported, able.structured_outputs.supported) == (
        True,
        False,
        False,
    )
    assert (able.thinking.supported, able.effort.supported, able.effort.high.supported) == (True, True, True)
    assert not able.effort.max.supported


def test_of_a_model_that_nothing_is_known_about_nothing_is_said():
    item = anthropic.model_item(target(upstream_name="sonnet-like"))
    ModelInfo.model_validate(item)
    names = ("line", "max_input_tokens", "max_tokens", "deprecated_at", "retires_at", "capabilities")
    assert {item[name] for name in names} == {None}


@pytest.mark.parametrize(
    ("status", "code", "kind", "details"),
    [
        (429, "insufficient_quota", "rate_limit_error", {"error_code": "enforced_spend_limit_reached"}),
        (404, "model_not_found", "not_found_error", {"error_code": "model_not_found"}),
        (503, "provider_overloaded", "overloaded_error", {"error_code": "provider_overloaded"}),
        (400, "invalid_request_error", "invalid_request_error", None),
        (418, None, "invalid_request_error", None),
        (502, None, "api_error", None),
    ],
)
def test_an_error_bears_its_code_where_that_says_more_than_its_type(status, code, kind, details):
    told = json.loads(anthropic.error_body(GatewayError(status, code, "No."), "req_1"))
    assert told["request_id"] == "req_1"
    assert (told["error"]["type"], told["error"]["message"], told["error"].get("details")) == (kind, "No.", details)
