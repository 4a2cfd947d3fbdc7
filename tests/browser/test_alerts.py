"""Webhooks and the check of the books in Chromium."""

import re
from uuid import uuid4

from playwright.sync_api import expect

WEBHOOKS = "/o/default/webhooks/"


def test_a_webhook_is_added_tested_disabled_and_deleted(owner_page):
    address = f"https://hooks.invalid/{uuid4().hex[:8]}"
    owner_page.goto(WEBHOOKS)
    owner_page.locator("[data-create]").press("Enter")
    dialog = owner_page.get_by_role("dialog")
    dialog.get_by_label("Address").fill(address)
    dialog.get_by_label("Address").press("Enter")
    secret = dialog.locator(".secret output")
    expect(secret).to_contain_text("whsec_")
    dialog.get_by_role("button", name="I have stored it safely").click()
    expect(dialog).to_have_count(0)
    owner_page.get_by_role("link", name=address).click()
    expect(owner_page.get_by_text("No messages yet")).to_be_visible()
    owner_page.get_by_role("button", name="Send a test").click()
    expect(owner_page.get_by_text("The address could not be reached.")).to_be_visible()
    expect(owner_page.get_by_role("row", name="webhook.test")).to_contain_text("Did not arrive")
    owner_page.get_by_role("button", name="More actions").click()
    owner_page.get_by_role("button", name="Disable").click()
    expect(owner_page.get_by_role("heading", level=1)).to_contain_text("Disabled")
    owner_page.get_by_role("button", name="More actions").click()
    owner_page.get_by_role("link", name="Delete").click()
    owner_page.get_by_role("button", name="Delete webhook").click()
    expect(owner_page).to_have_url(re.compile(f"{WEBHOOKS}$"))
    expect(owner_page.get_by_role("link", name=address)).to_have_count(0)


def test_the_books_are_checked_while_the_page_is_open(owner_page):
    owner_page.goto("/o/default/operations/")
    expect(owner_page.get_by_text("answers this page")).to_be_visible()
    owner_page.get_by_role("button", name="Check the books").click()
    expect(owner_page.get_by_text("All accounts agree, to the last nano.")).to_be_visible(timeout=15_000)
    expect(owner_page.get_by_role("button", name="Check the books")).to_be_enabled()
