"""The page: for each run a map, what is decoded at a point of it, and a datum's posterior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bokeh.core.templates import get_env
from bokeh.document import Document

from pyro_vae.explorer.explored import Explored
from pyro_vae.explorer.run_view import RunView

__all__ = ["fill"]

PAGE = Path(__file__).with_name("page.html")


def fill(document: Document, runs: Sequence[Explored], sockets: Sequence[str]) -> None:
    """Put the page of some runs into an empty document.

    A datum chosen in one run is chosen in the others that show the same data.

    Args:
        document: of one browser window.
        runs: what is shown, side by side.
        sockets: the addresses that the page may open websockets to.
    """
    views = [RunView(run) for run in runs]
    for view in views:
        view.linked = [
            other
            for other in views
            if other is not view and other.run.data.sha256 == view.run.data.sha256
        ]
    described = []
    for place, view in enumerate(views):
        names = {
            side: [f"{side}{place}_{i}" for i in range(len(roots))]
            for side, roots in view.sides.items()
        }
        for side, roots in view.sides.items():
            for name, root in zip(names[side], roots):
                root.name = name
                document.add_root(root)
        described.append({"name": view.run.name, "notes": view.run.notes, **names})
    document.title = " and ".join(run.name for run in runs) + " - pyro-vae explore"
    document.template = get_env().from_string(PAGE.read_text())
    document.template_variables.update(runs=described, sockets=" ".join(sockets))
