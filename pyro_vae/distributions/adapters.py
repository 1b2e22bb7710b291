"""Adapters that make torch's and Zuko's distributions usable at a Pyro site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import MixtureSameFamily, TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

__all__ = ["Mixture", "Reshaped", "TorchToPyro", "as_pyro"]


class TorchToPyro(TorchDistribution):
    """A plain torch or Zuko distribution in the form that `pyro.sample` takes.

    The density, the samples and the support are those of the wrapped distribution; nothing is
    rescaled.

    Args:
        wrapped: any `torch.distributions.Distribution`.

    Example:
        >>> import pyro
        >>> site = as_pyro(torch.distributions.Normal(torch.zeros(3), 1.0))
        >>> pyro.sample("z", site).shape
        torch.Size([3])
    """

    arg_constraints: dict = {}

    def __init__(self, wrapped: Distribution):
        self.wrapped = wrapped
        super().__init__(wrapped.batch_shape, wrapped.event_shape, validate_args=False)

    @property
    def support(self):
        return self.wrapped.support

    @property
    def has_rsample(self) -> bool:
        return self.wrapped.has_rsample

    @property
    def has_enumerate_support(self) -> bool:
        return self.wrapped.has_enumerate_support

    @property
    def mean(self) -> Tensor:
        return self.wrapped.mean

    @property
    def variance(self) -> Tensor:
        return self.wrapped.variance

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.wrapped.sample(sample_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.wrapped.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.wrapped.log_prob(value)

    def entropy(self) -> Tensor:
        return self.wrapped.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self.wrapped.enumerate_support(expand)

    def expand(self, batch_shape: torch.Size, _instance=None) -> TorchToPyro:
        return TorchToPyro(self.wrapped.expand(torch.Size(batch_shape)))


class Mixture(MixtureSameFamily):
    r"""A mixture of distributions of one family, :math:`p(z) = \sum_c \pi_c\, p_c(z)`.

    Torch's own, with the support of the components: torch gives mixtures a constraint that no
    transform is registered for, and MCMC and quadrature need one. A mixture of distributions that
    list their values lists them too. Torch copies the components for each value whose density is
    asked for; this class does not.

    Example:
        >>> from torch.distributions import Categorical, Normal
        >>> Mixture(Categorical(torch.ones(3)), Normal(torch.zeros(3), 1.0)).support
        Real()
    """

    @constraints.dependent_property
    def support(self):
        return self._component_distribution.support

    @property
    def component_distribution(self) -> Distribution:
        shape = torch.Size((*self.batch_shape, self._num_component))
        return self._component_distribution.expand(shape)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Mixture:
        new = self._get_checked_instance(Mixture, _instance)
        new._mixture_distribution = self._mixture_distribution.expand(torch.Size(batch_shape))
        new._component_distribution = self._component_distribution  # until they are drawn from
        new._num_component, new._event_ndims = self._num_component, self._event_ndims
        TorchDistribution.__init__(
            new, torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        densities = _log_densities(self._component_distribution, self._pad(value))
        return (densities + self._mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)

    @property
    def has_enumerate_support(self) -> bool:
        return self._component_distribution.has_enumerate_support

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = self.component_distribution.enumerate_support(expand)
        return values.select(-1 - len(self.event_shape), 0)  # the components list the same values


def _log_densities(components: Distribution, value: Tensor) -> Tensor:
    """Log-densities of a value under each component.

    Those of diagonal normals share the terms without the value: they are summed once.
    """
    if not (
        isinstance(components, Independent)
        and type(components.base_dist).log_prob is Normal.log_prob
    ):
        return components.log_prob(value)
    normal, entries = components.base_dist, components.reinterpreted_batch_ndims
    distance = ((value - normal.loc) / normal.scale).square()
    normaliser = normal.scale.log() + math.log(math.sqrt(2 * math.pi))
    return -0.5 * sum_rightmost(distance, entries) - sum_rightmost(normaliser, entries)


class Reshaped(TorchDistribution):
    """A distribution of vectors (D,) as one of arrays with D entries, such as a matrix.

    Args:
        base: event shape (D,).
        event_shape: a shape with D entries.

    Example:
        >>> from pyro.distributions import Normal
        >>> Reshaped(Normal(torch.zeros(6), 1.0).to_event(1), (2, 3)).sample((4,)).shape
        torch.Size([4, 2, 3])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution, event_shape: Sequence[int]):
        self.base = base
        super().__init__(base.batch_shape, torch.Size(event_shape), validate_args=False)

    def _shaped(self, value: Tensor) -> Tensor:
        return value.reshape(*value.shape[:-1], *self.event_shape)

    @property
    def support(self):
        support = self.base.support
        if isinstance(support, constraints.independent):
            support = support.base_constraint
        return constraints.independent(support, len(self.event_shape) - support.event_dim)

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        return self._shaped(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self._shaped(self.base.variance)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._shaped(self.base.sample(sample_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._shaped(self.base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return self.base.log_prob(value.reshape(*batch, -1))

    def entropy(self) -> Tensor:
        return self.base.entropy()

    def expand(self, batch_shape: torch.Size, _instance=None) -> Reshaped:
        return Reshaped(self.base.expand(torch.Size(batch_shape)), self.event_shape)


def as_pyro(distribution: Distribution) -> TorchDistribution:
    """The distribution itself if it is already Pyro's, else wrapped in `TorchToPyro`.

    What `ZukoToPyro` wraps is wrapped anew: Pyro's adapter has no support, mean or ``sample``.

    Raises:
        TypeError: if a component returned anything but a distribution.
    """
    if isinstance(distribution, ZukoToPyro):
        return TorchToPyro(distribution.dist)
    if isinstance(distribution, TorchDistributionMixin):
        # Pyro's own pairs of a torch distribution and its mixin have all that this class has.
        return cast(TorchDistribution, distribution)
    if isinstance(distribution, Distribution):
        return TorchToPyro(distribution)
    raise TypeError(
        f"a component's forward returned {type(distribution).__name__}, expected a distribution; "
        "return the torch or Pyro distribution itself, not a sample or its parameters"
    )
