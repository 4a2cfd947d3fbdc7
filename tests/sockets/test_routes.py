"""Routes over real sockets: who answers when one fails, what the row says of it, and who is left in peace."""

import time

import pytest

from tests.api import ANTHROPIC, OPENAI, Api
from tests.server import Server
from tests.upstream import Script

QUICK, PAIRS = 4, 44
# What is asked first speaks OpenAI's dialect, what is asked next Anthropic's, at a third of the price.
MAKE = """
from console.models import Organization
from decimal import Decimal
from providers import routes, services
from providers.discovery import RemoteModel
organization = Organization.objects.get()
def make(kind, name, price, quick):
    provider = services.create_provider(
        organization=organization, kind=kind, name=name, base_url="{url}", credential="sk-upstream", actor=None,
        allow_private=True,
    )
    if quick:
        type(provider).objects.filter(pk=provider.pk).update(first_byte_timeout_s=1)
    model, = services.take_over_models(provider=provider, models=[RemoteModel(name)], actor=None, priced=False)
    services.set_price(model=model, input_per_mtok=Decimal(price), output_per_mtok=Decimal(5 * price), actor=None)
    return model
def route(name, strategy, *targets):
    routes.create_route(organization=organization, name=name, strategy=strategy, targets=targets, actor=None)
for number in range({pairs}):
    first = make("openai", f"first-{{number}}", 3, number < {quick})
    second = make("anthropic", f"second-{{number}}", 1, False)
    route(f"route-{{number}}", "ordered", (first, 1), (second, 1))
    route(f"back-{{number}}", "ordered", (second, 1), (first, 1))
    route(f"split-{{number}}", "weighted", (first, 3), (second, 1))
"""
RENEW = """
from providers import services
from providers.models import Provider
services.set_credential(provider=Provider.objects.get(name="{name}"), credential="sk-mended", actor=None)
"""


class Pair:
    """Two targets that no other test asks, and the routes to them."""

    def __init__(self, number, upstream):
        self.first, self.second = f"first-{number}", f"second-{number}"
        self.route, self.back, self.split = f"route-{number}", f"back-{number}", f"split-{number}"
        self.upstream = upstream

    def asked(self):
        """Which of the two were asked, in turn."""
        return [call.model for call in self.upstream.calls]


def serve_routes(folder, upstream, pairs):
    """A server of its own, as it keeps in mind who failed."""
    server = Server(folder)
    server.start()
    server.manage("shell", "-v", "0", "-c", MAKE.format(url=upstream.url, pairs=pairs, quick=QUICK))
    server.api_key = server.create_api_key("test")
    return server


@pytest.fixture(scope="module")
def routed(running_upstream, tmp_path_factory):
    running_upstream.forget()
    server = serve_routes(tmp_path_factory.mktemp("routed"), running_upstream, PAIRS)
    try:
        # What answers earns what may be tried again.
        api = Api(server, server.api_key, OPENAI)
        for _ in range(250):
            assert api.ask("second-0").status_code == 200
        api.close()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def numbers():
    """Of those that wait two minutes, and of those that wait one second."""
    return iter(range(QUICK, PAIRS)), iter(range(QUICK))


@pytest.fixture
def pair(numbers, upstream):
    return Pair(next(numbers[0]), upstream)


@pytest.fixture
def quick_pair(numbers, upstream):
    return Pair(next(numbers[1]), upstream)


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
def caller(request, routed):
    api = Api(routed, routed.api_key, request.param)
    yield api
    api.close()


@pytest.fixture
def api(routed):
    api = Api(routed, routed.api_key, OPENAI)
    yield api
    api.close()


def provider_of(server, row):
    return server.query("SELECT name FROM providers_provider WHERE id = ?", row["provider_id"])[0]["name"]


def check_answer(api, answer, pair, stream, attempts=2):
    """The answer is the second target's, whole and once, and its row says so."""
    assert answer.status_code == 200, answer.text
    if stream:
        assert api.dialect.streamed_text(answer.content) == "token " * 8
        assert api.dialect.is_ended(answer.content)
        assert answer.content.count(b'"message_start"') <= 1 or api.dialect is OPENAI
    else:
        assert api.dialect.text_of(answer.json()) == "token " * 8
    row = api.row(answer)
    assert (row["outcome"], row["attempts"], row["requested_model"]) == ("completed", attempts, pair.route)
    assert row["upstream_model"] == pair.second
    assert provider_of(api.server, row) == pair.second
    price = api.server.query("SELECT * FROM providers_price WHERE id = ?", row["price_id"])[0]
    assert float(price["input_per_mtok"]) == 1
    assert row["usage_source"] == "reported"
    assert row["cost_nanos"] == row["input_tokens"] * 1000 + row["output_tokens"] * 5000


FAILURES = {
    "401": Script.refuse(401),
    "404": Script.refuse(404),
    "429": Script.refuse(429, headers=[("retry-after", "3000")]),
    "500": Script.refuse(500),
    "503": Script.refuse(503),
    "529": Script.refuse(529),
    "reset": Script(reset="before_headers"),
    "page": Script.html(),
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("failure", FAILURES)
def test_what_one_fails_at_the_next_one_answers(api, pair, upstream, failure, stream):
    upstream.play(pair.first, FAILURES[failure])
    answer = api.ask(pair.route, stream=stream)
    check_answer(api, answer, pair, stream)
    assert pair.asked() == [pair.first, pair.second]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_who_does_not_begin_in_time_is_passed_over_and_not_asked_again(caller, quick_pair, upstream, stream):
    upstream.play(quick_pair.first, Script(silent=True))
    began = time.monotonic()
    check_answer(caller, caller.ask(quick_pair.route, stream=stream), quick_pair, stream)
    assert 1 <= time.monotonic() - began < 5
    assert quick_pair.asked() == [quick_pair.first, quick_pair.second]


@pytest.mark.parametrize("status", [400, 422])
def test_what_the_caller_got_wrong_is_asked_of_nobody_else(caller, pair, upstream, status):
    upstream.play(pair.first, Script.refuse(status, message="The prompt is too long."))
    answer = caller.ask(pair.route)
    assert answer.status_code == status
    assert "The prompt is too long." in answer.text
    assert pair.asked() == [pair.first]


def test_an_error_in_place_of_the_first_word_goes_to_the_next(caller, pair, upstream):
    upstream.play(pair.first, Script(error_after=0))
    check_answer(caller, caller.ask(pair.route, stream=True), pair, True)
    assert pair.asked() == [pair.first, pair.second]


@pytest.mark.parametrize(
    "script", [Script(error_after=3), Script(chunks=20, cut_at=2500), Script(endless=True)], ids=["event", "cut", "end"]
)
def test_after_the_first_word_nobody_else_is_asked_and_nothing_comes_twice(caller, pair, upstream, script):
    upstream.play(pair.first, script)
    with caller.streaming(pair.route) as answer:
        raw = answer.read()
    assert not caller.dialect.is_ended(raw)
    assert 0 < caller.dialect.streamed_text(raw).count("token ") <= upstream.calls[0].sent_chunks
    caller.dialect.error_of(caller.dialect.events_of(raw)[-1])
    assert pair.asked() == [pair.first]
    row = caller.row(answer)
    assert (row["outcome"], row["upstream_model"], row["attempts"]) == ("upstream_error", pair.first, 1)


def test_what_cannot_be_said_to_one_is_said_to_the_next(api, pair):
    answer = api.ask(pair.back, n=2)
    assert answer.status_code == 200, answer.text
    assert pair.asked() == [pair.first]
    row = api.row(answer)
    assert (row["upstream_model"], row["attempts"], row["outcome"]) == (pair.first, 1, "completed")


def test_where_all_fail_the_last_word_is_told_under_the_name_of_who_said_it(api, pair, upstream):
    upstream.play(pair.first, Script.refuse(500))
    upstream.play(pair.second, Script.refuse(529, message="Busy.", headers=[("retry-after", "7")]))
    answer = api.ask(pair.route)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert f"{pair.second}: Busy." in answer.text
    row = api.row(answer)
    assert (row["attempts"], row["upstream_model"], row["cost_nanos"]) == (2, pair.second, 0)


def test_who_keeps_failing_is_left_in_peace(api, pair, upstream):
    upstream.play(pair.first, Script.refuse(500))
    for _ in range(12):
        assert api.ask(pair.route).status_code == 200
    assert pair.asked().count(pair.first) == 3
    assert pair.asked().count(pair.second) == 12


def test_who_asks_to_be_left_alone_is_tried_once_when_the_time_is_over(api, pair, upstream):
    upstream.play(pair.first, Script.refuse(429, headers=[("retry-after", "1")]), Script())
    began = time.monotonic()
    while time.monotonic() - began < 0.8:
        assert api.ask(pair.route).status_code == 200
    assert pair.asked().count(pair.first) == 1
    time.sleep(0.4)
    upstream.requests.clear()
    for _ in range(3):
        assert api.ask(pair.route).status_code == 200
    assert pair.asked() == [pair.first] * 3


def test_who_is_alone_is_waited_for_as_long_as_it_asks(api, pair, upstream):
    upstream.play(pair.first, Script.refuse(503, headers=[("retry-after", "1")]), Script())
    began = time.monotonic()
    answer = api.ask(pair.first)
    assert 1 <= time.monotonic() - began < 4
    assert answer.status_code == 200
    row = api.row(answer)
    assert (row["attempts"], row["upstream_model"]) == (2, pair.first)


def test_a_split_is_what_its_weights_say(api, pair):
    for _ in range(300):
        assert api.ask(pair.split).status_code == 200
    # Three to one: 225 of 300, and five deviations to either side.
    assert 187 <= pair.asked().count(pair.first) <= 263
    assert len(pair.asked()) == 300


def test_a_refused_credential_alerts_until_it_is_taken_again(api, pair, routed, upstream):
    def alerts(count, timeout=10):
        until = time.monotonic() + timeout
        while True:
            rows = routed.query(
                "SELECT alert.* FROM providers_provideralert alert JOIN providers_provider provider"
                " ON provider.id = alert.provider_id WHERE provider.name = ? AND resolved_at IS NULL",
                pair.first,
            )
            if [row["count"] for row in rows] == count or time.monotonic() > until:
                return [(row["kind"], row["count"]) for row in rows]
            time.sleep(0.05)

    upstream.play(pair.first, Script.refuse(401, message="Wrong key sk-upstream."))
    # Asked by its own name, it fails each time; through the route somebody else answers.
    assert api.ask(pair.route).status_code == 200
    for _ in range(2):
        assert api.ask(pair.first).status_code == 502
    assert alerts([3]) == [("credential", 3)]
    message = routed.query("SELECT message FROM providers_provideralert WHERE count = 3")[-1]["message"]
    assert "sk-upstream" not in message
    upstream.play(pair.first, Script())
    until = time.monotonic() + 10
    while alerts([], timeout=0) and time.monotonic() < until:
        assert api.ask(pair.first).status_code == 200
        time.sleep(0.1)
    assert alerts([]) == []


def test_a_provider_with_another_credential_rests_no_longer(api, pair, routed, upstream):
    upstream.play(pair.first, Script.refuse(401, headers=[("retry-after", "3000")]), Script())
    for _ in range(2):
        assert api.ask(pair.route).status_code == 200
    assert pair.asked() == [pair.first, pair.second, pair.second]
    upstream.requests.clear()
    routed.manage("shell", "-v", "0", "-c", RENEW.format(name=pair.first))
    until = time.monotonic() + 10
    while pair.first not in pair.asked() and time.monotonic() < until:
        assert api.ask(pair.route).status_code == 200
    assert pair.asked()[-1] == pair.first
    assert upstream.calls[-1].headers["authorization"] == "Bearer sk-mended"


def test_in_a_total_outage_hardly_more_is_asked_than_there_are_requests(upstream, tmp_path):
    server = serve_routes(tmp_path / "outage", upstream, 1)
    try:
        upstream.default = Script.refuse(503)
        api = Api(server, server.api_key, OPENAI)
        for number in range(200):
            assert api.ask(("route-0", "first-0", "split-0")[number % 3]).status_code == 503
        api.close()
    finally:
        server.stop()
    # Ten are free to begin with, and a tenth of the requests beside them.
    assert 200 <= len(upstream.calls) <= 200 * 1.1 + 10
