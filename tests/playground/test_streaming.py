"""The playground over real sockets: the whole server and a scripted provider, without a browser."""

import contextlib
import json
import re
import threading
import time

import httpx
import pytest

from tests.server import OWNER_EMAIL, OWNER_PASSWORD
from tests.upstream import Script

PLAYGROUND = "/w/default/playground/"


class Person:
    """A signed-in session that posts forms as the page would."""

    def __init__(self, base_url):
        self.http = httpx.Client(base_url=base_url, follow_redirects=True, timeout=30)
        self.token = self._token(self.http.get("/signin/").text)
        answer = self.http.post(
            "/signin/", data={"email": OWNER_EMAIL, "password": OWNER_PASSWORD, "csrfmiddlewaretoken": self.token}
        )
        assert answer.url.path == "/w/default/", answer.text
        page = self.http.get(PLAYGROUND).text
        self.token = self._token(page)
        self.models = {name: uid for uid, name in re.findall(r'<option value="(model_\w+)"[^>]*>([^<]+)<', page)}

    def _token(self, page):
        return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]

    def form(self, model, **fields):
        settings = {"model": self.models[model]} if model else {}
        return {"csrfmiddlewaretoken": self.token, **settings, **fields}

    def stream(self, model, **fields):
        headers = {"Accept": "text/event-stream"}
        return self.http.stream("POST", PLAYGROUND + "send/", data=self.form(model, **fields), headers=headers)

    def ask(self, model, **fields):
        """The events of one answer, to their end: pairs of name and data."""
        with self.stream(model, **fields) as response:
            assert response.status_code == 200, response.read()
            return list(events(response))

    def read_on(self, model, **fields):
        """What begins an answer that is cut off, once it is."""
        with self.stream(model, **fields) as response:
            found = events(response)
            turn = next(found)[1]
            with contextlib.suppress(httpx.HTTPError):
                assert {name for name, _ in found} == {"text"}
        return turn

    def detail(self, turn, enough=lambda found: True):
        """The kept answer, once it is ``enough``."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            response = self.http.get(turn["detail"])
            if response.status_code == 200 and enough(response.json()):
                return response.json()
            time.sleep(0.1)
        raise AssertionError(f"{response.status_code} {response.text}")


def events(response):
    block = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            block[name] = value
        elif block:
            yield block["event"], json.loads(block["data"])
            block = {}


def text_of(found):
    return "".join(data for name, data in found if name == "text")


def request_id_in(html):
    return re.search(r"/requests/(req_\w+)/", html)[1]


@pytest.fixture
def person(server):
    return Person(server.base_url)


def test_an_answer_streams_and_is_counted_as_the_playgrounds(person, upstream, server):
    upstream.play("gpt-test", Script(text=("On ", "its ", "**way**."), input_tokens=118, delay=0.02))
    found = person.ask("gpt-test", message="Where is it?", system_prompt="Be brief.", temperature="0,5")
    assert [name for name, _ in found] == ["turn", "text", "text", "text", "end"]
    turn, end = found[0][1], found[-1][1]
    assert text_of(found) == "On its **way**."
    assert "Where is it?" in turn["question"]
    assert turn["url"].startswith(PLAYGROUND + "conv_")
    assert "On its <strong>way</strong>." in end["message"]
    assert "Reported" in end["run"]
    row = server.row(request_id_in(end["message"]))
    assert (row["source"], row["outcome"], row["stream"]) == ("playground", "completed", 1)
    assert (row["input_tokens"], row["output_tokens"]) == (118, 3)
    assert row["cost_nanos"] == 118 * 3000 + 3 * 15000
    asked = upstream.requests[-1].json
    assert asked["temperature"] == 0.5
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "max_tokens" not in asked
    page = person.http.get(turn["url"]).text
    assert "On its <strong>way</strong>." in page
    assert end["message"].split("message__body")[1][:60] in page


def test_the_stream_is_kept_by_nobody_on_the_way(person, upstream):
    with person.stream("gpt-test", message="Hi") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in response.headers["cache-control"]
        assert response.headers["x-accel-buffering"] == "no"
        assert "default-src" in response.headers["content-security-policy"]
        list(events(response))


def test_words_come_as_the_provider_writes_them(person, upstream):
    upstream.play("gpt-test", Script(chunks=5, delay=0.3))
    sent = []
    with person.stream("gpt-test", message="Slowly") as response:
        for name, _ in events(response):
            if name == "text":
                sent.append(upstream.requests[-1].sent_chunks)
    assert sent[0] < 5 <= len(sent)


def test_anthropics_dialect_gets_its_maximum_and_its_own_parameters(person, upstream):
    upstream.play("claude-test", Script(text=("Hello",)))
    found = person.ask("claude-test", message="Hi", system_prompt="Be brief.", top_k="40", stop="###")
    assert text_of(found) == "Hello"
    asked = upstream.requests[-1].json
    assert (asked["max_tokens"], asked["top_k"], asked["stop_sequences"]) == (1024, 40, ["###"])
    assert asked["system"] == "Be brief."


def test_a_conversation_goes_on_and_can_be_asked_again_and_changed(person, upstream):
    upstream.play(
        "gpt-test", Script(text=("One.",)), Script(text=("Two.",)), Script(text=("Other.",)), Script(text=("New.",))
    )
    first = person.ask("gpt-test", message="First")[0][1]
    same = {"conversation": first["conversation"]}
    second = person.ask("gpt-test", message="Second", **same)
    assert [m["content"] for m in upstream.requests[-1].json["messages"]] == ["First", "One.", "Second"]
    again = person.ask("gpt-test", **same)
    assert [m["content"] for m in upstream.requests[-1].json["messages"]] == ["First", "One.", "Second"]
    assert again[0][1]["question"] == ""
    assert "Bring it back" in again[-1][1]["replaced"]
    question = re.search(r'data-message="(msg_\w+)"', person.http.get(first["url"]).text)[1]
    edited = person.ask("gpt-test", message="Changed", edits=question, **same)
    assert [m["content"] for m in upstream.requests[-1].json["messages"]] == ["Changed"]
    assert edited[0][1]["kept"] == ""
    page = person.http.get(first["url"]).text
    assert "Changed" in page
    assert "Second" not in page.split("data-log")[1].split("data-replaced")[0]
    assert "4 messages were replaced." in page
    assert second[0][1]["kept"]


def test_a_stop_ends_the_providers_work_and_keeps_what_there_is(person, upstream, server):
    upstream.play("gpt-test", Script(chunks=400, delay=0.05))
    with person.stream("gpt-test", message="Long") as response:
        pieces = events(response)
        turn = next(pieces)[1]
        seen = [next(pieces) for _ in range(5)]
    assert all(name == "text" for name, _ in seen)
    kept = person.detail(turn)
    assert "Stopped." in kept["message"]
    assert "token token token" in kept["message"]
    until = time.monotonic() + 5
    while upstream.requests[-1].left_after is None and time.monotonic() < until:
        time.sleep(0.05)
    assert upstream.requests[-1].left_after is not None
    complete = person.detail(turn, enough=lambda found: not found["waits"])
    row = server.row(request_id_in(complete["message"]))
    assert row["outcome"] == "client_cancelled"
    assert 5 <= row["output_tokens"] < 100
    assert f"{row['output_tokens']} tokens" in complete["message"]


def test_a_stop_before_the_first_word_is_kept_too(person, upstream):
    upstream.play("gpt-test", Script(first_byte_delay=20))
    with person.stream("gpt-test", message="Nothing yet") as response:
        turn = next(events(response))[1]
    kept = person.detail(turn)
    assert "Nothing had been written yet." in kept["message"]


def test_a_failure_in_mid_answer_stands_in_its_place(person, upstream, server):
    upstream.play("gpt-test", Script(chunks=10, error_after=4, delay=0.02))
    found = person.ask("gpt-test", message="Break")
    end = found[-1][1]
    assert text_of(found) == "token " * 4
    assert "The provider failed in mid-answer." in end["message"]
    assert "kept and counted" in end["message"]
    assert server.row(request_id_in(end["message"]))["outcome"] == "upstream_error"
    assert "The provider failed in mid-answer." in person.http.get(found[0][1]["url"]).text


def test_a_provider_that_cannot_be_reached_is_said_in_place(person):
    found = person.ask("gpt-nowhere", message="Hello?")
    assert [name for name, _ in found] == ["turn", "end"]
    assert "The provider did not answer." in found[-1][1]["message"]
    assert "Your message is kept" in found[-1][1]["message"]
    assert "Hello?" in person.http.get(found[0][1]["url"]).text


def test_a_provider_that_refuses_is_quoted(person, upstream):
    upstream.play("gpt-test", Script.refuse(400, message="This model has no seed."))
    assert "This model has no seed." in person.ask("gpt-test", message="Hi", seed="7")[-1][1]["message"]


def test_hostile_words_of_a_model_cannot_act(person, upstream):
    evil = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) ![p](https://evil.example/p.png)</script><script>"
    upstream.play("gpt-test", Script(text=(evil,)))
    found = person.ask("gpt-test", message=evil)
    assert text_of(found) == evil
    for html in (found[0][1]["question"], found[-1][1]["message"], person.http.get(found[0][1]["url"]).text):
        assert "<img" not in html
        assert "</script><script>" not in html
        assert 'href="javascript' not in html


def test_a_sign_that_no_database_keeps_is_left_out(person, upstream):
    upstream.play("gpt-test", Script(text=("a\0b", "é")))
    found = person.ask("gpt-test", message="Hi")
    assert found[-1][0] == "end"
    assert "abé" in person.http.get(found[0][1]["url"]).text
    assert "abé" in found[-1][1]["message"]


def test_without_javascript_the_page_comes_back_with_the_answer(person, upstream):
    upstream.play("gpt-test", Script(text=("Whole ", "answer.")))
    response = person.http.post(PLAYGROUND + "send/", data=person.form("gpt-test", message="Plain form"))
    assert response.status_code == 200
    assert response.url.path.startswith(PLAYGROUND + "conv_")
    assert "Whole answer." in response.text
    again = person.http.post(
        PLAYGROUND + "send/", data=person.form(None, conversation=response.url.path.split("/")[-2])
    )
    assert "1 message was replaced." in again.text


def test_several_answers_stream_at_once(person, upstream, server):
    upstream.play("gpt-test", Script(chunks=20, delay=0.02))
    people, found = [Person(server.base_url) for _ in range(4)], {}
    threads = [
        threading.Thread(target=lambda n=n, p=p: found.update({n: p.ask("gpt-test", message=f"Question {n}")}))
        for n, p in enumerate(people)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [0, 1, 2, 3]
    assert all(text_of(answer) == "token " * 20 for answer in found.values())
    assert all(f"Question {n}" in answer[0][1]["question"] for n, answer in found.items())


def test_a_model_that_has_gone_is_said_beside_the_picker(person):
    form = person.form("gpt-test", message="Hi") | {"model": "model_gone"}
    response = person.http.post(PLAYGROUND + "send/", data=form, headers={"Accept": "text/event-stream"})
    assert response.status_code == 422
    assert "not available any more" in response.json()["parameters"]
