"""Scores by importance sampling: their diagnostics, and when their values are only bounds."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pyro_vae.evaluation.pareto import is_heavy, pareto_k, pareto_k_threshold
from pyro_vae.evaluation.scores import (
    Score,
    by_datum,
    error_of_mean,
    like_weights,
    rounding_of,
)
from pyro_vae.evaluation.widening import skewness, widening

__all__ = [
    "RESTRICTED",
    "ImportanceScore",
    "UnreliableEstimate",
    "bias_of_log_mean",
    "convergence",
    "draws_needed",
    "share_of_bounds",
    "summarize",
]

FEWEST_DRAWS = 21  # for a Pareto k: the tail is a fifth of them, and needs five
OF_SKEWNESS = 12.0
LARGEST_ROUNDING = 0.01  # nats
RESTRICTED = "the guide takes one value of a discrete latent, and no draw of it reaches another one"


class UnreliableEstimate(UserWarning):
    """An estimate whose error is too short, by the tail of its importance weights."""


def warn_of_rounding(rounding: float, stacklevel: int) -> None:
    """Warn where rounding alone may change a score, by so many nats."""
    if rounding > LARGEST_ROUNDING:
        warnings.warn(
            f"Log-weights are so large that rounding alone may change a score by {rounding:.2g} "
            "nats. Score in float64 (program.double()), or rescale the data",
            UnreliableEstimate,
            stacklevel=stacklevel,
        )


@dataclass(frozen=True, repr=False)
class ImportanceScore(Score):
    r"""A `Score` by importance sampling, with diagnostics of its weights.

    Its Monte Carlo error has the bias of the logarithm in it:
    :math:`\sqrt{(b\, \mathrm{se})^2 + \mathrm{bias}^2}` with
    :math:`\mathrm{bias} \approx \mathrm{Var}\,w / (2 K\, (\mathrm{E}\,w)^2)`. It is wider where the
    weights are skewed, :math:`b = (1 + 12 g^2 / K)\, t / 1.96` with g their skewness, for draws
    without the largest weights have both too low a mean and too small a spread. A value is a lower
    bound where its Pareto k is above `pareto_k_threshold` or near it (`is_heavy`), or where K is
    too small for a k. It is infinite where the guide takes one value of a discrete latent, as the
    code that an encoder chooses: the others are never drawn, and no K makes up for them. Where the
    values are few, ``proposal=pv.evaluation.Defensive(0.3)`` draws them from the prior.

    Args:
        standard_error: that of the K weights over their mean (N,), which ``mc_se`` widens.
        ess: the effective number of draws (N,), :math:`(\sum_k w_k)^2 / \sum_k w_k^2`.
        pareto_k: the tail shape of each datum's weights (N,), see `pareto_k`.
    """

    standard_error: Tensor
    ess: Tensor
    pareto_k: Tensor

    @property
    def mean_mc_se(self) -> float:
        spread = error_of_mean(self, self.standard_error)
        return math.hypot(spread, self.bias.double().mean().item())

    def with_error(self, mc_se: Tensor) -> Self:
        return replace(self, mc_se=mc_se, standard_error=mc_se)

    def with_more_error(self, error: Tensor) -> Self:
        """The same with an independent error (N,), in nats, of what was added to the weights."""
        whole = torch.hypot(self.mc_se, error)
        return replace(self, mc_se=whole, standard_error=torch.hypot(self.standard_error, error))

    @property
    def bias(self) -> Tensor:
        return bias_of_log_mean(self.ess, self.num_samples)

    @property
    def is_bound(self) -> Tensor:
        return is_heavy(self.pareto_k, self.ess, self.num_samples)

    def as_bound(self) -> Self:
        """The same values as lower bounds, of draws that never reach some values of a latent."""
        return replace(self, pareto_k=torch.full_like(self.pareto_k, math.inf))

    def with_ties_as_bounds(self) -> Self:
        """The same, a bound where all weights are equal: draws may all be of one state."""
        ties = (self.pareto_k == -math.inf) & (self.ess > self.num_samples * (1 - 1e-6))
        return replace(self, pareto_k=self.pareto_k.masked_fill(ties, math.inf))

    @property
    def is_restricted(self) -> bool:
        """Whether draws never reach some values of a latent, so that no K brings the score up."""
        return bool((self.pareto_k == math.inf).all())

    @property
    def above_threshold(self) -> int | None:
        """How many data have a Pareto k above `pareto_k_threshold`, or near it (`is_heavy`).

        Their scores are likely too low. ``None`` if K is too small for any to have a k.
        """
        known = ~self.pareto_k.isnan()
        heavy = is_heavy(self.pareto_k, self.ess, self.num_samples)
        return int((heavy & known).sum()) if known.any() else None

    def __str__(self) -> str:
        above, threshold = self.above_threshold, pareto_k_threshold(self.num_samples)
        said = (
            f"too few draws for Pareto k and an error: about {draws_needed(self):,} would bring "
            "the bias below 0.01 nats, as far as these can tell"
            if above is None
            else RESTRICTED
            if self.is_restricted
            else f"Pareto k above or near {threshold:.2f} for {above} of {len(self.values)} data"
        )
        return f"{super().__str__()}; {said}"

    def _more_facts(self) -> dict[str, str]:
        above, threshold = self.above_threshold, pareto_k_threshold(self.num_samples)
        if above is None:
            return {"Pareto k": "needs more draws"}
        if self.is_restricted:
            return {"lower bound": RESTRICTED}
        k = self.pareto_k[~self.pareto_k.isnan()]
        return {
            "Pareto k": f"median {k.median():.2f}, largest {k.max():.2f}",
            f"above or near {threshold:.2f}": f"{above} of {len(self.values):,}",
        }


def summarize(weights: Tensor) -> ImportanceScore:
    """Estimate log p(x) from log-weights (K, N), with errors and diagnostics."""
    rows, num_samples = by_datum(weights), len(weights)
    largest = rows.max(axis=1)
    # Free of overflow: the largest is 1.
    relative = np.exp(rows - largest[:, None])
    mean = relative.mean(axis=1)
    ess = like_weights(weights, relative.sum(axis=1) ** 2 / (relative**2).sum(axis=1))
    error, wider = np.full_like(mean, np.nan), widening(num_samples) * np.ones_like(mean)
    if num_samples > 1:
        error = relative.std(axis=1, ddof=1) / (math.sqrt(num_samples) * mean)
    if num_samples >= FEWEST_DRAWS:  # fewer give no interval, only a bound
        wider *= 1 + OF_SKEWNESS * skewness(relative) ** 2 / num_samples
    spread, rounding = like_weights(weights, error * wider), rounding_of(weights)
    return ImportanceScore(
        values=like_weights(weights, largest + np.log(mean)),
        mc_se=torch.hypot(torch.hypot(spread, bias_of_log_mean(ess, num_samples)), rounding),
        num_samples=num_samples,
        standard_error=torch.hypot(like_weights(weights, error), rounding),
        ess=ess,
        pareto_k=pareto_k(weights),
    )


def bias_of_log_mean(ess: Tensor, num_samples: int) -> Tensor:
    r"""How far the logarithm of a mean of K weights lies too low, in nats (N,).

    .. math:: \log \mathrm{E}\,w - \mathrm{E} \log \bar w
              \approx \frac{\mathrm{Var}\,w}{2 K (\mathrm{E}\,w)^2}
              = \frac{1}{2 (K - 1)} \Big( \frac{K}{\mathrm{ESS}} - 1 \Big)

    NaN for a single draw.

    Source: Nowozin (2018), Debiasing Evidence Approximations.

    Example:
        >>> bias_of_log_mean(torch.tensor([50.0]), 101)
        tensor([0.0051])
    """
    if num_samples == 1:
        return torch.full_like(ess, math.nan)
    return (num_samples / ess - 1) / (2 * (num_samples - 1))


def share_of_bounds(score: Score) -> float:
    """The share of data whose estimate is known only to be a lower bound on log p(x).

    A datum's estimate is a bound where its Pareto k is above or near its threshold (`is_heavy`), or
    where K is too small for a k: its stated error then covers neither the tail of the weights
    nor the bias of the logarithm. Where the share is not zero, the mean is a bound too. A score
    without Pareto k, such as an ELBO, has a share of 0.

    Example:
        >>> [share_of_bounds(summarize(torch.zeros(K, 2))) for K in (5, 1000)]
        [1.0, 0.0]
    """
    return score.is_bound.double().mean().item()


def draws_needed(score: ImportanceScore, bias: float = 0.01) -> int:
    r"""How many draws K bring the bias of the mean estimate below a number of nats.

    .. math:: K = \frac{1}{2\,\mathrm{bias}} \; \frac1N \sum_n
              \frac{\mathrm{Var}\,w_n}{(\mathrm{E}\,w_n)^2}

    The variances are those of the draws at hand, which too few draws make too small. The least
    answer is the number that a Pareto k needs.

    Args:
        score: an estimate from few draws.
        bias: the bias to reach, in nats.

    Source: Nowozin (2018), Debiasing Evidence Approximations.

    Example:
        >>> draws_needed(summarize(torch.tensor([[0.0], [1.0], [2.0]])))
        40
    """
    if score.num_samples == 1:
        return FEWEST_DRAWS
    correction = score.num_samples / (score.num_samples - 1)
    spread = (score.num_samples / score.ess.double() - 1) * correction
    return max(FEWEST_DRAWS, math.ceil(spread.mean().item() / (2 * bias)))


def convergence(log_weights: Tensor, points: int = 20) -> list[ImportanceScore]:
    """Estimate log p(x) from the first K of given draws, for K from 1 to all of them.

    The K are equally spaced on a logarithmic scale.

    Args:
        log_weights: log-weights (K, N), see `importance_weights`.
        points: at how many K, those that coincide counted once.

    Example:
        >>> [score.num_samples for score in convergence(torch.randn(1000, 2), points=4)]
        [1, 10, 100, 1000]
    """
    ends = torch.logspace(0, math.log10(len(log_weights)), points, dtype=torch.float64)
    return [summarize(log_weights[:end]) for end in ends.round().long().unique().tolist()]
