"""Figures and grids of axes as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "save_figure", "save_grid", "write_figure"]

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def save_figure(
    path: str | Path, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)
) -> Path:
    """Draw one pair of axes into a PNG file; pyplot's state and back end stay as they are."""
    picture = io.BytesIO()
    write_figure(picture, draw, size)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(picture.getvalue())
    return Path(path)


def save_grid(
    path: str | Path, draw: Callable[[np.ndarray], object], count: int, size: float = 1.9
) -> Path:
    """Draw a square of ``count`` by ``count`` axes into a PNG file."""
    side = max(4.0, size * count)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=100)
    draw(figure.subplots(count, count, squeeze=False))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return Path(path)


def write_figure(
    file: BinaryIO, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)
) -> None:
    """Draw one pair of axes into an open file, as PNG."""
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.add_subplot())
    figure.savefig(file, format="png")
