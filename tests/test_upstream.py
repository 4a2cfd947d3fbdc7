"""The scripted upstream does as it is told: every fault test rests on it."""

import json
import time

import anthropic
import httpx
import openai
import pytest

from tests.upstream import Bill, Script, Tariff, Upstream


def ask(upstream, model="scripted-1", *, text="Hello id=one", stream=False, path="/chat/completions", **fields):
    """The raw answer to one request; streams are read to their end."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64, "stream": stream}
    return httpx.post(upstream.url + path, json=body | fields, timeout=5)


def test_it_answers_the_official_clients_in_both_dialects_and_bills_them(upstream):
    message = [{"role": "user", "content": "Hello id=a"}]
    with openai.OpenAI(base_url=upstream.url, api_key="x") as client:
        whole = client.chat.completions.create(model="m", messages=message)
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(model="m", messages=message, stream=True, stream_options=options))
    assert whole.choices[0].message.content == "token " * 8
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "token " * 8
    assert chunks[-1].usage.completion_tokens == 8
    with anthropic.Anthropic(base_url=upstream.origin, api_key="x") as client:
        answer = client.messages.create(model="m", messages=message, max_tokens=10)
        with client.messages.stream(model="m", messages=message, max_tokens=10) as stream:
            final = stream.get_final_message()
        assert client.messages.count_tokens(model="m", messages=message).input_tokens > 0
        assert [model.id for model in client.models.list()] == ["scripted-1"]
    assert answer.content[0].text == final.content[0].text == "token " * 8
    assert final.usage.output_tokens == 8
    assert [bill.output_tokens for bill in upstream.ledger["a"]] == [8, 8, 8, 8]
    assert upstream.billed().output_tokens == 32


def test_usage_is_told_only_to_those_who_ask_for_it(upstream):
    assert "usage" not in ask(upstream, stream=True).text
    assert '"completion_tokens":8' in ask(upstream, stream=True, stream_options={"include_usage": True}).text


def test_scripts_are_played_in_turn_and_the_last_one_stays(upstream):
    upstream.play("flaky", Script.refuse(529, headers=[("retry-after", "7")]), Script(chunks=1))
    answers = [ask(upstream, "flaky") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [529, 200, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert upstream.ledger["one"] == [Bill(len(upstream.requests[1].body) // 4, output_tokens=1)] * 2


@pytest.mark.parametrize("path", ["/chat/completions", "/messages"])
def test_streams_survive_odd_line_ends_and_split_characters_byte_by_byte(upstream, path):
    good = Script(text=("Été ", "à la 🏖️"))
    upstream.play("m", good, good.but(newline=b"\r\n", piece=1))
    plain, odd = (ask(upstream, "m", stream=True, path=path) for _ in range(2))
    assert odd.text.replace("\r\n", "\n") == plain.text
    assert "🏖️" in odd.text


def test_it_cuts_resets_stalls_and_stays_silent(upstream):
    upstream.play("cut", Script(cut_at=900))
    with pytest.raises(httpx.RemoteProtocolError):
        ask(upstream, "cut", stream=True)
    assert 0 < upstream.ledger["one"][0].output_tokens < 8
    for moment in ("before_headers", "after_headers"):
        upstream.play("reset", Script(reset=moment))
        with pytest.raises(httpx.ReadError):
            ask(upstream, "reset", stream=True)
    upstream.play("silent", Script(silent=True))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(upstream.url + "/chat/completions", json={"model": "silent"}, timeout=0.1)
    upstream.wait_until(lambda u: u.requests[-1].left_after)


def test_it_ends_with_an_error_event_or_without_any_end(upstream):
    upstream.play("error", Script(error_after=2))
    upstream.play("endless", Script(endless=True))
    assert ask(upstream, "error", stream=True).text.count('"content":"token ') == 2
    assert "The scripted upstream broke." in ask(upstream, "error", stream=True, path="/messages").text
    assert "[DONE]" not in ask(upstream, "endless", stream=True).text


def test_it_knows_when_a_client_left_and_bills_what_was_sent(upstream):
    body = {"model": "m-100-10", "stream": True, "messages": [{"role": "user", "content": "id=gone"}]}
    with httpx.stream("POST", upstream.url + "/chat/completions", json=body) as answer:
        parts = answer.iter_bytes()
        next(parts)
        time.sleep(0.1)
    upstream.wait_until(lambda u: u.ledger["gone"])
    assert 0 < upstream.ledger["gone"][0].output_tokens < 100
    assert upstream.requests[-1].left_after > 0.1


def test_usage_can_be_cumulative_twinned_absent_or_absurd(upstream):
    upstream.play("cumulative", Script(chunks=3, usage="cumulative"))
    events = [json.loads(line[6:]) for line in ask(upstream, "cumulative", stream=True).text.split("\n\n")[:-2]]
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 3]
    upstream.play("twins", Script(usage="zero_twins"))
    assert ask(upstream, "twins").json()["usage"] | {"input_tokens": 0} == ask(upstream, "twins").json()["usage"]
    upstream.play("none", Script(usage="none"))
    assert "usage" not in ask(upstream, "none").json()
    upstream.play("absurd", Script(usage={"prompt_tokens": -1}))
    assert ask(upstream, "absurd").json()["usage"] == {"prompt_tokens": -1}


def test_a_wrong_credential_is_refused(upstream):
    upstream.credential = "sk-right"
    assert ask(upstream).status_code == 401
    assert httpx.get(upstream.url + "/models", headers={"authorization": "Bearer sk-right"}).status_code == 200


def test_it_can_stop_and_come_back_on_the_same_port():
    upstream = Upstream().start()
    upstream.stop()
    with pytest.raises(httpx.ConnectError):
        ask(upstream)
    upstream.start()
    assert ask(upstream).status_code == 200
    upstream.stop()


def test_its_books_say_what_every_answer_came_to_whole_or_cut(upstream):
    upstream.play("whole", Script(input_tokens=100, chunks=8, cache_read_tokens=10, cache_write_tokens=1))
    upstream.play("cut", Script(input_tokens=100, cut_at=900))
    upstream.tariff = Tariff(3, 15, cache_read="0.3333")
    upstream.tariffs["cut"] = Tariff(0, 1)
    ask(upstream, "whole")
    ask(upstream, "whole", stream=True, text="id=two")
    with pytest.raises(httpx.RemoteProtocolError):
        ask(upstream, "cut", stream=True)
    whole, streamed, cut = upstream.books
    # 100 + 1 input tokens at 3,000 nanos, 10 from the cache at 333.3, 8 of output at 15,000
    assert (whole.marker, whole.model, whole.is_whole, whole.nanos) == ("one", "whole", True, 426_333)
    assert (streamed.marker, streamed.is_whole, streamed.nanos) == ("two", True, 426_333)
    assert not cut.is_whole
    assert cut.nanos == cut.bill.output_tokens * 1000 > 0
