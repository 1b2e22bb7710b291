"""Sounds and other short series as curves, laid out in rows and columns as images are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from pyro_vae.plotting.files import COLOURS, named

__all__ = ["is_series", "plot_series"]

MOST = 3  # values at one time
SHORTEST = 8  # times
PIECES = 400  # of a curve: of a longer one, each piece goes from its least to its largest value
GAP = 0.1  # between curves, as a share of the room of one


def is_series(event_shape: Sequence[int]) -> bool:
    """Whether data of this shape are a few curves, (channels, times) or (times, channels).

    Example:
        >>> [is_series(shape) for shape in ((1, 4000), (50, 2), (28, 28), (3, 4), (9,))]
        [True, True, False, False, False]
    """
    return len(event_shape) == 2 and min(event_shape) <= MOST and max(event_shape) >= SHORTEST


def plot_series(values: np.ndarray, ax: Axes, columns: int | None, rows: Sequence[str]) -> Axes:
    """Draw series (N, C, T) or (N, T, C) beside and below one another, all on one scale.

    Args:
        values: the series; NaN, where a value is missing, leaves a gap.
        ax: where to draw.
        columns: series in a row; by default twice as many rows as columns.
        rows: the name of each row.
    """
    values = values if values.shape[1] <= values.shape[2] else values.swapaxes(1, 2)
    across = columns or max(1, round(math.sqrt(len(values) / 2)))
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
    unit = (1 - GAP) / (high - low or 1.0)
    place, heights = _outline(values)
    for channel in range(values.shape[1]):
        lines = [
            np.stack((i % across + (1 - GAP) * place, unit * (curve - low) - i // across), -1)
            for i, curve in enumerate(heights[:, channel])
        ]
        ax.add_collection(LineCollection(lines, colors=COLOURS[channel], linewidths=0.7))
    down = -(-len(values) // across)
    ax.set(
        xlim=(-GAP, across), ylim=(1 - down - GAP, 1), xticks=[], yticks=[],
        xlabel=f"each from {low:.3g} to {high:.3g}, {values.shape[2]:,} steps",
    )  # fmt: skip
    ax.spines[:].set_visible(False)
    if rows:
        ax.set_yticks((1 - GAP) / 2 - np.arange(len(rows)), [*map(named, rows)])
        ax.tick_params(length=0)
    return ax


def _outline(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the corners of curves (N, C, T) are, from 0 to 1 (P,), and how high (N, C, P)."""
    steps = values.shape[2]
    if steps <= 2 * PIECES:
        return np.linspace(0, 1, steps), values
    ends = np.linspace(0, steps, PIECES + 1).astype(int)[:-1]
    known = ~np.isnan(values)
    low = np.minimum.reduceat(np.where(known, values, np.inf), ends, axis=2)
    high = np.maximum.reduceat(np.where(known, values, -np.inf), ends, axis=2)
    both = np.stack((low, high), -1).reshape(*values.shape[:2], -1)
    return np.repeat(ends / steps, 2), np.where(np.isinf(both), np.nan, both)
