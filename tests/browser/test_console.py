"""The console as a person uses it: dialogs, keys of the keyboard, filters, themes, and all of it without JavaScript."""

import re
import time
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import settled, sign_in

KEYS = "/w/default/keys/"


@pytest.fixture
def key_name():
    return f"key-{uuid4().hex[:8]}"


def create_key(page, name):
    """Create a key in the dialog and leave the secret on show."""
    page.get_by_role("link", name="Create key").first.click()
    page.get_by_role("textbox", name="Name", exact=True).fill(name)
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    secret = page.locator(".secret output")
    expect(secret).to_have_text(re.compile("^sk-comptoir-"))
    return secret.text_content()


def test_a_key_is_created_copied_and_put_away(owner_page, key_name):
    owner_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    owner_page.goto(KEYS)
    secret = create_key(owner_page, key_name)
    copy = owner_page.get_by_role("button", name="Copy key")
    expect(copy).to_be_focused()
    copy.click()
    assert owner_page.evaluate("navigator.clipboard.readText()") == secret
    owner_page.get_by_role("dialog").get_by_role("button", name="Copy the command").click()
    command = "read -rs COMPTOIR_API_KEY; export COMPTOIR_API_KEY"
    assert owner_page.evaluate("navigator.clipboard.readText()") == command
    for _ in range(3):
        owner_page.keyboard.press("Escape")
    expect(owner_page.get_by_role("dialog")).to_be_visible()
    owner_page.get_by_role("button", name="I have stored it safely").click()
    expect(owner_page.get_by_role("dialog")).to_have_count(0)
    expect(owner_page.get_by_role("row", name=key_name)).to_contain_text(secret[-4:])
    assert secret not in owner_page.content()


@pytest.mark.parametrize("place", ["dialog", "page"])
@pytest.mark.parametrize("press", ["two clicks", "two submits"])
def test_a_key_is_asked_for_once_however_often_its_button_is_pressed(owner_page, key_name, place, press):
    posted = []
    owner_page.on("request", lambda request: request.method == "POST" and posted.append(request.url))

    def late(route):
        time.sleep(0.3)
        route.continue_()

    if place == "dialog":
        owner_page.goto(KEYS)
        owner_page.get_by_role("link", name="Create key").first.click()
    else:
        owner_page.goto(f"{KEYS}create/")
    field = owner_page.get_by_role("textbox", name="Name", exact=True)
    field.fill(key_name)
    owner_page.route("**/keys/create/", late)
    if press == "two clicks":
        owner_page.get_by_role("button", name="Create key").dblclick()
    else:
        field.evaluate("field => { field.form.requestSubmit(); setTimeout(() => field.form?.requestSubmit(), 50); }")
    expect(owner_page.locator(".secret output")).to_have_text(re.compile("^sk-comptoir-"))
    settled(owner_page)
    assert len(posted) == 1


def test_a_form_that_was_refused_can_be_sent_again(owner_page, complaints, key_name):
    complaints.allow("422")
    owner_page.goto(KEYS)
    owner_page.get_by_role("link", name="Create key").first.click()
    field = owner_page.get_by_role("textbox", name="Name", exact=True)
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill(key_name)
    field.press("Enter")
    expect(owner_page.locator(".secret output")).to_have_text(re.compile("^sk-comptoir-"))


def test_a_mistake_in_a_dialog_is_said_there(owner_page, complaints):
    complaints.allow("422")
    owner_page.goto(KEYS)
    owner_page.get_by_role("link", name="Create key").first.click()
    field = owner_page.get_by_role("textbox", name="Name", exact=True)
    field.press("Enter")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description("This field is required.")


def test_a_dialog_gives_the_focus_back(owner_page):
    owner_page.goto(KEYS)
    opener = owner_page.get_by_role("link", name="Create key").first
    opener.click()
    expect(owner_page.get_by_role("dialog")).to_be_visible()
    owner_page.keyboard.press("Escape")
    expect(opener).to_be_focused()


def test_a_key_is_disabled_and_revoked_from_its_menu(owner_page, key_name):
    owner_page.goto(KEYS)
    create_key(owner_page, key_name)
    owner_page.get_by_role("button", name="I have stored it safely").click()
    actions = owner_page.get_by_role("button", name=f"Actions for {key_name}")
    actions.click()
    owner_page.get_by_role("button", name="Disable").click()
    expect(owner_page.locator("#toasts")).to_contain_text(f"Key {key_name} disabled")
    owner_page.locator("#key-status").get_by_role("link", name="Disabled").click()
    actions.click()
    owner_page.get_by_role("link", name="Revoke").click()
    owner_page.get_by_label(f"Type {key_name} to confirm").fill(key_name)
    owner_page.get_by_role("button", name="Revoke key").click()
    expect(owner_page.locator("#toasts")).to_contain_text(f"Key {key_name} revoked")
    expect(owner_page.get_by_role("row", name=key_name)).to_have_count(0)


def test_a_filter_stands_in_the_address_and_goes_back(owner_page):
    owner_page.goto(KEYS)
    owner_page.locator("#key-status").get_by_role("link", name="All").click()
    owner_page.wait_for_url("**?status=all")
    search = owner_page.get_by_role("searchbox", name="Find by name or ending")
    search.fill("nothing like it")
    owner_page.wait_for_url("**q=nothing+like+it*")
    expect(owner_page.get_by_text("No keys match")).to_be_visible()
    expect(search).to_be_focused()
    owner_page.go_back()
    expect(search).to_have_value("")
    assert owner_page.url.endswith("?status=all")
    owner_page.reload()
    expect(owner_page.get_by_role("heading", name="API keys")).to_be_visible()


def test_the_keyboard_goes_everywhere_and_can_be_switched_off(owner_page):
    owner_page.goto("/w/default/")
    owner_page.keyboard.type("gk")
    owner_page.wait_for_url(f"**{KEYS}")
    owner_page.keyboard.press("/")
    expect(owner_page.get_by_role("searchbox")).to_be_focused()
    owner_page.get_by_role("searchbox").blur()
    owner_page.keyboard.press("?")
    owner_page.get_by_label("Single keys work").uncheck()
    owner_page.keyboard.press("Escape")
    owner_page.keyboard.press("c")
    owner_page.wait_for_timeout(200)
    expect(owner_page.get_by_role("dialog")).to_have_count(0)


# The boxes of lines of code that the sign of the button to copy them stands on.
LETTERS_BENEATH_THE_SIGN = """code => {
  const sign = code.querySelector(".copy svg").getBoundingClientRect(), range = document.createRange();
  range.selectNodeContents(code.querySelector("pre"));
  return [...range.getClientRects()]
    .filter(box => box.width && box.right > sign.left && box.left < sign.right)
    .filter(box => box.bottom > sign.top + 1 && box.top < sign.bottom - 1)
    .map(box => box.toJSON());
}"""


@pytest.mark.parametrize("width", [390, 1440])
def test_no_sign_to_copy_stands_on_the_code(owner_page, width):
    owner_page.set_viewport_size({"width": width, "height": 900})
    owner_page.goto("/w/default/")
    settled(owner_page)
    codes = [code for code in owner_page.locator(".code:has(> copy-button)").all() if code.is_visible()]
    assert len(codes) == 2
    for code in codes:
        assert code.evaluate(LETTERS_BENEATH_THE_SIGN) == []
    if width == 1440:
        assert codes[1].locator("pre").evaluate("pre => pre.scrollWidth <= pre.clientWidth"), "a line is cut"


def test_a_theme_is_on_at_once_and_stays(owner_page):
    owner_page.goto("/w/default/")
    page = owner_page.locator("html")
    for theme, expected in (("Dark", "dark"), ("Light", "light")):
        owner_page.get_by_role("button", name="Account:").click()
        with owner_page.expect_response("**/preferences/"):
            owner_page.get_by_role("button", name=theme, exact=True).click()
        expect(page).to_have_attribute("data-theme", expected)
        owner_page.reload()
        expect(page).to_have_attribute("data-theme", expected)
    owner_page.get_by_role("button", name="Account:").click()
    with owner_page.expect_response("**/preferences/"):
        owner_page.get_by_role("button", name="System", exact=True).click()


def test_a_lost_network_is_said_and_the_page_stays(owner_page, complaints):
    complaints.allow("ERR_INTERNET_DISCONNECTED|Failed to fetch")
    owner_page.goto(KEYS)
    owner_page.context.set_offline(True)
    owner_page.locator("#key-status").get_by_role("link", name="All").click()
    expect(owner_page.get_by_text("The server cannot be reached")).to_be_visible()
    expect(owner_page.get_by_role("heading", name="API keys")).to_be_visible()


def test_an_ended_session_leads_to_the_sign_in_and_back(page):
    sign_in(page)
    page.goto(f"{KEYS}?status=all")
    settled(page)
    page.context.clear_cookies()
    page.locator("#key-status").get_by_role("link", name="Active").click()
    page.wait_for_url("**/signin/?next=*")


def test_a_person_without_javascript_makes_a_key(open_browser, key_name):
    phone = {"width": 390, "height": 844}
    page = open_browser(signed_in=False, java_script_enabled=False, viewport=phone).new_page()
    sign_in(page)
    page.get_by_role("link", name="Open menu").click()
    page.locator("#sidebar").get_by_role("link", name="API keys").click()
    page.get_by_role("link", name="Create key").first.click()
    page.get_by_role("textbox", name="Name", exact=True).fill(key_name)
    page.get_by_role("button", name="Create key").click()
    expect(page.locator(".secret output")).to_have_text(re.compile("^sk-comptoir-"))
    page.get_by_role("link", name="I have stored it safely").click()
    expect(page.get_by_role("row", name=key_name)).to_be_visible()
