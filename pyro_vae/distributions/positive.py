"""Distributions of positive numbers."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.tails import log1mexp, tails_inside

__all__ = ["Gamma", "Weibull"]


class Gamma(dist.Gamma):
    r"""A Gamma variable, its log-density computed in double precision.

    .. math:: p(x) = \frac{b^a}{\Gamma(a)}\, x^{a - 1} e^{-b x}

    In float32 the terms of torch's own cancel where a is large.

    Example:
        >>> Gamma(torch.tensor(1e5), torch.tensor(1e5)).log_prob(torch.tensor(1.0))
        tensor(4.8375)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, x = self.concentration.double(), self.rate.double(), value.double()
        scaled = b * x
        exact = a * scaled.log() - scaled - torch.lgamma(a) - x.log()
        return exact.to(self.rate.dtype)


class Weibull(dist.TorchDistribution):
    r"""A Weibull variable, given by the logarithm of its scale.

    .. math:: p(x) = \frac{k}{\lambda} \Big(\frac{x}{\lambda}\Big)^{k - 1} e^{-(x / \lambda)^k},
              \quad P(X > x) = e^{-(x / \lambda)^k}

    Args:
        log_scale: the logarithm of :math:`\lambda` (\*batch), in that of the units of x.
        concentration: k (\*batch); the hazard rises with x for k > 1 and falls for k < 1.

    Source: Weibull (1951), A Statistical Distribution Function of Wide Applicability.

    Example:
        >>> p = Weibull(torch.tensor(0.0), torch.tensor(1.0))
        >>> p.log_prob(torch.tensor(2.0)), p.mean
        (tensor(-2.), tensor(1.))
    """

    arg_constraints = {"log_scale": constraints.real, "concentration": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, log_scale: Tensor, concentration: Tensor, validate_args: bool | None = None):
        self.log_scale, self.concentration = broadcast_all(log_scale, concentration)
        super().__init__(self.log_scale.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Weibull:
        shape = torch.Size(batch_shape)
        log_scale, concentration = self.log_scale.expand(shape), self.concentration.expand(shape)
        return Weibull(log_scale, concentration, validate_args=False)

    def hazard(self, value: Tensor) -> Tensor:
        r"""The logarithm of :math:`(x / \lambda)^k`, in double precision."""
        return self.concentration.double() * (value.double().log() - self.log_scale.double())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        hazard, x = self.hazard(value), value.double()
        exact = self.concentration.double().log() + hazard - x.log() - hazard.exp()
        return exact.to(self.log_scale.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(-self.hazard(value).exp()).to(self.log_scale.dtype)

    def _moment(self, power: float) -> Tensor:
        """The mean of x to a power."""
        k = self.concentration
        return torch.exp(power * self.log_scale + torch.lgamma(1 + power / k))

    @property
    def mean(self) -> Tensor:
        return self._moment(1.0)

    @property
    def variance(self) -> Tensor:
        return self._moment(2.0) - self._moment(1.0).square()

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        log_scale = self.log_scale.expand(self._extended_shape(sample_shape))
        smallest = torch.finfo(log_scale.dtype).tiny
        hazard = torch.empty_like(log_scale).exponential_().clamp_min(smallest)
        return torch.exp(log_scale + hazard.log() / self.concentration).clamp_min(smallest)


@tails_inside.register
def _weibull(p: Weibull, x: Tensor) -> tuple[Tensor, Tensor]:
    above = -p.hazard(x).clamp_max(700).exp()  # beyond it a double overflows
    return log1mexp(above), above
