"""Statistics of the data against those of data that the model makes."""

from __future__ import annotations

import numpy as np

from pyro_vae.checks.base import Check, Finding, Number, is_clear
from pyro_vae.checks.drawing import on_axes
from pyro_vae.checks.statistics_by_kind import Departure, advice_on, departures, statistics_of
from pyro_vae.checks.subject import MOST, REPLICATES, Entries, Subject
from pyro_vae.checks.two_samples import error_of_ranks
from pyro_vae.plotting.files import named

__all__ = ["Statistics"]

LEVEL = 0.01
BINS = 30
GRID = 0.01  # of a step, by which a value on a grid may be off
SHOWN = 4  # faults, and columns of each, that are named


class Statistics(Check):
    r"""Statistics that suit the data's kind are those of data drawn from the model.

    .. math:: z \sim p(z), \; \tilde x \sim p(x \mid z): \quad T(\tilde x) \sim T(x)

    Counts: their dispersion, zeros, round numbers. Categories: their shares. Numbers: location,
    spread, tails, repeated values. No draw of q takes part, so that a poor q cannot hide a poor
    fit.
    """

    name = "statistics of the data"
    question = "Does the model fit?"
    calls, rows = 40, MOST * REPLICATES

    def look(self, subject: Subject) -> Finding:
        found: list[tuple[Entries, Departure]] = []
        for part in subject.by_category:
            arrays = part.real.numpy(), part.simulated.numpy()
            kinds = part.is_discrete.numpy(), part.is_binary.numpy()
            found += [(part, each) for each in statistics_of(*arrays, *kinds)]
        tests = [each for _, each in found]
        looks = max(1, sum(int((each.p_value < 1).sum()) for each in tests))
        smallest = min(float(each.p_value.min()) for each in tests)
        wrong = departures(tests, LEVEL)
        names = {id(each): part.columns for part, each in found}
        columns: dict[str, list[str]] = {}
        for each, d in wrong:
            column = names[id(each)][d]
            if column not in columns.setdefault(each.fault(d), []):
                columns[each.fault(d)].append(column)
        faults = list(columns)[:SHOWN]
        count = min(int((~part.real.isnan()).sum(0).min()) for part in subject.by_category)
        numbers: dict[str, Number] = {
            "real data": len(subject.few),
            "of the column with the fewest": count,
            "simulated data": len(subject.few) * REPLICATES,
            "comparisons": looks,
            "comparisons that differ": len(wrong),
        }
        for part, each in found:
            d = int(each.p_value.argmin())
            numbers[f"{each.statistic}, most at"] = part.columns[d]
            numbers[f"{each.statistic}, larger by"] = float(each.size[d])
        return Finding(
            means="; ".join(f"{fault} ({_some(columns[fault])})" for fault in faults)
            if faults
            else f"{looks} comparisons of the data with the model's own find no difference that "
            "matters",
            numbers=numbers,
            p_value=min(1.0, smallest * looks),
            matters=bool(wrong),
            faults=faults,
            clear=is_clear(error_of_ranks(count, REPLICATES)),
            change=" ".join(dict.fromkeys(map(advice_on, faults))),
            figure=on_axes(lambda ax: _draw(ax, subject, found)),
        )


def _some(columns: list[str]) -> str:
    """The first columns by name, and how many there are besides."""
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return ", ".join(columns[:SHOWN]) + more


def grid_of(values: np.ndarray) -> tuple[float, float]:
    """The least value and the step of the grid that values lie on; a step of 0 where on none.

    Example:
        >>> grid_of(np.array([0.5, 0.5, 0.75, 0.75, 1.5, 1.5])), grid_of(np.array([0.1, 0.5, 0.57]))
        ((0.5, 0.25), (0.1, 0.0))
    """
    levels = np.unique(values)
    if len(levels) < 2 or 2 * len(levels) > len(values):  # most are alone: it may be a fine one
        return float(levels[0]), 0.0
    step = np.diff(levels).min()
    places = (levels - levels[0]) / step
    is_grid = np.abs(places - places.round()).max() < GRID
    return float(levels[0]), float(step) if is_grid else 0.0


def bins_of(values: np.ndarray, grid: tuple[float, float]) -> np.ndarray:
    """The edges of a histogram without the outermost values, with as many levels of a grid in each.

    Bins that do not follow the levels hold now one more of them and now one fewer: a comb.

    Example:
        >>> bins_of(np.arange(5) / 4, (0.0, 0.25)).tolist()
        [-0.125, 0.125, 0.375, 0.625, 0.875, 1.125]
    """
    (low, high), (least, step) = np.quantile(values, [0.005, 0.995]), grid
    if not step:
        return np.linspace(low, high, BINS + 1)
    first, last = np.floor((low - least) / step + GRID), np.ceil((high - least) / step - GRID)
    levels = max(1, int(np.ceil((last - first + 1) / BINS)))  # in each bin
    return least + step * (np.arange(first, last + 1 + levels, levels) - 0.5)


def _draw(ax, subject: Subject, found: list[tuple[Entries, Departure]]) -> None:
    """Draw real and simulated values of the entry that differs most."""
    part, each = min(found, key=lambda pair: float(pair[1].p_value.min()))
    d = int(each.p_value.argmin())
    both_sides = part.real[:, d], part.simulated[:, :, d].flatten()
    real, made = (subject.in_units(part.columns[d], each).numpy() for each in both_sides)
    both = np.concatenate([real[~np.isnan(real)], made[~np.isnan(made)]])
    bins = bins_of(both, (0.0, 1.0) if part.is_discrete[d] else grid_of(real[~np.isnan(real)]))
    for values, name in ((real, "data"), (made, "drawn from the model")):
        ax.hist(values, bins=bins, density=True, histtype="step", linewidth=1.5, label=name)
    name = named(part.columns[d])
    title = f"{name} differs most, in its {each.statistic}"
    ax.set(title=title, xlabel=name, ylabel="density")
    ax.legend()
