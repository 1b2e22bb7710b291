"""Statistics that suit an entry's kind, each with what is wrong where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pyro_vae.checks.two_samples import observed, rank_test, share_test

__all__ = ["Departure", "advice_on", "departures", "statistics_of"]

SHARE, RANK = 0.01, 0.05  # departures up to these do not matter, of rare events and of ranks


@dataclass(frozen=True)
class Departure:
    """How a statistic of real data differs from that of simulated data.

    Args:
        statistic: its name.
        p_value: of each entry (D,); 1 where it does not suit the entry's kind.
        size: by how much it is larger of real data (D,): of a share the difference, of a value how
            much more often than half it is the larger.
        little: the size up to which it does not matter.
        more: what is wrong where it is larger.
        less: what is wrong where it is smaller.
    """

    statistic: str
    p_value: np.ndarray
    size: np.ndarray
    little: float
    more: str
    less: str

    def fault(self, entry: int) -> str:
        """What is wrong with an entry."""
        return self.more if self.size[entry] > 0 else self.less


@dataclass(frozen=True)
class Statistic:
    """A function of entries, from values (N, D) to numbers (N, D).

    It is handed the values, all simulated ones (M, D), and the real ones.

    Args:
        name: what it is called.
        of: the function.
        more: what is wrong where it is larger of real data.
        less: what is wrong where it is smaller.
        suits: which entries it suits (D,), by whether they are discrete, and binary.
        is_share: whether it is 1 where something holds and 0 elsewhere, and so tested exactly.
        little: a departure up to which it does not matter.
    """

    name: str
    of: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    more: str
    less: str
    suits: Callable[[np.ndarray, np.ndarray], np.ndarray]
    is_share: bool = False
    little: float = RANK


def _middle(reference: np.ndarray) -> np.ndarray:
    return np.nanmean(reference, 0)


def _beyond(values: np.ndarray, reference: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Whether a value lies beyond the reference's outermost percentages on either side."""
    low, high = np.nanquantile(reference, [0.002, 0.998], axis=0)
    return observed((values < low) | (values > high), values)


def _repeated(values: np.ndarray, reference: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Whether a value of a column occurs above it: all but the first of those that are alike.

    The first would count each pair twice, and the counts would spread more than those of a share.
    """
    found = np.ones_like(values)
    for d in range(values.shape[1]):
        found[np.unique(values[:, d], return_index=True)[1], d] = 0.0
    return observed(found > 0, values)


def _at_the_end(values: np.ndarray, reference: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Whether a value is at an end of the real or the simulated column, as one above it is.

    The ends are the same for both: a value that many share may be the least of one by chance.
    """
    ends = [fn(each, 0) for fn in (np.nanmin, np.nanmax) for each in (reference, real)]
    at_end = np.any([values == end for end in ends], axis=0)
    return observed(at_end & (_repeated(values, reference, real) == 1), values)


def _binary(discrete: np.ndarray, binary: np.ndarray) -> np.ndarray:
    return binary


def _continuous(discrete: np.ndarray, binary: np.ndarray) -> np.ndarray:
    return ~discrete


def _counts(discrete: np.ndarray, binary: np.ndarray) -> np.ndarray:
    return discrete & ~binary


def _not_binary(discrete: np.ndarray, binary: np.ndarray) -> np.ndarray:
    return ~binary


STATISTICS = (
    Statistic(
        "value", lambda x, ref, real: x, "values too small in the model",
        "values too large in the model", _not_binary,
    ),
    Statistic(
        "share of ones", lambda x, ref, real: x, "more often so than in the model",
        "less often so than in the model", _binary, True, 2 * RANK,
    ),
    Statistic(
        "distance from the mean", lambda x, ref, real: np.abs(x - _middle(ref)),
        "spread too small in the model", "spread too large in the model", _continuous,
    ),
    Statistic(
        "distance from the mean of counts", lambda x, ref, real: np.abs(x - _middle(ref)),
        "counts more dispersed than in the model", "counts less dispersed than in the model",
        _counts,
    ),
    Statistic(
        "share of zeros", lambda x, ref, real: observed(x == 0, x),
        "more zeros than in the model", "fewer zeros than in the model", _counts, True, SHARE,
    ),
    Statistic(
        "share in the tails", _beyond, "heavier tails than in the model",
        "lighter tails than in the model", _continuous, True, SHARE,
    ),
    Statistic(
        "share of large counts", _beyond, "counts more dispersed than in the model",
        "counts less dispersed than in the model", _counts, True, SHARE,
    ),
    Statistic(
        "share of multiples of five", lambda x, ref, real: observed((x > 0) & (x % 5 == 0), x),
        "counts heaped on round numbers", "fewer round numbers than in the model",
        _counts, True, SHARE,
    ),
    Statistic(
        "share of repeated values", _repeated, "values rounded or repeated",
        "fewer repeated values than in the model", _continuous, True, SHARE,
    ),
    Statistic(
        "share at an end", _at_the_end, "values heaped at a limit, as censored ones",
        "fewer values at a limit than in the model", _continuous, True, SHARE,
    ),
)  # fmt: skip

SCALE = "Learn the likelihood's scale (learn_scale), or use a prior that learns."
TAILS = "Try StudentT, or another likelihood with such tails."
DISPERSION = (
    "Try another likelihood: NegativeBinomial or Poisson for counts; Binomial for counts up to a "
    "largest one."
)
SHARES = "Train longer, or use a prior that learns."
LOCATION = "Look at the units of the data; train longer, or use a prior that learns."
ADVICE = {
    "spread too small in the model": SCALE,
    "spread too large in the model": SCALE,
    "counts more dispersed than in the model": DISPERSION,
    "counts less dispersed than in the model": DISPERSION,
    "more often so than in the model": SHARES,
    "less often so than in the model": SHARES,
    "more zeros than in the model": "Try ZeroInflated.",
    "fewer zeros than in the model": "Try a likelihood without extra zeros, or Truncated.",
    "heavier tails than in the model": TAILS,
    "lighter tails than in the model": "Try Normal, or Truncated where there are bounds.",
    "counts heaped on round numbers": "The heaping is of the data: harmless, unless their last "
    "digits matter.",
    "values rounded or repeated": "Rounding is of the data: harmless where its step is small "
    "beside the likelihood's scale. Else take DiscretizedLogistic, or Censored with interval=True.",
    "values heaped at a limit, as censored ones": "Use Censored, with the context that says which "
    "values are limits.",
}


def advice_on(fault: str) -> str:
    """What to change where the data differ so from the model's own.

    Example:
        >>> advice_on("more zeros than in the model")
        'Try ZeroInflated.'
    """
    return ADVICE.get(fault, LOCATION)


def statistics_of(
    real: np.ndarray, simulated: np.ndarray, discrete: np.ndarray, binary: np.ndarray
) -> Iterator[Departure]:
    """Hold each statistic of real data (N, D) against that of simulated data (R, N, D)."""
    pooled = simulated.reshape(-1, simulated.shape[-1])
    for one in STATISTICS:
        suits = one.suits(discrete, binary)
        if not suits.any():
            continue
        ours = one.of(real, pooled, real)
        # Each replicate is a data set of its own: some values depend on the number of data.
        theirs = np.concatenate([one.of(each, pooled, real) for each in simulated])
        p_value, size = (share_test if one.is_share else rank_test)(ours, theirs)
        yield Departure(
            one.name,
            np.where(suits, p_value, 1.0),
            np.where(suits, size, 0.0),
            one.little,
            one.more,
            one.less,
        )


def departures(found: list[Departure], level: float) -> list[tuple[Departure, int]]:
    """The departures that are significant for their number and matter, the largest p last."""
    looks = sum(int((each.p_value < 1).sum()) for each in found)
    pairs = [
        (each, int(d))
        for each in found
        for d in np.flatnonzero((each.p_value * looks < level) & (np.abs(each.size) > each.little))
    ]
    return sorted(pairs, key=lambda pair: pair[0].p_value[pair[1]])
