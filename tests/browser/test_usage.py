"""The usage pages while something happens: news, addresses, the keyboard."""

import re

import httpx
from playwright.sync_api import expect


def ask(site):
    """One request to the provider that stands outside, counted by now."""
    answer = httpx.post(
        f"{site.base_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {site.api_key}"},
        json={"model": "gpt-test", "messages": [{"role": "user", "content": "Hello"}]},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    site.row(answer.headers["x-request-id"])


def chart_title(page):
    return page.locator("#chart-title")


def test_the_figures_renew_themselves_and_leave_the_reader_in_peace(owner_page, site):
    ask(site)
    owner_page.goto("/w/default/usage/?period=today")
    requests = owner_page.locator(".stat__value").nth(1)
    owner_page.get_by_text("The same as a table").click()
    owner_page.locator(".table__link").first.focus()
    owner_page.evaluate("window.canvas = document.querySelector('usage-chart canvas')")
    before = int(requests.inner_text())

    ask(site)

    expect(requests).to_have_text(str(before + 1), timeout=10_000)
    expect(owner_page.locator("#steps")).to_be_visible()
    expect(owner_page.locator(".table__link").first).to_be_focused()
    assert owner_page.evaluate("window.canvas === document.querySelector('usage-chart canvas')")


def test_new_requests_appear_until_they_are_paused(owner_page, site):
    ask(site)
    owner_page.goto("/w/default/requests/")
    newest = owner_page.locator("tbody tr").first
    first = newest.get_attribute("id")

    ask(site)
    expect(newest).not_to_have_id(first, timeout=10_000)

    owner_page.get_by_role("button", name="Live").click()
    second = newest.get_attribute("id")
    ask(site)
    owner_page.wait_for_timeout(4_000)
    expect(newest).to_have_id(second)
    owner_page.get_by_role("button", name="Live").click()
    expect(newest).not_to_have_id(second, timeout=10_000)


def test_the_address_holds_what_is_shown(owner_page, site):
    ask(site)
    owner_page.goto("/w/default/usage/")
    owner_page.locator("#filter_by").focus()
    owner_page.locator("#filter_by").select_option("key")
    expect(chart_title(owner_page)).to_have_text("Cost by day and key")
    expect(owner_page.locator("#filter_by")).to_be_focused()
    owner_page.get_by_role("link", name="Tokens").click()
    expect(chart_title(owner_page)).to_have_text("Tokens by day and key")
    owner_page.get_by_role("link", name="Today").click()
    expect(chart_title(owner_page)).to_have_text("Tokens by hour and key")
    expect(owner_page).to_have_url(re.compile(r"/usage/\?period=today&measure=tokens&by=key$"))

    owner_page.reload()
    expect(chart_title(owner_page)).to_have_text("Tokens by hour and key")
    owner_page.go_back()
    expect(chart_title(owner_page)).to_have_text("Tokens by day and key")
    owner_page.go_back()
    expect(chart_title(owner_page)).to_have_text("Cost by day and key")
    expect(owner_page.locator("#filter_by")).to_have_value("key")
    owner_page.go_forward()
    expect(chart_title(owner_page)).to_have_text("Tokens by day and key")


def test_the_chart_is_read_by_keys(owner_page, site):
    ask(site)
    owner_page.goto("/w/default/usage/?measure=requests")
    plot = owner_page.get_by_role("group", name="Stacked bars")
    tip = plot.locator(".tip")
    expect(plot.locator("canvas")).to_be_visible()

    plot.focus()
    plot.press("End")
    expect(tip).to_contain_text("until")
    expect(tip).to_contain_text("gpt-test")
    expect(tip).to_have_attribute("role", "status")
    plot.press("ArrowLeft")
    expect(tip).not_to_contain_text("until")
    plot.press("Escape")
    expect(tip).to_be_hidden()
