"""Limits in Chromium: set with a preview before anything is saved, asked for and granted, from the keyboard."""

import re
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from tests.api import Api
from tests.browser.conftest import wait_for

LIMITS = "/w/default/limits/"


@pytest.fixture
def key(site):
    """The name and the secret of a key of one's own, so that no other test meets its limits."""
    name = f"limited-{uuid4().hex[:8]}"
    yield name, site.create_api_key(name)
    site.manage(
        "shell", "-c", "from usage.models import SpendLimit; SpendLimit.objects.filter(scope='api_key').delete()"
    )


@pytest.fixture
def key_name(key):
    return key[0]


def limit_of(page, name):
    return page.locator(".limit").filter(has_text=name)


def test_a_limit_is_previewed_set_changed_asked_for_and_removed(owner_page, key_name):
    owner_page.goto(LIMITS)
    owner_page.keyboard.press("c")
    dialog = owner_page.get_by_role("dialog")
    effect = dialog.get_by_role("status")
    expect(effect).to_contain_text("Type an amount to see what it would do.")
    dialog.get_by_label("Whose spending").select_option(label=key_name)
    dialog.get_by_label("Amount").fill("0")
    expect(effect).to_contain_text("Requests are refused from now on")
    dialog.get_by_label("Only tell of it (soft)").check()
    expect(effect).to_contain_text("Requests go on.")
    dialog.get_by_label("Amount").fill("12.50")
    expect(effect).to_contain_text("$0.00 of $12.50")
    expect(effect).to_contain_text("there is nothing to compare with")
    expect(limit_of(owner_page, key_name)).to_have_count(0)
    dialog.get_by_label("Refuse requests (hard)").check()
    dialog.get_by_label("Let models without a price pass").check()
    dialog.get_by_label("Amount").press("Enter")
    expect(dialog).to_have_count(0)
    line = limit_of(owner_page, key_name)
    expect(line).to_contain_text("$12.50 left of $12.50")
    expect(line).to_contain_text("Hard")

    line.get_by_role("link", name=re.compile("^Change")).press("Enter")
    expect(effect).to_contain_text("$0.00 of $12.50")
    dialog.get_by_label("Amount").fill("often")
    expect(effect).to_contain_text("Write an amount such as 3.00 or 3,00.")
    dialog.get_by_label("Amount").fill("20")
    expect(effect).to_contain_text("$0.00 of $20.00")
    dialog.get_by_role("button", name="Change limit").click()
    expect(dialog).to_have_count(0)
    expect(line).to_contain_text("$20.00 left of $20.00")

    line.get_by_role("link", name=key_name, exact=True).click()
    expect(owner_page.get_by_role("heading", level=1)).to_have_text(key_name)
    ledger = owner_page.url
    owner_page.goto(ledger + "ask/")
    owner_page.get_by_label("How much more").fill("5")
    owner_page.get_by_label("Why").fill("A test of it.")
    owner_page.get_by_role("button", name="Ask for it").click()
    expect(owner_page.get_by_text("A test of it.")).to_be_visible()
    count = owner_page.locator("#waiting-limits")
    expect(count).to_contain_text("1")
    owner_page.locator(".callout").get_by_role("link", name="Answer").click()
    dialog.get_by_label("How much more").fill("4")
    dialog.get_by_label("Answer").press("Enter")
    expect(dialog).to_have_count(0)
    expect(owner_page.locator(".callout")).to_contain_text("granted $4.00 more")
    expect(count).to_have_text("")
    expect(line).to_contain_text("$24.00 left of $24.00")

    line.get_by_role("link", name=re.compile("^Remove")).click()
    dialog.get_by_role("button", name="Remove limit").click()
    expect(dialog).to_have_count(0)
    expect(line).to_have_count(0)


def test_a_rate_limit_is_set_and_removed(owner_page, key_name, complaints):
    complaints.allow(r"\b422\b")
    owner_page.goto(LIMITS)
    owner_page.locator("#add-rate").press("Enter")
    dialog = owner_page.get_by_role("dialog")
    dialog.get_by_label("Whose requests").select_option(label=key_name)
    dialog.get_by_role("button", name="Set rate limit").click()
    expect(dialog.get_by_role("alert")).to_contain_text("at least one figure")
    dialog.get_by_label("Input tokens a minute").fill("2 000 000")
    dialog.get_by_label("Input tokens a minute").press("Enter")
    expect(dialog).to_have_count(0)
    row = owner_page.get_by_role("row", name=key_name)
    expect(row).to_contain_text("2,000,000")
    row.get_by_role("link", name=re.compile("^Remove")).click()
    dialog.get_by_role("button", name="Remove rate limit").click()
    expect(dialog).to_have_count(0)
    expect(row).to_have_count(0)


def test_a_refusal_leads_from_its_request_to_asking_for_more(owner_page, site, upstream, key):
    name, secret = key
    owner_page.goto(LIMITS + "add/")
    owner_page.get_by_label("Whose spending").select_option(label=name)
    owner_page.get_by_label("Amount").fill("0.000001")
    owner_page.get_by_role("button", name="Set limit").click()
    expect(limit_of(owner_page, name)).to_contain_text("left of")
    api = Api(site, secret)
    wait_for(lambda: api.ask("gpt-test", max_tokens=10).status_code == 429, timeout=20, what="the limit")
    refused = api.ask("gpt-test", max_tokens=10)
    assert refused.json()["error"]["code"] == "insufficient_quota"

    owner_page.goto(f"/w/default/requests/{api.row(refused)['id']}/")
    owner_page.get_by_role("link", name="What limits it").click()
    expect(owner_page.get_by_role("heading", level=1)).to_have_text(name)
    line = limit_of(owner_page, name)
    expect(line).to_contain_text("Binds")
    uid = line.get_attribute("id")
    owner_page.goto(f"/limits/{uid}/")
    expect(owner_page).to_have_url(re.compile(f"#{uid}$"))
    owner_page.goto(f"/w/default/limits/{uid}/ask/")
    owner_page.get_by_label("How much more").fill("1")
    owner_page.get_by_label("Why").fill("A test.")
    owner_page.get_by_role("button", name="Ask for it").click()
    owner_page.locator(".callout").get_by_role("link", name="Answer").click()
    owner_page.get_by_role("dialog").get_by_role("button", name="Approve").last.click()
    expect(line).to_contain_text("$1.00 of it granted until")
    wait_for(lambda: api.ask("gpt-test", max_tokens=10).status_code == 200, timeout=20, what="the grant")
