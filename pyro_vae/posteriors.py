"""Approximate posteriors q(z | x), or q(z | x, context): the guide's half of a program, an encoder with a density.

The contract: sizes come first (``posterior(latent, network, ...)``); ``forward(x, *, context=None)`` returns a
distribution whose event shape is the latent's and whose batch shape is x's, broadcast against the context's.
Constructor arguments are kept as attributes of the same name. Nothing needs to be inherited.
"""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of

__all__ = ["DiagonalNormal"]


class DiagonalNormal(nn.Module):
    r"""Independent normals whose means and scales the network computes: the mean-field guide.

    .. math:: q(z \mid x) = \prod_d \mathcal{N}(z_d; \mu_d(x), \sigma_d(x)^2), \quad \sigma = s(\rho(x)) + 10^{-4}

    with s the softplus. The floor on the scale keeps its logarithm finite.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> q = DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((3,)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        self.head = Head(out_shape_of(network), self.latent, parameters=2)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        loc, raw_scale = self.head(features_of(self.network, x, context))
        scale = nn.functional.softplus(raw_scale) + 1e-4
        return dist.Normal(loc, scale).to_event(len(self.latent))
