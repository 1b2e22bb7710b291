"""The site in a browser, once `.ci/run` or `just docs` has built it: pages at two widths."""

import os
import re
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from browser import WIDTHS, chromium, fits, opened

SITE = Path(__file__).parents[2] / "build" / "site"
PAGES = (
    "index", "tutorials/first-vae", "tutorials/believing-a-likelihood", "swap", "data", "numbers",
    "gallery", "components", "experiments/results/README", "api/pyro_vae.priors", "CONTRIBUTING",
)  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """The address of the site, served on this machine."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: just docs")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_in_a_browser(site, width):
    """Nothing fails to load, nothing is wider than the window, every picture is drawn."""
    with chromium() as browser:
        for name in PAGES:
            page, wrong = opened(browser, f"{site}/{name}.html", width)
            assert fits(page), f"{name} is wider than {width} pixels"
            drawn = "[...document.images].every((i) => i.loading == 'lazy' || i.naturalWidth > 0)"
            assert page.evaluate(drawn) and page.locator("h1").count() == 1, name
            if folder := os.environ.get("PYRO_VAE_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/{name.replace('/', '-')}-{width}.png")
            assert not wrong, (name, wrong)
            page.close()


def test_every_link_within_the_site_leads_somewhere():
    """Pages, pictures and anchors of them; nothing is named by a file that is a page."""
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: just docs")
    pages = {path: path.read_text() for path in SITE.rglob("*.html")}
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            parts = urlsplit(unescape(target))
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not there.exists() or (anchor and anchor not in anchors.get(there, {anchor})):
                broken.append(f"{path.relative_to(SITE)}: {target}")
        named = re.findall(r'<span class="pre">((?:\.\./)*(?:docs/)?[\w/-]+)\.md</span>', text)
        known = (name.removeprefix("docs/") for name in named)
        broken += [f"{path.relative_to(SITE)}: {name}.md as text" for name in known
                   if (SITE / f"{name}.html").exists()]  # fmt: skip
    assert not broken
