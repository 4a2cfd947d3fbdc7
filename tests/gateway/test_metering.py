"""What a request is said to have used, for every way it can end."""

import json
import time

import msgspec
import pytest

from gateway import errors
from gateway.calls import Call, Caller
from gateway.metering import Meter
from gateway.pipeline import count_prompt
from providers.formats import chat_completions as openai
from providers.formats import completions, moderations
from providers.tokens import TokenUsage, count_tokens
from tests.gateway.test_routing import target
from usage.costs import Rates

RATES = Rates(7, 3_000_000, 300_000, 3_750_000, 6_000_000, 15_000_000)
PROMPT = "What is the capital of France?"
CALLER = Caller(1, "org_1", 1, "wrkspc_1", 1, 1, "api")


@pytest.fixture
def meter():
    call = Call(format=openai, caller=CALLER, fields={}, stream=True)
    meter = Meter(call, lambda call: count_tokens(PROMPT), len(PROMPT) // 4)
    meter.ask(target(1), RATES)
    meter.dispatch()
    return meter


def counted(closed):
    return closed.usage_source, closed.input_tokens, closed.output_tokens


def test_what_the_provider_reported_is_taken_as_it_is(meter):
    meter.saw_text("Paris.")
    meter.saw_usage(TokenUsage(10, 4, output_tokens=2))
    meter.completed()
    closed = meter.closed()
    assert (*counted(closed), closed.cache_read_tokens) == ("reported", 10, 2, 4)
    assert closed.cost_nanos == 10 * 3000 + 4 * 300 + 2 * 15000
    assert closed.attempts == 1


def test_an_empty_answer_may_be_reported_as_one(meter):
    meter.saw_usage(TokenUsage(10, output_tokens=0))
    meter.completed()
    assert counted(meter.closed()) == ("reported", 10, 0)


@pytest.mark.parametrize("usage", [None, TokenUsage(10), TokenUsage(output_tokens=0), TokenUsage(10, output_tokens=0)])
def test_text_that_was_delivered_is_counted_here_where_the_provider_is_silent(meter, usage):
    meter.saw_text("The capital is ")
    meter.saw_text("Paris.")
    meter.saw_usage(usage)
    meter.completed()
    known_input = 10 if usage and usage.input_tokens else count_tokens(PROMPT)
    assert counted(meter.closed()) == ("counted", known_input, count_tokens("The capital is Paris."))
    assert meter.closed().cost_nanos > 0


@pytest.mark.parametrize("told", [0, None])
def test_a_prompt_of_no_tokens_is_counted_here_and_what_else_was_reported_stands(meter, told):
    meter.saw_text("The capital is Paris.")
    meter.saw_usage(TokenUsage(told, output_tokens=9))
    meter.completed()
    assert counted(meter.closed()) == ("counted", count_tokens(PROMPT), 9)


def test_a_prompt_that_came_from_the_cache_whole_is_reported(meter):
    meter.saw_text("Paris.")
    meter.saw_usage(TokenUsage(0, 12, output_tokens=2))
    meter.completed()
    assert counted(meter.closed()) == ("reported", 0, 2)


def test_fewer_tokens_than_the_text_can_have_been_are_counted_anew(meter):
    meter.saw_text("The capital of France is Paris. " * 20)
    meter.saw_usage(TokenUsage(10, output_tokens=3))
    meter.completed()
    assert counted(meter.closed()) == ("counted", 10, count_tokens("The capital of France is Paris. " * 20))


def test_an_answer_that_the_client_left_counts_what_it_was_given(meter):
    meter.saw_usage(TokenUsage(10))
    meter.saw_text("The capital is Par")
    meter.call.client_gone = True
    meter.cancelled()
    closed = meter.closed()
    assert (closed.outcome, closed.status) == ("client_cancelled", 499)
    assert counted(closed) == ("counted", 10, count_tokens("The capital is Par"))


def test_what_was_reported_halfway_is_no_less_than_what_was_written(meter):
    meter.saw_usage(TokenUsage(10, output_tokens=1))
    meter.saw_text("one two three four five six")
    meter.call.client_gone = True
    meter.cancelled()
    assert meter.closed().output_tokens == count_tokens("one two three four five six")


def test_a_client_that_leaves_before_the_first_word_is_charged_the_estimate_of_its_prompt(meter):
    meter.call.client_gone = True
    meter.cancelled()
    assert counted(meter.closed()) == ("estimated", count_tokens(PROMPT), 0)


def test_a_process_that_ends_interrupts_what_is_under_way(meter):
    meter.saw_text("Par")
    meter.cancelled()
    assert (meter.closed().outcome, meter.closed().status) == ("interrupted", None)


def test_an_error_without_a_word_uses_nothing(meter):
    meter.failed(errors.GatewayError(502, "provider_failed", "No.", outcome="upstream_error"))
    closed = meter.closed()
    assert counted(closed) == ("none", None, None)
    assert (closed.cost_nanos, closed.error_code, closed.error_message) == (0, "provider_failed", "No.")


def test_an_error_in_the_middle_counts_what_came_before(meter):
    meter.saw_text("Paris is")
    meter.failed(errors.GatewayError(502, "provider_failed", "No.", outcome="upstream_error"))
    assert counted(meter.closed()) == ("counted", count_tokens(PROMPT), count_tokens("Paris is"))


def test_a_provider_that_never_answered_may_bill_the_prompt(meter):
    meter.failed(errors.GatewayError(504, "provider_timeout", "No.", outcome="timeout"))
    assert counted(meter.closed()) == ("estimated", count_tokens(PROMPT), 0)


def test_without_a_price_the_cost_is_unknown(meter):
    meter.rates = None
    meter.saw_usage(TokenUsage(10, output_tokens=2))
    meter.completed()
    assert meter.closed().cost_nanos is None


def test_the_first_token_is_that_of_a_stream(meter):
    meter.call.received -= 0.25
    meter.saw_text("Paris")
    meter.completed()
    assert 250 <= meter.closed().time_to_first_token_ms <= meter.closed().duration_ms
    meter.call.stream, meter.first_token = False, None
    meter.saw_text("Paris")
    assert meter.closed().time_to_first_token_ms is None


def test_a_mark_of_progress_is_due_at_the_first_text_and_four_times_a_second(meter):
    assert meter.progress_due() is None
    meter.saw_text("x" * 400)
    mark = meter.progress_due()
    assert (mark.input_tokens, mark.output_tokens) == (len(PROMPT) // 4, 101)
    meter.saw_text("x" * 400)
    assert meter.progress_due() is None
    meter.marked = time.perf_counter() - 0.3
    assert meter.progress_due().output_tokens == 201
    assert meter.progress_due() is None


def test_a_mark_of_progress_says_who_answers_where_it_is_not_the_first(meter):
    first, second = (target(number, upstream_name=f"upstream-{number}") for number in (1, 2))
    meter.first = None
    meter.ask(first, RATES)
    assert meter.progress().provider_id is None
    meter.ask(second, None)
    mark = meter.progress()
    assert (mark.provider_id, mark.provider_model_id, mark.price_id, mark.upstream_model) == (2, 2, None, "upstream-2")
    assert mark.output_tokens == 0
    meter.ask(second, RATES)
    assert meter.progress().price_id == RATES.price_id
    assert meter.progress().exchange_rate is None
    meter.ask(second, RATES._replace(exchange=12_500_000_000))
    assert meter.progress().exchange_rate == 12_500_000_000


def test_reasoning_is_counted_and_is_not_the_answer():
    delta = openai.Delta(content="Paris.", reasoning_content="The capital of France …")
    assert openai.content_of(delta) == "Paris."
    assert openai.text_of(delta) == "The capital of France …Paris."


@pytest.mark.parametrize("window", [None, 8_192])
def test_a_prompt_too_large_to_count_here_is_estimated(window, meter):
    call = meter.call
    call.fields = {"messages": msgspec.Raw(json.dumps([{"content": "x " * 400_000}]).encode())}
    meter = Meter(call, None, call.estimate_input())
    meter.ask(target(1, context_window=window), RATES)
    meter.dispatch()
    meter.saw_text("Paris.")
    meter.call.client_gone = True
    meter.cancelled()
    # A model that reads less has not seen the rest, and no more was held for it.
    assert counted(meter.closed()) == ("estimated", min(200_004, window or 200_004), count_tokens("Paris."))


def test_a_silent_provider_costs_no_more_than_its_model_can_read(meter):
    call = meter.call
    call.fields = {"messages": msgspec.Raw(json.dumps([{"content": "hello world " * 10_000}]).encode())}
    meter = Meter(call, count_prompt, call.estimate_input())
    meter.ask(target(1, context_window=8_192), RATES)
    meter.dispatch()
    meter.saw_text("Yes.")
    meter.completed()
    assert counted(meter.closed()) == ("counted", 8_192, count_tokens("Yes."))


@pytest.mark.parametrize("words", [1_000, 100_000])
def test_what_a_cache_gave_of_a_prompt_counts_once(meter, words):
    call = meter.call
    call.fields = {"messages": msgspec.Raw(json.dumps([{"content": "hello world " * words}]).encode())}
    meter = Meter(call, count_prompt, call.estimate_input())
    meter.ask(target(1), RATES)
    meter.dispatch()
    whole = meter.own_prompt()[0]
    meter.saw_usage(TokenUsage(None, whole - 50, output_tokens=2))
    meter.saw_text("Yes.")
    meter.completed()
    closed = meter.closed()
    assert (closed.input_tokens, closed.cache_read_tokens) == (50, whole - 50)


def test_the_names_that_a_caller_made_up_fit_into_the_record(meter):
    meter.call.dropped = [f"field_{number:060}" for number in range(3_000)]
    meter.dispatch()
    meter.completed()
    assert len(meter.closed().dropped) == 300


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2_000_000}},
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 2_000_000},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 2_000_000}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "A" * 2_000_000}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 2_000_000}},
    ],
    ids=lambda part: part["type"],
)
def test_the_bytes_of_a_picture_are_no_text_where_the_provider_is_silent(part):
    prompt = [{"role": "user", "content": [{"type": "text", "text": PROMPT}, part]}]
    call = Call(format=openai, caller=CALLER, fields={"messages": msgspec.Raw(json.dumps(prompt).encode())})
    meter = Meter(call, count_prompt, call.estimate_input())
    meter.ask(target(1), RATES)
    meter.dispatch()
    meter.saw_text("Paris.")
    meter.completed()
    source, tokens, _ = counted(meter.closed())
    assert source == "counted" and count_tokens(PROMPT) <= tokens < 30


@pytest.mark.parametrize(("format", "estimate"), [(openai, 8_192), (completions, 500_000), (moderations, 500_000)])
def test_a_prompt_is_estimated_at_no_more_than_the_model_can_read_at_once(format, estimate):
    meter = Meter(Call(format=format, caller=CALLER, fields={}), len, 500_000)
    meter.ask(target(1, context_window=8_192), RATES)
    assert meter.input_estimate == meter.progress().input_tokens == estimate


def test_a_mark_of_progress_keeps_the_cache_apart(meter):
    meter.saw_usage(TokenUsage(10, 100_000, 5))
    meter.marked = time.perf_counter() - 1.1
    mark = meter.progress_due()
    assert (mark.input_tokens, mark.cache_read_tokens, mark.cache_write_tokens) == (10, 100_000, 5)


@pytest.mark.parametrize(("rates", "cost"), [(None, 0), (RATES, 7 * 3000)])
def test_a_moderation_is_free_unless_it_has_a_price(rates, cost):
    call = Call(format=moderations, caller=CALLER, fields={})
    meter = Meter(call, lambda call: 7, 7)
    meter.ask(target(1), rates)
    meter.dispatch()
    meter.completed()
    assert (*counted(meter.closed()), meter.closed().cost_nanos) == ("counted", 7, 0, cost)


def test_what_has_no_price_is_not_free(meter):
    meter.rates = None
    meter.saw_text("Paris.")
    meter.completed()
    assert meter.closed().cost_nanos is None
