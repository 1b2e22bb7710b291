"""Figures of checks: ArviZ's own where it has one, on any release of it."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from pyro_vae.evaluation.arviz_compat import ArvizData, arviz, elpd_data, inference_data, is_0x
from pyro_vae.plotting.files import named

__all__ = ["bars", "ecdf_of_uniform", "khat", "on_axes"]

SIZE = (6.0, 3.6)  # inches
POINTS = 101  # at which a distribution function is drawn


def on_axes(
    draw: Callable[[Axes], object], size: tuple[float, float] = SIZE
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

    words = {"title": title, "xlabel": xlabel, "ylabel": "share below, less what is uniform"}

    def make() -> Figure:
        az = arviz()
        if not is_0x(az):
            given = inference_data({"prior_sbc": ({"z": (("chain", "draw"), values[None])}, {})})
            plots = importlib.import_module("arviz_plots")
            # From 1.3 on there is a test in place of bands, whose own fail there.
            has_bands = "ci_prob" in inspect.signature(plots.plot_ecdf_pit).parameters
            bands = {"ci_prob": 0.95} if has_bands else {"envelope_prob": 0.95}
            return _figure_of(plots.plot_ecdf_pit(given, backend="matplotlib", **bands), **words)

        def draw(ax: Axes) -> None:
            az.plot_ecdf(
                values,
                eval_points=np.linspace(0, 1, POINTS),  # chosen by the values, bands do not cover
                cdf=stats.uniform.cdf,
                difference=True,
                confidence_bands="simulated",
                ci_prob=0.95,
                random_state=np.random.default_rng(0),
                ax=ax,
                show=False,
            )
            ax.set(**words)

        return on_axes(draw)()

    return _quietly(make)


def khat(
    shapes: np.ndarray, threshold: float, ess: np.ndarray | None = None
) -> Callable[[], Figure]:
    """What draws the data's Pareto k, with the threshold of reliability, and their effective draws.

    Args:
        shapes: Pareto k of each datum (N,); one that is not known is left out.
        threshold: of reliability.
        ess: effective draws of each datum (N,), drawn below if given.
    """
    are_known = np.isfinite(shapes)
    shown = shapes[are_known]
    draws = np.zeros(0) if ess is None else ess[are_known]
    words = {"xlabel": "datum", "ylabel": "Pareto k", "title": "Pareto k of the importance weights"}

    def make() -> Figure:
        az = arviz()
        if not is_0x(az):
            scores = elpd_data(0 * shown, shown, num_samples=1000, good_k=threshold)
            plots = importlib.import_module("arviz_plots")
            figure = _figure_of(plots.plot_khat(scores, backend="matplotlib"), **words)
            figure.axes[0].axhline(threshold, color="0.4", linewidth=1, linestyle="--")
            return figure

        def draw(ax: Axes) -> None:
            az.plot_khat(shown, ax=ax, textsize=10, show=False)
            ax.axhline(threshold, color="0.4", linewidth=1, linestyle="--")
            ax.set(**words)

        return on_axes(draw)()

    def with_ess() -> Figure:
        figure = make()
        figure.set_size_inches(SIZE[0], 1.8 * SIZE[1])
        grid = figure.add_gridspec(2, 1)
        figure.axes[0].set_subplotspec(grid[0])
        ax = figure.add_subplot(grid[1])
        ax.plot(np.arange(len(shown)), draws, "+", color="#0072B2")
        ax.set(xlabel="datum", ylabel="effective draws", title="effective draws of each datum")
        ax.set_ylim(bottom=0)
        return figure

    return _quietly(make if ess is None else with_ess)


def _figure_of(collection: ArvizData, **words: str) -> Figure:
    """The figure of one plot of ArviZ 1.x in our words and size, which pyplot then forgets."""
    import matplotlib.pyplot as plt

    figure = collection.viz["figure"].item()
    figure.set_size_inches(SIZE)
    figure.set_layout_engine("constrained")
    ax = figure.axes[0]
    ax.set(**words)
    reached = np.concatenate([np.ravel(line.get_ydata()) for line in ax.lines] or [np.zeros(1)])
    reached = reached[np.isfinite(reached)]
    low, high = ax.get_ylim()  # which are those of the bands, beyond which a line may lie
    ax.set_ylim(min(low, 1.05 * reached.min()), max(high, 1.05 * reached.max()))
    plt.close(figure)
    return figure


def _quietly(make: Callable[[], Figure]) -> Callable[[], Figure]:
    """The same, without ArviZ's notices of what is to change in it."""

    def quiet() -> Figure:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()

    return quiet


def bars(names: list[str], values: list[float], title: str, xlabel: str) -> Callable[[], Figure]:
    """What draws a bar for each name."""

    def draw(ax: Axes) -> None:
        ax.barh(range(len(names)), values, color="#0072B2")
        ax.set_yticks(range(len(names)), [*map(named, names)])
        ax.invert_yaxis()
        ax.axvline(0, color="0.6", linewidth=1)
        ax.set(title=title, xlabel=xlabel)

    return on_axes(draw, (6.0, 1.2 + 0.28 * len(names)))
