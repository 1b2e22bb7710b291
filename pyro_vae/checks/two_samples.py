"""Tests that real and simulated data are of one distribution, entry by entry.

They take data (N, D) and simulated data (M, D), NaN where an entry is missing, and need no normal
distribution of anything: ranks, and counts of what holds.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from pyro_vae.checks.subject import CannotTell
from pyro_vae.diagnostics.two_sample import FEWEST_DRAWS, TwoSampleTest, two_sample_test

__all__ = ["error_of_ranks", "observed", "rank_test", "share_test", "told_apart"]

MOST_ALIKE = 0.7  # of the values of a column


def rank_test(real: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test whether real values tend to be larger or smaller, by Mann and Whitney's test.

    Where most values of a column are alike, its normal approximation fails. Then the shares above
    and below that value are compared, exactly.

    Returns:
        P-values (D,), and how much more often than half a real value is the larger (D,): from -0.5
        to 0.5.

    Example:
        >>> random = np.random.default_rng(0)
        >>> p, advantage = rank_test(random.normal(1, 1, (200, 1)), random.normal(0, 1, (400, 1)))
        >>> bool(p[0] < 1e-9), bool(advantage[0] > 0.2)
        (True, True)
    """
    n, m = (~np.isnan(real)).sum(0), (~np.isnan(simulated)).sum(0)
    with np.errstate(all="ignore"):
        found = stats.mannwhitneyu(real, simulated, axis=0, method="asymptotic", nan_policy="omit")
        advantage = found.statistic / (n * m) - 0.5
    p_value, common = np.nan_to_num(found.pvalue, nan=1.0), _common(real, simulated)
    if (alike := ~np.isnan(common)).any():
        ours, theirs, value = real[:, alike], simulated[:, alike], common[alike]
        sides = [
            share_test(observed(side(ours, value), ours), observed(side(theirs, value), theirs))[0]
            for side in (np.greater, np.less)
        ]
        p_value[alike] = np.minimum(1.0, 2 * np.minimum(*sides))
    return p_value, np.nan_to_num(advantage)


def error_of_ranks(count: int, times: int) -> float:
    """The standard error of the advantage of so many values over so many times as many others.

    Example:
        >>> round(error_of_ranks(100, 4), 4)
        0.0323
    """
    return ((count * (times + 1) + 1) / (12 * times)) ** 0.5 / count if count else np.inf


def _common(real: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """The value (D,) that more than `MOST_ALIKE` of a column's values are; NaN where none is."""
    found = np.full(real.shape[1], np.nan)
    for d in range(real.shape[1]):
        both = np.concatenate([real[:, d], simulated[:, d]])
        values, counts = np.unique(both[~np.isnan(both)], return_counts=True)
        if len(counts) and counts.max() > MOST_ALIKE * counts.sum():
            found[d] = values[counts.argmax()]
    return found


def observed(holds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """1 where something holds of values (N, D), 0 where it does not, NaN where one is missing."""
    return np.where(np.isnan(values), np.nan, holds.astype(float))


def share_test(real: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test whether something holds more or less often of real values, by Fisher's exact test.

    Args:
        real: 1 where it holds and 0 where it does not (N, D).
        simulated: the same of simulated values (M, D).

    Returns:
        P-values (D,), and the difference of the shares (D,).

    Example:
        >>> p, more = share_test(np.ones((20, 1)), np.zeros((80, 1)))
        >>> bool(p[0] < 1e-12), float(more[0])
        (True, 1.0)
    """
    n, m = (~np.isnan(real)).sum(0), (~np.isnan(simulated)).sum(0)
    held, drawn = np.nansum(real, 0).round(), np.nansum(simulated, 0).round()
    law = n + m, (held + drawn).astype(int), n
    tail = 2 * np.minimum(stats.hypergeom.cdf(held, *law), stats.hypergeom.sf(held - 1, *law))
    return np.minimum(1.0, tail), held / np.maximum(n, 1) - drawn / np.maximum(m, 1)


def told_apart(a: np.ndarray, b: np.ndarray, seed: int, paired: bool = False) -> TwoSampleTest:
    """Whether a classifier tells two samples (S, D) apart, as `two_sample_test` finds.

    Raises:
        CannotTell: where there are too few.
    """
    if (count := min(len(a), len(b))) < FEWEST_DRAWS:
        raise CannotTell(
            f"{count} data are too few to fit a classifier to",
            f"Check on {FEWEST_DRAWS} data or more.",
        )
    return two_sample_test(a, b, paired=paired, seed=seed)
