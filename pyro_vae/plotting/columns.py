"""Figures of a table: each column of new data against that of the data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.plotting.files import COLOURS, Draw, named
from pyro_vae.plotting.latent import num_bins
from pyro_vae.validation import counted

__all__ = ["column_plots", "plot_column"]

MOST = 12  # columns of a figure
LETTERS, LINES = 30, 10  # of what is written in the room of one
FEW_NUMBERS = 30  # that have a bar each
NAMES = "data", "new data"


def column_plots(data: Tensor, new: Tensor, columns: Columns) -> list[Draw]:
    """`plot_column` of each of the first columns, twelve at most.

    Args:
        data: values (N, C), in the units of the model.
        new: values (M, C) drawn from the program, in the same units.
        columns: their names, kinds and units.
    """
    ours, theirs = (columns.restore(x.cpu()).double().numpy() for x in (data, new))
    draws: list[Draw] = [
        partial(plot_column, column, ours[:, i], theirs[:, i], legend=i == 0)
        for i, column in enumerate(columns)
    ]
    if len(draws) > MOST:
        left = [named(name) for name in columns.names[MOST - 1 :]]
        return [*draws[: MOST - 1], partial(_list, f"{counted(len(left), 'more column')}", left)]
    return draws


def plot_column(
    column: Column, data: np.ndarray, new: np.ndarray, ax: Axes, legend: bool = True
) -> Axes:
    """Draw how often values come in the data, and in new data from the program.

    Categories and few whole numbers have bars, other numbers densities. Missing entries are left
    out.

    Args:
        column: its name, kind and categories.
        data: values (N,) in the column's own units.
        new: values (M,) likewise.
        ax: where to draw.
        legend: whether to say which is which.
    """
    data, new = (values[~np.isnan(values)] for values in (data, new))
    both = np.concatenate([data, new])
    if column.categories:
        _bars(ax, np.arange(len(column.categories)), data, new, column.categories)
    elif column.is_whole and len(both) and both.max() - both.min() < FEW_NUMBERS:
        _bars(ax, np.arange(both.min(), both.max() + 1), data, new)
    else:
        _densities(ax, data, new)
    ax.set(title=named(column.name), yticks=[], ylim=(0, None))
    if legend:
        ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
        ax.legend(fontsize="small", frameon=False, loc="upper center", ncols=2)
    return ax


def _bars(
    ax: Axes, numbers: np.ndarray, data: np.ndarray, new: np.ndarray, names: Sequence[str] = ()
) -> None:
    """The share of each whole number, side by side."""
    for values, colour, label, shift in zip((data, new), COLOURS, NAMES, (-0.2, 0.2)):
        shares = (values.round()[:, None] == numbers).sum(0) / max(1, len(values))
        ax.bar(numbers + shift, shares, 0.4, color=colour, label=label)
    if names:
        turn = 90 if len(names) > 3 or max(map(len, names)) > 8 else 0
        ax.set_xticks(numbers, [*map(named, names)], rotation=turn, fontsize="small")


def _densities(ax: Axes, data: np.ndarray, new: np.ndarray) -> None:
    """Histograms over the range of the data and of the middle of what is new."""
    ends = np.concatenate([data, np.quantile(new, [0.005, 0.995])]) if len(new) else data
    low, high = (ends.min(), ends.max()) if len(ends) else (0.0, 1.0)
    bins = np.linspace(low, high if high > low else low + 1, 1 + num_bins((len(data), len(new))))
    for values, colour, label, filled in zip((data, new), COLOURS, NAMES, (True, False)):
        inside = np.histogram(values, bins)[0] / max(1, len(values))
        ax.stairs(inside, bins, color=colour, alpha=0.5 if filled else 1, fill=filled, label=label)


def _list(title: str, names: Sequence[str], ax: Axes) -> None:
    """Write names into the room of one column."""
    ax.axis("off")
    lines = textwrap.wrap(", ".join(names), LETTERS)
    words = "\n".join([f"{title}:", *lines[:LINES], *(["..."] if len(lines) > LINES else [])])
    text = ax.text(0.5, 0.5, words, ha="center", va="center", fontsize="small")
    text.set_in_layout(False)  # the other columns keep their room, however long a name is
