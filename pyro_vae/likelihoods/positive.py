"""Likelihoods of positive numbers: durations, amounts, concentrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.parameters import LOG_SCALE, Positive, as_bounds
from pyro_vae.networks import Head, Size, as_shape, bounded, features_of, out_shape_of

__all__ = ["Exponential", "Gamma", "LogNormal", "Weibull"]


class Exponential(nn.Module):
    r"""Independent exponential entries; the network computes the logarithms of their means.

    .. math:: p(x \mid z) = \prod_d \frac{1}{\mu_d} e^{-x_d / \mu_d}, \quad \log \mu = 20 \tanh(f(z)
              / 20)

    Times between events that occur at a constant rate.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: McCullagh and Nelder (1989), Generalized Linear Models.

    Example:
        >>> Exponential(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 3])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, z, context))
        rate = torch.exp(-bounded(raw, LOG_SCALE))
        return dist.Exponential(rate).to_event(len(self.event_shape))


class Gamma(nn.Module):
    r"""Independent Gamma entries; the network computes the logarithms of their means.

    .. math:: p(x \mid z) = \prod_d \frac{(a_d / \mu_d)^{a_d}}{\Gamma(a_d)}\, x_d^{a_d - 1} e^{-a_d
              x_d / \mu_d}, \quad \log \mu = 20 \tanh(f(z) / 20)

    Positive numbers whose standard deviation is a constant share of their mean,
    :math:`\mu / \sqrt a`: amounts, incomes, intensities. A learned concentration moves
    between bounds as the scale of `Normal` does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: a; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        concentration_bounds: the interval of a learned concentration.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: McCullagh and Nelder (1989), Generalized Linear Models.

    Example:
        >>> p = Gamma(3, pv.networks.MLP(2, [8]), concentration=4.0, learn_concentration=None)
        >>> p = p(torch.zeros(5, 2))
        >>> torch.allclose(p.variance.sqrt(), p.mean / 2)
        True
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 1.0,
        learn_concentration: Literal["shared", "per_feature", "network"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (5e-2, 1e4),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = as_bounds("concentration_bounds", concentration_bounds)
        count = 1 + (learn_concentration == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw, *spread = self.head(features_of(self.network, z, context))
        a = self.shape(*spread)
        rate = a * torch.exp(-bounded(raw, LOG_SCALE))
        return distributions.Gamma(a, rate).to_event(len(self.event_shape))


class LogNormal(nn.Module):
    r"""Independent log-normal entries; the network computes the logarithms of their medians.

    .. math:: p(x \mid z) = \prod_d \frac{1}{x_d}\, \mathcal{N}(\log x_d; m_d, \sigma_d^2), \quad
              m = 20 \tanh(f(z) / 20)

    Positive numbers made of many factors: sizes, incomes, times to failure. A learned scale moves
    between bounds as that of `Normal` does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        scale: the standard deviation of log x; where it starts if it is learned.
        learn_scale: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        scale_bounds: the interval of a learned scale.

    Raises:
        InvalidInput: if the scale does not lie strictly within its bounds.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous Univariate Distributions.

    Example:
        >>> p = LogNormal(3, pv.networks.MLP(2, [8]), scale=0.5)
        >>> p(torch.zeros(5, 2)).log_prob(torch.tensor([0.1, 1.0, 20.0])).shape
        torch.Size([5])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        scale: float = 1.0,
        learn_scale: Literal["shared", "per_feature", "network"] | None = "per_feature",
        scale_bounds: Sequence[float] = (1e-2, 5.0),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.scale, self.learn_scale = scale, learn_scale
        self.scale_bounds = as_bounds("scale_bounds", scale_bounds)
        count = 1 + (learn_scale == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        self.sigma = Positive(scale, self.event_shape, learn_scale, self.scale_bounds)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw, *spread = self.head(features_of(self.network, z, context))
        median = bounded(raw, LOG_SCALE)
        return dist.LogNormal(median, self.sigma(*spread)).to_event(len(self.event_shape))


class Weibull(nn.Module):
    r"""Independent Weibull entries; the network computes the logarithms of their scales.

    .. math:: p(x \mid z) = \prod_d \frac{k_d}{\lambda_d} \Big(\frac{x_d}{\lambda_d}\Big)^{k_d - 1}
              e^{-(x_d / \lambda_d)^{k_d}}, \quad \log \lambda = 20 \tanh(f(z) / 20)

    Times to failure, whose hazard rises with time for k > 1 and falls for k < 1; with `Censored`
    the likelihood of survival analysis. A learned k moves between bounds as the scale of `Normal`
    does.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: k; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each; ``"network"`` computes one for each entry of each datum.
        concentration_bounds: the interval of a learned concentration.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: Weibull (1951), A Statistical Distribution Function of Wide Applicability.

    Example:
        >>> Weibull(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 1.0,
        learn_concentration: Literal["shared", "per_feature", "network"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (0.2, 10.0),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = as_bounds("concentration_bounds", concentration_bounds)
        count = 1 + (learn_concentration == "network")
        self.head = Head(out_shape_of(network), self.event_shape, count)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw, *spread = self.head(features_of(self.network, z, context))
        log_scale = bounded(raw, LOG_SCALE)
        return distributions.Weibull(log_scale, self.shape(*spread)).to_event(len(self.event_shape))
