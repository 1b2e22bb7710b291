r"""A test that entries of real data depend on one another as those of simulated data do.

Given its context, a real datum and its simulated ones are drawn alike where the program is right.
So any of them may be taken for the real one: whatever statistic is looked at, its value on the real
data is one of those that such exchanges give (a permutation test within each datum). Nothing has to
be normal, and columns may be continuous, counts or binary.

Entries are put into normal scores of their ranks. Pairs are compared as they are and by what is
left of each entry when the others are accounted for, :math:`C^{-1} s` with C the correlations of
all scores s: there, dependence that latents do not carry is not hidden by what they do carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from pyro_vae.checks.subject import CannotTell

__all__ = ["Dependence", "Family", "chosen_entries", "compared", "tail_probability"]

EXCHANGES = 1000
TAIL = 0.1  # of the exchanges, beyond which their distribution is taken for exponential
MOST_ALIKE = 0.95  # of the values of an entry; beyond that, it tells nothing of dependence
FEWEST = 20  # values of an entry
FEWEST_OTHERS = 5  # of them that are not the commonest one
MOST_ENTRIES, RUN = 128, 4  # entries at a time, and neighbours among them
RIDGE = 0.02  # added to correlations before they are inverted


@dataclass(frozen=True)
class Family:
    """Differences of correlations between real and simulated data, pair by pair.

    Args:
        given_others: whether they are of what is left when the other entries are accounted for.
        pairs: the places of each pair (P, 2).
        real: correlations of the real data (P,).
        simulated: those of the simulated data (P,).
        error: standard errors of their differences (P,).
        p_pair: the probability (P,) that the largest of all pairs is as large by chance.
        p_together: that of the sum of all squares.
        p_neighbours: that of the mean of neighbours; 1 where there are none.
        neighbours: which pairs are neighbours (P,).
        threshold: standard errors that one pair in a hundred exchanges exceeds.
    """

    given_others: bool
    pairs: np.ndarray
    real: np.ndarray
    simulated: np.ndarray
    error: np.ndarray
    p_pair: np.ndarray
    p_together: float
    p_neighbours: float
    neighbours: np.ndarray
    threshold: float

    @property
    def difference(self) -> np.ndarray:
        """How much larger each correlation is in the real data (P,)."""
        return self.real - self.simulated

    @property
    def worst(self) -> int:
        """The pair that differs most for its error."""
        return int(np.abs(self.difference / self.error).argmax())

    @property
    def of_neighbours(self) -> float:
        """The mean difference of neighbours."""
        return float(self.difference[self.neighbours].mean()) if self.neighbours.any() else 0.0

    @property
    def together(self) -> float:
        """The root mean square difference of all pairs, beyond what is chance."""
        beyond = (self.difference**2 - self.error**2).mean()
        return float(np.sqrt(max(0.0, beyond)))


@dataclass(frozen=True)
class Dependence:
    """What the comparison found.

    Args:
        families: of correlations as they are, and of what is left given the other entries.
        looks: how many p-values there are.
        p_value: one for all that was looked at: Bonferroni's bound.
    """

    families: tuple[Family, ...]
    looks: int
    p_value: float


def chosen_entries(together: np.ndarray, most: int = MOST_ENTRIES) -> np.ndarray:
    """The places of entries (E,) that vary enough to be compared, in runs of a few neighbours.

    Args:
        together: values (S, D) of real and simulated data together, NaN where one is missing.
        most: entries that are chosen, spread evenly over the others.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(100, 3))
        >>> values[:, 1] = 0
        >>> chosen_entries(values)
        array([0, 2])
    """
    suits = np.flatnonzero([_varies(values[~np.isnan(values)]) for values in together.T])
    if len(suits) <= most:
        return suits
    starts = np.linspace(0, len(suits) - RUN, most // RUN).round().astype(int)
    return suits[np.unique((starts[:, None] + np.arange(RUN)).ravel())]


def _varies(values: np.ndarray) -> bool:
    """Whether values are enough, and not nearly all the same."""
    if len(values) < FEWEST:
        return False
    commonest = np.unique(values, return_counts=True)[1].max()
    return commonest <= min(MOST_ALIKE * len(values), len(values) - FEWEST_OTHERS)


def compared(
    real: np.ndarray, simulated: np.ndarray, followers: Sequence[bool], seed: int = 0
) -> Dependence:
    """Compare the dependence of entries between real data (N, E) and simulated ones (R, N, E).

    Args:
        real: the data, NaN where an entry is missing.
        simulated: draws of the model, each like its datum in all but its values.
        followers: whether each entry but the first is the neighbour of the one before it (E - 1,).
        seed: of the exchanges.

    Raises:
        CannotTell: where no two entries are known together in enough data.

    Source: Phipson and Smyth (2010) for exact permutation p-values; Knijnenburg et al. (2009),
    Fewer Permutations, More Accurate P-values, for their tails.

    Example:
        >>> random = np.random.default_rng(0)
        >>> z, noise = random.normal(size=(200, 1)), random.normal(size=(5, 200, 3))
        >>> found = compared(noise[0] + z, noise[1:], [True, True])
        >>> found.p_value < 1e-4, compared(noise[0], noise[1:], [True, True]).p_value > 0.01
        (True, True)
    """
    random = np.random.default_rng(seed)
    scores, known = _scores(np.concatenate([real[None], simulated]))
    chosen = random.integers(0, len(scores), (EXCHANGES, len(real)))
    if not (_counts(known)[np.triu_indices(known.shape[1], 1)] >= FEWEST).any():
        raise CannotTell(
            f"no two entries are known together in {FEWEST} data",
            "Check more test data, with fewer gaps.",
        )
    chosen[0] = 0  # the real data are one of the exchanges
    raw = _family(scores, known, chosen, followers, given_others=False)
    families = [raw]
    if scores.shape[-1] > 2:
        left = _given_others(scores, known)
        families.append(_family(left, known, chosen, followers, given_others=True))
    looks = [p for each in families for p in (float(each.p_pair.min()), *_of_all(each))]
    return Dependence(tuple(families), len(looks), min(1.0, len(looks) * min(looks)))


def _of_all(family: Family) -> list[float]:
    """The p-values of all pairs together, where they say more than the largest pair."""
    if len(family.pairs) == 1:
        return []
    return [family.p_together, family.p_neighbours][: 1 + bool(family.neighbours.any())]


def _scores(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores (R + 1, N, E) of the ranks among all, and which are known in all sets (N, E).

    An unknown one has the score 0.
    """
    known = ~np.isnan(values).any(0)
    flat = np.where(known, values, np.nan).reshape(-1, values.shape[-1])
    ranks = stats.rankdata(flat, axis=0, nan_policy="omit")
    scores = special.ndtri((ranks - 0.5) / (~np.isnan(flat)).sum(0))
    return _standardised(scores.reshape(values.shape), known), known


def _standardised(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Scores of mean 0 and variance 1 over all sets, those that are unknown 0."""
    scores = np.where(known, scores, np.nan)
    centred = scores - np.nanmean(scores, (0, 1))
    return np.nan_to_num(centred / np.sqrt(np.nanmean(centred**2, (0, 1)))).astype(np.float32)


def _given_others(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What is left of each entry when the others are accounted for, linearly."""
    flat = scores.reshape(-1, scores.shape[-1]).astype(float)
    ridge = max(RIDGE, flat.shape[1] / len(flat))
    inverse = np.linalg.inv(flat.T @ flat / len(flat) + ridge * np.eye(flat.shape[1]))
    return _standardised((flat @ inverse).reshape(scores.shape), known)


def _counts(known: np.ndarray) -> np.ndarray:
    """In how many data both entries of a pair are known (E, E)."""
    ones = known.astype(np.float32)
    return ones.T @ ones


def _family(
    scores: np.ndarray,
    known: np.ndarray,
    chosen: np.ndarray,
    followers: Sequence[bool],
    *,
    given_others: bool,
) -> Family:
    """Compare all pairs of scores, in each of the exchanges."""
    entries = scores.shape[-1]
    first, second = np.triu_indices(entries, 1)
    counts = _counts(known)
    enough = counts[first, second] >= FEWEST
    first, second = first[enough], second[enough]
    neighbours = (second == first + 1) & np.asarray(followers, dtype=bool)[first]
    sums = _Sums(scores, counts, (first, second))
    ours, others = np.empty((2, len(chosen), len(first)), dtype=np.float32)
    for number, which in enumerate(chosen):
        ours[number], others[number] = sums.correlations(which)
    z = ours - others
    error = np.maximum(z.std(0), 1e-6)
    z /= error
    largest, squares = np.abs(z).max(1), (z**2).mean(1)
    of_neighbours = np.abs(z[:, neighbours].mean(1)) if neighbours.any() else np.zeros(len(z))
    return Family(
        given_others,
        np.stack([first, second], 1),
        ours[0],
        others[0],
        error,
        tail_probability(np.abs(z[0]), largest),
        float(tail_probability(squares[:1], squares)[0]),
        float(tail_probability(of_neighbours[:1], of_neighbours)[0]),
        neighbours,
        float(np.quantile(largest[1:], 0.99)),
    )


class _Sums:
    """Correlations of a chosen row of each datum, and of all others, by sums of products.

    Args:
        scores: (R + 1, N, E), 0 where unknown.
        counts: of data in which both entries of a pair are known (E, E).
        pairs: the places of both entries of each pair.
    """

    def __init__(
        self, scores: np.ndarray, counts: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]
    ):
        self.scores, self.counts, self.pairs = scores, counts, pairs
        self.others = len(scores) - 1
        self.total = scores.sum((0, 1)), sum(each.T @ each for each in scores)

    def correlations(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the chosen rows (P,) and of all others (P,)."""
        rows = self.scores[which, np.arange(len(which))]
        first, second = rows.sum(0), rows.T @ rows
        return (
            self._of(first, second, 1),
            self._of(self.total[0] - first, self.total[1] - second, self.others),
        )

    def _of(self, first: np.ndarray, second: np.ndarray, times: int) -> np.ndarray:
        known = times * np.diagonal(self.counts)
        mean = first / known
        deviation = np.sqrt(np.maximum(np.diagonal(second) / known - mean**2, 1e-6))
        i, j = self.pairs
        product = second[i, j] / (times * self.counts[i, j])
        return (product - mean[i] * mean[j]) / (deviation[i] * deviation[j])


def tail_probability(values: np.ndarray, exchanged: np.ndarray) -> np.ndarray:
    """The share of exchanges (B,) that reach given values (V,), of which the first is the data's.

    Beyond the largest tenth it is an exponential tail of their mean excess. Such a tail is as heavy
    as that of any log-concave density beyond, or heavier.

    Example:
        >>> exchanged = np.random.default_rng(0).exponential(size=1000)
        >>> p = tail_probability(np.array([0.0, 5.0, 20.0]), exchanged)
        >>> bool(p[0] == 1), [round(each) for each in np.log(p[1:])]
        (True, [-5, -20])
    """
    ordered = np.sort(exchanged[1:])  # the data's own would make the tail heavier
    reached = len(ordered) - np.searchsorted(ordered, values, "left")
    start = ordered[-round(TAIL * len(ordered))]
    excess = max(float((ordered[ordered >= start] - start).mean()), 1e-12)
    beyond = TAIL * np.exp(-np.maximum(values - start, 0.0) / excess)
    return np.where(values > start, np.maximum(beyond, 0.0), (reached + 1) / len(exchanged))
