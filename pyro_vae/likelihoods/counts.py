"""Likelihoods of counts: unbounded entry by entry, or given their total."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.positive import Positive
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Multinomial", "NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]

LOG_RATE = 12.0  # rates lie within e^-12 and e^12


class Poisson(nn.Module):
    r"""Independent Poisson counts; the network computes their log-rates.

    .. math:: P(x \mid z) = \prod_d \frac{\lambda_d^{x_d} e^{-\lambda_d}}{x_d!}, \quad
              \log \lambda = 12 \tanh(f(z) / 12)

    close to f(z) for rates that occur, and bounded, so that no rate overflows.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: McCullagh and Nelder (1989), Generalized Linear Models.

    Example:
        >>> p = Poisson(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 7.0])).shape
        torch.Size([5])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, z, context))
        return distributions.Poisson(log_rate_of(raw).exp()).to_event(len(self.event_shape))


class NegativeBinomial(nn.Module):
    r"""Independent overdispersed counts; the network computes their log-means.

    .. math:: P(x \mid z) = \prod_d \frac{\Gamma(x_d + r_d)}{x_d!\, \Gamma(r_d)}
              \left(\frac{r_d}{r_d + \mu_d}\right)^{r_d} \left(\frac{\mu_d}{r_d +
              \mu_d}\right)^{x_d}, \quad \log \mu = 12 \tanh(f(z) / 12)

    Poisson counts whose rate is a Gamma variable, with mean :math:`\mu` and variance
    :math:`\mu + \mu^2 / r`; a large r is a Poisson.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: r, that of the Gamma; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each.
        concentration_bounds: the interval of a learned concentration.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> p = NegativeBinomial(3, pv.networks.MLP(2, [8]), concentration=2.0)(torch.zeros(5, 2))
        >>> torch.allclose(p.variance, p.mean + p.mean**2 / 2)
        True
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 10.0,
        learn_concentration: Literal["shared", "per_feature"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (1e-2, 1e4),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = tuple(concentration_bounds)
        self.head = Head(out_shape_of(network), self.event_shape)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (raw,) = self.head(features_of(self.network, z, context))
        log_mean, concentration = log_rate_of(raw), self.shape()
        logits = log_mean - concentration.log()
        return distributions.NegativeBinomial(concentration, logits=logits).to_event(
            len(self.event_shape)
        )


class ZeroInflatedNegativeBinomial(nn.Module):
    r"""`NegativeBinomial` counts with extra zeros, which occur with a learned probability.

    .. math:: P(x \mid z) = \prod_d g_d\, [x_d = 0] + (1 - g_d)\, \mathrm{NB}(x_d; \mu_d, r_d),
              \quad g = \mathrm{sigmoid}(a(z)), \quad \log \mu = 12 \tanh(f(z) / 12)

    The network computes f and a.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.
        concentration: r, see `NegativeBinomial`; where it starts if it is learned.
        learn_concentration: ``None`` keeps it fixed; ``"shared"`` learns one for all entries,
            ``"per_feature"`` one each.
        concentration_bounds: the interval of a learned concentration.

    Raises:
        InvalidInput: if the concentration does not lie strictly within its bounds.

    Source: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Example:
        >>> ZeroInflatedNegativeBinomial(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        concentration: float = 10.0,
        learn_concentration: Literal["shared", "per_feature"] | None = "per_feature",
        concentration_bounds: Sequence[float] = (1e-2, 1e4),
    ):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.concentration, self.learn_concentration = concentration, learn_concentration
        self.concentration_bounds = tuple(concentration_bounds)
        self.head = Head(out_shape_of(network), self.event_shape, parameters=2)
        bounds = self.concentration_bounds
        self.shape = Positive(
            concentration, self.event_shape, learn_concentration, bounds, "concentration"
        )

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw, gate = self.head(features_of(self.network, z, context))
        log_mean, concentration = log_rate_of(raw), self.shape()
        return distributions.ZeroInflatedNegativeBinomial(
            concentration, logits=log_mean - concentration.log(), gate_logits=gate
        ).to_event(len(self.event_shape))


class Multinomial(nn.Module):
    r"""Counts of V words given their total; the network computes the words' log-odds.

    .. math:: P(x \mid z, n) = \frac{n!}{\prod_v x_v!} \prod_v p_v^{x_v}, \quad p =
              \mathrm{softmax}(f(z)), \quad n = \sum_v x_v

    The likelihood of a bag of words. The total n is not modelled: each datum is scored given its
    own, which is read off x, and scores are log P(x | n). Draws and means have ``total_count``
    words.

    Args:
        event_shape: (V,), at least two words: counts in a single cell are their total.
        network: the decoder, from z to features.
        total_count: the total of draws and means.

    Raises:
        InvalidInput: if the event is no vector of at least two counts.

    Source: Miao, Yu and Blunsom (2016), Neural Variational Inference for Text Processing.

    Example:
        >>> p = Multinomial(500, pv.networks.MLP(2, [8]), total_count=60)
        >>> p(torch.zeros(5, 2)).sample().sum(-1)
        tensor([60., 60., 60., 60., 60.])
    """

    def __init__(self, event_shape: Size, network: nn.Module, total_count: int = 100):
        super().__init__()
        check_count("total_count", total_count)
        self.event_shape, self.network = as_shape(event_shape), network
        self.total_count = total_count
        if len(self.event_shape) != 1 or math.prod(self.event_shape) < 2:
            raise InvalidInput(
                "event_shape",
                got=str(self.event_shape),
                expected="(V,), a vector of at least two counts",
                fix="flatten x, or choose Poisson, which counts entries of any shape",
            )
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        return distributions.MultinomialGivenTotal(self.total_count, logits=logits)


def log_rate_of(raw: Tensor) -> Tensor:
    """A log-rate within its bounds."""
    return LOG_RATE * torch.tanh(raw / LOG_RATE)
