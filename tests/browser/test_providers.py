"""Adding a provider, describing its models and pricing them, as a person does."""

import re
from uuid import uuid4

import pytest
from playwright.sync_api import expect

PROVIDERS = "/o/default/providers/"


@pytest.fixture
def name():
    return f"Azure {uuid4().hex[:8]}"


def dialog(page):
    return page.get_by_role("dialog")


def take_over(page, provider, model):
    """On the page of a provider, take over a model by its name and go to the model's page."""
    page.get_by_role("link", name="Take over models").first.click()
    dialog(page).get_by_label("Other names").fill(model)
    dialog(page).get_by_role("button", name="Take over").click()
    page.get_by_role("row").get_by_role("link", name=model).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(model)


def test_a_kind_is_chosen_and_asks_for_what_it_needs(owner_page, name, complaints):
    complaints.allow("422")
    owner_page.goto(PROVIDERS)
    owner_page.get_by_role("link", name="Add provider").first.click()
    dialog(owner_page).get_by_role("link", name=re.compile("Claude on Amazon Bedrock")).click()
    expect(dialog(owner_page).get_by_label("Access key ID")).to_be_visible()
    dialog(owner_page).get_by_label("Bedrock API key", exact=True).first.check()
    expect(dialog(owner_page).get_by_label("Access key ID")).to_be_hidden()

    dialog(owner_page).get_by_role("link", name="Another kind").click()
    dialog(owner_page).get_by_role("link", name=re.compile("Claude on Microsoft Foundry")).click()
    expect(dialog(owner_page).get_by_label("Name")).to_have_value("Claude on Microsoft Foundry")
    dialog(owner_page).get_by_label("Name").fill(name)
    dialog(owner_page).get_by_label("API key of the provider").fill("sk-canary-0123456789")
    dialog(owner_page).get_by_role("button", name="Add and test").click()
    expect(dialog(owner_page)).to_contain_text("This field is required")
    dialog(owner_page).get_by_label("Foundry resource").fill("acme")
    dialog(owner_page).get_by_label("API key of the provider").fill("sk-canary-0123456789")
    dialog(owner_page).get_by_role("button", name="Add and test").click()

    expect(owner_page.get_by_role("heading", level=1)).to_contain_text(name)
    expect(owner_page.get_by_text("https://acme.services.ai.azure.com/anthropic")).to_be_visible()
    expect(owner_page.get_by_text("Nothing was sent.")).to_be_visible()
    assert "canary" not in owner_page.content()

    take_over(owner_page, name, "claude-x1")
    owner_page.get_by_role("link", name="Edit").click()
    dialog(owner_page).get_by_label("Context window").fill("200000")
    dialog(owner_page).get_by_label("Tools").check()
    dialog(owner_page).get_by_role("button", name="Save model").click()
    expect(dialog(owner_page)).to_have_count(0)
    expect(owner_page.locator("#model")).to_contain_text("200,000")

    owner_page.get_by_role("link", name="Set a price").click()
    dialog(owner_page).get_by_label("Input").first.fill("3")
    dialog(owner_page).get_by_label("Output").first.fill("15")
    dialog(owner_page).get_by_text("Tiers").click()
    tier = dialog(owner_page).get_by_role("group", name="Tier 1")
    tier.get_by_label("Above, in tokens of input").fill("200000")
    tier.get_by_label("Input").nth(1).fill("6")
    dialog(owner_page).get_by_role("button", name="Set price").last.click()
    expect(tier).to_contain_text("A tier has a rate for input and for output.")
    tier.get_by_label("Output").first.fill("22.5")
    dialog(owner_page).get_by_role("button", name="Set price").last.click()
    expect(dialog(owner_page)).to_have_count(0)
    expect(owner_page.get_by_role("row", name="Above 200,000 tokens of input")).to_contain_text("$22.50")


def test_a_provider_is_added_without_javascript(open_browser, site):
    page = open_browser(java_script_enabled=False).new_page()
    page.goto(PROVIDERS)
    page.get_by_role("link", name="Add provider").first.click()
    page.get_by_role("link", name=re.compile("^Mistral AI")).click()
    page.get_by_label("Name").fill(f"Mistral {uuid4().hex[:8]}")
    page.get_by_role("button", name="Add and test").click()
    expect(page.get_by_text("https://api.mistral.ai/v1")).to_be_visible()
