"""A route from the keyboard: made, read and deleted in Chromium."""

from uuid import uuid4

from playwright.sync_api import expect

from tests.browser.conftest import MODEL

ROUTES = "/o/default/routes/"


def test_a_route_is_made_arranged_and_deleted_from_the_keyboard(owner_page):
    name = f"route-{uuid4().hex[:8]}"
    owner_page.goto(ROUTES)
    owner_page.locator("#add-route, .empty .button").first.press("Enter")
    dialog = owner_page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.get_by_label("Model 1", exact=True).select_option(label="gpt-test (scripted openai)")
    dialog.get_by_label("Model 2", exact=True).select_option(label=f"{MODEL} (On this machine)")
    said = dialog.get_by_role("status")
    expect(said).to_contain_text(f"Requests for “{name}” go to gpt-test")
    expect(said).to_contain_text(f"when it fails, to {MODEL}")
    dialog.get_by_role("button", name="Move model 2 up").press("Enter")
    # The focus stays with the row, at the button that still leads somewhere.
    expect(dialog.get_by_role("button", name=f"Move {MODEL} down")).to_be_focused()
    expect(said).to_contain_text(f"go to {MODEL}")
    expect(dialog.get_by_label("Weight of model 1")).to_be_hidden()
    dialog.get_by_label("One drawn by weight").check()
    dialog.get_by_label("Weight of model 1").fill("3")
    dialog.get_by_label("Name", exact=True).press("Enter")
    expect(dialog).to_have_count(0)
    row = owner_page.get_by_role("row", name=name)
    expect(row).to_contain_text("75.0%")
    expect(row).to_contain_text("By weight")
    row.get_by_role("button", name=f"Actions for {name}").click()
    owner_page.get_by_role("link", name="Delete").click()
    owner_page.get_by_role("button", name="Delete route").click()
    expect(owner_page.get_by_role("row", name=name)).to_have_count(0)
