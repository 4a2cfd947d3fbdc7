"""What a cell must have shown: to the client, at the upstream, and in the records."""

import json

from tests.conformance.matrix import LOCAL, REFUSAL, SCHEMA, SHARED, UPSTREAMS
from tests.upstream.wire import vector_of

# Clients that tell nobody what was used
SILENT = {("llm", "completions")}
CALL_NAME, CALL_ARGUMENTS, _ = SHARED["call"]


def check(seen):
    """Raise ``AssertionError`` unless the cell is as it must be."""
    cell = seen.cell
    if cell.is_here:
        HERE[cell.case](seen)
    elif cell.is_refused:
        check_that_it_is_refused(seen)
    elif cell.case == "refused":
        check_the_providers_refusal(seen)
    elif cell.endpoint == "count_tokens":
        check_count(seen)
    elif cell.upstream == LOCAL:
        check_the_model_of_this_machine(seen)
    else:
        assert "error" not in seen.answer, seen.answer["error"]["message"]
        CHECKS.get(cell.endpoint, check_words)(seen)
        check_records(seen)


# The client's side ---------------------------------------------------------------------------------------------------


def check_words(seen):
    """Text, calls and stop reason as the upstream said them, and what it was given."""
    cell, answer, question = seen.cell, seen.answer, seen.question
    assert said(answer) == question.text
    if "streamed" in answer:
        assert answer["streamed"] == question.text
    if question.data is not None:
        assert answer["data"] == question.data
        assert schema_in(seen.received[0].json) == SCHEMA
    if question.calls and cell.client != "llm":
        assert [call[:2] for call in answer["tools"]] == [[c.name, json.loads(c.arguments)] for c in question.calls]
        assert len({call[2] for call in answer["tools"]} - {""}) == len(question.calls)
    if "stop" in answer:
        assert answer["stop"] == stop_reason(cell, question)
    if cell.case in ("tools", "tools_stream", "tool_loop", "tool_loop_stream"):
        assert "get_weather" in tools_in(seen.received[0].json)
    if cell.case in ("tool_result", "tool_loop", "tool_loop_stream"):
        check_tool_result(seen)
    if cell.case == "image":
        assert images_in(seen.received[0].json) == [("image/png", SHARED["image"])]
    if cell.case == "stored":
        assert answer["again"]["text"] == question.text
        assert answer["again"]["usage"] == answer["usage"]
        assert answer["gone"]
    check_usage(seen)


def said(answer):
    """The text of an answer; Mistral gives it in parts where there are thoughts before it."""
    text = answer["text"] or ""
    if isinstance(text, list):
        text = "".join(part["text"] for part in text if part["type"] == "text")
    return text.strip()


def check_the_model_of_this_machine(seen):
    """A real model: it says what it will, within the limit, and what it used is told as it is recorded."""
    assert "error" not in seen.answer, seen.answer["error"]["message"]
    assert said(seen.answer)
    (row,) = seen.rows
    assert (row["outcome"], row["status"], row["usage_source"]) == ("completed", 200, "reported")
    assert bool(row["stream"]) == ("stream" in seen.cell.case)
    assert 0 < row["output_tokens"] <= SHARED["limit"]
    told = seen.answer["usage"]
    assert (told["input"], told["output"]) == (prompt_tokens_of(row), row["output_tokens"])


def check_tool_result(seen):
    """The upstream was told which call was made, and what came of it, under the same id."""
    calls, results = exchange_in(seen.received[-1].json)
    assert [call[1:] for call in calls] == [(CALL_NAME, CALL_ARGUMENTS)]
    assert results == [(calls[0][0], SHARED["result"])]


def stop_reason(cell, question):
    calls = bool(question.calls) and not cell.case.startswith("tool_loop")
    if cell.endpoint == "responses":
        return "completed"
    if cell.endpoint == "messages" and cell.client != "litellm":
        return "tool_use" if calls else "end_turn"
    said_so = UPSTREAMS[cell.upstream].stops_for_tools or cell.endpoint == "messages"
    # LiteLLM sees the calls in whole answers.
    return "tool_calls" if calls and (said_so or (cell.client, cell.case) == ("litellm", "tools")) else "stop"


def check_usage(seen):
    """The tokens that the client is told are those that the upstream billed."""
    told, bill = seen.answer.get("usage"), total(seen.bills)
    if (seen.cell.client, seen.cell.endpoint) in SILENT:
        return
    assert told is not None, "the client was told no usage"
    if not has_reported_usage(seen.cell):
        assert told["input"] == sum(map(prompt_tokens_of, seen.rows))
        assert told["output"] == sum(row["output_tokens"] for row in seen.rows)
        return
    assert told["input"] == prompt_tokens(bill)
    assert told["output"] == bill.output_tokens
    upstream = UPSTREAMS[seen.cell.upstream]
    if told["cache_read"] is not None and upstream.tells_cache:
        assert told["cache_read"] == bill.cache_read_tokens
    if told["reasoning"] is not None and upstream.tells_reasoning:
        assert told["reasoning"] == bill.reasoning_tokens


def check_vectors(seen):
    wanted = [vector_of(prompt_of(seen.cell)), vector_of(f"{prompt_of(seen.cell)} again")]
    assert seen.answer["vectors"] == wanted
    if told := seen.answer.get("usage"):
        assert told["input"] == seen.bills[0].input_tokens


def check_verdicts(seen):
    assert seen.answer["flags"] == [[False, False], [True, True]]


def check_count(seen):
    """The upstream's own count where it counts, and else one made here that is near what it would bill."""
    assert "error" not in seen.answer, seen.answer["error"]["message"]
    count = seen.answer["count"]
    if seen.cell.upstream == "bedrock":
        # Its body is within another's.
        assert 10 < count < 80
    elif seen.received:
        assert count == len(seen.received[-1].body) // 4
    else:
        assert 10 < count < 80


# The records ---------------------------------------------------------------------------------------------------------


def check_records(seen):
    """One row for each call that reached the upstream, with its tokens, under the id that the client was told."""
    cell, upstream = seen.cell, UPSTREAMS[seen.cell.upstream]
    assert len(seen.bills) == (2 if cell.case.startswith("tool_loop") else 1)
    assert len(seen.rows) == len(seen.bills)
    for row, bill, request in zip(seen.rows, seen.bills, seen.billed, strict=True):
        assert (row["outcome"], row["status"]) == ("completed", 200)
        assert bool(row["stream"]) == ("stream" in cell.case)
        assert request_id_of(request) in row["upstream_request_id"]
        if cell.endpoint == "moderations":
            continue
        if has_reported_usage(cell):
            assert row["usage_source"] == "reported"
            assert prompt_tokens_of(row) == prompt_tokens(bill)
            assert (row["output_tokens"] or 0) == bill.output_tokens
            if upstream.tells_cache:
                assert (row["cache_read_tokens"] or 0) == bill.cache_read_tokens
            if upstream.tells_reasoning:
                assert (row["reasoning_tokens"] or 0) == bill.reasoning_tokens
        else:
            assert row["usage_source"] == "counted"
            assert 0 < row["output_tokens"] <= 6 * bill.output_tokens
    if told := seen.answer.get("request_id"):
        assert told == seen.rows[-1]["id"]


def request_id_of(request):
    """How the provider calls a request."""
    return dict(request.provider.headers).get("id") or request.id


def has_reported_usage(cell):
    return UPSTREAMS[cell.upstream].tells_stream_usage or "stream" not in cell.case


def total(bills):
    return sum(bills[1:], bills[0])


def prompt_tokens(bill):
    return bill.input_tokens + bill.cache_read_tokens + bill.cache_write_tokens


def prompt_tokens_of(row):
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
    return sum(row[name] or 0 for name in names)


# Refusals ------------------------------------------------------------------------------------------------------------

CLASSES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError"}


def check_error(seen, status, *, words=""):
    """The client raised its own exception for ``status``, with the words and the id of the request."""
    error = seen.answer.get("error")
    assert error, "the client saw no error"
    assert error["status"] == status, error
    assert words in error["message"]
    if seen.cell.client == "llm":
        assert error["classes"][0] == "CommandFailed"
        return error
    assert CLASSES[status] in error["classes"], error
    if seen.cell.client != "litellm":
        assert error["request_id"].startswith("req_")
        if seen.cell.client != "langchain":
            family = "openai" if seen.cell.endpoint != "messages" else "anthropic"
            assert error["kind"] in KINDS[family][status]
    return error


KINDS = {
    "openai": {400: {"invalid_request_error"}, 401: {"invalid_request_error"}, 404: {"invalid_request_error"}},
    "anthropic": {400: {"invalid_request_error"}, 401: {"authentication_error"}, 404: {"not_found_error"}},
}


def check_unknown_model(seen):
    check_error(seen, 404, words="no-such-model")
    (row,) = seen.rows
    assert (row["outcome"], row["status"], row["error_code"]) == ("refused", 404, "model_not_found")
    check_id(seen, row)


def check_wrong_key(seen):
    check_error(seen, 401)
    assert not seen.rows
    assert not seen.received


def check_bad_field(seen):
    check_error(seen, 400, words="messages")
    (row,) = seen.rows
    assert (row["outcome"], row["status"]) == ("refused", 400)
    assert not seen.received
    check_id(seen, row)


def check_models(seen):
    answer = seen.answer
    assert "error" not in answer, answer["error"]["message"]
    assert seen.cell.model in answer["ids"]
    assert len(answer["ids"]) == len(set(answer["ids"]))
    if "one" in answer:
        assert answer["one"] == answer["ids"][0]
    assert not seen.rows


def check_the_providers_refusal(seen):
    """What the provider will not do reaches the client as its own kind of error, in the provider's words."""
    check_error(seen, 400, words=REFUSAL)
    (row,) = seen.rows
    assert row["status"] == 400
    assert REFUSAL in row["error_message"]
    check_id(seen, row)


def check_that_it_is_refused(seen):
    """An endpoint that the provider does not have: a clear error, a row that says refused, nothing sent."""
    check_error(seen, 400, words=seen.cell.model)
    (row,) = seen.rows
    assert (row["outcome"], row["status"]) == ("refused", 400)
    assert not seen.received
    check_id(seen, row)


def check_id(seen, row):
    if told := seen.answer["error"].get("request_id"):
        assert told == row["id"]


HERE = {
    "unknown_model": check_unknown_model,
    "wrong_key": check_wrong_key,
    "bad_field": check_bad_field,
    "list": check_models,
}
CHECKS = {"embeddings": check_vectors, "moderations": check_verdicts}


# What the upstream was given ------------------------------------------------------------------------------------------


def prompt_of(cell):
    return f"What is the weather in Málaga? id={cell.id}"


def walk(value):
    """Every object in a body, outer ones first."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


def images_in(body):
    """The pictures of a request in any format: media type and base64."""
    found = []
    for part in walk(body):
        match part:
            case {"type": "image_url", "image_url": {"url": url}} | {"type": "image_url", "image_url": str(url)}:
                found.append(url)
            case {"type": "input_image", "image_url": str(url)}:
                found.append(url)
            case {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}:
                found.append(f"data:{kind};base64,{data}")
    return [tuple(url.removeprefix("data:").split(";base64,")) for url in found]


def tools_in(body):
    return [tool.get("function", tool).get("name") for tool in body.get("tools") or []]


def schema_in(body):
    """The schema that an answer was asked to have, in any format; ``None`` for none."""
    for part in walk(body):
        match part:
            case {"response_format": {"json_schema": {"schema": schema}}}:
                return bare(schema)
            case {"output_config": {"format": {"schema": schema}}} | {"text": {"format": {"schema": schema}}}:
                return bare(schema)
            # A tool whose arguments are the answer: so some clients ask models that they do not know.
            case {"name": "json_tool_call", "parameters": schema} | {"name": "json_tool_call", "input_schema": schema}:
                return bare(schema)
    return None


def bare(schema):
    """A schema without the titles and descriptions that some clients add."""
    if isinstance(schema, dict):
        return {name: bare(value) for name, value in schema.items() if name not in ("title", "description")}
    return schema


def exchange_in(body):
    """The calls in a request as (id, name, arguments) and their results as (id, text), in any format."""
    calls, results = [], []
    for part in walk(body):
        match part:
            case {"id": id, "function": {"name": name, "arguments": arguments}}:
                calls.append((id, name, json.loads(arguments)))
            case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
                calls.append((id, name, json.loads(arguments)))
            case {"type": "tool_use", "id": id, "name": name, "input": arguments}:
                calls.append((id, name, arguments))
            case {"role": "tool", "tool_call_id": id, "content": content}:
                results.append((id, text_of(content)))
            case {"type": "tool_result", "tool_use_id": id, "content": content}:
                results.append((id, text_of(content)))
            case {"type": "function_call_output", "call_id": id, "output": content}:
                results.append((id, text_of(content)))
    return calls, results


def text_of(content):
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
