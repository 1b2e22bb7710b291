"""The figure of a sweep: the scores of each setting over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from pyro_vae.plotting.files import COLOURS, named

__all__ = ["SweepLine", "plot_sweep"]


@dataclass(frozen=True)
class SweepLine:
    """A setting of a sweep, as one line of its figure.

    Args:
        name: what it varies.
        values: the score of each of its seeds.
        is_worse: whether it is told from the best.
    """

    name: str
    values: Sequence[float]
    is_worse: bool


def plot_sweep(lines: Sequence[SweepLine], score: str, ax: Axes) -> Axes:
    """Draw the scores of settings, best at the top: each seed, their mean and their spread.

    Args:
        lines: the settings, best first.
        score: the name of the score.
        ax: where to draw.
    """
    places = -np.arange(len(lines))
    for place, line in zip(places, lines):
        values, colour = np.asarray(line.values), COLOURS[1 if line.is_worse else 0]
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        ax.plot(values, np.full(len(values), place), ".", color=colour, alpha=0.5)
        ax.errorbar(values.mean(), place, xerr=spread, fmt="o", color=colour, capsize=3)
    for colour, words in zip(COLOURS, ("as good as the best, as far as can be told", "worse")):
        ax.plot([], [], "o", color=colour, label=words)
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    ax.set_yticks(places, [named(line.name) for line in lines])
    ax.set(
        xlabel=f"{score}, nats per datum; bars are s.d. over seeds", ylim=(places[-1] - 0.6, 0.6)
    )
    ax.grid(axis="x", alpha=0.3)
    return ax
