"""What callers are told, and what is counted, when the provider fails: before its answer, in it, or at its end."""

import pytest

from tests.upstream import ABSURD_USAGE, Script

SERVER_ERROR = {"openai": "server_error", "anthropic": "api_error"}


def failed(api, answer, statuses):
    """Check the outside of a failure that is not the caller's fault; its message."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert "<h1>" not in answer.text
    _, _, message = api.dialect.error_of(answer.json())
    assert "<" not in message
    assert api.request_id(answer).startswith("req_")
    return message


def failed_row(api, answer, outcome="upstream_error"):
    row = api.row(answer)
    assert row["outcome"] == outcome
    assert row["status"] == answer.status_code
    assert row["error_message"]
    assert not row["output_tokens"]
    assert not row["cost_nanos"]
    assert row["attempts"] >= 1
    return row


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_credential_is_not_the_callers_fault(api, model, upstream, status, stream):
    upstream.play(model, Script.refuse(status, message="Your key sk-upstream is bad."))
    answer = api.ask(model, stream=stream)
    message = failed(api, answer, {502, 503})
    assert "sk-upstream" not in answer.text
    assert "administrator" in message
    assert answer.headers["x-should-retry"] == "false"
    failed_row(api, answer)
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 429])
def test_what_the_provider_says_of_the_request_is_passed_on(api, model, upstream, status):
    upstream.play(model, Script.refuse(status, message="The prompt is too long."))
    answer = api.ask(model)
    assert "The prompt is too long." in failed(api, answer, {status})
    failed_row(api, answer)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [("7", "7"), ("2.5", "3"), ("999999999", "3600"), ("-5", "0"), ("nonsense", None), ("nan", None)],
)
def test_the_providers_word_on_waiting_is_passed_on_within_reason(api, model, upstream, given, passed_on):
    upstream.play(model, Script.refuse(429, headers=[("retry-after", given)]))
    answer = api.ask(model)
    assert answer.status_code == 429
    assert answer.headers.get("retry-after") == passed_on


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_provider_that_fails_is_said_to_fail(api, model, upstream, status):
    upstream.play(model, Script.refuse(status, message="Out of order."))
    answer = api.ask(model)
    overloaded = status in {503, 529}
    expected = ({529} if api.dialect.name == "anthropic" else {503}) if overloaded else {502}
    failed(api, answer, expected)
    failed_row(api, answer) if not overloaded else api.row(answer)


@pytest.mark.parametrize("script", [Script.html(), Script.html(502), Script(body=b"{}"), Script(body=b"not json")])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_page_or_nonsense_instead_of_an_answer_never_reaches_the_caller(api, model, upstream, script, stream):
    upstream.play(model, script)
    answer = api.ask(model, stream=stream)
    failed(api, answer, {502})
    failed_row(api, answer)


@pytest.mark.parametrize("model", ["gpt-nowhere", "claude-nowhere"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_provider_that_does_not_listen_is_said_to_be_unreachable(api, model, stream):
    answer = api.ask(model, stream=stream)
    message = failed(api, answer, {502})
    assert "127.0.0.1" not in message
    row = failed_row(api, answer)
    assert row["usage_source"] == "none"


@pytest.mark.parametrize("moment", ["before_headers", "after_headers"])
def test_a_connection_that_is_reset_is_a_failure_of_the_provider(api, model, upstream, moment):
    upstream.play(model, Script(reset=moment))
    answer = api.ask(model)
    failed(api, answer, {502})
    api.row(answer)


def test_a_whole_answer_that_is_cut_off_is_a_failure(api, model, upstream):
    upstream.play(model, Script(cut_at=60))
    answer = api.ask(model)
    failed(api, answer, {502})
    assert api.row(answer)["outcome"] == "upstream_error"


# In the middle of a stream -----------------------------------------------------------------------------------------


def broken_stream(api, model):
    """The bytes of a stream that must end with an error event; and its row."""
    with api.streaming(model) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        raw = answer.read()
    assert not api.dialect.is_ended(raw)
    last = api.dialect.events_of(raw)[-1]
    api.dialect.error_of(last)
    if api.dialect.name == "anthropic":
        assert raw.rstrip().split(b"\n")[-2] == b"event: error"
    return raw, api.row(answer)


@pytest.mark.parametrize(
    "script",
    [
        Script(chunks=20, cut_at=2500),
        Script(chunks=5, endless=True),
        Script(chunks=5, endless=True, framing="close"),
        Script(chunks=20, error_after=5),
    ],
    ids=["cut off", "no end", "no end and no length", "error event"],
)
def test_a_stream_that_breaks_off_ends_with_an_error_in_the_callers_dialect(api, model, upstream, script):
    upstream.play(model, script)
    raw, row = broken_stream(api, model)
    sent = upstream.calls[0].sent_chunks
    assert row["outcome"] == "upstream_error"
    assert row["error_message"]
    assert 0 < api.dialect.streamed_text(raw).count("token ") <= sent
    # Delivered text is never free, and what was counted here stays near what was billed.
    assert row["usage_source"] in {"counted", "estimated", "reported"}
    assert abs(row["output_tokens"] - upstream.calls[0].bill.output_tokens) <= 2
    assert row["cost_nanos"] > 0


def test_an_error_event_before_any_text_is_an_error_too(api, model, upstream):
    upstream.play(model, Script(error_after=0))
    with api.streaming(model) as answer:
        raw = answer.read()
    assert not api.dialect.is_ended(raw)
    row = api.row(answer)
    assert row["outcome"] == "upstream_error"
    assert not row["output_tokens"]


# Odd but right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_streams_with_odd_line_ends_split_anywhere_come_through_whole(api, model, upstream, newline):
    upstream.play(model, Script(text=("Été à ", "la plage 🏖️"), newline=newline, piece=7))
    with api.streaming(model) as answer:
        raw = answer.read()
    assert api.dialect.streamed_text(raw) == "Été à la plage 🏖️"
    assert api.dialect.is_ended(raw)
    row = api.row(answer)
    assert row["outcome"] == "completed"
    assert row["output_tokens"] == 2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_answer_without_usage_is_counted_here_and_says_so(api, model, upstream, stream):
    upstream.play(model, Script(usage="none", chunks=40))
    answer = api.ask(model, text="Please count these words for me, will you?", stream=stream)
    row = api.row(answer)
    assert row["outcome"] == "completed"
    assert row["usage_source"] == "counted"
    assert abs(row["output_tokens"] - 40) <= 4
    assert row["input_tokens"] > 5
    assert row["cost_nanos"] > 0


@pytest.mark.parametrize("usage", ["cumulative", "unasked", "zero_twins"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_usage_told_in_odd_ways_is_read_right(api, upstream, usage, stream):
    upstream.play("gpt-test", Script(usage=usage, cache_read_tokens=30, reasoning_tokens=3))
    answer = api.ask("gpt-test", stream=stream)
    assert answer.status_code == 200
    row, bill = api.row(answer), upstream.calls[0].bill
    assert row["usage_source"] == "reported"
    assert (row["input_tokens"], row["output_tokens"]) == (bill.input_tokens, bill.output_tokens)
    assert (row["cache_read_tokens"], row["reasoning_tokens"]) == (30, 3)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "usage",
    [
        ABSURD_USAGE, {}, {"prompt_tokens": None}, {"prompt_tokens": True},
        {"prompt_tokens": 50_000_000, "completion_tokens": 50_000_000, "total_tokens": 100_000_000},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_usage_never_costs_less_than_nothing_or_more_than_the_world(api, upstream, usage, stream):
    upstream.play("gpt-test", Script(usage=usage))
    answer = api.ask("gpt-test", stream=stream)
    assert answer.status_code == 200
    row = api.row(answer)
    assert row["usage_source"] == "counted"
    assert 0 < row["output_tokens"] <= 100
    assert 0 < row["input_tokens"] <= 100
    assert 0 < row["cost_nanos"] < 10**8


def test_a_provider_that_knows_no_stream_options_is_asked_again_without(api, upstream):
    upstream.play("gpt-test", Script(stream_options=False, chunks=10))
    answer = api.ask("gpt-test", stream=True)
    assert answer.status_code == 200
    assert api.dialect.streamed_text(answer.content) == "token " * 10
    row = api.row(answer)
    assert row["usage_source"] == "counted"
    assert abs(row["output_tokens"] - 10) <= 2
    assert row["attempts"] == 2
