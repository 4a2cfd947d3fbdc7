"""What a new user does first, in the browser and with a program, against the real language model."""

import re

import openai
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import MODEL, sign_in, wait_for


@pytest.mark.model
def test_sign_in_make_a_key_call_with_it_try_a_prompt_and_see_both_counted(page, site):
    sign_in(page)

    page.get_by_role("link", name="API keys").first.click()
    page.get_by_role("link", name="Create key").first.click()
    page.get_by_role("dialog").get_by_label("Name").fill("Colour namer")
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    secret = page.locator(".secret output").inner_text()
    assert re.fullmatch(r"sk-comptoir-\w{40}", secret)
    page.get_by_role("button", name="I have stored it safely").click()
    expect(page.get_by_role("row", name=re.compile("Colour namer"))).to_be_visible()
    expect(page.get_by_text(secret)).to_have_count(0)

    with openai.OpenAI(base_url=f"{site.base_url}/v1", api_key=secret) as client:
        question = [{"role": "user", "content": "Say hello."}]
        answer = client.chat.completions.create(model=MODEL, messages=question, max_tokens=16)
    assert answer.choices[0].message.content.strip()
    assert answer.usage.completion_tokens > 0

    page.get_by_role("link", name="Playground").first.click()
    page.get_by_role("textbox", name="Max output tokens").fill("24")
    page.get_by_label("Message", exact=True).fill("Name three colours.")
    page.get_by_role("button", name="Send").click()
    writing = page.locator("[data-writing] .prose__plain")
    first = wait_for(lambda: writing.count() and writing.inner_text().strip(), timeout=15, what="a first word")
    expect(page.locator(".message__body.prose")).to_be_visible(timeout=60_000)
    assert first
    assert page.locator(".message__body.prose").inner_text().strip()
    expect(page.get_by_text("First token")).to_be_visible()

    for source in ("api", "playground"):
        assert site.rows(at_least=1, requested_model=MODEL, source=source)
    page.get_by_role("link", name="Requests").first.click()
    table = page.get_by_role("table")
    # It stands in a column of its own, or where that does not fit beneath the model.
    expect(table.get_by_text("Colour namer").filter(visible=True).first).to_be_visible()
    expect(table.get_by_text(MODEL).first).to_be_visible()
    page.get_by_role("link", name="Usage", exact=True).first.click()
    expect(page.get_by_role("row", name=re.compile(MODEL)).first).to_be_visible()
    counters = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
    tokens = sum(row[counter] or 0 for row in site.rows() for counter in counters)
    shown = page.locator("data[value]").evaluate_all("elements => elements.map(element => element.value)")
    assert str(tokens) in shown


@pytest.mark.model
def test_stopping_an_answer_keeps_and_counts_what_was_written(owner_page, site):
    cancelled = {"source": "playground", "outcome": "client_cancelled"}
    before = len(site.rows(**cancelled))
    owner_page.goto("/w/default/playground/")
    owner_page.get_by_label("Message", exact=True).fill("Tell me a very long story about the sea.")
    owner_page.get_by_role("button", name="Send").click()
    writing = owner_page.locator("[data-writing] .prose__plain")
    wait_for(lambda: writing.count() and len(writing.inner_text()) > 20, timeout=30, what="some words")
    owner_page.get_by_role("button", name="Stop").click()
    expect(owner_page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=15_000)
    (row,) = wait_for(lambda: site.rows(**cancelled)[before:], what="its row")
    assert row["output_tokens"] > 0


def test_a_wrong_password_says_so_and_a_stranger_sees_no_page(page, complaints):
    complaints.allow("422")
    page.goto("/w/default/keys/")
    assert "/signin/" in page.url
    page.locator("input[name=email]").fill("nobody@example.org")
    page.locator("input[name=password]").fill("not the password")
    page.locator("form.fields button[type=submit]").click()
    expect(page.get_by_role("alert")).to_be_visible()


def test_the_pages_work_without_scripts(open_browser, site):
    page = open_browser(java_script_enabled=False).new_page()
    page.goto("/w/default/keys/create/")
    page.get_by_label("Name").fill("Made without scripts")
    page.get_by_role("button", name="Create key").click()
    expect(page.locator(".secret output")).to_contain_text("sk-comptoir-")
    page.goto("/w/default/keys/")
    expect(page.get_by_text("Made without scripts").first).to_be_visible()
