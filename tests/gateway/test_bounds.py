import json

import msgspec
import pytest

from gateway.bounds import BEYOND_BYTES_TOKENS, FRAME_TOKENS, TOOLS_TOKENS, Bound, Size, affordable, lower
from gateway.calls import Call
from providers.formats import chat_completions, completions, embeddings, messages, responses
from providers.request_body import InvalidRequest
from usage.costs import Rates

RATES = Rates(1, 3_000_000, 3_000_000, 3_000_000, 3_000_000, 15_000_000)


class Target:
    """What a bound needs of a target."""

    max_tokens_field = "max_tokens"

    def __init__(self, window=None, most=None, rates=RATES):
        self.context_window, self.max_output_tokens, self.rates = window, most, rates

    def rates_at(self, moment):
        return self.rates


def call(form=chat_completions, **fields):
    if form is chat_completions:
        fields = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100} | fields
    raws = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}
    return Call(format=form, caller=None, fields=raws)


def bound(form=chat_completions, target=None, **fields):
    asked = call(form, **fields)
    return Bound(asked, target or Target(), Size(asked.format, asked.fields))


def test_a_prompt_has_no_more_tokens_than_bytes():
    prompt = [{"role": "user", "content": "Hi"}]
    assert bound(messages=prompt).input == len(json.dumps(prompt)) + FRAME_TOKENS
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert (
        bound(messages=prompt, tools=tools).input == len(json.dumps([prompt, tools])) - 4 + FRAME_TOKENS + TOOLS_TOKENS
    )


def test_no_model_reads_more_than_its_window():
    assert bound(target=Target(window=30), messages=[{"role": "user", "content": "x" * 100}]).input == 30


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
        [{"type": "audio_url", "audio_url": {"url": "https://example.org/a.mp3"}}],
        [{"type": "video", "video": "https://example.org/a.mp4"}],
        [{"type": "something_new"}],
    ],
)
def test_what_its_bytes_do_not_bound_is_bound_by_the_window(content):
    prompt = [{"role": "user", "content": content}]
    assert bound(target=Target(window=8_000), messages=prompt).input == 8_000
    assert bound(messages=prompt).input > BEYOND_BYTES_TOKENS


def test_a_word_that_escapes_hide_is_found():
    asked = call()
    asked.fields["messages"] = msgspec.Raw(rb'[{"role":"user","content":[{"type":"\u0069mage_url"}]}]')
    assert Bound(asked, Target(window=8_000), Size(asked.format, asked.fields)).input == 8_000


def test_what_a_text_says_of_types_is_text():
    prompt = [{"role": "user", "content": 'Write {"type": "image_url"} in é and <b>.'}]
    assert bound(messages=prompt).input < 200


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (chat_completions, {"web_search_options": {}}),
        (messages, {"messages": [], "max_tokens": 5, "mcp_servers": []}),
        (messages, {"messages": [], "max_tokens": 5, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (responses, {"input": "Hi", "max_output_tokens": 5, "prompt": {"id": "pmpt_1"}}),
        (responses, {"input": "Hi", "max_output_tokens": 5, "tools": [{"type": "file_search"}]}),
    ],
)
def test_what_a_provider_fetches_is_bound_by_the_window(form, fields):
    assert bound(form, Target(window=9_000), **fields).input == 9_000


def test_of_several_lengths_the_largest_counts():
    assert bound(max_completion_tokens=16, max_tokens=100_000).output == 100_000
    assert bound(max_tokens=None, max_completion_tokens=16).output == 16


def test_the_length_is_what_the_model_can_write_where_nobody_says_it():
    assert bound(max_tokens=None, target=Target(most=700)).output == 700
    assert bound(max_tokens=None, target=Target(window=900)).output == 900
    assert bound(max_tokens=10**9, target=Target(most=700)).output == 700
    with pytest.raises(InvalidRequest, match="max_completion_tokens is needed"):
        bound(max_tokens=None)
    assert bound(max_tokens=None, target=Target(rates=None)).cost() == 0


@pytest.mark.parametrize("value", ["5", 5.5, 0, -1, True, [5]])
@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens"])
def test_a_number_that_is_none_is_refused(name, value):
    with pytest.raises(InvalidRequest, match=f"{name}: must be an integer of at least 1"):
        bound(**{name: value})


def test_every_answer_and_every_prompt_counts():
    assert bound(n=5).answers == 5
    assert bound(completions, prompt="Hi", max_tokens=5, best_of=3).answers == 3
    assert bound(completions, prompt=["a", "b"], max_tokens=5, n=2).answers == 4
    assert bound(completions, prompt=[[1, 2], [3]], max_tokens=5).answers == 2
    assert bound(completions, prompt=[1, 2, 3], max_tokens=5).answers == 1
    assert bound(embeddings, input=["a"] * 9).cost() == bound(embeddings, input=["a"] * 9).input * 3_000


def test_the_longest_answer_that_can_be_afforded():
    bounds = [bound(max_tokens=1_000), bound(max_tokens=1_000, target=Target(most=50))]
    tokens = affordable(bounds, bounds[0].cost(300))
    assert tokens == 300
    assert affordable(bounds, bounds[0].cost(300) - 1) == 299
    assert affordable(bounds, bounds[0].cost(10)) is None


def test_an_answer_is_shortened_in_every_field_that_says_its_length():
    asked = call(max_completion_tokens=900, max_tokens=800)
    lower(asked, 50, Target())
    assert {bytes(asked.fields[name]) for name in ("max_completion_tokens", "max_tokens")} == {b"50"}
    asked = call(max_completion_tokens=900, max_tokens=40)
    lower(asked, 50, Target())
    assert [bytes(asked.fields[name]) for name in ("max_completion_tokens", "max_tokens")] == [b"50", b"40"]
    asked = call(max_tokens=None)
    del asked.fields["max_tokens"]
    lower(asked, 50, Target())
    assert bytes(asked.fields["max_tokens"]) == b"50"


def test_each_of_several_texts_has_the_window_to_itself():
    texts = ["x" * 300] * 50
    assert bound(embeddings, Target(window=400), input=texts).input > 15_000
    assert bound(completions, Target(window=400), prompt=texts, max_tokens=5).input > 15_000
    assert bound(completions, Target(window=400), prompt=["x" * 900] * 3, max_tokens=5).input == 1_200
