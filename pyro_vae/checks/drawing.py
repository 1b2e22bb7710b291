"""Figures of checks: ArviZ's own where it has one, on any release of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from pyro_vae.evaluation.arviz_compat import arviz, is_0x

__all__ = ["bars", "ecdf_of_uniform", "khat", "on_axes", "plot_ecdf_difference"]


def on_axes(
    draw: Callable[[Axes], object], size: tuple[float, float] = (6.0, 3.6)
) -> Callable[[], Figure]:
    """What draws a figure of one pair of axes, made when it is asked for."""

    def make() -> Figure:
        figure = Figure(figsize=size, layout="constrained", dpi=120)
        draw(figure.add_subplot())
        return figure

    return make


def ecdf_of_uniform(values: np.ndarray, title: str, xlabel: str) -> Callable[[], Figure]:
    """What draws the difference of an empirical distribution function from the uniform one.

    Args:
        values: in [0, 1] (N,), without NaN.
        title: of the figure.
        xlabel: what the values are.
    """
    return on_axes(lambda ax: plot_ecdf_difference(values, ax).set(title=title, xlabel=xlabel))


def bars(names: list[str], values: list[float], title: str, xlabel: str) -> Callable[[], Figure]:
    """What draws a bar for each name."""

    def draw(ax: Axes) -> None:
        ax.barh(range(len(names)), values, color="#0072B2")
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.axvline(0, color="0.6", linewidth=1)
        ax.set(title=title, xlabel=xlabel)

    return on_axes(draw, (6.0, 1.2 + 0.28 * len(names)))


def plot_ecdf_difference(values: np.ndarray, ax: Axes) -> Axes:
    """Draw it with a simultaneous band: by ArviZ 0.x where that is installed."""
    az = arviz()
    if is_0x(az):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return az.plot_ecdf(
                values,
                cdf=stats.uniform.cdf,
                difference=True,
                confidence_bands="simulated",
                ci_prob=0.95,
                random_state=np.random.default_rng(0),
                ax=ax,
                show=False,
            )
    at = np.linspace(0, 1, 101)
    ax.step(at, (np.sort(values).searchsorted(at, side="right")) / len(values) - at, where="post")
    reach = stats.kstwo.ppf(0.95, len(values))
    ax.fill_between(at, -reach, reach, alpha=0.2, step="mid")
    ax.set(ylabel="difference from the uniform distribution")
    return ax


def khat(shapes: np.ndarray, threshold: float) -> Callable[[], Figure]:
    """What draws the data's Pareto k, with the threshold of reliability."""

    def draw(ax: Axes) -> None:
        az = arviz()
        shown = shapes[np.isfinite(shapes)]
        if is_0x(az):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                az.plot_khat(shown, ax=ax, textsize=10, show=False)
        else:
            ax.plot(np.arange(len(shown)), shown, "+")
        ax.axhline(threshold, color="0.4", linewidth=1, linestyle="--")
        ax.set(xlabel="datum", ylabel="Pareto k", title="Pareto k of the importance weights")

    return on_axes(draw)
