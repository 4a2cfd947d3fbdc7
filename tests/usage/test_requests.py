"""The list of requests and the page of one."""

import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone, translation

from providers.services import delete_provider
from tests.factories import (
    make_api_key,
    make_model,
    make_organization,
    make_price,
    make_provider,
    make_request_log,
    make_workspace,
)
from usage.costs import cost_of, rates_of
from usage.models import Outcome, Source, StoredResponse, UsageSource
from usage.templatetags.usage import span
from usage.views.requests import PAGE_SIZE

HTMX = {"HX-Request": "true"}


def list_url(workspace, query=""):
    return reverse("usage:request_list", args=[workspace.slug]) + query


def detail_url(log):
    return reverse("usage:request_detail", args=[log.workspace.slug, log.pk])


def ids(html):
    return re.findall(r'<tr id="(req_\w+)"', html)


def words(html):
    """The text of a page's main part, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split('id="main"')[-1]))


def make_many(workspace, count, **fields):
    now = timezone.now()
    return [
        make_request_log(workspace, started_at=now - datetime.timedelta(seconds=count - number), **fields)
        for number in range(count)
    ]


def test_the_newest_request_stands_first(alice_client, workspace):
    first, second = make_many(workspace, 2)

    assert ids(alice_client.get(list_url(workspace)).text) == [second.pk, first.pk]


def test_an_unused_workspace_teaches_the_first_call(alice_client, workspace):
    assert "curl http://testserver/v1/chat/completions" in alice_client.get(list_url(workspace)).text


def test_a_filter_by_a_name_says_what_to_do_and_that_it_filters_nothing(alice_client, workspace, organization):
    model = make_model(make_provider(organization), "m-50-20")
    log = make_request_log(workspace, provider_model=model)

    response = alice_client.get(list_url(workspace, "?model=m-50-20"))

    assert response.status_code == 422
    assert "Model: nothing here has the id “m-50-20”; choose from the list. Until then all are shown." in words(
        response.text
    )
    assert ids(response.text) == [log.pk]


def test_a_page_ends_after_fifty_and_the_next_begins_there(alice_client, workspace):
    logs = make_many(workspace, PAGE_SIZE + 3)

    first = alice_client.get(list_url(workspace)).text
    older = re.search(r'href="([^"]+before=[^"]+)"', first)[1]
    second = alice_client.get(older).text

    assert len(ids(first)) == PAGE_SIZE
    assert ids(second) == [log.pk for log in reversed(logs[:3])]
    assert "Newest" in second


@pytest.mark.parametrize(
    ("query", "expected"), [("outcome=timeout", 1), ("source=playground", 2), ("outcome=refused", 0), ("", 4)]
)
def test_filters_stand_in_the_address(alice_client, workspace, query, expected):
    make_many(workspace, 1)
    make_many(workspace, 1, outcome=Outcome.TIMEOUT)
    make_many(workspace, 2, source=Source.PLAYGROUND)

    html = alice_client.get(list_url(workspace, f"?{query}")).text

    assert len(ids(html)) == expected
    assert ("No request matches these filters" in html) == (expected == 0)


@pytest.fixture
def spoken(workspace):
    """A request of each kind: its endpoint, its dialect and what a row says of both."""
    kinds = {
        ("chat_completions", "openai"): "chat/completions",
        ("chat_completions", "ikalas"): "chat/completions, Ikalas",
        ("messages", "anthropic"): "messages",
        ("embeddings", "cloud-temple"): "embeddings, Cloud Temple",
    }
    made = {make_many(workspace, 1, endpoint=kind[0], dialect=kind[1])[0].pk: kind for kind in kinds}
    return {pk: (*kind, kinds[kind]) for pk, kind in made.items()}


def test_a_row_says_quietly_which_endpoint_was_called_and_in_whose_dialect(alice_client, workspace, spoken):
    rows = re.findall(r'<tr id="(req_\w+)".*?requests__api">([^<]*)<', alice_client.get(list_url(workspace)).text)

    assert dict(rows) == {pk: said for pk, (_endpoint, _dialect, said) in spoken.items()}


@pytest.mark.parametrize(
    ("api", "field"), [("chat_completions", 0), ("messages", 0), ("moderations", 0), ("ikalas", 1), ("openai", 1)]
)
def test_an_endpoint_or_a_dialect_narrows_the_list(alice_client, workspace, spoken, api, field):
    html = alice_client.get(list_url(workspace, f"?api={api}")).text

    assert set(ids(html)) == {pk for pk, kind in spoken.items() if kind[field] == api}
    assert f'<option value="{api}" selected>' in html


def test_an_endpoint_that_nobody_knows_narrows_nothing(alice_client, workspace, spoken):
    response = alice_client.get(list_url(workspace, "?api=telepathy"))

    assert response.status_code == 422
    assert len(ids(response.text)) == len(spoken)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.REFUSED])
def test_a_request_says_until_when_its_response_is_stored(alice_client, workspace, outcome):
    [log] = make_many(workspace, 1, endpoint="responses", outcome=outcome)
    assert "Not stored" in words(alice_client.get(detail_url(log)).text)
    response = StoredResponse.objects.create(
        id=log.pk.replace("req_", "resp_"), workspace=workspace, thread="resp_1", shows_reasoning=False, input=b"",
        output=b"", response=b"", created_at=timezone.now(),
        expires_at=datetime.datetime(2099, 3, 4, 12, tzinfo=datetime.UTC),
    )  # fmt: skip

    assert "Stored until 4 Mar 2099" in words(alice_client.get(detail_url(log)).text)
    response.expires_at = timezone.now() - datetime.timedelta(seconds=1)
    response.save()
    assert "Not stored" in words(alice_client.get(detail_url(log)).text)


def test_key_and_model_narrow_the_list(alice_client, workspace, organization):
    api_key, model = make_api_key(workspace), make_model(make_provider(organization))
    [wanted] = make_many(workspace, 1, api_key=api_key, provider_model=model)
    make_many(workspace, 1, api_key=api_key)
    make_many(workspace, 1, provider_model=model)

    assert ids(alice_client.get(list_url(workspace, f"?key={api_key.uid}&model={model.uid}")).text) == [wanted.pk]


def test_a_key_that_is_gone_leaves_its_requests_readable(alice_client, workspace):
    api_key = make_api_key(workspace)
    [log] = make_many(workspace, 1, api_key=api_key)
    api_key.delete()

    assert "Deleted key" in alice_client.get(list_url(workspace)).text
    assert "Deleted key" in alice_client.get(detail_url(log)).text


def test_news_are_sent_only_where_there_are_any(alice_client, workspace):
    make_many(workspace, 2)
    state = re.search(r'name="live" value="([^"]+)"', alice_client.get(list_url(workspace)).text)[1]

    assert alice_client.get(list_url(workspace, f"?live={state}"), headers=HTMX).status_code == 204
    late = make_request_log(workspace)
    news = alice_client.get(list_url(workspace, f"?live={state}"), headers=HTMX)

    assert ids(news.text)[0] == late.pk
    assert news.text.count('class="is-new"') == 1
    assert "<form" not in news.text


def test_a_request_that_began_earlier_and_ended_later_is_news_too(alice_client, workspace):
    make_many(workspace, 2)
    state = re.search(r'name="live" value="([^"]+)"', alice_client.get(list_url(workspace)).text)[1]

    slow = make_request_log(workspace, started_at=timezone.now() - datetime.timedelta(minutes=5))

    assert slow.pk in ids(alice_client.get(list_url(workspace, f"?live={state}"), headers=HTMX).text)


def test_htmx_gets_the_part_alone(alice_client, workspace):
    response = alice_client.get(list_url(workspace, "?outcome=&source=playground"), headers=HTMX)

    assert "<h1>" not in response.text
    assert response["HX-Push-Url"] == list_url(workspace, "?source=playground")


def test_a_full_page_travels_compressed(alice_client, workspace):
    make_many(workspace, PAGE_SIZE)

    response = alice_client.get(list_url(workspace), headers={"Accept-Encoding": "gzip"})

    assert response["Content-Encoding"] == "gzip"
    assert len(response.content) < 12_000
    assert {"Accept-Encoding", "HX-Request"} <= set(response["Vary"].split(", "))


def test_the_list_takes_a_fixed_number_of_queries(alice_client, workspace, organization, django_assert_max_num_queries):
    for _ in range(5):
        make_many(workspace, 3, api_key=make_api_key(workspace), provider_model=make_model(make_provider(organization)))
    alice_client.get(list_url(workspace))

    with django_assert_max_num_queries(9):
        alice_client.get(list_url(workspace))


def test_a_stranger_finds_neither_list_nor_request(charlie_client, workspace):
    [log] = make_many(workspace, 1)

    assert charlie_client.get(list_url(workspace)).status_code == 404
    assert charlie_client.get(detail_url(log)).status_code == 404


def test_another_workspaces_request_is_not_found_here(alice_client, workspace, organization):
    log = make_request_log(make_workspace(organization=organization))

    assert alice_client.get(reverse("usage:request_detail", args=[workspace.slug, log.pk])).status_code == 404
    assert alice_client.get(detail_url(log)).status_code == 200


def priced(workspace, organization, price_fields=None, **fields):
    model = make_model(make_provider(organization, name="Anthropic"), "claude-sonnet-4-5")
    price = make_price(model, **(price_fields or {}))
    price.refresh_from_db()
    log = make_request_log(workspace, provider_model=model, price=price, **fields)
    log.cost_nanos = cost_of(log, rates_of(price))
    log.save()
    return log


def test_the_cost_is_explained_term_by_term(alice_client, workspace, organization):
    log = priced(
        workspace, organization, {"cache_read_per_mtok": "0.30", "cache_write_per_mtok": "3.75"},
        input_tokens=1284, cache_read_tokens=14208, cache_write_tokens=2048, output_tokens=812, reasoning_tokens=356,
    )  # fmt: skip

    text = words(alice_client.get(detail_url(log)).text).replace("\N{NARROW NO-BREAK SPACE}", " ")

    assert "Input, not cached 1,284 × 3.00 0.003 852 000" in text
    assert "Cache read 14,208 × 0.30 0.004 262 400" in text
    assert "Cache write 2,048 × 3.75 0.007 680 000" in text
    assert "Output 812 × 15.00 0.012 180 000" in text
    assert "of which reasoning 356 part of output, not added" in text
    assert "Sum 18,352 0.027 974 400" in text
    assert "$0.02 7 974 400" in text
    assert "do not come to what was charged" not in text


def test_a_cache_rate_that_is_not_set_is_said_to_be_the_inputs(alice_client, workspace, organization):
    log = priced(workspace, organization, cache_read_tokens=10, cache_write_1h_tokens=5)

    text = words(alice_client.get(detail_url(log)).text)

    assert "Cache read no price of its own: charged as input 10 × 3.00" in text
    assert "Cache write, 1 hour no price of its own: charged as input 5 × 3.00" in text


def test_a_request_of_a_deleted_provider_keeps_its_names_and_its_explained_cost(
    alice, alice_client, workspace, organization
):
    log = priced(workspace, organization)
    delete_provider(provider=log.provider, actor=alice)

    listed = alice_client.get(list_url(workspace, f"?model={log.provider_model.uid}"))
    text = words(alice_client.get(detail_url(log)).text)

    assert ids(listed.text) == [log.pk]
    assert '<optgroup label="Removed">' in listed.text
    assert "Price of claude-sonnet-4-5 at Anthropic, valid from" in text
    assert "Input, not cached 100 × 3.00" in text
    assert "Provider Anthropic, removed, first try" in text


def test_terms_below_a_nano_are_written_out(alice_client, workspace, organization):
    log = priced(workspace, organization, {"input": "0.020001"}, input_tokens=3, output_tokens=0)

    text = words(alice_client.get(detail_url(log)).text).replace("\N{NARROW NO-BREAK SPACE}", " ")

    assert "3 × 0.020001 0.000 000 060 003" in text


def test_a_cost_that_its_terms_do_not_come_to_is_said(alice_client, workspace, organization):
    log = priced(workspace, organization)
    log.cost_nanos += 1
    log.save()

    assert "do not come to what was charged" in alice_client.get(detail_url(log)).text


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"cost_nanos": None}, "The model had no price when the request was made"),
        ({"cost_nanos": 0, "outcome": Outcome.REFUSED, "attempts": 0}, "refused before it reached a provider"),
        ({"cost_nanos": 5, "price_id": 999_999}, "has been deleted"),
    ],
)
def test_a_cost_without_terms_says_why(alice_client, workspace, fields, sentence):
    [log] = make_many(workspace, 1, **fields)

    assert sentence in words(alice_client.get(detail_url(log)).text)


def test_a_count_that_is_unknown_is_not_charged_and_that_is_said(alice_client, workspace, organization):
    log = priced(workspace, organization, output_tokens=None, usage_source=UsageSource.ESTIMATED)

    text = words(alice_client.get(detail_url(log)).text)

    assert "Output unknown, not charged" in text
    assert "The tokens are an estimate" in text


def test_a_request_past_a_tier_shows_the_rates_of_that_tier(alice_client, workspace, organization):
    model = make_model(make_provider(organization))
    price = make_price(model, tiers=[{"above": 200_000, "input": "6", "output": "22.5"}])
    log = make_request_log(workspace, provider_model=model, price=price, input_tokens=200_001, cache_read_tokens=10)
    log.cost_nanos = cost_of(log, rates_of(price))
    log.save()

    text = words(alice_client.get(detail_url(log)).text)

    assert "It had more than 200,000 tokens of input" in text
    assert "× 6.00" in text
    assert "no price of its own: charged as input" in text
    assert "do not come to" not in text


NOTHING = dict.fromkeys(
    ["input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens"]
) | {"usage_source": UsageSource.NONE}


def test_a_provider_that_gave_nothing_costs_nothing(alice_client, workspace, organization):
    log = priced(workspace, organization, outcome=Outcome.UPSTREAM_ERROR, **NOTHING)

    text = words(alice_client.get(detail_url(log)).text)

    assert "Nothing came back from the provider" in text
    assert "Cost $0.00 nothing was used" in text


def test_what_was_not_measured_is_a_dash(alice_client, workspace):
    [log] = make_many(workspace, 1, overhead_us=None, time_to_first_token_ms=None, attempts=0, stop_reason=None)

    text = words(alice_client.get(detail_url(log)).text)

    assert "Only the whole was measured." in text
    assert "First token –" in text
    assert "Stop reason –" in text


def test_an_error_stands_above_the_figures(alice_client, workspace):
    [log] = make_many(workspace, 1, outcome=Outcome.UPSTREAM_ERROR, status=502, error_message="<b>Overloaded</b>")

    html = alice_client.get(detail_url(log)).text

    assert "&lt;b&gt;Overloaded&lt;/b&gt;" in html
    assert "Provider failed" in html


def test_times_are_those_of_the_organization(alice_client, workspace, organization):
    organization.time_zone = "Asia/Kolkata"
    organization.save()
    log = make_request_log(workspace, started_at=datetime.datetime(2026, 11, 20, 20, 0, 7, tzinfo=datetime.UTC))

    assert "21 Nov 2026, 01:30:07" in words(alice_client.get(detail_url(log)).text)


def test_the_detail_page_takes_a_fixed_number_of_queries(
    alice_client, workspace, organization, django_assert_max_num_queries
):
    log = priced(workspace, organization, api_key=make_api_key(workspace))
    alice_client.get(detail_url(log))

    with django_assert_max_num_queries(7):
        alice_client.get(detail_url(log))


def test_the_person_of_another_organization_sees_nothing_of_it(charlie_client, alice_client, workspace):
    elsewhere = make_workspace(organization=make_organization())
    log = make_request_log(elsewhere)

    assert alice_client.get(detail_url(log)).status_code == 404


@pytest.mark.parametrize(
    ("language", "texts"), [("en", ("1,038 ms", "12,345 ms", "0.7 ms")), ("es", ("1038 ms", "12.345 ms", "0,7 ms"))]
)
def test_the_parts_of_a_requests_time_are_grouped_as_the_reader_does(language, texts):
    with translation.override(language):
        written = tuple(
            span(milliseconds).replace("\N{NARROW NO-BREAK SPACE}", " ") for milliseconds in (1038, 12345, 0.7)
        )
    assert written == texts
