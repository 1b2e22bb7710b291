r"""Differences of models that were trained from several seeds, and a correction for many of them.

A difference of two models has two errors: over data, for the test set is a sample, and over seeds,
for another seed trains another model. Both are stated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
from scipy import optimize, special
from torch import Tensor

from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.evaluation.difference import OPPOSITE, check_same_data
from pyro_vae.evaluation.scores import Score
from pyro_vae.validation import InvalidInput

__all__ = ["SeedDifference", "against_best", "best_over_seeds", "compare_over_seeds", "holm"]


LEAST_LOG_P = -200.0  # of a p-value that is told from 0


Name = TypeVar("Name", bound=Hashable)  # of a model


@dataclass(frozen=True, repr=False)
class SeedDifference:
    """The mean difference of two models' scores over data and seeds, in nats per datum.

    Args:
        mean: that of the first less that of the second: positive where the first is better.
        se_data: its standard error over data, from the paired differences.
        se_seeds: its standard error over seeds; NaN for one seed, which cannot tell.
        p_value: that of the hypothesis of no difference, two-sided; NaN for one seed or one datum.
        adjusted: the p-value corrected for all the differences that were looked at.
        num_seeds: how many pairs of runs.
        sign: ``""``, ``">="``, ``"<="`` or ``"~"``, as that of a `Difference`.
    """

    mean: float
    se_data: float
    se_seeds: float
    p_value: float
    adjusted: float
    num_seeds: int
    sign: str = ""

    __repr__, _repr_html_ = result_words, result_html

    @property
    def se(self) -> float:
        r"""Both errors together; of one seed, that over data alone.

        That over seeds counts :math:`t_{0.975, S - 1} / 1.96` times, 6.5 for two seeds and 2.2 for
        three, so that 95% intervals are as wide as they must be for so few.
        """
        if self.num_seeds < 2:
            return self.se_data
        student = special.stdtrit(self.num_seeds - 1, 0.975) / special.ndtri(0.975)
        return math.hypot(self.se_data, float(student) * self.se_seeds)


def compare_over_seeds(first: Mapping[int, Score], second: Mapping[int, Score]) -> SeedDifference:
    r"""Compare two models, each trained from several seeds, on the same data.

    .. math:: d_{sn} = a_{sn} - b_{sn}, \quad
              \mathrm{se}_N^2 = \frac{\mathrm{var}_n(\bar d_{\cdot n})}{N}, \quad
              \mathrm{se}_S^2 = \frac{\mathrm{var}_s(\bar d_{s \cdot})}{S}

    Each part holds the interaction of data and seeds, so their sum is rather too large. The p-value
    is the p at which the interval of Banerjee ends at zero, each part with its own Student's t:

    .. math:: \bar d^2 = t_{1 - p/2, N - 1}^2\, \mathrm{se}_N^2 + t_{1 - p/2, S - 1}^2\,
              \mathrm{se}_S^2

    Of equal models it is below any :math:`\alpha` with that chance at most, however many seeds: two
    that happen to agree are no proof that all do.

    Args:
        first: the scores a by seed.
        second: the scores b by seed; seeds that only one of them has are left out.

    Raises:
        InvalidInput: if they share no seed, or are not of the same data.

    Source: Banerjee (1960), Approximate confidence interval for linear functions of means of k
    populations when the population variances are not equal.

    Example:
        >>> a = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), 20, seed=0)
        >>> compare_over_seeds({0: a, 1: a}, {0: a, 1: a}).mean
        0.0
    """
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise InvalidInput(
            "seeds",
            got="two models that share none",
            expected="runs from the same seeds",
            fix="train both from one seed",
        )
    pairs = [(first[seed], second[seed]) for seed in seeds]
    check_same_data({f"run {i}": score for i, score in enumerate(sum(pairs, ()))})
    d = np.array([_numbers(a.values) - _numbers(b.values) for a, b in pairs])
    d = d[:, ~np.isnan(d).all(0)]  # without data of which no entry was observed
    signs = {a.sign for a, _ in pairs} | {OPPOSITE[b.sign] for _, b in pairs}
    sign = "~" if len(signs - {""}) == 2 else "".join(signs)
    se_data, se_seeds = _se(d.mean(0)), _se(d.mean(1))
    p_value = _p_value(float(d.mean()), (se_data, d.shape[1] - 1), (se_seeds, len(d) - 1))
    return SeedDifference(float(d.mean()), se_data, se_seeds, p_value, p_value, len(d), sign)


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _se(values: np.ndarray) -> float:
    """The standard error of a mean; NaN for one value."""
    few = len(values) < 2
    return math.nan if few else float(values.std(ddof=1) / math.sqrt(len(values)))


def _p_value(mean: float, *parts: tuple[float, int]) -> float:
    """Two-sided, by standard errors with their degrees of freedom; NaN where one is not known."""
    if any(math.isnan(error) for error, _ in parts):
        return math.nan
    if all(error == 0 for error, _ in parts):
        return float(mean == 0)

    def excess(log_p: float) -> float:
        """How far the end of the interval about the mean is beyond zero."""
        ends = (special.stdtrit(df, math.exp(log_p) / 2) * error for error, df in parts)
        return math.hypot(*ends) - abs(mean)

    if excess(LEAST_LOG_P) < 0:
        return 0.0
    return 1.0 if mean == 0 else math.exp(optimize.brentq(excess, LEAST_LOG_P, 0.0))


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Adjust p-values so that any of them below :math:`\alpha` is wrong with at most that chance.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    with the m p-values in increasing order. It holds whatever their dependence. NaN stays.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def best_over_seeds(values: Mapping[Name, Mapping[int, float]]) -> Name:
    """The best of models that may lack some seeds, such as those whose training failed.

    It is one of those with the most seeds: to have failed is no merit. Two of them are compared
    over the seeds that both have, as their difference is. The best is better than most others, and
    has the highest mean of several such: where all have the same seeds, the highest mean.

    Args:
        values: what is compared, higher is better, by the model's name and then by seed.

    Example:
        >>> best_over_seeds({"a": {1: -1.0}, "b": {0: -10.0, 1: -0.5}})
        'b'
    """
    most = max(map(len, values.values()))
    able = {name: own for name, own in values.items() if len(own) == most}

    def lead(name: Name) -> tuple[int, float]:
        """How many more it is better than than worse than, and its mean."""
        own, others = able[name], (able[other] for other in able if other != name)
        pairs = [(other, own.keys() & other.keys()) for other in others if not is_alike]
        leads = [_mean(own, shared) - _mean(other, shared) for other, shared in pairs if shared]
        return sum((each > 0) - (each < 0) for each in leads), _mean(own, own.keys())

    is_alike = len({frozenset(own) for own in able.values()}) == 1
    return max(able, key=lead)


def _mean(values: Mapping[int, float], seeds: Collection[int]) -> float:
    return sum(values[seed] for seed in sorted(seeds)) / len(seeds) if seeds else -math.inf


def against_best(
    scores: Mapping[Name, Mapping[int, Score]], reference: Name | None = None
) -> tuple[Name, dict[Name, SeedDifference]]:
    """Compare models with the best of them, corrected by `holm` for all that was looked at.

    The best is that of `best_over_seeds`. These scores chose it, so the correction is for the
    differences of all pairs: any of them might have been the one that is shown. A model with fewer
    seeds is never the best, even where it is better over those that it has.

    Args:
        scores: by the model's name and then by seed.
        reference: a model to compare with that other data chose; the correction is then for the
            differences from it.

    Returns:
        The name of the best or the reference, and the difference from it of each other model that
        shares a seed with it.

    Raises:
        InvalidInput: if the scores are not of the same data.
    """
    means = {
        name: {seed: score.mean for seed, score in own.items()} for name, own in scores.items()
    }
    best = best_over_seeds(means) if reference is None else reference
    looked_at = {
        pair: compare_over_seeds(scores[pair[0]], scores[pair[1]])
        for pair in combinations([best, *(name for name in scores if name != best)], 2)
        if (reference is None or best in pair) and scores[pair[0]].keys() & scores[pair[1]].keys()
    }
    adjusted = holm([found.p_value for found in looked_at.values()])
    return best, {
        other: _from_best(replace(found, adjusted=p))
        for ((first, other), found), p in zip(looked_at.items(), adjusted)
        if first == best
    }


def _from_best(best_less_other: SeedDifference) -> SeedDifference:
    """The same difference with the best as the second."""
    return replace(best_less_other, mean=-best_less_other.mean, sign=OPPOSITE[best_less_other.sign])
