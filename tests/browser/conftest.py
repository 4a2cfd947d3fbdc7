"""Pages in Chromium, on a real server with the real language model; any complaint of the browser fails the test."""

import contextlib
import os
import re
import shutil
import time

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import sync_playwright

from tests.server import OWNER_EMAIL, OWNER_PASSWORD

# Where the machine has Chromium; else the one that Playwright brought.
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Reported by the page itself, because a violation is not always worth a line in the console.
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} of ${event.blockedURI} in ${event.sourceFile}:${event.lineNumber}`));
"""
MODEL = "smollm2-135m-instruct"
# The requests of each context that have not ended.
UNDER_WAY = {}


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker("browser")


@pytest.fixture(scope="package")
def browser(pytestconfig):
    """Chromium, for this folder alone: while Playwright runs, its event loop stands in the way of every other."""
    options = {"headless": not pytestconfig.getoption("headed"), "slow_mo": pytestconfig.getoption("slowmo")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET, **options)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def signed_in_state(browser, site):
    """The owner's session, from the sign-in form."""
    context = browser.new_context(base_url=site.base_url)
    page = context.new_page()
    sign_in(page)
    state = context.storage_state()
    context.close()
    return state


def sign_in(page):
    page.goto("/signin/")
    page.locator("input[name=email]").fill(OWNER_EMAIL)
    page.locator("input[name=password]").fill(OWNER_PASSWORD)
    page.locator("form.fields button[type=submit]").click()
    page.wait_for_url(re.compile(r"/w/default/"))


class Complaints:
    """What the browser had to complain of; expected ones can be allowed by a pattern."""

    def __init__(self):
        self.heard = []
        self.allowed = []

    def allow(self, pattern):
        self.allowed.append(re.compile(pattern))

    def listen_to(self, context):
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("console", lambda message: message.type == "error" and self.heard.append(message.text))
        context.on("weberror", lambda error: self.heard.append(f"uncaught: {error.error}"))
        context.on("response", lambda r: r.status >= 400 and self.heard.append(f"{r.status} for {r.url}"))

    @property
    def serious(self):
        return [text for text in self.heard if not any(pattern.search(text) for pattern in self.allowed)]


@pytest.fixture
def complaints():
    complaints = Complaints()
    yield complaints
    assert complaints.serious == []


@pytest.fixture
def open_browser(browser, site, signed_in_state, complaints):
    """Make a context of its own, signed in or not: ``open_browser(signed_in=False, locale="fr-FR")``."""
    with contextlib.ExitStack() as contexts:

        def open_(*, signed_in=True, **options):
            options["storage_state"] = signed_in_state if signed_in else None
            return contexts.enter_context(context_of(browser, site, complaints, **options))

        yield open_


@contextlib.contextmanager
def context_of(browser, site, complaints, **options):
    """A context at ``site`` that writes to ``complaints``."""
    options = {"locale": "en-GB", "viewport": {"width": 1440, "height": 900}} | options
    context = browser.new_context(base_url=site.base_url, **options)
    complaints.listen_to(context)
    under_way = UNDER_WAY[context] = set()
    context.on("request", lambda request: under_way.add(request))
    context.on("requestfinished", lambda request: under_way.discard(request))
    context.on("requestfailed", lambda request: under_way.discard(request))
    yield context
    context.close()
    del UNDER_WAY[context]


@pytest.fixture
def page(open_browser):
    """A page of a stranger to the site."""
    return open_browser(signed_in=False).new_page()


@pytest.fixture
def owner_page(open_browser):
    """A page of the owner, signed in."""
    return open_browser().new_page()


def settled(page):
    """Wait until the page and what it loads by itself have come: nothing was under way for a tenth of a second."""
    page.wait_for_load_state("load")
    under_way, quiet_since = UNDER_WAY[page.context], time.monotonic()
    until = quiet_since + 3
    while time.monotonic() < min(quiet_since + 0.1, until):
        page.wait_for_timeout(20)
        if under_way:
            quiet_since = time.monotonic()


def axe_violations(page, *, only=None):
    """
    What axe finds wrong, a readable line each, once colours that change with the theme have arrived.

    ``only`` names rules of axe; all that it follows by itself otherwise.
    """
    page.evaluate(
        """async () => {
          await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
          const changing = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
          await Promise.allSettled(changing.map((animation) => animation.finished));
        }"""
    )
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"]} | ({"runOnly": {"type": "rule", "values": only}} if only else {})
    found = page.evaluate("async (options) => (await axe.run(options)).violations", options)
    return [
        f"{violation['impact']} {violation['id']}: {violation['help']} – {node['html'][:160]}"
        for violation in found
        for node in violation["nodes"]
    ]


class Transfer:
    """Bytes that came over the network to one page, headers included, as its developer tools count them."""

    def __init__(self, page):
        self.bytes = 0
        self.by_url = {}
        self._urls = {}
        self._session = page.context.new_cdp_session(page)
        self._session.on(
            "Network.requestWillBeSent", lambda e: self._urls.update({e["requestId"]: e["request"]["url"]})
        )
        self._session.on("Network.loadingFinished", self._finished)
        self._session.send("Network.enable")

    def end(self):
        self._session.detach()

    def _finished(self, event):
        size = event["encodedDataLength"]
        self.bytes += size
        url = self._urls.get(event["requestId"], "?")
        self.by_url[url] = self.by_url.get(url, 0) + size

    def __str__(self):
        largest = sorted(self.by_url.items(), key=lambda item: -item[1])
        return f"{self.bytes / 1024:.1f} KB: " + ", ".join(
            f"{u.split('/')[-1]} {b / 1024:.1f}" for u, b in largest[:12]
        )


def wait_for(condition, timeout=10, what="it"):
    """Wait for something that the page does not show."""
    until = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < until, f"Not within {timeout} s: {what}"
        time.sleep(0.05)
    return value
