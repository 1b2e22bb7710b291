"""Figures and grids of axes as files: PNG, and PDF or SVG for a paper."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae import checkpoint
from pyro_vae.validation import check_choice, short

__all__ = [
    "COLOURS", "FORMATS", "figure_files", "figure_png", "formats_with", "grid_files", "named",
    "save_figure", "written",
]  # fmt: skip

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

# By format, what is left out of a file so that two of them are the same.
METADATA: dict[str, dict[str, None]] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
FORMATS = tuple(METADATA)


Draw = Callable[[Axes], object]  # what draws on a pair of axes


def named(name: str) -> str:
    """A name as Matplotlib takes it for text: its dollars begin no formula."""
    return short(name).replace("$", r"\$")


def save_figure(path: str | Path, draw: Draw, size: tuple[float, float] = (6.0, 4.5)) -> Path:
    """Draw one pair of axes into a PNG file; pyplot's state and back end stay as they are."""
    checkpoint.write_bytes(Path(path), figure_png(draw, size))
    return Path(path)


def figure_png(
    draw: Draw | Sequence[Draw],
    size: tuple[float, float] = (6.0, 4.5),
    software: str = "pyro-vae",
) -> bytes:
    """One pair of axes, or a column of several, as PNG, which names the software that drew it."""
    return written(_figure(draw, size), "png", software)


def figure_files(
    name: str,
    draw: Draw | Sequence[Draw],
    size: tuple[float, float] = (6.0, 4.5),
    formats: Sequence[str] = ("png",),
    across: int = 1,
) -> dict[str, bytes]:
    """One pair of axes, or several, as files, by their names.

    Args:
        name: that of the files, without an ending.
        draw: what draws on the axes; several stand row by row.
        size: width and height of one pair of axes in inches.
        formats: of `FORMATS`.
        across: how many pairs of axes stand beside one another.

    Example:
        >>> list(figure_files("line", lambda ax: ax.plot([0, 1]), formats=["png", "svg"]))
        ['line.png', 'line.svg']
    """
    figure = _figure(draw, size, across)
    return {f"{name}.{kind}": written(figure, kind, "pyro-vae") for kind in formats}


def grid_files(
    name: str,
    draw: Callable[[np.ndarray], object],
    count: int,
    formats: Sequence[str] = ("png",),
    size: float = 1.9,
) -> dict[str, bytes]:
    """A square of ``count`` by ``count`` axes as files, by their names."""
    side = max(4.0, size * count)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=100)
    draw(figure.subplots(count, count, squeeze=False))
    return {f"{name}.{kind}": written(figure, kind, "pyro-vae") for kind in formats}


def formats_with(chosen: str) -> list[str]:
    """PNG, which reports show, and the format that the user chose besides.

    Raises:
        InvalidInput: for a format that is not known.
    """
    check_choice("figure_format", chosen, FORMATS)
    return list(dict.fromkeys(["png", chosen]))


def _figure(draw: Draw | Sequence[Draw], size: tuple[float, float], across: int = 1) -> Figure:
    panels = draw if isinstance(draw, Sequence) else [draw]
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    whole = size[0] * across, size[1] * down
    figure = Figure(figsize=whole, layout="constrained", dpi=120)
    places = figure.subplots(down, across, squeeze=False).flat
    for panel, ax in zip(panels, places):
        panel(ax)
    for ax in places:  # of the last row, what is left
        ax.axis("off")
    return figure


def written(figure: Figure, kind: str, software: str) -> bytes:
    """A figure as a file without empty margins; the same figure gives the same bytes."""
    picture = io.BytesIO()
    with (
        matplotlib.rc_context({"svg.hashsalt": "pyro-vae", "pdf.fonttype": 42}),
        warnings.catch_warnings(),
    ):
        # Matplotlib says so by the clock: where the machine is busy, of any legend.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best" can be slow')
        figure.savefig(
            picture,
            format=kind,
            bbox_inches="tight",
            pad_inches=0.06,
            metadata=METADATA[kind] | {"Software" if kind == "png" else "Creator": software},
        )
    return picture.getvalue()
