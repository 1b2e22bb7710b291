r"""A test of uniformity by the difference of an empirical distribution function from the line.

The counts of N values below each of some points must all lie in one simultaneous band. The band of
level :math:`1 - \gamma` at each point alone holds with a probability that a recursion over the
points gives exactly, so the p-value of the worst point is exact too, for uniform values and for
ranks alike.

Source: Sailynoja, Burkner and Vehtari (2022), Graphical Test for Discrete Uniformity and Its
Applications in Goodness-of-Fit Evaluation and Multiple Sample Comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

__all__ = ["Uniform", "uniform_test"]

POINTS = 20


@dataclass(frozen=True)
class Uniform:
    """Tests of columns of values against the uniform distribution on [0, 1].

    Args:
        p_value: of each column (D,).
        difference: the largest difference of its empirical distribution function from the line.
        shift: the mean less 1/2, in standard errors.
        spread: the variance less 1/12, in standard errors; positive where the ends are too full.
    """

    p_value: np.ndarray
    difference: np.ndarray
    shift: np.ndarray
    spread: np.ndarray

    @property
    def smallest(self) -> float:
        """One p-value for all columns: Bonferroni's bound."""
        return min(1.0, float(self.p_value.min()) * len(self.p_value))

    @property
    def worst(self) -> int:
        """The column that is least uniform."""
        return int(np.lexsort((-self.difference, self.p_value))[0])


def uniform_test(values: np.ndarray, points: int = POINTS) -> Uniform:
    """Test columns of values (N, D) in [0, 1]; NaN marks one that is missing.

    Of ranks 0 ... L, hand over (rank + u) / (L + 1) with u uniform.

    Example:
        >>> grid = (np.arange(200)[:, None] + 0.5) / 200
        >>> test = uniform_test(np.concatenate([grid, grid**2], axis=1))
        >>> bool(test.p_value[0] > 0.99), bool(test.p_value[1] < 1e-6)
        (True, True)
    """
    at = np.arange(1, points) / points
    p_value = np.ones(values.shape[1])
    counts = (values[:, :, None] <= at).sum(0)  # a NaN is below nothing
    sizes = (~np.isnan(values)).sum(0)
    for size in np.unique(sizes[sizes > 1]):
        these = sizes == size
        p_value[these] = _p_values(counts[these], int(size), at)
    few = np.maximum(sizes, 1)
    centred = values - 0.5
    shift = np.nansum(centred, 0) / few * np.sqrt(12 * few)
    variance = np.nansum(centred**2, 0) / few - (np.nansum(centred, 0) / few) ** 2
    spread = (variance - 1 / 12) * np.sqrt(180 * few)
    difference = np.abs(counts / few[:, None] - at).max(1)
    return Uniform(p_value, np.where(sizes > 1, difference, 0.0), shift, spread)


def _p_values(counts: np.ndarray, size: int, at: np.ndarray) -> np.ndarray:
    """P-values (D,) of counts (D, P) of so many values below the points."""
    below = stats.binom.cdf(counts, size, at)
    above = stats.binom.sf(counts - 1, size, at)
    gamma = np.clip(2 * np.minimum(below, above), 0, 1).min(1)
    # The band that the worst point just leaves: counts that are less of a surprise lie within it.
    every = np.arange(size + 1)
    surprise = np.minimum(
        stats.binom.cdf(every[:, None], size, at), stats.binom.sf(every[:, None] - 1, size, at)
    )
    inside = 2 * surprise[None] > gamma[:, None, None] * (1 + 1e-9)  # (D, N + 1, P)
    reached = np.zeros((len(gamma), size + 1))
    reached[:, 0] = 1.0
    outside, before = np.zeros(len(gamma)), 0.0
    for i, point in enumerate(at):
        step = _transition(size, (point - before) / (1 - before))
        reached = reached @ step
        # What leaves the band here is added up, so that a tiny p-value keeps its digits.
        outside += np.where(inside[:, :, i], 0.0, reached).sum(1)
        reached = np.where(inside[:, :, i], reached, 0.0)
        before = point
    return np.minimum(outside, 1.0)


def _transition(size: int, share: float) -> np.ndarray:
    """Probabilities (N + 1, N + 1) that a count becomes another at the next point."""
    one, other = np.arange(size + 1)[:, None], np.arange(size + 1)[None]
    ways = special.gammaln(np.arange(size + 2) + 1.0)  # logs of factorials: many times faster
    more, rest = np.maximum(other - one, 0), size - np.maximum(other, one)
    log_pmf = ways[size - one] - ways[more] - ways[rest]
    log_pmf = log_pmf + more * np.log(share) + rest * np.log1p(-share)
    return np.where(other < one, 0.0, np.exp(log_pmf))
