"""Priors on the sphere and on the simplex."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.networks import Size, as_shape
from pyro_vae.validation import check_latent, check_positive

__all__ = ["Dirichlet", "LogisticNormal", "UniformOnSphere"]


class UniformOnSphere(nn.Module):
    r"""The uniform distribution on the unit sphere, where every direction is alike.

    .. math:: p(z) = \frac{\Gamma(D / 2)}{2 \pi^{D / 2}}, \quad |z| = 1

    Args:
        latent: event shape of z, (D,) or (\*, D) for a product of spheres.

    Raises:
        InvalidInput: if D < 2.

    Source: Davidson et al. (2018), Hyperspherical variational auto-encoders.

    Example:
        >>> UniformOnSphere(3)().sample((4,)).norm(dim=-1).round(decimals=4)
        tensor([1., 1., 1., 1.])
    """

    like: Tensor

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        check_latent(self.latent, 2, "a sphere needs two dimensions")
        self.register_buffer("like", torch.zeros(self.latent), persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return distributions.SphericalUniform(self.like).to_event(len(self.latent) - 1)


class Dirichlet(nn.Module):
    r"""A symmetric Dirichlet distribution on the simplex, for proportions such as of topics.

    .. math:: p(z) = \frac{\Gamma(D \alpha)}{\Gamma(\alpha)^D} \prod_d z_d^{\alpha - 1}, \quad
              \sum_d z_d = 1

    Args:
        latent: event shape of z, (D,) or (\*, D) for several sets of proportions.
        concentration: :math:`\alpha > 0`; below one, few proportions are large.

    Raises:
        InvalidInput: if D < 2 or the concentration is not positive.

    Source: Srivastava and Sutton (2017), Autoencoding variational inference for topic models.

    Example:
        >>> Dirichlet(3)().log_prob(torch.tensor([0.2, 0.3, 0.5]))
        tensor(0.6931)
    """

    alpha: Tensor

    def __init__(self, latent: Size, concentration: float = 1.0):
        super().__init__()
        self.latent, self.concentration = as_shape(latent), concentration
        check_latent(self.latent, 2, "proportions that sum to one")
        check_positive("concentration", concentration)
        self.register_buffer(
            "alpha", torch.full(self.latent, float(concentration)), persistent=False
        )

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return dist.Dirichlet(self.alpha).to_event(len(self.latent) - 1)


class LogisticNormal(nn.Module):
    r"""The softmax of independent normals with learned locations and scales, on the simplex.

    .. math:: z = \mathrm{softmax}(V y), \quad y_d \sim \mathcal{N}(\mu_d, \sigma_d^2), \quad \sigma
              = s(\rho) + 10^{-3}

    with V an orthonormal basis of the vectors that sum to zero and s the softplus. It starts at
    :math:`\mu = 0` and :math:`\sigma = 1`, where z is the softmax of D independent standard
    normals.

    Args:
        latent: event shape of z, (D,) or (\*, D) for several sets of proportions.

    Raises:
        InvalidInput: if D < 2.

    Source: Aitchison and Shen (1980), Logistic-normal distributions; Blei and Lafferty (2007) for
    topics.

    Example:
        >>> LogisticNormal(3)().sample((2,)).sum(-1).round(decimals=4)
        tensor([1., 1.])
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        check_latent(self.latent, 2, "proportions that sum to one")
        free = (*self.latent[:-1], self.latent[-1] - 1)
        self.loc = nn.Parameter(torch.zeros(free))
        self.raw_scale = nn.Parameter(torch.full(free, 0.54))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        scale = nn.functional.softplus(self.raw_scale) + 1e-3
        return distributions.LogisticNormal(self.loc, scale).to_event(len(self.latent) - 1)
