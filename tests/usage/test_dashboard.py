"""The usage page: what it sums, for whom, and how its address is read."""

import datetime
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from providers.services import remove_model
from tests.factories import make_api_key, make_model, make_provider, make_request_log, make_workspace
from usage import queries
from usage.models import Outcome, Source, UsageSource
from usage.periods import Period, Span
from usage.rollups import rebuild_rollups

HTMX = {"HX-Request": "true"}


def usage_url(workspace, query=""):
    return reverse("usage:dashboard", args=[workspace.slug]) + query


@pytest.fixture
def model(organization):
    return make_model(make_provider(organization, name="Anthropic"), "claude-sonnet-4-5")


def use(workspace, count=1, **fields):
    """Requests and their sums."""
    for _ in range(count):
        make_request_log(workspace, **fields)
    rebuild_rollups()


def cells(html, row):
    """The texts of the breakdown's row that is called ``row``."""
    line = next(line for line in re.findall(r'<tr id="row-.*?</tr>|<tfoot><tr>.*?</tr>', html, re.S) if row in line)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", line, re.S)]


def test_an_unused_workspace_teaches_the_first_call(alice_client, workspace, model):
    html = alice_client.get(usage_url(workspace)).text

    assert "Nothing has been used yet" in html
    assert "curl http://testserver/v1/chat/completions" in html
    assert "claude-sonnet-4-5" in html


def test_the_table_has_every_token_kind_and_the_cost(alice_client, workspace, model):
    use(workspace, 3, provider_model=model, input_tokens=1000, cache_read_tokens=200, cache_write_tokens=30,
        cache_write_1h_tokens=4, output_tokens=5, cost_nanos=1_230_000_000)  # fmt: skip

    html = alice_client.get(usage_url(workspace)).text

    assert cells(html, "claude-sonnet-4-5") == ["$3.69", "100%", "3", "3,000", "600", "102", "15"]
    assert cells(html, "Total") == ["$3.69", "100%", "3", "3,000", "600", "102", "15"]


def test_a_total_below_the_cent_is_written_as_finely_as_its_requests(alice_client, workspace, organization):
    provider, key = make_provider(organization), make_api_key(workspace)
    for name, nanos in (("a", 300_000), ("b", 260_000)):
        make_request_log(workspace, provider_model=make_model(provider, name), api_key=key, cost_nanos=nanos)
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text
    today = alice_client.get(reverse("usage:today", args=[workspace.slug])).text
    spends = alice_client.get(reverse("usage:key_spends", args=[workspace.slug]) + f"?key={key.uid}").text

    assert cells(html, "Total")[0] == "$0.0006"
    assert (cells(html, ">a<")[0], cells(html, ">b<")[0]) == ("$0.0003", "$0.0003")
    assert '<data value="560000">$0.0006</data>' in html
    assert '<data value="560000">$0.0006</data>' in today
    assert '<data value="560000">$0.0006</data>' in spends
    assert "$0.01" not in html + today + spends


def test_the_rounded_rows_add_up_to_the_total(alice_client, workspace, organization):
    provider = make_provider(organization)
    for name in ("one", "two", "three"):
        make_request_log(workspace, provider_model=make_model(provider, name), cost_nanos=1_004_000_000)
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text

    costs = sorted(cells(html, f">{name}</a>")[0] for name in ("one", "two", "three"))
    assert costs == ["$1.00", "$1.00", "$1.01"]
    assert cells(html, "Total")[0] == "$3.01"


def test_what_had_no_price_is_said_and_not_shown_as_nothing(alice_client, workspace, organization):
    provider = make_provider(organization)
    make_request_log(workspace, provider_model=make_model(provider, "priced"), cost_nanos=2_000_000_000)
    make_request_log(workspace, provider_model=make_model(provider, "free-for-all"), cost_nanos=None)
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text

    assert cells(html, "free-for-all")[:2] == ["not priced", "–"]
    assert "1 request not priced" in html


def test_a_refusal_does_not_count_as_without_a_price(alice_client, workspace):
    use(
        workspace,
        outcome=Outcome.REFUSED,
        cost_nanos=None,
        usage_source=UsageSource.NONE,
        input_tokens=None,
        output_tokens=None,
    )

    html = alice_client.get(usage_url(workspace)).text

    assert "not priced" not in html
    assert "1 more refused" in html
    assert "How these tokens are known" not in html


def test_by_key_the_playground_has_a_row_of_its_own(alice_client, workspace, model):
    api_key = make_api_key(workspace, name="nightly")
    make_request_log(workspace, provider_model=model, api_key=api_key)
    make_request_log(workspace, provider_model=model, source=Source.PLAYGROUND)
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace, "?by=key")).text

    assert cells(html, "nightly")[2] == "1"
    assert cells(html, ">Playground</a>")[2] == "1"
    assert "By key" in html


def test_a_removed_model_keeps_its_row_beside_one_that_took_its_name(alice, alice_client, workspace, model):
    use(workspace, 2, provider_model=model, cost_nanos=1_500_000_000)
    remove_model(model=model, actor=alice)
    use(workspace, 1, provider_model=make_model(model.provider, model.name), cost_nanos=1_000_000_000)

    html = alice_client.get(usage_url(workspace)).text

    assert html.count(">claude-sonnet-4-5</a>") == 2
    assert cells(html, "Anthropic, removed")[:3] == ["$3.00", "75.0%", "2"]
    assert cells(html, "Total")[0] == "$4.00"
    removed = html.partition('<optgroup label="Removed">')[2].partition("</optgroup>")[0]
    assert re.findall(r'<option value="(\w+)">', removed) == [model.uid]


def test_an_example_never_names_a_removed_model(alice, alice_client, workspace, model):
    remove_model(model=model, actor=alice)

    assert '"model": "MODEL"' in alice_client.get(usage_url(workspace)).text.replace("&quot;", '"')


def test_filters_narrow_every_figure(alice_client, workspace, organization, model):
    other = make_model(model.provider, "haiku")
    use(workspace, 2, provider_model=model)
    use(workspace, 5, provider_model=other)

    html = alice_client.get(usage_url(workspace, f"?model={other.uid}")).text

    assert cells(html, "Total")[2] == "5"
    assert f'id="row-{model.pk}"' not in html
    assert "Clear filters" in html


def test_a_filter_that_matches_nothing_is_named(alice_client, workspace, model):
    use(workspace, provider_model=model)
    unused = make_api_key(workspace)

    html = alice_client.get(usage_url(workspace, f"?key={unused.uid}")).text

    assert "matches these filters" in html


def test_days_before_the_first_use_say_so(alice_client, workspace, model):
    use(workspace, provider_model=model)

    html = alice_client.get(usage_url(workspace, "?period=custom&from=2024-01-01&to=2024-01-05")).text

    assert "No requests from 1 Jan to 5 Jan 2024" in html


@pytest.mark.parametrize(
    "query",
    [
        "?period=custom&from=2026-02-02&to=2026-01-01",
        "?period=custom",
        "?period=custom&from=2021-01-01&to=2026-01-01",
        "?period=century",
        "?key=apikey_of_someone_else",
        "?measure=beauty",
    ],
)
def test_an_address_that_means_nothing_is_named_and_the_rest_holds(alice_client, workspace, model, query):
    use(workspace, provider_model=model)

    response = alice_client.get(usage_url(workspace, query))

    assert response.status_code == 422
    assert "A part of this address has no meaning" in response.text
    assert cells(response.text, "Total")[2] == "1"


def test_a_key_of_another_workspace_is_no_filter(alice_client, workspace, organization):
    foreign = make_api_key(make_workspace(organization=organization), name="foreign")

    response = alice_client.get(usage_url(workspace, f"?key={foreign.uid}"))

    assert response.status_code == 422
    assert "foreign" not in response.text.replace(foreign.uid, "")


def test_another_workspaces_use_is_not_counted(alice_client, workspace, organization, model):
    use(workspace, provider_model=model)
    use(make_workspace(organization=organization), 7, provider_model=model)

    assert cells(alice_client.get(usage_url(workspace)).text, "Total")[2] == "1"


def test_a_stranger_finds_nothing(charlie_client, workspace):
    assert charlie_client.get(usage_url(workspace)).status_code == 404


def test_htmx_gets_the_part_and_the_address_without_what_is_empty(alice_client, workspace, model):
    use(workspace, provider_model=model)

    response = alice_client.get(
        usage_url(workspace, "?period=7d&measure=tokens&key=&model=&source=&by=model"), headers=HTMX
    )

    assert "<h1>" not in response.text
    assert '<form class="toolbar"' in response.text
    assert response["HX-Push-Url"] == usage_url(workspace, "?measure=tokens")
    assert "HX-Request" in response["Vary"]


def test_news_are_sent_only_where_there_are_any(alice_client, workspace, model):
    use(workspace, provider_model=model)
    page = alice_client.get(usage_url(workspace))
    state = re.search(r'name="live" value="([^"]+)"', page.text)[1]

    same = alice_client.get(usage_url(workspace, f"?live={state}"), headers=HTMX)
    # A minute may have ended between both.
    assert same.status_code == 204 or f":{timezone.now():%M}" not in page.text
    use(workspace, provider_model=model)
    news = alice_client.get(usage_url(workspace, f"?live={state}"), headers=HTMX)

    assert news.status_code == 200
    assert cells(news.text, "Total")[2] == "2"
    assert '<form class="toolbar"' not in news.text


@pytest.mark.parametrize("query", ["", "?by=key", "?period=today", "?period=month&measure=tokens&by=key"])
def test_the_page_takes_a_fixed_number_of_queries(
    alice_client, workspace, organization, django_assert_max_num_queries, query
):
    for _ in range(4):
        model, key = make_model(make_provider(organization)), make_api_key(workspace)
        make_request_log(workspace, provider_model=model, api_key=key)
        make_request_log(workspace, provider_model=model, started_at=timezone.now() - datetime.timedelta(days=2))
    rebuild_rollups()
    alice_client.get(usage_url(workspace))

    with django_assert_max_num_queries(13):
        alice_client.get(usage_url(workspace, query))


def test_the_charts_table_says_what_the_breakdown_says(alice_client, workspace, model):
    now = timezone.now()
    for days in (0, 1, 2):
        make_request_log(
            workspace, provider_model=model, started_at=now - datetime.timedelta(days=days), cost_nanos=10**9
        )
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text

    values = re.findall(r'<td class="number"><data value="(\d+)">', html.split('id="steps"')[1].split("</table>")[0])
    assert sum(map(int, values)) == 3 * 10**9
    assert len(values) == 7


def test_more_than_nine_series_end_in_others(alice_client, workspace, organization):
    provider = make_provider(organization)
    for number in range(12):
        make_request_log(
            workspace, provider_model=make_model(provider, f"model-{number}"), cost_nanos=10**9 * (number + 1)
        )
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text
    head = html.split('id="steps"')[1].split("</thead>")[0]

    assert sorted(re.findall(r'data-series="(\d+)"', head), key=int) == [str(number) for number in range(1, 11)]
    assert "3 others" in head


def test_models_of_one_colour_are_told_apart_and_the_elder_keeps_it(alice_client, workspace, organization):
    provider = make_provider(organization)
    for number, (name, series) in enumerate([("eldest", 2), ("younger", 2), ("youngest", 1)]):
        model = make_model(provider, name, series=series)
        make_request_log(workspace, provider_model=model, cost_nanos=10**9 * (number + 1))
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace)).text

    series = dict(re.findall(r'data-series="(\d+)">(\w+)', html))
    assert {name: number for number, name in series.items()} == {"eldest": "2", "younger": "3", "youngest": "1"}


def test_what_alone_has_no_colour_of_its_own_keeps_its_name(alice_client, workspace, model):
    make_request_log(workspace, provider_model=model)
    make_request_log(workspace, outcome=Outcome.REFUSED, cost_nanos=0)
    rebuild_rollups()

    html = alice_client.get(usage_url(workspace, "?measure=requests")).text

    assert ">No model</th>" in html
    assert "others" not in html.split('id="steps"')[1].split("</thead>")[0]


def test_today_in_a_half_hour_zone_loses_nothing_to_the_hour_that_midnight_cuts(workspace, organization, model):
    organization.time_zone = "Asia/Kolkata"
    organization.save()
    workspace.organization.refresh_from_db()
    now = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)
    midnight = datetime.datetime(2026, 11, 20, 18, 30, tzinfo=datetime.UTC)
    for minutes in (-10, 10, 45, 300):
        make_request_log(workspace, provider_model=model, started_at=midnight + datetime.timedelta(minutes=minutes))
    rebuild_rollups()
    period = Period.of(Span.TODAY, "Asia/Kolkata", now=now)

    sums = queries.series_sums(workspace, period, "model", [model.pk])
    others = queries.series_sums(workspace, period, "model", [])
    day = queries.total_of(queries.rollups(workspace, period))

    assert day.requests == 3
    assert sums[midnight, model.pk].requests == others[midnight, queries.OTHER].requests == 1
    assert sum(hour.requests for hour in sums.values()) == 3


def test_the_days_of_summer_time_hold_what_was_used_in_them(workspace, organization, model):
    organization.time_zone = "Europe/Paris"
    organization.save()
    for text in ("2026-10-24T21:59:59", "2026-10-24T22:00:00", "2026-10-25T22:59:59", "2026-10-25T23:00:00"):
        make_request_log(workspace, provider_model=model, started_at=datetime.datetime.fromisoformat(text + "+00:00"))
    rebuild_rollups()
    day = datetime.date(2026, 10, 25)
    period = Period.of(Span.CUSTOM, "Europe/Paris", first=day, last=day)

    assert queries.total_of(queries.rollups(workspace, period)).requests == 2
    assert sum(sums.requests for sums in queries.series_sums(workspace, period, "model", [model.pk]).values()) == 2


@pytest.mark.parametrize(
    "days", [("9999-12-30", "9999-12-31"), ("0001-01-01", "0001-01-02"), ("2019-12-31", "2020-01-02")]
)
def test_days_at_the_ends_of_the_calendar_are_named_and_left_out(alice_client, workspace, days):
    address = f"/w/{workspace.slug}/usage/?period=custom&from={days[0]}&to={days[1]}"
    assert alice_client.get(address).status_code == 422
