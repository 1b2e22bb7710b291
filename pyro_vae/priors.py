"""Priors p(z), or p(z | context): modules whose ``forward(*, context=None)`` returns a distribution.

The contract: sizes come first (``prior(latent, ...)``); the distribution's event shape is the latent's; its batch
shape is empty, or the context's. Constructor arguments are kept as attributes of the same name, which is how a
program is saved without pickles. Nothing needs to be inherited.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae.distributions import Mixture
from pyro_vae.networks import Size, as_shape

__all__ = ["StandardNormal", "GaussianMixture"]


class StandardNormal(nn.Module):
    r"""Independent standard normals, the prior of the first VAE.

    .. math:: p(z) = \prod_d \mathcal{N}(z_d; 0, 1)

    Args:
        latent: event shape of z.

    Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes.

    Example:
        >>> StandardNormal(2)().log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        # Buffers, so that the prior follows the program's device and dtype; constants, so they are not saved.
        self.register_buffer("loc", torch.zeros(self.latent), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Normal(self.loc, self.scale).to_event(len(self.latent))


class GaussianMixture(nn.Module):
    r"""A mixture of diagonal normals with learned weights, means and scales.

    .. math:: p(z) = \sum_c \pi_c \prod_d \mathcal{N}(z_d; \mu_{cd}, \sigma_{cd}^2), \quad \sigma = s(\rho) + 10^{-3}

    with s the softplus: the floor keeps a component from collapsing on one datum. The means start at draws from
    N(0, I), all weights equal and all scales at one, so that no component starts dead.

    Args:
        latent: event shape of z.
        components: number of components C.

    Source: Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture VAEs.

    Example:
        >>> prior = GaussianMixture(2, components=5)
        >>> prior().sample((3,)).shape, prior().log_prob(torch.zeros(4, 7, 2)).shape
        (torch.Size([3, 2]), torch.Size([4, 7]))
    """

    def __init__(self, latent: Size, components: int = 10):
        super().__init__()
        self.latent, self.components = as_shape(latent), components
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, *self.latent))
        self.raw_scale = nn.Parameter(torch.full((components, *self.latent), SOFTPLUS_OF_THIS_IS_ONE))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        scale = nn.functional.softplus(self.raw_scale) + 1e-3
        return Mixture(dist.Categorical(logits=self.logits), dist.Normal(self.loc, scale).to_event(len(self.latent)))


SOFTPLUS_OF_THIS_IS_ONE = 0.5413248546129181  # log(e - 1)
