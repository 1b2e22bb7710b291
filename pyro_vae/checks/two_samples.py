"""Tests that real and simulated data are of one distribution, entry by entry.

They take data (N, D) and simulated data (M, D), NaN where an entry is missing, and need no normal
distribution of anything: ranks, and counts of what holds.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

__all__ = ["rank_test", "share_test"]


def rank_test(real: np.ndarray, simulated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test whether real values tend to be larger or smaller, by Mann and Whitney's test.

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
    return np.nan_to_num(found.pvalue, nan=1.0), np.nan_to_num(advantage)


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
    law = stats.hypergeom(n + m, (held + drawn).astype(int), n)
    tail = 2 * np.minimum(law.cdf(held), law.sf(held - 1))
    return np.minimum(1.0, tail), held / np.maximum(n, 1) - drawn / np.maximum(m, 1)
