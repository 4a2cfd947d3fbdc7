"""What the playground does by itself: keys, streams, focus, panes; and that a hostile answer stays words."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import axe_violations, settled, wait_for
from tests.upstream import Script

PLAYGROUND = "/w/default/playground/"
MARKDOWN = (
    "Here is **a plan**:\n\n1. One\n2. Two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n",
    "```python\nprint('a line that is far too long for the column of a conversation, whatever the screen')\n```",
    "\n\nSee [this](https://example.org/).",
)
HOSTILE = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> <svg onload=alert(3)>\n\n",
    "![p](https://canary.invalid/p.png) [x](javascript:alert(4))\n\n",
    '<iframe srcdoc="<script>alert(5)</script>"></iframe> <a href="javascript:alert(6)">y</a>',
)


@pytest.fixture
def page(owner_page, site, upstream):
    """The playground with a model that answers as the test tells it."""
    upstream.play("gpt-test", Script(text=("Hello ", "there.")))
    open_playground(owner_page)
    return owner_page


def open_playground(page):
    page.goto(PLAYGROUND)
    settled(page)
    if page.viewport_size["width"] < 600:
        page.get_by_role("link", name="Parameters").click()
    page.get_by_label("Model", exact=True).select_option(label="gpt-test")
    expect(page.locator("#pane-parameters")).to_contain_text("out per million")
    if page.viewport_size["width"] < 600:
        page.get_by_role("link", name="Chat").click()


def prompt(page):
    return page.get_by_label("Message", exact=True)


def ask(page, text):
    prompt(page).fill(text)
    prompt(page).press("Control+Enter")


def answers(page):
    return page.locator("[data-log] .message__body.prose")


def test_control_enter_sends_and_the_address_is_the_conversations(page):
    ask(page, "Hi")
    expect(answers(page)).to_have_text("Hello there.")
    expect(page).to_have_url(re.compile(r"/playground/conv_\w+/$"))
    expect(prompt(page)).to_be_focused()
    expect(prompt(page)).to_have_value("")
    expect(page.locator("#pane-facts")).to_contain_text("First token")
    expect(page.locator("[data-status]")).to_contain_text("Hello there.")
    page.reload()
    expect(answers(page)).to_have_text("Hello there.")
    page.get_by_role("link", name="New").click()
    page.go_back()
    expect(answers(page)).to_have_text("Hello there.")


def test_a_reload_in_mid_answer_shows_what_had_been_written_without_another(page, upstream):
    upstream.play("gpt-test", Script(chunks=300, delay=0.05))
    ask(page, "Long")
    expect(page.locator("[data-chunks]")).to_contain_text("tokens so far")
    page.reload()
    expect(page.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(answers(page)).to_have_count(1)
    expect(page.get_by_role("button", name="Ask again")).to_have_count(1)


def test_escape_stops_and_the_figures_follow(page, upstream):
    upstream.play("gpt-test", Script(chunks=300, delay=0.05))
    ask(page, "Long")
    expect(page.locator("[data-chunks]")).to_contain_text("tokens so far")
    expect(page.locator("#pane-facts")).to_contain_text("Estimated")
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped.", exact=True)).to_be_visible()
    expect(page.locator(".message__foot")).to_contain_text("Counted")
    wait_for(lambda: upstream.requests[-1].left_after is not None, what="the provider to be left")
    expect(prompt(page)).to_be_focused()


def test_a_question_is_changed_and_its_answer_comes_back(page, upstream):
    upstream.play("gpt-test", Script(text=("First.",)), Script(text=("Second.",)))
    ask(page, "One")
    expect(answers(page)).to_have_text("First.")
    page.locator(".message--user").get_by_label("Edit message").click()
    area = page.locator(".edit textarea")
    expect(area).to_be_focused()
    area.press("Escape")
    expect(page.locator(".message--user")).to_contain_text("One")
    page.locator(".message--user").get_by_label("Edit message").click()
    area.fill("Two")
    area.press("Control+Enter")
    expect(answers(page)).to_have_text("Second.")
    expect(page.locator(".message--user")).to_have_count(1)
    page.get_by_role("button", name="Bring them back").click()
    expect(answers(page)).to_have_text("First.")
    expect(page.locator(".message--user")).to_contain_text("One")


def test_an_answer_is_asked_for_again_and_changed(page, upstream):
    upstream.play("gpt-test", Script(text=("First.",)), Script(text=("Second.",)))
    ask(page, "One")
    page.get_by_role("button", name="Ask again").click()
    expect(answers(page)).to_have_text("Second.")
    page.locator("[data-message]").last.get_by_label("Edit message").click()
    page.locator(".edit textarea").fill("Never said.")
    page.get_by_role("button", name="Save").click()
    expect(answers(page)).to_have_text("Never said.")
    expect(page.locator("[data-message]").last).to_contain_text("edited")


def test_settings_are_kept_and_wrong_ones_keep_the_words(page, complaints):
    ask(page, "Hi")
    expect(answers(page)).to_have_text("Hello there.")
    page.get_by_label("System prompt").or_(page.get_by_label("System", exact=True)).fill("Be brief.")
    with page.expect_response(re.compile("/parameters/")):
        page.get_by_label("Temperature", exact=True).fill("0.3")
        page.get_by_label("Temperature", exact=True).blur()
    page.reload()
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("0.3")
    expect(page.locator("#setting-system_prompt")).to_have_value("Be brief.")
    complaints.allow("422")
    page.get_by_label("Temperature", exact=True).fill("9")
    ask(page, "Kept words")
    expect(page.locator("#pane-parameters")).to_contain_text("From 0 to 2.")
    expect(prompt(page)).to_have_value("Kept words")
    expect(page.get_by_label("Temperature", exact=True)).to_be_focused()


def test_the_slider_and_the_number_follow_each_other(page):
    number, slider = page.get_by_label("Temperature", exact=True), page.get_by_label("Temperature, slider")
    slider.fill("1.5")
    expect(number).to_have_value("1.5")
    number.fill("0,4")
    expect(slider).to_have_value("0.4")
    number.fill("")
    expect(slider).to_have_value("1")


def test_the_page_follows_the_answer_only_while_the_reader_is_at_its_end(page, upstream):
    upstream.play("gpt-test", Script(text=("word\n\n",) * 120, delay=0.02))
    ask(page, "Long")
    log = page.locator(".talk__log")
    distance = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    wait_for(lambda: log.evaluate("log => log.scrollHeight > log.clientHeight + 200"), what="a long answer")
    assert log.evaluate(distance) < 60
    log.hover()
    page.mouse.wheel(0, -400)
    wait_for(lambda: log.evaluate(distance) > 200, what="the reader to scroll up")
    top = log.evaluate("log => log.scrollTop")
    expect(answers(page)).to_have_count(1, timeout=15_000)
    assert abs(log.evaluate("log => log.scrollTop") - top) < 60


def test_the_code_opens_beside_the_page_and_its_tabs_walk_by_keys(page):
    page.get_by_label("System", exact=True).fill('It\'s "quoted"')
    prompt(page).fill("What is $HOME?")
    page.get_by_role("button", name="Get code").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("tab", name="OpenAI, curl")).to_be_focused()
    expect(dialog.locator("pre:visible")).to_contain_text("What is $HOME?")
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("tab", name="OpenAI, Python")).to_be_focused()
    expect(dialog.locator("pre:visible")).to_contain_text("from openai import OpenAI")
    expect(dialog.locator("pre:visible")).to_have_count(1)
    assert axe_violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(prompt(page)).to_have_value("What is $HOME?")


def test_earlier_conversations_are_listed_and_deleted(page):
    ask(page, "To be forgotten")
    expect(answers(page)).to_have_text("Hello there.")
    page.get_by_role("link", name="Earlier").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="To be forgotten", exact=True)).to_be_visible()
    assert axe_violations(page) == []
    dialog.get_by_label("Delete To be forgotten").first.click()
    expect(dialog).to_contain_text("deleted for good")
    page.get_by_role("button", name="Delete conversation").click()
    expect(page).to_have_url(re.compile(r"/playground/$"))


@pytest.mark.parametrize("width", [1440, 390])
def test_an_answer_of_every_kind_fits_and_reads_well(open_browser, site, upstream, width):
    upstream.play("gpt-test", Script(text=MARKDOWN))
    page = open_browser(viewport={"width": width, "height": 844}).new_page()
    open_playground(page)
    ask(page, "Everything")
    expect(answers(page).locator("table")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert axe_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".talk__log").evaluate("log => log.scrollWidth <= log.clientWidth")


def test_panes_are_tabs_on_a_phone(open_browser, site, upstream):
    page = open_browser(viewport={"width": 390, "height": 844}).new_page()
    open_playground(page)
    expect(page.locator("#pane-parameters")).to_be_hidden()
    page.get_by_role("link", name="Parameters").click()
    expect(page.locator("#pane-parameters")).to_be_visible()
    expect(prompt(page)).to_be_hidden()
    page.get_by_label("Model", exact=True).select_option(label="gpt-test")
    expect(page.locator("#pane-parameters")).to_be_visible()
    page.get_by_role("link", name="Chat").click()
    expect(prompt(page)).to_be_visible()


def test_a_hostile_answer_stays_words(page, upstream):
    dialogs, asked = [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    upstream.play("gpt-test", Script(text=HOSTILE, delay=0.05))
    ask(page, "".join(HOSTILE))
    expect(answers(page)).to_contain_text("<script>alert(2)</script>")
    for link in answers(page).locator("a").all():
        assert (link.get_attribute("href") or "").startswith(("https://", "http://", "mailto:"))
    page.reload()
    settled(page)
    expect(page.locator(".message--user")).to_contain_text("<script>alert(2)</script>")
    assert dialogs == []
    assert not [url for url in asked if not url.startswith(page.url.split("/w/")[0])]


def test_a_message_without_words_is_refused_in_one_place(page, complaints):
    complaints.allow("422")
    prompt(page).press("Control+Enter")
    expect(page.get_by_role("alert").filter(has_text="Write a message first.")).to_be_visible()
    assert page.locator("body").text_content().count("Write a message first.") == 1
    expect(prompt(page)).to_be_focused()


def test_a_server_that_goes_away_is_said_and_the_words_are_kept(page, complaints):
    complaints.allow("ERR_")
    complaints.allow("Failed to load")
    page.context.set_offline(True)
    ask(page, "Are you there?")
    expect(page.locator(".composer [data-errors]")).to_contain_text("cannot be reached")
    expect(prompt(page)).to_have_value("Are you there?")
    page.context.set_offline(False)
    prompt(page).press("Control+Enter")
    expect(answers(page)).to_have_text("Hello there.")


def test_without_scripts_the_whole_answer_comes_with_the_page(open_browser, site, upstream):
    upstream.play("gpt-test", Script(text=("Hello ", "there.")))
    page = open_browser(java_script_enabled=False).new_page()
    page.goto(PLAYGROUND)
    page.get_by_label("Model", exact=True).select_option(label="gpt-test")
    prompt(page).fill("Hi")
    page.get_by_role("button", name="Send").click()
    expect(answers(page)).to_have_text("Hello there.")
    page.locator(".message--user").get_by_label("Edit message").click()
    page.locator(".edit textarea").fill("Changed")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".message--user")).to_contain_text("Changed")
    page.get_by_role("button", name="Get code").click()
    expect(page.get_by_role("heading", name="Get code")).to_be_visible()
    expect(page.locator("pre")).to_have_count(6)
    expect(page.locator("pre").first).to_contain_text("Changed")
