"""A page of Bokeh on the loopback interface, for the browser of this machine alone.

A page from elsewhere that has the browser ask for ours, under our own address or, by DNS
rebinding, under a name of its own, is refused: by the headers ``Host``, ``Origin`` and
``Sec-Fetch-Site``, for every request and for the websocket. Nothing is served but the page, its
websocket and Bokeh's own scripts.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.routing import Matcher, Rule, RuleRouter

from pyro_vae.explorer.explored import Explored
from pyro_vae.explorer.page import fill
from pyro_vae.validation import InvalidInput

__all__ = ["ADDRESS", "Server", "serve"]

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
PATHS = re.compile(r"/|/ws|/static/js/bokeh(-[a-z]+)?\.min\.js")


class OwnRequests(Matcher):
    """Requests that this machine's browser makes for the page itself, and for nothing else.

    Args:
        port: of the server.
    """

    def __init__(self, port: int):
        self.hosts = {f"{name}:{port}" for name in NAMES}

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """An empty dictionary for a request that is answered, ``None`` for any other."""
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site")
        is_own = (
            request.headers.get_list("Host") in [[host] for host in self.hosts]
            and (origin is None or origin in {f"http://{host}" for host in self.hosts})
            and (origin is not None or site in (None, "none", "same-origin"))
        )
        return {} if is_own and PATHS.fullmatch(request.path) else None


class Server:
    """A server of the page of some runs.

    Args:
        runs: what is shown, side by side.
        port: where to listen on 127.0.0.1; 0 for any free port.

    Raises:
        InvalidInput: if the port cannot be had.
    """

    def __init__(self, runs: Sequence[Explored], port: int = 0):
        for name in ("bokeh", "tornado"):  # they would tell each request
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if port > 65535:
                raise OSError("there is no such port")
            listening = socket.create_server((ADDRESS, port))
        except OSError as error:
            raise InvalidInput(
                "port",
                got=f"{port}, which cannot be had ({error})",
                expected="a free port, 1024 to 65535",
                fix="pass --port 0 for any that is free",
            ) from None
        listening.setblocking(False)
        self.port = int(listening.getsockname()[1])
        hosts = [f"{name}:{self.port}" for name in NAMES]
        sockets = [f"ws://{host}" for host in hosts]

        def page(document: Document) -> None:
            fill(document, runs, sockets)

        app = BokehTornado(
            {"/": page},
            extra_websocket_origins=hosts,
            use_index=False,
        )
        http = HTTPServer(RuleRouter([Rule(OwnRequests(self.port), app)]))
        http.add_socket(listening)
        self.bokeh = BaseServer(IOLoop.current(), app, http)
        self.bokeh.start()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.port}/"

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            self.bokeh.io_loop.start()
        except KeyboardInterrupt:
            pass
        finally:
            self.bokeh.stop()


def serve(runs: Sequence[Explored], port: int, say: Callable[[str], None]) -> None:
    """Serve the page of some runs until interrupted; ``say`` gets its address."""
    server = Server(runs, port)
    say(f"{' and '.join(run.name for run in runs)}: {server.url} (Ctrl-C ends it)")
    server.run()
