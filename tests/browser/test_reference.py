"""The API reference in Chromium: a key typed in, a call made from the page, in each language."""

import re

import httpx
import pytest

from tests.browser.conftest import axe_violations, settled
from tests.upstream import Script

LOCALES = {"en": "en-GB", "fr": "fr-FR", "es": "es-ES"}
TITLES = {"en": "API reference", "fr": "Référence de l’API", "es": "Referencia de la API"}
UNKNOWN_KEY = {"en": "not known here", "fr": "n’est pas connue ici", "es": "no se conoce aquí"}

VISIBLE_TEXT = """
() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("script, style, code, pre, textarea, .mono, [lang]:not(html), output")) continue;
    const text = walker.currentNode.textContent.trim().replace(/\\s+/g, " ");
    if (text) found.add(text);
  }
  return [...found];
}
"""


@pytest.fixture
def model(site):
    """The model that the page asks, which is the first that a key can use."""
    answer = httpx.get(f"{site.base_url}/v1/models", headers={"authorization": f"Bearer {site.api_key}"})
    return answer.json()["data"][0]["id"]


@pytest.fixture
def reference(open_browser):
    """Open the reference as a stranger to the site whose browser speaks ``language``."""

    def open_(language="en", **options):
        page = open_browser(signed_in=False, locale=LOCALES[language], **options).new_page()
        page.goto("/docs/")
        settled(page)
        return page

    return open_


def call(page, name):
    return page.locator(f"#{name} api-call")


def use_key(page, key):
    page.locator("#api-key").fill(key)
    page.locator("#api-key").press("Tab")


@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_whole_and_sound_at_any_width(reference, complaints, language, scheme):
    page = reference(language, color_scheme=scheme, reduced_motion="reduce")
    assert page.locator("html").get_attribute("lang") == language
    assert page.title().startswith(TITLES[language])
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut_off = "(all) => all.filter((each) => each.scrollHeight > each.clientHeight + 1).map((each) => each.id)"
        assert page.locator("textarea").evaluate_all(cut_off) == []
    # With everything open; the sheer number of fields is the same in all languages.
    page.locator("details").evaluate_all("(all) => all.forEach((each) => (each.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if language == "en":
        assert axe_violations(page) == []


@pytest.mark.parametrize("language", ["fr", "es"])
def test_nothing_in_it_is_left_untranslated(reference, language):
    texts = [set(reference(each).evaluate(VISIBLE_TEXT)) for each in ("en", language)]
    same = [text for text in texts[0] & texts[1] if len(re.findall(r"[A-Za-z]{2,}", text)) >= 3]
    # Constants of the wire stand in quotes.
    assert [text for text in same if not text.startswith('"')] == []


@pytest.mark.parametrize("language", LOCALES)
def test_a_call_is_answered_on_the_page(reference, complaints, site, model, language):
    page = reference(language)
    chat = call(page, "create_chat_completion")
    assert '"MODEL"' in chat.locator("textarea").input_value()
    use_key(page, site.api_key)
    page.locator("api-key [role=status]").filter(has_text=model).wait_for()
    assert f'"{model}"' in chat.locator("textarea").input_value()
    assert f'"{model}"' in chat.locator("pre").first.inner_text()
    chat.locator("button[type=submit]").click()
    chat.locator(".operation__status").filter(has_text="200 ·").wait_for()
    assert '"chat.completion"' in chat.locator("output").inner_text()
    row = site.row(re.search(r"req_\w+", chat.locator(".operation__status").inner_text())[0])
    assert (row["outcome"], row["endpoint"], row["stream"]) == ("completed", "chat_completions", 0)


def test_a_stream_is_shown_as_it_comes(reference, complaints, site, running_upstream):
    running_upstream.forget()
    running_upstream.play("gpt-test", Script(chunks=8, delay=0.3))
    page = reference()
    chat = call(page, "create_chat_completion")
    use_key(page, site.api_key)
    page.locator("api-key [role=status]").filter(has_text=".").wait_for()
    chat.locator("textarea").fill('{"model": "gpt-test", "messages": [{"role": "user", "content": "Hi"}]}')
    chat.locator("input[name=stream]").check()
    assert '"stream": true' in chat.locator("textarea").input_value()
    chat.locator("button[type=submit]").click()
    output = chat.locator("output")
    output.filter(has_text="token").wait_for()
    assert "[DONE]" not in output.inner_text()
    output.filter(has_text="[DONE]").wait_for()
    assert output.inner_text().count("chat.completion.chunk") >= 8


@pytest.mark.parametrize("language", LOCALES)
def test_what_goes_wrong_is_said_in_the_pages_language(reference, complaints, language):
    complaints.allow("401")
    page = reference(language)
    use_key(page, "sk-comptoir-unknown")
    chat = call(page, "create_chat_completion")
    chat.locator("button[type=submit]").click()
    chat.locator(".operation__status").filter(has_text="401 ·").wait_for()
    assert UNKNOWN_KEY[language] in chat.locator("output").inner_text()
    chat.locator("textarea").fill("{")
    chat.locator("button[type=submit]").click()
    expected = {"en": "The body is not valid JSON.", "fr": "Le corps n’est pas", "es": "El cuerpo no es JSON"}
    assert expected[language] in chat.locator(".operation__status").inner_text()


def test_it_is_linked_from_where_keys_are_made(owner_page):
    owner_page.goto("/w/default/keys/")
    owner_page.locator("main").get_by_role("link", name="API reference").click()
    owner_page.wait_for_url("**/docs/")
    owner_page.goto("/w/default/")
    owner_page.locator("[popovertarget=account]").first.click()
    owner_page.locator("#account").get_by_role("link", name="API reference").click()
    owner_page.wait_for_url("**/docs/")
