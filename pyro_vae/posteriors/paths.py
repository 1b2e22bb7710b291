"""Posteriors over paths z_1, ..., z_T, by networks that read a whole sequence."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyro_vae.distributions import GaussianMarkovPath, MarkovPath
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.posteriors.real import lower_triangular, places_below
from pyro_vae.validation import check_count

__all__ = ["DeepMarkov", "GaussianMarkov"]


class GaussianMarkov(nn.Module):
    r"""A normal chain of states: a normal over paths whose precision is block tridiagonal.

    .. math:: q(z \mid x) = \prod_t \mathcal{N}\big(z_t; A_t(x)\, z_{t-1} + b_t(x),\; L_t(x)
              L_t(x)^\top\big), \quad L_{tdd} = s(\rho_{td}(x)) + 10^{-4}

    with s the softplus, L lower triangular and A small at first. The posterior of a linear Gaussian
    state space is of this form. Each step has its own parameters, from the features of that step
    where the network gives some for each, as `pyro_vae.networks.RecurrentSmoother` does.

    Args:
        latent: (T, \*state), the number of steps first; (T,) for a state of one number.
        network: the encoder, from x to features, (width, T) for features of each step.

    Source: Archer, Park, Buesing, Cunningham and Paninski (2015), Black box variational inference
    for state space models.

    Example:
        >>> q = GaussianMarkov((50, 3), pv.networks.RecurrentSmoother((2, 50), width=16))
        >>> q(torch.zeros(5, 2, 50)).rsample((4,)).shape
        torch.Size([4, 5, 50, 3])
    """

    places: Tensor

    def __init__(self, latent: Size, network: nn.Module):
        super().__init__()
        self.latent, self.network = as_shape(latent), network
        size = math.prod(self.latent[1:])
        self.sizes = [size, size, size * (size - 1) // 2, size * size]
        self.head = Head(out_shape_of(network), (sum(self.sizes), self.latent[0]))
        self.register_buffer("places", places_below(size), persistent=False)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (parameters,) = self.head(features_of(self.network, x, context))
        offset, raw_scale, below, raw_gain = parameters.mT.split(self.sizes, -1)
        tril = lower_triangular(softplus(raw_scale) + 1e-4, below, self.places)
        gain = 0.1 * raw_gain.unflatten(-1, tril.shape[-2:])
        return GaussianMarkovPath(gain, offset, tril, self.latent)


class DeepMarkov(nn.Module):
    r"""A chain of states, each given the last one and the sequence: a structured network.

    .. math:: q(z \mid x) = \prod_t \mathcal{N}(z_t; \mu(c_t), \mathrm{diag}\, \sigma(c_t)^2), \quad
              c_t = \tfrac12 \big(\tanh(W z_{t-1} + b) + h_t(x)\big)

    with :math:`\sigma = s(\rho) + 10^{-4}`, s the softplus, :math:`h_t` an affine map of the
    features of step t, and :math:`z_0` learned.

    Args:
        latent: (T, \*state), the number of steps first; (T,) for a state of one number.
        network: the encoder, from x to features, (width, T) for features of each step, such as
            `pyro_vae.networks.RecurrentSmoother`.
        width: size of c.

    Source: Krishnan, Shalit and Sontag (2017), Structured inference networks for nonlinear state
    space models.

    Example:
        >>> q = DeepMarkov((50, 3), pv.networks.RecurrentSmoother((2, 50), width=16), width=8)
        >>> q(torch.zeros(5, 2, 50)).rsample((4,)).shape
        torch.Size([4, 5, 50, 3])
    """

    def __init__(self, latent: Size, network: nn.Module, width: int = 64):
        super().__init__()
        check_count("width", width)
        self.latent, self.network, self.width = as_shape(latent), network, width
        size = math.prod(self.latent[1:])
        self.start = nn.Parameter(torch.zeros(size))
        self.head = Head(out_shape_of(network), (width, self.latent[0]))
        self.recurrent, self.out = nn.Linear(size, width), nn.Linear(width, 2 * size)

    def forward(self, x: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        (features,) = self.head(features_of(self.network, x, context))
        h = features.mT

        def transition(before: Tensor, steps: slice) -> Distribution:
            combined = 0.5 * (torch.tanh(self.recurrent(before)) + h[..., steps, :])
            loc, raw_scale = self.out(combined).chunk(2, -1)
            return dist.Normal(loc, softplus(raw_scale) + 1e-4).to_event(1)

        return MarkovPath(transition, self.start, h.shape[:-2], self.latent)
