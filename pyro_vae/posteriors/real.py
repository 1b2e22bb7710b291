"""Posteriors on real vectors."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.distributions import MixtureOfNormals, Reshaped
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import check_count

__all__ = ["Delta", "DiagonalNormal", "FullRankNormal", "LowRankNormal", "Mixture"]


class DiagonalNormal(nn.Module):
    r"""Independent normals whose means and scales the network computes: the mean-field family.

    .. math:: q(z \mid x) = \prod_d \mathcal{N}(z_d; \mu_d(x), \sigma_d(x)^2), \quad \sigma =
              s(\rho(x)) + 10^{-4}

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


class LowRankNormal(nn.Module):
    r"""A normal whose covariance is diagonal plus a few directions: correlations at a low price.

    .. math:: q(z \mid x) = \mathcal{N}(z; \mu(x), W(x) W(x)^\top + \mathrm{diag}\, \sigma(x)^2),
              \quad \sigma^2 = s(\rho(x)) + 10^{-4}

    with s the softplus and W of shape (D, rank), small at first.

    Args:
        latent: event shape of z, with D entries.
        network: the encoder, from x to features.
        rank: number of directions.

    Source: Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate
    inference.

    Example:
        >>> q = LowRankNormal(4, pv.networks.MLP((1, 8, 8), [16]), rank=2)
        >>> q(torch.zeros(5, 1, 8, 8)).covariance_matrix.shape
        torch.Size([5, 4, 4])
    """

    def __init__(self, latent: Size, network: nn.Module, rank: int = 2):
        super().__init__()
        check_count("rank", rank)
        self.latent, self.network, self.rank = as_shape(latent), network, rank
        self.entries = math.prod(self.latent)
        self.head = Head(out_shape_of(network), self.entries, parameters=2 + rank)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        loc, raw_variance, *directions = self.head(features_of(self.network, x, context))
        factor = 0.1 * torch.stack(directions, dim=-1)
        variance = nn.functional.softplus(raw_variance) + 1e-4
        normal = distributions.LowRankNormal(loc, factor, variance)
        return normal if len(self.latent) == 1 else Reshaped(normal, self.latent)


class FullRankNormal(nn.Module):
    r"""A normal with a full covariance matrix.

    .. math:: q(z \mid x) = \mathcal{N}(z; \mu(x), L(x) L(x)^\top), \quad L_{dd} = s(\rho_d(x)) +
              10^{-4}

    with L lower triangular and s the softplus; the head has D (D + 3) / 2 outputs.

    Args:
        latent: event shape of z, with D entries.
        network: the encoder, from x to features.

    Source: Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate
    inference.

    Example:
        >>> q = FullRankNormal(4, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).scale_tril.shape
        torch.Size([5, 4, 4])
    """

    places: Tensor

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        self.entries = math.prod(self.latent)
        self.head = Head(out_shape_of(network), self.entries, parameters=2)
        below = self.entries * (self.entries - 1) // 2
        self.covariances = Head(out_shape_of(network), below) if below else None
        self.register_buffer("places", places_below(self.entries), persistent=False)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        features = features_of(self.network, x, context)
        loc, raw_scale = self.head(features)
        scale = nn.functional.softplus(raw_scale) + 1e-4
        if self.covariances is None:
            tril = torch.diag_embed(scale)
        else:
            tril = lower_triangular(scale, self.covariances(features)[0], self.places)
        normal = distributions.FullRankNormal(loc, scale_tril=tril)
        return normal if len(self.latent) == 1 else Reshaped(normal, self.latent)


class Mixture(nn.Module):
    r"""A mixture of normals: several explanations of one datum.

    .. math:: q(z \mid x) = \sum_c \pi_c(x) \prod_d \mathcal{N}(z_d; \mu_{cd}(x), \sigma_{cd}(x)^2),
              \quad \sigma = s(\rho(x)) + 10^{-4}

    with s the softplus. Draws are reparametrised implicitly
    (`pyro_vae.distributions.MixtureOfNormals`), so that the weights learn from the gradient of the
    integrand too.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.
        components: number of components C.

    Source: Graves (2016), Stochastic backpropagation through mixture density distributions.

    Example:
        >>> q = Mixture(2, pv.networks.MLP((1, 8, 8), [16]), components=3)
        >>> q(torch.zeros(5, 1, 8, 8)).rsample((4,)).shape
        torch.Size([4, 5, 2])
    """

    def __init__(self, latent: Size, network: nn.Module, components: int = 5):
        super().__init__()
        check_count("components", components)
        self.latent, self.network, self.components = as_shape(latent), network, components
        self.head = Head(out_shape_of(network), (components, math.prod(self.latent)), parameters=2)
        self.weights = Head(out_shape_of(network), components)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        features = features_of(self.network, x, context)
        loc, raw_scale = self.head(features)
        (logits,) = self.weights(features)
        mixture = MixtureOfNormals(logits, loc, nn.functional.softplus(raw_scale) + 1e-4)
        return mixture if len(self.latent) == 1 else Reshaped(mixture, self.latent)


class Delta(nn.Module):
    r"""A point mass: an autoencoder, or a maximum a posteriori guess by the encoder.

    .. math:: q(z \mid x) = \delta(z - \mu(x))

    It trains, on the log-joint, but has neither an ELBO nor a log p(x), and evaluation says so.

    Args:
        latent: event shape of z.
        network: the encoder, from x to features.

    Source: Ghosh et al. (2020), From variational to deterministic autoencoders.

    Example:
        >>> q = Delta(2, pv.networks.MLP((1, 8, 8), [16]))
        >>> q(torch.zeros(5, 1, 8, 8)).mean.shape
        torch.Size([5, 2])
    """

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        self.head = Head(out_shape_of(network), self.latent)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (loc,) = self.head(features_of(self.network, x, context))
        return dist.Delta(loc, event_dim=len(self.latent))


def places_below(entries: int) -> Tensor:
    """Where each entry of a matrix comes from in the list of those below its diagonal.

    The place behind the last one, which `lower_triangular` fills with a zero, for all the others.
    """
    below = entries * (entries - 1) // 2
    places = torch.full((entries, entries), below)
    rows, columns = torch.tril_indices(entries, entries, offset=-1)
    places[rows, columns] = torch.arange(below)
    return places


def lower_triangular(diagonal: Tensor, below: Tensor, places: Tensor) -> Tensor:
    """A lower triangular matrix of its diagonal and the list of the entries below it."""
    return torch.diag_embed(diagonal) + nn.functional.pad(below, (0, 1))[..., places]
