"""Figures and grids of axes as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vae import checkpoint

__all__ = ["COLOURS", "figure_png", "grid_png", "save_figure"]

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def save_figure(
    path: str | Path, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)
) -> Path:
    """Draw one pair of axes into a PNG file; pyplot's state and back end stay as they are."""
    checkpoint.write_bytes(Path(path), figure_png(draw, size))
    return Path(path)


def figure_png(
    draw: Callable[[Axes], Axes],
    size: tuple[float, float] = (6.0, 4.5),
    software: str = "pyro-vae",
) -> bytes:
    """One pair of axes as PNG, which names the software that drew it."""
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.add_subplot())
    return _png(figure, software)


def grid_png(draw: Callable[[np.ndarray], object], count: int, size: float = 1.9) -> bytes:
    """A square of ``count`` by ``count`` axes as PNG."""
    side = max(4.0, size * count)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=100)
    draw(figure.subplots(count, count, squeeze=False))
    return _png(figure, "pyro-vae")


def _png(figure: Figure, software: str) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": software})
    return picture.getvalue()
