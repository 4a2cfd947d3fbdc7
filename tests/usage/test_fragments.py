"""The parts that the home page and the page of keys fetch."""

import re

from django.urls import reverse

from tests.factories import make_api_key, make_request_log, make_workspace
from usage.rollups import rebuild_rollups


def today_url(workspace):
    return reverse("usage:today", args=[workspace.slug])


def spends_url(workspace, *keys):
    return reverse("usage:key_spends", args=[workspace.slug]) + "?" + "&".join(f"key={key.uid}" for key in keys)


def test_home_learns_that_nothing_was_used_yet(alice_client, workspace):
    assert "No requests yet" in alice_client.get(today_url(workspace)).text


def test_home_shows_todays_sums_and_the_latest_five(alice_client, workspace, django_assert_max_num_queries):
    for _ in range(7):
        make_request_log(workspace, cost_nanos=1_000_000_000)
    rebuild_rollups()
    alice_client.get(today_url(workspace))

    with django_assert_max_num_queries(7):
        html = alice_client.get(today_url(workspace)).text

    assert "$7.00" in html
    assert "all completed" in html
    assert html.count('<tr id="req_') == 5


def test_home_asks_for_news(alice_client, workspace):
    make_request_log(workspace)
    rebuild_rollups()
    state = re.search(r'name="live" value="([^"]+)"', alice_client.get(today_url(workspace)).text)[1]

    assert alice_client.get(today_url(workspace) + f"?live={state}").status_code == 204


def test_each_key_that_is_asked_for_gets_its_cell(alice_client, workspace, organization):
    used, unused, other = (make_api_key(workspace) for _ in range(3))
    foreign = make_api_key(make_workspace(organization=organization))
    for key in (used, other):
        make_request_log(workspace, api_key=key, cost_nanos=1_250_000_000)
    make_request_log(workspace, api_key=used, cost_nanos=None)
    rebuild_rollups()

    html = alice_client.get(spends_url(workspace, used, unused, foreign)).text

    assert set(re.findall(r'id="spend-(\w+)"', html)) == {used.uid, unused.uid}
    assert "$1.25" in html
    assert "1 not priced" in html


def test_a_stranger_finds_neither(charlie_client, workspace):
    assert charlie_client.get(today_url(workspace)).status_code == 404
    assert charlie_client.get(spends_url(workspace)).status_code == 404
