"""What kind of density a support carries: the measure that it is taken with respect to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Delta, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution, biject_to
from torch.distributions.constraints import Constraint

from pyro_vae.validation import InvalidInput

__all__ = [
    "innermost_support",
    "stated_support",
    "Flat",
    "NoDraws",
    "representative_of",
    "has_mean",
    "is_point_mass",
    "is_thin",
    "measure_of",
    "points_of",
]

MEASURES = {
    type(constraints.sphere): "the area of a sphere",
    type(constraints.simplex): "the area of a simplex",
}


def measure_of(support: Any) -> str:
    """What a density on ``support`` is with respect to; two densities can be compared only if it is the same.

    A constraint of one's own may say so in an attribute ``measure``.

    Example:
        >>> measure_of(constraints.simplex), measure_of(constraints.boolean), measure_of(constraints.real_vector)
        ('the area of a simplex', 'discrete points', 'volume')
    """
    while hasattr(support, "base_constraint") and not hasattr(support, "measure"):
        support = support.base_constraint
    if hasattr(support, "measure"):
        return support.measure
    return "discrete points" if support.is_discrete else MEASURES.get(type(support), "volume")


def stated_support(distribution: Distribution) -> Constraint:
    """The support of a distribution.

    Raises:
        InvalidInput: if it states none.
    """
    support = distribution.support
    if support is None:
        raise InvalidInput(
            "distribution",
            got=f"{type(distribution).__name__}, which states no support",
            expected="a distribution with a support",
            fix="give its class an attribute support, such as constraints.real",
        )
    return support


def innermost_support(support: Constraint) -> Constraint:
    """The constraint on single entries that an independent or masked support is made of."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def is_thin(support: Any) -> bool:
    """Whether a support has no volume, so that a continuous draw lies in it by construction or never."""
    return measure_of(support) in {"discrete points", *MEASURES.values()}


def points_of(distribution: Any, num: int = 64) -> Tensor:
    """Points (num, \\*batch, \\*event) all over a distribution's support, or draws where those cannot be had."""
    support = distribution.support
    shape = (*distribution.batch_shape, *distribution.event_shape)
    if not support.is_discrete:
        try:
            transform = biject_to(support)
            like = distribution.sample()
            return transform(
                4
                * torch.randn(
                    num,
                    *transform.inverse_shape(torch.Size(shape)),
                    dtype=like.dtype,
                    device=like.device,
                )
            )
        except NotImplementedError:
            pass  # a constraint that no transform is registered for, such as the sphere
    return distribution.sample((num,))


def is_point_mass(distribution: Any) -> bool:
    """Whether it is a `pyro.distributions.Delta`, however wrapped."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def representative_of(distribution: Any) -> Tensor:
    """What to show of a distribution: its mean, or the mode where it has no mean, or a draw where neither is known.

    Example:
        >>> representative_of(torch.distributions.Normal(torch.ones(2), 1.0))
        tensor([1., 1.])
    """
    for known in ("mean", "mode"):
        try:
            return getattr(distribution, known)
        except NotImplementedError:
            continue
    return distribution.sample()


def has_mean(distribution: Any) -> bool:
    """Whether a distribution has a mean, and in closed form."""
    try:
        return distribution.mean is not None
    except NotImplementedError:
        return False


class NoDraws(InvalidInput):
    """A draw asked for from a density that is no distribution."""


class Flat(TorchDistribution):
    """Every point alike: a log-density of zero everywhere, which is that of no distribution, so nothing is drawn from it.

    Args:
        batch_shape: of the distribution.
        event_shape: of its points, real numbers.

    Raises:
        NoDraws: when a sample is asked for.

    Example:
        >>> Flat((3,), (2,)).log_prob(torch.randn(5, 3, 2)).shape
        torch.Size([5, 3])
    """

    arg_constraints: dict = {}
    has_rsample = True

    def __init__(self, batch_shape: Sequence[int], event_shape: Sequence[int]):
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    def support(self):
        support = constraints.independent(constraints.real, len(self.event_shape))
        # No density is over the same, so that a posterior with one is refused; a point has none.
        support.measure = "nothing, for it is flat"  # type: ignore[attr-defined]
        return support

    def expand(self, batch_shape: torch.Size, _instance=None) -> Flat:
        return Flat(batch_shape, self.event_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        raise NoDraws(
            "prior",
            got="a draw from a flat prior",
            expected="a prior that is a distribution",
            fix="it reconstructs but cannot generate; train with a prior such as StandardNormal to draw new data",
        )

    def log_prob(self, value: Tensor) -> Tensor:
        event_dim = len(self.event_shape)
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.dim() - event_dim])
        return value.new_zeros(batch)
