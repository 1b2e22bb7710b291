"""Properties of any distribution: the measure of its density, its mean, its points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import singledispatch
from typing import Protocol, cast, runtime_checkable

import torch
from pyro.distributions import Delta, MaskedDistribution, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import (
    Categorical,
    Cauchy,
    Distribution,
    HalfCauchy,
    Independent,
    StudentT,
    biject_to,
)
from torch.distributions.constraints import Constraint

from pyro_vae.contracts import StatesMeasure
from pyro_vae.distributions.adapters import as_pyro
from pyro_vae.validation import InvalidInput

__all__ = [
    "FixedByDatum",
    "Flat",
    "NoDraws",
    "OrElse",
    "Unstated",
    "ends_of",
    "given_datum",
    "has_mean",
    "innermost_support",
    "is_point_mass",
    "is_same_support",
    "is_thin",
    "log_prob_inside",
    "measure_of",
    "number_inside",
    "points_of",
    "representative_of",
    "stated_support",
    "words_of",
]

MEASURES = {
    type(constraints.sphere): "the area of a sphere",
    type(constraints.simplex): "the area of a simplex",
}


@runtime_checkable
class Wrapped(Protocol):
    """A distribution that wraps another, as `torch.distributions.Independent` does."""

    base_dist: Distribution


def measure_of(support: Constraint) -> str:
    """The reference measure of densities on ``support``; two compare only over the same one.

    A constraint may state its measure in an attribute ``measure``.

    Example:
        >>> measure_of(constraints.simplex), measure_of(constraints.boolean)
        ('the area of a simplex', 'discrete points')
        >>> measure_of(constraints.real_vector)
        'volume'
    """
    if isinstance(support, StatesMeasure):
        return support.measure
    if isinstance(support, constraints.independent):
        return measure_of(support.base_constraint)
    return "discrete points" if support.is_discrete else MEASURES.get(type(support), "volume")


class Unstated(Constraint):
    """The support of a distribution that states none: any value may lie in it.

    Pyro asks its own classes of distributions for draws and a density alone.

    Args:
        event_dim: the number of dimensions of an event.
    """

    def __init__(self, event_dim: int):
        self.dims = event_dim
        super().__init__()

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self.dims

    def check(self, value: Tensor) -> Tensor:
        return value.new_ones(value.shape[: value.dim() - self.dims], dtype=torch.bool)

    def __repr__(self) -> str:
        return "unstated (its class has no attribute support)"


def stated_support(distribution: Distribution) -> Constraint:
    """The support of a distribution, `Unstated` for one of a class that has none.

    Example:
        >>> stated_support(torch.distributions.Normal(0.0, 1.0))
        Real()
    """
    support = None
    with suppress(NotImplementedError):
        support = distribution.support
    return Unstated(len(distribution.event_shape)) if support is None else support


def innermost_support(support: Constraint) -> Constraint:
    """The constraint on single entries underlying an independent support."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def ends_of(support: Constraint) -> tuple[float | Tensor, float | Tensor]:
    """The lower and the upper end of a support of numbers, infinite where it states none.

    Example:
        >>> ends_of(constraints.unit_interval), ends_of(constraints.nonnegative_integer)
        ((0.0, 1.0), (0, inf))
    """
    return getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)


@singledispatch
def number_inside(support: Constraint, like: Tensor) -> Tensor:
    """For each entry a number of its support, away from its ends, where a density may be infinite.

    Example:
        >>> number_inside(constraints.interval(0.6, 0.9), torch.zeros(2))
        tensor([0.7500, 0.7500])
    """
    low, high = cast(tuple[Tensor, Tensor], ends_of(support))  # or floats, of like methods
    between = 0.5, low + 1 + abs(low), high - 1 - abs(high), low + (high - low) / 2
    found = torch.zeros_like(like)
    for candidate in (1.0, low, *reversed(between)):  # the last that is inside
        number = (torch.zeros_like(like) + candidate).to(like.dtype)
        inside = support.check(number)
        inside = inside.reshape((*inside.shape, *(1,) * support.event_dim))
        found = torch.where(inside, number, found)
    return found


@number_inside.register(constraints.independent)
def _inside_of_each(support: constraints.independent, like: Tensor) -> Tensor:
    return number_inside(support.base_constraint, like)


class OrElse(Constraint):
    """A constraint under which something else is allowed, too.

    Args:
        base: the constraint.
        also: the rest, in a word.
    """

    def __init__(self, base: Constraint, also: str):
        self.base, self.also = base, also
        self.is_discrete = base.is_discrete  # type: ignore[misc]
        super().__init__()

    def __repr__(self) -> str:
        also = f" or {self.also}"
        return words_of(self.base).removesuffix(also) + also


@number_inside.register
def _inside_of_base(support: OrElse, like: Tensor) -> Tensor:
    return number_inside(support.base, like)


def words_of(support: Constraint) -> str:
    """The name of a support of single entries in errors; bounds that differ are left out.

    Example:
        >>> words_of(constraints.independent(constraints.boolean, 2))
        'Boolean'
        >>> words_of(constraints.greater_than(torch.tensor([1.2, 1.2])))
        'GreaterThan(lower_bound=1.2)'
        >>> words_of(constraints.greater_than(torch.tensor([1.2, 3.4])))
        'GreaterThan'
    """
    inner = innermost_support(support)
    words = str(inner).removesuffix("()")
    for bound in vars(inner).values():
        if isinstance(bound, Tensor) and bound.numel() and (bound == bound.flatten()[0]).all():
            words = words.replace(f"{bound}", str(float(f"{float(bound.flatten()[0]):.6g}")))
    return words if "tensor" not in words else type(inner).__name__.strip("_")


def is_same_support(one: Constraint, other: Constraint) -> bool:
    """Whether the bounds of two supports of one kind are the same numbers.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> is_same_support(constraints.interval(zero, one), constraints.interval(zero, 2 * one))
        False
    """
    ours, theirs = _bounds_of(one), _bounds_of(other)
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def _bounds_of(value: object) -> list[Tensor]:
    """The tensors that a constraint is made of."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [bound for item in value for bound in _bounds_of(item)]
    return _bounds_of(list(vars(value).values())) if isinstance(value, Constraint) else []


def log_prob_inside(distribution: Distribution, value: Tensor, log_prob: Tensor) -> Tensor:
    """The log-density of a value, -inf outside of a support whose bounds are parameters.

    Torch's densities, with validation off, may be any number there.

    Args:
        distribution: any; one whose support has no parameters, or which is masked, is left alone.
        value: the value.
        log_prob: its log-density, as the distribution computes it.

    Example:
        >>> p, x = torch.distributions.Pareto(torch.tensor([1.0, 3.0]), 1.0), torch.tensor(2.0)
        >>> log_prob_inside(p, x, torch.zeros(2))
        tensor([0., -inf])
    """
    inner = distribution
    while isinstance(inner, Wrapped):
        if isinstance(inner, MaskedDistribution):
            return log_prob
        inner = inner.base_dist
    support = stated_support(distribution)
    if not _bounds_of(support):
        return log_prob
    return torch.where(support.check(value), log_prob, -torch.inf)


def is_thin(support: Constraint) -> bool:
    """Whether a support has zero volume, as a sphere or a set of points does."""
    return measure_of(support) in {"discrete points", *MEASURES.values()}


def points_of(distribution: Distribution, num: int = 64) -> Tensor:
    """Points (num, \\*batch, \\*event) spread over a distribution's support.

    They are draws where the support is discrete, or no transform is registered for it, as for the
    sphere.
    """
    support = stated_support(distribution)
    shape = torch.Size((*distribution.batch_shape, *distribution.event_shape))
    if not support.is_discrete:
        with suppress(NotImplementedError):
            transform = biject_to(support)
            like = distribution.sample()
            free = torch.Size((num, *transform.inverse_shape(shape)))
            return transform(4 * torch.randn(free, dtype=like.dtype, device=like.device))
    return distribution.sample(torch.Size((num,)))


def is_point_mass(distribution: Distribution) -> bool:
    """Whether a distribution is a `pyro.distributions.Delta`, however wrapped."""
    while isinstance(distribution, Wrapped):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


MAY_LACK_MEAN = (Categorical, Cauchy, HalfCauchy, StudentT)  # torch's is NaN or infinite


@runtime_checkable
class Represented(Protocol):
    """A distribution that states what represents it, as its mean would not."""

    @property
    def representative(self) -> Tensor: ...


def representative_of(distribution: Distribution) -> Tensor:
    """A value to represent a distribution: its mean, else its mode, else a draw.

    A distribution over names, whose numbers have no mean, states a ``representative`` itself.

    Example:
        >>> representative_of(torch.distributions.Normal(torch.ones(2), 1.0))
        tensor([1., 1.])
    """
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if isinstance(base, Represented):
        return base.representative
    with suppress(NotImplementedError):
        mean = distribution.mean
        if isinstance(base, MAY_LACK_MEAN):  # no branch on numbers, so that it can be exported
            return torch.where(mean.isfinite(), mean, distribution.mode)
        return mean
    with suppress(NotImplementedError):
        return distribution.mode
    return distribution.sample()


@runtime_checkable
class FixedByDatum(Protocol):
    """A distribution with an unmodelled part that each datum fixes, such as a total."""

    def at_datum(self, x: Tensor) -> TorchDistribution: ...


def given_datum(distribution: TorchDistribution, x: Tensor) -> TorchDistribution:
    """The distribution with its unmodelled part fixed by the datum x, if it has one."""
    if isinstance(distribution, Independent):
        base = as_pyro(distribution.base_dist)
        given = given_datum(base, x)
        same = given is base
        return distribution if same else given.to_event(distribution.reinterpreted_batch_ndims)
    return distribution.at_datum(x) if isinstance(distribution, FixedByDatum) else distribution


def has_mean(distribution: Distribution) -> bool:
    """Whether a distribution has a mean in closed form."""
    try:
        return not distribution.mean.isnan().any()
    except NotImplementedError:
        return False


class NoDraws(InvalidInput):
    """A draw was requested from an improper density."""


class Flat(TorchDistribution):
    """A log-density of zero everywhere: improper, so nothing can be drawn from it.

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
            fix="reconstruct, or train with a prior such as StandardNormal to draw new data",
        )

    def log_prob(self, value: Tensor) -> Tensor:
        event_dim = len(self.event_shape)
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.dim() - event_dim])
        return value.new_zeros(batch)
