"""Posteriors on the sphere and on the simplex."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.networks import Head, Size, as_shape, bounded, features_of, out_shape_of
from pyro_vae.validation import check_latent

__all__ = ["LogisticNormal", "VonMisesFisher"]


class VonMisesFisher(nn.Module):
    r"""The von Mises-Fisher distribution on the unit sphere: the posterior of the S-VAE.

    .. math:: q(z \mid x) = C_D(\kappa(x)) \exp(\kappa(x)\, \mu(x)^\top z), \quad |z| = |\mu| = 1,
              \quad \kappa = s(\rho(x)) + 10^{-2}

    with s the softplus and :math:`C_D` the normaliser, see `pyro_vae.distributions.VonMisesFisher`.

    Args:
        latent: event shape of z, (D,) or (\*, D) for a product of spheres.
        network: the encoder, from x to features.

    A network that computes no direction at all, the zero vector, gives the first axis.

    Raises:
        InvalidInput: if D < 2.

    Source: Davidson et al. (2018), Hyperspherical variational auto-encoders.

    Example:
        >>> q = VonMisesFisher(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((4,)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        check_latent(self.latent, 2, "a sphere needs two dimensions")
        self.head = Head(out_shape_of(network), self.latent)
        self.spread = Head(out_shape_of(network), (*self.latent[:-1], 1))

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        features = features_of(self.network, x, context)
        (direction,), (raw,) = self.head(features), self.spread(features)
        concentration = nn.functional.softplus(raw.squeeze(-1)) + 1e-2
        loc = distributions.unit_vector(direction)
        return distributions.VonMisesFisher(loc, concentration).to_event(len(self.latent) - 1)


class LogisticNormal(nn.Module):
    r"""The softmax of independent normals: a posterior on the simplex, as in topic models.

    .. math:: z = \mathrm{softmax}(V y), \quad y_d \sim \mathcal{N}(\mu_d(x), \sigma_d(x)^2), \quad
              \sigma = s(\rho(x)) + 10^{-4}

    with V an orthonormal basis of the vectors that sum to zero and s the softplus. The locations
    are kept within
    :math:`\pm 30` nats, :math:`\mu = 30 \tanh(m(x) / 30)`, so that no proportion underflows to
    zero.

    Args:
        latent: event shape of z, (D,) or (\*, D) for several sets of proportions.
        network: the encoder, from x to features.

    Raises:
        InvalidInput: if D < 2.

    Source: Srivastava and Sutton (2017), Autoencoding variational inference for topic models.

    Example:
        >>> q = LogisticNormal(3, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((4,)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        check_latent(self.latent, 2, "proportions that sum to one")
        self.head = Head(
            out_shape_of(network), (*self.latent[:-1], self.latent[-1] - 1), parameters=2
        )

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        raw_loc, raw_scale = self.head(features_of(self.network, x, context))
        loc, scale = bounded(raw_loc, 30), nn.functional.softplus(raw_scale) + 1e-4
        return distributions.LogisticNormal(loc, scale).to_event(len(self.latent) - 1)
