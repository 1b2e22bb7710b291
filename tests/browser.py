"""A headless Chromium for the tests that look at pages; they are skipped where there is none."""

import shutil
from contextlib import contextmanager

import pytest

WIDTHS = (390, 1280)


@contextmanager
def chromium():
    """A browser, by Playwright."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def opened(browser, url, width):
    """A page at a width of the window, and a list of what went wrong on it, which grows."""
    page, wrong = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    own = url.split("/")[2]
    page.on(
        "request",
        lambda request: (
            wrong.append(request.url)
            if not request.url.startswith(("data:", "file:")) and request.url.split("/")[2] != own
            else None
        ),
    )
    page.goto(url)
    return page, wrong


def fits(page) -> bool:
    """Whether nothing is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
