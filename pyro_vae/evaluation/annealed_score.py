"""Scores by annealing, and the upper bounds that annealing gives on simulated data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.evaluation.importance_score import bias_of_log_mean
from pyro_vae.evaluation.scores import Score

__all__ = ["AnnealedScore", "UpperBound"]

FEWEST_AT_WORK = 8  # effective chains: with fewer, the spread of their weights is not known


@dataclass(frozen=True, repr=False)
class AnnealedScore(Score):
    """A `Score` by annealing; ``num_samples`` is the number of chains for each datum.

    Args:
        ess: the effective number of chains (N,).
        acceptance: the mean acceptance probability of each datum's transitions (N,).
        num_temperatures: intermediate densities, the last being the posterior.
        num_leapfrog: leapfrog steps of a transition.
        start: where the chains start, ``"prior"`` or ``"guide"``.
    """

    ess: Tensor
    acceptance: Tensor
    num_temperatures: int
    num_leapfrog: int
    start: str

    @property
    def bias(self) -> Tensor:
        return bias_of_log_mean(self.ess, self.num_samples)

    @property
    def is_bound(self) -> Tensor:
        return (self.ess < FEWEST_AT_WORK) | self.mc_se.isnan()

    def _more_facts(self) -> dict[str, str]:
        return {
            "temperatures": f"{self.num_temperatures:,}",
            "start": self.start,
            "acceptance": f"{self.acceptance.double().mean():.2f}",
            "effective chains": f"median {self.ess.double().median():.1f}",
        }


@dataclass(frozen=True, repr=False)
class UpperBound(AnnealedScore):
    """An upper bound on log p(x) of simulated data.

    Its Monte Carlo error is that of the chains, given the draw that they all start from. Another
    draw would give another value, so the error is no interval of log p(x).
    """

    @property
    def bias(self) -> Tensor:
        return -super().bias

    @property
    def is_bound(self) -> Tensor:
        return torch.ones_like(self.values, dtype=torch.bool)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends (N,) of an interval for each datum, the lower one infinite."""
        low = torch.full_like(self.values, -math.inf)
        return low, self.values + (self.values - super().interval(level)[0])

    @property
    def sign(self) -> str:
        return "<="
