"""Priors over paths: the states z_1, ..., z_T of one datum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from pyro_vae.distributions import GaussianMarkovPath, MarkovPath, ParallelPaths
from pyro_vae.networks import MLP, Size, as_shape
from pyro_vae.validation import InvalidInput, as_counts, as_number, check_choice, check_positive

__all__ = ["DeepMarkov", "GaussianMarkov", "GaussianProcess"]


class GaussianMarkov(nn.Module):
    r"""A linear Gaussian state space: each state a learned linear map of the last, plus noise.

    .. math:: z_1 \sim \mathcal{N}(m, P P^\top), \quad z_t = A z_{t-1} + b + Q \epsilon_t, \quad
              \epsilon_t \sim \mathcal{N}(0, I)

    with P and Q lower triangular, their diagonals a softplus plus 0.001. Below a linear `Normal`
    likelihood it is the model of the Kalman filter. It starts as an autoregression of coefficient
    0.9 that is N(0, I) at every step.

    Args:
        latent: (T, \*state), the number of steps first; (T,) for a state of one number.

    Source: Kalman (1960), A new approach to linear filtering and prediction problems; Krishnan,
    Shalit and Sontag (2015), Deep Kalman filters.

    Example:
        >>> prior = GaussianMarkov((50, 3))
        >>> prior().sample((4,)).shape, prior().mean[49]
        (torch.Size([4, 50, 3]), tensor([0., 0., 0.], grad_fn=<SelectBackward0>))
    """

    def __init__(self, latent: Size):
        super().__init__()
        self.latent = as_shape(latent)
        size = math.prod(self.latent[1:])
        persistence = 0.9
        self.first_loc = nn.Parameter(torch.zeros(size))
        self.first_raw_tril = nn.Parameter(_raw(1.0) * torch.eye(size))
        self.gain = nn.Parameter(persistence * torch.eye(size))
        self.offset = nn.Parameter(torch.zeros(size))
        self.raw_tril = nn.Parameter(_raw(math.sqrt(1 - persistence**2)) * torch.eye(size))

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        later, size = self.latent[0] - 1, len(self.offset)
        first, noise = _tril(self.first_raw_tril), _tril(self.raw_tril)
        return GaussianMarkovPath(
            self.gain.expand(later + 1, size, size),
            torch.cat([self.first_loc.unsqueeze(0), self.offset.expand(later, size)]),
            torch.cat([first.unsqueeze(0), noise.expand(later, size, size)]),
            self.latent,
        )


class DeepMarkov(nn.Module):
    r"""A chain of states with a gated nonlinear transition: the prior of a deep Markov model.

    .. math:: z_t \sim \mathcal{N}\big((1 - g) \odot (A z_{t-1} + b) + g \odot h,\;
              \mathrm{diag}\, \sigma^2\big), \quad \sigma = s(V \mathrm{relu}(h) + c) + 10^{-3}

    with s the softplus, the gate :math:`g = \mathrm{sigmoid}(f(z_{t-1}))` and the proposal
    :math:`h = f'(z_{t-1})` networks of the state before; :math:`z_0` is learned. A starts at the
    identity.

    Args:
        latent: (T, \*state), the number of steps first; (T,) for a state of one number.
        hidden: widths of the layers of both networks.

    Source: Krishnan, Shalit and Sontag (2017), Structured inference networks for nonlinear state
    space models.

    Example:
        >>> DeepMarkov((50, 3), hidden=[16])().sample((4,)).shape
        torch.Size([4, 50, 3])
    """

    def __init__(self, latent: Size, hidden: Sequence[int] = (64,)):
        super().__init__()
        self.latent, self.hidden = as_shape(latent), as_counts("hidden", hidden)
        size = math.prod(self.latent[1:])
        self.start = nn.Parameter(torch.zeros(size))
        self.network = MLP(size, self.hidden)
        (width,) = self.network.out_shape
        self.gate, self.proposal = nn.Linear(width, size), nn.Linear(width, size)
        self.linear, self.raw_scale = nn.Linear(size, size), nn.Linear(size, size)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(size))
            self.linear.bias.zero_()

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return MarkovPath(self.transition, self.start, (), self.latent)

    def transition(self, before: Tensor, steps: slice) -> Distribution:
        r"""p(z_t | z_{t-1}) at states before (\*batch, S, D), the same at all steps."""
        features = self.network(before)
        gate, proposal = torch.sigmoid(self.gate(features)), self.proposal(features)
        loc = (1 - gate) * self.linear(before) + gate * proposal
        scale = softplus(self.raw_scale(torch.relu(proposal))) + 1e-3
        return dist.Normal(loc, scale).to_event(1)


class GaussianProcess(nn.Module):
    r"""Independent Gaussian processes over time, one for each coordinate of the state.

    .. math:: (z_{1d}, \dots, z_{Td}) \sim \mathcal{N}(0, K_d), \quad K_{dij} = (1 - \nu)\, k(|t_i -
              t_j| / \ell_d) + \nu\, [i = j]

    with a variance of one, which the decoder scales, lengthscales that are learned, and a nugget
    :math:`\nu` that keeps K positive definite. With r the distance over the lengthscale, k is
    :math:`e^{-r^2 / 2}` (``"rbf"``), :math:`e^{-r}` (``"matern12"``), :math:`(1 + \sqrt3 r)
    e^{-\sqrt3 r}` (``"matern32"``), :math:`(1 + \sqrt5 r + 5 r^2 / 3) e^{-\sqrt5 r}`
    (``"matern52"``) or :math:`1 / (1 + r^2)` (``"cauchy"``).

    Args:
        latent: (T, \*state), the number of steps first; (T,) for a state of one number.
        kernel: the covariance function.
        lengthscale: where every lengthscale starts, in units of the times.
        times: T different times, increasing; by default 0, 1, ..., T - 1.
        nugget: :math:`\nu`, between 0 and 1.

    Raises:
        InvalidInput: on an unknown kernel, a lengthscale that is not positive, or times that are
            not T increasing numbers.

    Source: Casale et al. (2018), Gaussian process prior variational autoencoders; Fortuin,
    Baranchuk, Ratsch and Mandt (2020), GP-VAE, for the Cauchy kernel.

    Example:
        >>> prior = GaussianProcess((50, 3), kernel="matern32", lengthscale=10.0)
        >>> prior().sample((4,)).shape
        torch.Size([4, 50, 3])
    """

    distances: Tensor

    def __init__(
        self,
        latent: Size,
        kernel: Literal["rbf", "matern12", "matern32", "matern52", "cauchy"] = "rbf",
        lengthscale: float = 5.0,
        times: Sequence[float] | None = None,
        nugget: float = 1e-3,
    ):
        super().__init__()
        check_choice("kernel", kernel, KERNELS)
        check_positive("lengthscale", lengthscale)
        if not 0 < as_number(nugget) < 1:
            raise InvalidInput(
                "nugget",
                got=repr(nugget),
                expected="a share of the variance between 0 and 1",
                fix="pass nugget=1e-3",
            )
        self.latent, self.kernel = as_shape(latent), kernel
        self.lengthscale, self.times, self.nugget = lengthscale, times, nugget
        length = self.latent[0]
        listed = [*times] if isinstance(times, Iterable) else range(length)
        at = torch.tensor([*map(as_number, listed)])
        is_bad = len(at) != length or not (at.diff() > 0).all() or not at.isfinite().all()
        if is_bad or not isinstance(times, Iterable | None):
            raise InvalidInput(
                "times",
                got=f"{len(at)} numbers"
                if len(at) != length
                else f"{times!r}, times that do not increase",
                expected=f"{length} increasing times, one for each step",
                fix="sort them, or leave them out for equal steps",
            )
        self.register_buffer("distances", (at[:, None] - at).abs(), persistent=False)
        start = torch.full((math.prod(self.latent[1:]),), math.log(lengthscale))
        self.log_lengthscale = nn.Parameter(start)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        inverse = (-self.log_lengthscale).clamp(max=SHORTEST).exp()
        r = self.distances * inverse[:, None, None]
        eye = torch.eye(self.latent[0], dtype=r.dtype, device=r.device)
        covariance = (1 - self.nugget) * KERNELS[self.kernel](r) + self.nugget * eye
        tril = torch.linalg.cholesky(covariance)
        loc = torch.zeros_like(r[..., 0])
        base = dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
        return ParallelPaths(base, self.latent)


def _matern32(r: Tensor) -> Tensor:
    r = math.sqrt(3) * r
    return (1 + r) * (-r).exp()


def _matern52(r: Tensor) -> Tensor:
    r = math.sqrt(5) * r
    return (1 + r + r.square() / 3) * (-r).exp()


KERNELS = {
    "rbf": lambda r: (-0.5 * r.square()).exp(),
    "matern12": lambda r: (-r).exp(),
    "matern32": _matern32,
    "matern52": _matern52,
    "cauchy": lambda r: 1 / (1 + r.square()),
}


def _raw(scale: float) -> float:
    """The number whose softplus, plus the floor, is that scale."""
    return math.log(math.expm1(scale - FLOOR))


def _tril(raw: Tensor) -> Tensor:
    """A lower triangular matrix with a positive diagonal, from any square one."""
    return raw.tril(-1) + torch.diag_embed(softplus(raw.diagonal()) + FLOOR)


FLOOR = 1e-3
SHORTEST = 40.0  # log of an inverse lengthscale whose square is a float; no two times are so near
