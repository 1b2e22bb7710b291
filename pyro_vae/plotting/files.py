"""Save figures and grids of images as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "save_figure", "save_grid", "write_figure"]

# Okabe and Ito's colours: apart for the colour-blind, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def save_figure(
    path: str | Path, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)
) -> Path:
    """Draws one pair of axes into a PNG file, without touching pyplot's state or its back end."""
    picture = io.BytesIO()
    write_figure(picture, draw, size)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(picture.getvalue())
    return Path(path)


def save_grid(
    path: str | Path, draw: Callable[[np.ndarray], object], count: int, size: float = 1.9
) -> Path:
    """Draws a square of ``count`` by ``count`` axes into a PNG file, as `save_figure` does one."""
    figure = Figure(
        figsize=(max(4.0, size * count), max(4.0, size * count)), layout="constrained", dpi=100
    )
    draw(figure.subplots(count, count, squeeze=False))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return Path(path)


def write_figure(
    file: BinaryIO, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)
) -> None:
    """Draws one pair of axes into an open file, as PNG."""
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.add_subplot())
    figure.savefig(file, format="png")
