"""Scores of some parts of x given others: the difference of two log-likelihoods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.datasets.dataset import Data, Dataset, as_dataset
from pyro_vae.evaluation.importance_score import ImportanceScore
from pyro_vae.validation import InvalidInput

__all__ = ["ConditionalScore", "difference", "only_parts"]


@dataclass(frozen=True, repr=False)
class ConditionalScore(ImportanceScore):
    r"""An estimate of :math:`\log p(x_a \mid x_b) = \log p(x_a, x_b) - \log p(x_b)` of each datum.

    Both terms are log-means of importance weights, from independent draws. Their errors add in
    quadrature. Each term lies too low in expectation, so the difference may lie on either side: its
    bias is the joint's less the marginal's. Where Pareto k of the joint is too high the value is
    likely too low; where that of the marginal is, likely too high. `ess` is the smaller of the two,
    `pareto_k` the larger.

    Args:
        joint: log p(x_a, x_b) (N,).
        marginal: log p(x_b) (N,).
        low_joint: where the joint is known only to be a lower bound (N,).
        low_marginal: where the marginal is (N,).
        bias_of_difference: how far each value lies below what it estimates (N,).
    """

    joint: Tensor
    marginal: Tensor
    low_joint: Tensor
    low_marginal: Tensor
    bias_of_difference: Tensor

    @property
    def bias(self) -> Tensor:
        return self.bias_of_difference

    @property
    def is_bound(self) -> Tensor:
        """Whether a value is known only to be a lower bound (N,): the joint is, the rest is not."""
        return self.low_joint & ~self.low_marginal

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends (N,) of an interval for each datum, infinite where a term is only a bound."""
        reach = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()
        low, high = self.values - reach * self.mc_se, self.values + reach * self.mc_se
        return (
            low.masked_fill(self.low_marginal, -math.inf),
            high.masked_fill(self.low_joint, math.inf),
        )

    @property
    def sign(self) -> str:
        """``"~"`` where the mean may lie on either side of what it estimates."""
        return "~" if self.low_marginal.any() else super().sign

    def __str__(self) -> str:
        unknown = int(self.low_marginal.sum())
        if not unknown:
            return super().__str__()
        over_data = "" if math.isnan(self.se) else f"standard error over data {self.se:.2f}, "
        return (
            f"near {self.mean:.2f} nats, above or below by an unknown error ({over_data}"
            f"K = {self.num_samples}); only a lower bound: what is subtracted "
            f"for {unknown} of {len(self.values)} data, the joint for {int(self.low_joint.sum())}"
        )


def difference(joint: ImportanceScore, marginal: ImportanceScore) -> ConditionalScore:
    """The score of all parts less that of the given ones, from independent draws.

    Example:
        >>> from pyro_vae.evaluation.importance_score import summarize
        >>> joint, marginal = (summarize(torch.full((100, 2), w)) for w in (-5.0, -2.0))
        >>> difference(joint, marginal).values
        tensor([-3., -3.], dtype=torch.float64)
    """
    return ConditionalScore(
        values=joint.values - marginal.values,
        mc_se=torch.hypot(joint.mc_se, marginal.mc_se),
        num_samples=joint.num_samples,
        standard_error=torch.hypot(joint.standard_error, marginal.standard_error),
        ess=torch.minimum(joint.ess, marginal.ess),
        pareto_k=torch.maximum(joint.pareto_k, marginal.pareto_k),
        joint=joint.values,
        marginal=marginal.values,
        low_joint=joint.is_bound,
        low_marginal=marginal.is_bound,
        bias_of_difference=joint.bias - marginal.bias,
        seed=joint.seed,
        sha256=joint.sha256,
    )


def only_parts(data: Data, names: Sequence[str]) -> Dataset:
    """Data without the parts of x that are not named.

    Raises:
        InvalidInput: unless the names are those of some parts, but not of all.
    """
    data = as_dataset(data)
    if isinstance(names, str) or not set(names) < set(data.parts):
        raise InvalidInput(
            "given",
            got=repr(names),
            expected=f"some parts of x, of {', '.join(map(repr, data.parts)) or 'several'}",
            fix="pass given=['text'] to score the others given the text",
        )
    parts = {name: data.parts[name] for name in names}
    return Dataset(parts, data.context, name=data.name, split=data.split)
