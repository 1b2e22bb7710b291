"""The page of the explorer: whom it answers, and what a browser shows of it."""

import asyncio
import http.client
import os
import threading
from contextlib import closing, contextmanager

import pytest
import torch
from browser import WIDTHS, chromium, fits, opened
from common import small_vae

from pyro_vae.datasets import Dataset
from pyro_vae.explorer import Explored
from pyro_vae.validation import InvalidInput

pytest.importorskip("bokeh")
from pyro_vae.explorer.run_view import HOVER, RunView
from pyro_vae.explorer.server import Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries that serve
]


@pytest.fixture(scope="module")
def run():
    x = (torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    return Explored("<i>a", small_vae(), Dataset(x, torch.arange(30) % 3), num_samples=30)


@contextmanager
def serving(runs):
    """The page of some runs, served by a thread."""
    ready, found = threading.Event(), {}

    def serve():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        found["server"] = Server(runs)
        ready.set()
        found["server"].run()
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    server = found["server"]
    try:
        yield server
    finally:
        loop = server.bokeh.io_loop
        loop.add_callback(loop.stop)
        thread.join(30)


@pytest.fixture(scope="module")
def server(run):
    with serving([run, run]) as found:
        yield found


OWN, EVIL = "http://127.0.0.1:PORT", "http://evil.example:PORT"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "bokeh, token",
}


@pytest.mark.parametrize(
    "path, headers, status",
    [
        ("/", {}, 200),
        ("/", {"Host": "localhost:PORT", "Sec-Fetch-Site": "none"}, 200),
        ("/", {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ("/static/js/bokeh.min.js", {}, 200),
        ("/ws", {**UPGRADE, "Origin": OWN}, 101),
        # another name for this machine, as DNS rebinding gives it
        ("/", {"Host": "evil.example:PORT"}, 404),
        ("/", {"Host": "evil.example"}, 404),
        ("/", {"Host": "127.0.0.1"}, 404),
        ("/", {"Host": "127.0.0.1:1"}, 404),
        (
            "/ws",
            {**UPGRADE, "Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"},
            404,
        ),
        # another page
        ("/", {"Origin": "http://evil.example"}, 404),
        ("/", {"Origin": "null"}, 404),
        ("/", {"Origin": "https://127.0.0.1:PORT"}, 404),
        ("/", {"Origin": "http://127.0.0.1:1"}, 404),
        ("/", {"Sec-Fetch-Site": "cross-site"}, 404),
        ("/", {"Sec-Fetch-Site": "same-site"}, 404),
        ("/ws", {**UPGRADE, "Origin": "http://evil.example"}, 404),
        ("/ws", {**UPGRADE, "Origin": "http://localhost:1"}, 404),
        # files
        ("/metadata", {}, 404),
        ("/autoload.js", {}, 404),
        ("/static/js/../../../__init__.py", {}, 404),
        ("/static/js/%2e%2e/%2e%2e/%2e%2e/__init__.py", {}, 404),
        ("/static/js/compiler.js", {}, 404),
        ("/etc/passwd", {}, 404),
    ],
)
def test_only_the_page_itself_is_served_and_only_to_this_machines_browser(
    server, path, headers, status
):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    given = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    connection.putrequest("GET", path, skip_host="Host" in given, skip_accept_encoding=True)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    with closing(connection), closing(connection.getresponse()) as answer:
        assert answer.status == status


def test_the_server_listens_on_the_loopback_interface_alone(server):
    sockets = server.bokeh._http._sockets.values()
    assert [found.getsockname()[0] for found in sockets] == ["127.0.0.1"]


def test_a_port_that_is_taken_is_said(server, run):
    with pytest.raises(InvalidInput, match="--port 0"):
        Server([run], server.port)


def test_a_view_shows_what_is_computed(run):
    """Click, drag, slider and buttons, without a browser: what each sends is what is shown."""
    view = RunView(run)
    assert set(view.sliders) == set(run.active())
    view.choose(4)
    assert view.show(run.decode(run.means[4:5], 4), 128)[0] == view.here.text
    dimension, slider = next(iter(view.sliders.items()))
    assert slider.value == pytest.approx(float(run.means[4, dimension]))
    slider.value = 0.25
    moved = run.means[4].clone()
    moved[dimension] = 0.25
    assert (
        torch.equal(view.z, moved)
        and view.show(run.decode(moved[None], 4), 128)[0] == view.here.text
    )


def test_a_label_is_no_markup_in_a_tooltip(run, monkeypatch):
    """Bokeh 3.6 shows what a tooltip says as it is, markup too."""
    monkeypatch.setattr(run, "facts", lambda n: {"datum": str(n), "label": "<img src=x onerror=a>"})
    said = RunView(run).points.data["said"]
    assert set(said) == {"&lt;img src=x onerror=a&gt;"} and "@said{safe}" in HOVER


# Where on the screen a datum lies on the first map.
PLACE = """(n) => {
  const views = [...Bokeh.index.roots].flatMap((view) => [view, ...view.children_views?.() ?? []]);
  const plot = views.find((view) => view.frame);
  const {x, y} = plot.model.renderers[0].data_source.data;
  const box = plot.canvas_view.el.getBoundingClientRect();
  const {x_scale, y_scale} = plot.frame;
  return [box.left + x_scale.compute(x[n]), box.top + y_scale.compute(y[n])];
}"""


def until(page, holds):
    """Wait for what a page shows; Playwright's own waiting would need the page to allow eval."""
    for _ in range(600):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_a_browser(server, width):
    """Hover, click on a datum, drag, slider and prior, at two widths; no error."""
    with chromium() as browser:
        page, wrong = opened(browser, server.url, width)
        page.locator(".bk-Canvas").first.wait_for()
        until(page, lambda: page.evaluate("Boolean(Bokeh.documents[0]?.is_idle)"))
        assert fits(page) and page.locator("h1").first.inner_text() == "<i>a"
        picture = page.locator("img[style*='128px']").first  # what is decoded at z
        seen = [picture.get_attribute("src")]

        def changes():
            until(page, lambda: picture.get_attribute("src") != seen[-1])
            seen.append(picture.get_attribute("src"))

        x, y = page.evaluate(PLACE, 3)
        page.mouse.move(x, y)
        page.get_by_text("datum 3").first.wait_for()
        page.mouse.click(x, y)
        changes()
        page.mouse.down()
        page.mouse.move(x + 60, y - 40, steps=4)
        page.mouse.up()
        changes()
        # A drag goes on to change the page for a while: what it ends with, then the keys.
        until(page, lambda: page.evaluate("Boolean(Bokeh.documents[0]?.is_idle)"))
        page.wait_for_timeout(500)
        seen.append(picture.get_attribute("src"))

        def moved():
            page.locator(".noUi-handle").first.focus()
            page.keyboard.press("ArrowLeft")  # the drag may have ended at the upper end
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("ArrowRight")
            return picture.get_attribute("src") != seen[-1]

        until(page, moved)
        page.get_by_role("button", name="Draw from the prior").first.click()
        page.get_by_text("From the prior", exact=True).first.wait_for()
        assert fits(page)
        if folder := os.environ.get("PYRO_VAE_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/explore-{width}.png", full_page=True)
        assert not wrong
