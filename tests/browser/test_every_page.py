"""What holds for every page: nothing for axe to find, no complaint of the browser, few bytes, the reader's language."""

import re
from pathlib import Path

import httpx
import pytest

from tests.browser.conftest import Transfer, axe_violations, settled

KILOBYTE = 1024
PAGES = {
    "home": "/w/default/",
    "keys": "/w/default/keys/",
    "create key": "/w/default/keys/create/",
    "usage": "/w/default/usage/",
    "limits": "/w/default/limits/",
    "limit": "/w/default/limits/{limit}/",
    "change limit": "/w/default/limits/{limit}/edit/",
    "asked for more": "/w/default/limits/asked/",
    "requests": "/w/default/requests/",
    "request": "/w/default/requests/{request}/",
    "playground": "/w/default/playground/",
    "providers": "/o/default/providers/",
    "provider": "/o/default/providers/{provider}/",
    "add provider": "/o/default/providers/add/",
    "add a provider of a cloud": "/o/default/providers/add/?kind=bedrock",
    "model": "/o/default/providers/{provider}/models/{model}/",
    "edit model": "/o/default/providers/{provider}/models/{model}/edit/",
    "prices": "/o/default/providers/{provider}/models/{model}/prices/",
    "exchange rates": "/o/default/exchange-rates/",
    "set exchange rate": "/o/default/exchange-rates/add/?from=GBP",
    "routes": "/o/default/routes/",
    "add route": "/o/default/routes/add/",
    "workspaces": "/o/default/workspaces/",
    "alerts": "/o/default/alerts/",
    "webhooks": "/o/default/webhooks/",
    "add webhook": "/o/default/webhooks/add/",
    "operations": "/o/default/operations/",
}
FIRST_VISIT, WITH_CHART, NEXT_VISIT = 180 * KILOBYTE, 260 * KILOBYTE, 40 * KILOBYTE


@pytest.fixture(scope="session")
def addresses(site, running_upstream):
    """Where each page is, on a site that has been used."""
    running_upstream.forget()
    from tests.api import OPENAI, Api

    api = Api(site, site.api_key, OPENAI)
    for stream in (False, True):
        assert api.ask("gpt-test", stream=stream).status_code == 200
    request = api.request_id(api.ask("gpt-unknown"))
    request = api.request_id(api.ask("gpt-test"))
    site.row(request)
    provider = site.query("SELECT uid FROM providers_provider WHERE kind = ?", "openai")[0]["uid"]
    model = site.query("SELECT uid FROM providers_providermodel WHERE name = ?", "gpt-test")[0]["uid"]
    # Soft and far away, so that no other test meets it.
    limit = site.manage("set_spend_limit", "--workspace", "default", "--period", "month", "--amount", "9999", "--soft")
    found = {"request": request, "provider": provider, "model": model, "limit": limit}
    return {name: path.format(**found) for name, path in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_in_any_light_at_any_width_and_nothing_is_cut_off(owner_page, addresses, name):
    owner_page.goto(addresses[name])
    settled(owner_page)
    found = {}
    for scheme in ("light", "dark"):
        for width in (1440, 390):
            owner_page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            owner_page.set_viewport_size({"width": width, "height": 900})
            owner_page.wait_for_timeout(100)
            assert owner_page.evaluate("document.documentElement.scrollWidth") <= width
            if violations := axe_violations(owner_page):
                found[scheme, width] = violations
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_sign_in_page(open_browser, scheme):
    page = open_browser(signed_in=False, color_scheme=scheme).new_page()
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto("/signin/")
        assert axe_violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_first_visit_and_the_next_stay_within_their_bytes(open_browser, addresses, name):
    context = open_browser()
    first = visit(context, addresses[name])
    assert first.bytes <= (WITH_CHART if name == "usage" else FIRST_VISIT), str(first)
    second = visit(context, addresses[name])
    assert second.bytes <= NEXT_VISIT, str(second)


def visit(context, address):
    page = context.new_page()
    transfer = Transfer(page)
    page.goto(address)
    settled(page)
    page.wait_for_timeout(200)
    page.close()
    return transfer


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_served_within_a_tenth_of_a_second(site, signed_in_state, addresses, name):
    """The best of a few, for this machine may be busy with other things."""
    cookies = {cookie["name"]: cookie["value"] for cookie in signed_in_state["cookies"]}
    with httpx.Client(base_url=site.base_url, cookies=cookies) as client:
        answers = [client.get(addresses[name]) for _ in range(9)]
    assert {answer.status_code for answer in answers} == {200}
    assert min(answer.elapsed.total_seconds() for answer in answers) < 0.1


def test_back_and_forward_show_the_pages_again(owner_page, addresses):
    titles = {}
    for name, address in addresses.items():
        owner_page.goto(address)
        settled(owner_page)
        titles[name] = owner_page.title(), owner_page.locator("h1").inner_text()
    for name in reversed(list(addresses)[:-1]):
        owner_page.go_back()
        settled(owner_page)
        assert (owner_page.title(), owner_page.locator("h1").inner_text()) == titles[name]


# Languages ---------------------------------------------------------------------------------------------------------

LOCALES = Path(__file__).parent.parent.parent / "locale"
SAME_EVERYWHERE = re.compile(r"@|SDK|^scripted |\(scripted |^key-")
VISIBLE_TEXT = """
() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("script, style, noscript, code, pre, template, .mono, [lang]:not(html), output")) continue;
    const text = walker.currentNode.textContent.trim().replace(/\\s+/g, " ");
    if (text) found.add(text);
  }
  return [...found];
}
"""


@pytest.mark.parametrize("language", ["fr", "es"])
def test_every_page_speaks_the_browsers_language(open_browser, addresses, language):
    if not (LOCALES / language / "LC_MESSAGES" / "django.po").exists():
        pytest.skip(f"there is no catalogue for {language} yet")
    english = open_browser(locale="en-GB").new_page()
    translated = open_browser(locale={"fr": "fr-FR", "es": "es-ES"}[language]).new_page()
    left = {}
    for name, address in addresses.items():
        texts = []
        for page in (english, translated):
            page.goto(address)
            settled(page)
            texts.append(set(page.evaluate(VISIBLE_TEXT)))
        assert translated.locator("html").get_attribute("lang") == language
        # A sentence, that is three words or more, which is in both was not translated.
        sentences = [text for text in texts[0] & texts[1] if len(re.findall(r"[A-Za-z]{2,}", text)) >= 3]
        if same := [text for text in sentences if not SAME_EVERYWHERE.search(text)]:
            left[name] = same
    assert left == {}


@pytest.mark.parametrize(("locale", "words"), [("fr-FR", "Se connecter"), ("es-ES", "Iniciar sesión")])
def test_the_sign_in_page_speaks_it_before_anyone_has_signed_in(open_browser, locale, words):
    if not (LOCALES / locale[:2] / "LC_MESSAGES" / "django.po").exists():
        pytest.skip("there is no catalogue for it yet")
    page = open_browser(signed_in=False, locale=locale).new_page()
    page.goto("/signin/")
    assert words in page.locator("main").inner_text()
