"""Likelihoods of values in the unit interval: binary, continuous, or strictly inside."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.parameters import bounded_exp
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of

__all__ = ["Bernoulli", "Beta", "ContinuousBernoulli"]


class Bernoulli(nn.Module):
    r"""Independent binary entries; the network computes their log-odds.

    .. math:: p(x \mid z) = \prod_d p_d^{x_d} (1 - p_d)^{1 - x_d}, \quad p = \mathrm{sigmoid}(f(z))

    A density on {0, 1} only: grey values in between have no probability, and are refused.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> p = Bernoulli((1, 8, 8), pv.networks.MLP(2, [16]))
        >>> p(torch.zeros(3, 5, 2)).mean.shape
        torch.Size([3, 5, 1, 8, 8])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(len(self.event_shape))


class ContinuousBernoulli(nn.Module):
    r"""Independent entries in [0, 1]: the Bernoulli formula, normalised on the interval.

    .. math:: p(x \mid z) = \prod_d C(p_d)\, p_d^{x_d} (1 - p_d)^{1 - x_d}, \quad
              C(p) = \frac{2 \tanh^{-1}(1 - 2 p)}{1 - 2 p}, \quad C(\tfrac12) = 2, \quad p =
              \mathrm{sigmoid}(f(z))

    What cross-entropy on grey pixels should have been. Its scores are densities of values in [0,
    1]: not bits, and not comparable to those of `Bernoulli` on binarised pixels.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: Loaiza-Ganem and Cunningham (2019), The Continuous Bernoulli: Fixing a Pervasive Error
    in Variational Autoencoders.

    Example:
        >>> p = ContinuousBernoulli((1, 8, 8), pv.networks.MLP(2, [16]))
        >>> p(torch.zeros(3, 2)).log_prob(torch.full((3, 1, 8, 8), 0.4)).shape
        torch.Size([3])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (logits,) = self.head(features_of(self.network, z, context))
        return distributions.ContinuousBernoulli(logits).to_event(len(self.event_shape))


class Beta(nn.Module):
    r"""Independent Beta entries strictly between 0 and 1; the network computes both parameters.

    .. math:: p(x \mid z) = \prod_d \frac{x_d^{\alpha_d - 1} (1 - x_d)^{\beta_d - 1}}{B(\alpha_d,
              \beta_d)}, \quad \log \alpha = 7 \tanh(f(z) / 7), \quad \log \beta = 7 \tanh(g(z) / 7)

    A likelihood of proportions. Both parameters lie within e^-7 and e^7, so that no mass collapses
    to an end. Zeros and ones have no finite density and are refused.

    Args:
        event_shape: the shape of x.
        network: the decoder, from z to features.

    Source: Ferrari and Cribari-Neto (2004), Beta Regression for Modelling Rates and Proportions.

    Example:
        >>> Beta(3, pv.networks.MLP(2, [8]))(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 3])
    """

    def __init__(self, event_shape: Size, network: nn.Module):
        super().__init__()
        self.event_shape, self.network = as_shape(event_shape), network
        self.head = Head(out_shape_of(network), self.event_shape, parameters=2)

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        alpha, beta = (
            bounded_exp(raw, 7.0) for raw in self.head(features_of(self.network, z, context))
        )
        return distributions.Beta(alpha, beta).to_event(len(self.event_shape))
