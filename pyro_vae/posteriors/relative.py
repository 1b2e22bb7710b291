"""A posterior given by how it differs from the prior."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput

__all__ = ["RelativeNormal"]

SMALL_START = 0.1  # the factor on the head's weights: many levels start close to their priors


class RelativeNormal(nn.Module):
    r"""Independent normals given by how they differ from the prior of the same latent.

    .. math:: q(z \mid x) = \prod_d \mathcal{N}(z_d; \mu_d + \sigma_d\, \delta_d(x), (\sigma_d\,
              r_d(x))^2), \quad r = s(\rho(x) + \log(e - 1)) + 10^{-4}

    with s the softplus, and :math:`\mu, \sigma` the mean and the standard deviation of the prior:
    those of p(z_l | z_{l+1}, ...) in a `pyro_vae.LadderVAE`, whose guide knows them, and 0 and 1
    elsewhere. Where the network says nothing it is the prior, so that its KL does not depend on
    where the prior moves. It starts close to the prior.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.

    Raises:
        InvalidInput: for a prior whose mean or variance is not known in closed form.

    Source: Vahdat and Kautz (2020), NVAE: a deep hierarchical variational autoencoder.

    Example:
        >>> q = RelativeNormal(2, pv.networks.MLP((1, 8, 8), [16]))
        >>> prior = torch.distributions.Normal(torch.full((2,), 50.0), torch.ones(2))
        >>> (q(torch.zeros(5, 1, 8, 8), prior=prior).mean > 40).all()
        tensor(True)
    """

    takes_prior = True

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        self.head = Head(out_shape_of(network), self.latent, parameters=2)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.mul_(SMALL_START)

    def forward(
        self, x: Tensor, *, context: Tensor | None = None, prior: Distribution | None = None
    ) -> dist.TorchDistribution:
        shift, raw_ratio = self.head(features_of(self.network, x, context))
        ratio = nn.functional.softplus(raw_ratio + math.log(math.e - 1)) + 1e-4
        loc, scale = torch.zeros_like(shift), torch.ones_like(shift)
        if prior is not None:
            loc, scale = _moments(prior)
        return dist.Normal(loc + scale * shift, scale * ratio).to_event(len(self.latent))


def _moments(prior: Distribution) -> tuple[Tensor, Tensor]:
    try:
        return prior.mean, prior.stddev
    except NotImplementedError:
        raise InvalidInput(
            "posterior",
            got=f"RelativeNormal with a prior {type(prior).__name__}, whose moments are not known",
            expected="a prior with mean and variance, such as a normal or a mixture",
            fix="choose DiagonalNormal for the posterior of that level",
        ) from None
