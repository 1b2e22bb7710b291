"""A continuous normalising flow as the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyro_vae.distributions import AlongVelocity, PushForward, Reshaped
from pyro_vae.networks import MLP, Size, as_shape
from pyro_vae.validation import check_count

__all__ = ["ContinuousFlow"]

FREQUENCIES = 3  # cosines of the time that the velocity is given


class ContinuousFlow(nn.Module):
    r"""A flow along a learned velocity, from latents to standard normal noise, by an ODE.

    .. math:: \log p(z_0) = \log \mathcal{N}(z_1; 0, I) + \int_0^1 \nabla \cdot v(z_t, t)\, dt,
              \qquad \frac{dz_t}{dt} = v(z_t, t)

    also known as the probability-flow ODE of a diffusion model. The velocity is

    .. math:: v(z, t) = W_3 \tanh(W_2 \tanh(W_1 z + b_1) + b_2) + b_3 + g \odot z

    where a network computes b and g from the time and the context. With two hidden layers the
    divergence is exact at the price of one more layer, whatever the size of z:

    .. math:: \nabla \cdot v = (1 - h_2^2)^\top \big(W_2 \odot (W_1 W_3)^\top\big) (1 - h_1^2)
              + \textstyle\sum_d g_d

    with h the values of the two layers. Nothing is estimated at random. What is left is the error
    of the solver, the classical Runge-Kutta method in a fixed number of steps, which
    `solver_error` states in nats. It falls as the fourth power of the number of steps: raise them
    where it is not far below the score's standard error. A trained prior takes another number by
    ``prior.steps = 32``. The prior starts at N(0, I). With a context it is p(z | c).

    Args:
        latent: event shape of z.
        width: of both hidden layers of the velocity, and of the network of the time.
        steps: of the solver, four velocities each.
        context: number of context features, 0 for none.

    Source: Chen, Rubanova, Bettencourt and Duvenaud (2018), Neural ordinary differential equations;
    Grathwohl et al. (2019), FFJORD; Song et al. (2021), Score-based generative modeling through
    stochastic differential equations, for the probability flow.

    Example:
        >>> prior = ContinuousFlow((2, 3), width=16)
        >>> prior().sample((4,)).shape, prior().log_prob(torch.zeros(4, 7, 2, 3)).shape
        (torch.Size([4, 2, 3]), torch.Size([4, 7]))
        >>> prior.solver_error(torch.zeros(2, 3))   # nothing before training: v is zero
        tensor(0., grad_fn=<MulBackward0>)
    """

    noise: Tensor
    frequencies: Tensor

    def __init__(self, latent: Size, width: int = 64, steps: int = 8, context: int = 0):
        super().__init__()
        check_count("width", width)
        check_count("steps", steps)
        self.latent, self.width, self.steps, self.context = as_shape(latent), width, steps, context
        size = math.prod(self.latent)
        self.first = nn.Linear(size, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, size, bias=False)
        self.time = MLP(FREQUENCIES, [width], context=context, activation=nn.Tanh)
        self.offsets = nn.Linear(width, 2 * width + 2 * size)
        for start in (self.last.weight, self.offsets.weight[2 * width :]):
            nn.init.zeros_(start)
        nn.init.zeros_(self.offsets.bias[2 * width :])
        frequencies = math.pi * torch.arange(1.0, 1 + FREQUENCIES)
        self.register_buffer("noise", torch.zeros(size), persistent=False)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, *, context: Tensor | None = None) -> dist.TorchDistribution:
        return self._density(self.steps, context)

    def solver_error(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The error of log p(z) that comes of the solver's steps, in nats.

        .. math:: \tfrac{16}{15}\, |\log p_n(z) - \log p_{2n}(z)|

        Richardson's estimate for a method of order four. It holds where it is small: where it is
        above 0.1 nats, more steps come first.

        Args:
            z: latents (\*batch, \*latent).
            context: features (\*batch, C) for a prior that takes them.

        Returns:
            (\*batch), not negative.
        """
        once, twice = (self._density(n, context).log_prob(z) for n in (self.steps, 2 * self.steps))
        return 16 / 15 * (once - twice).abs()

    def _density(self, steps: int, context: Tensor | None) -> dist.TorchDistribution:
        given = context.to(self.noise) if self.context and context is not None else None
        base = dist.Normal(self.noise, torch.ones_like(self.noise)).to_event(1)
        if given is not None:
            base = base.expand(given.shape[:-1])
        flow = PushForward(base, AlongVelocity(_Velocity(self, given), steps))
        return flow if len(self.latent) == 1 else Reshaped(flow, self.latent)


@dataclass(frozen=True)
class _Velocity:
    """The velocity of a prior given a context."""

    of: ContinuousFlow
    context: Tensor | None

    def conditions(self, t: Tensor) -> tuple[Tensor, ...]:
        features = torch.cos(t.unsqueeze(-1) * self.of.frequencies)
        width, size = self.of.width, len(self.of.noise)
        offsets: Tensor = self.of.offsets(self.of.time(features, self.context))
        return offsets.split([width, width, size, size], -1)

    def velocity(self, z: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        _, _, shift, gain = condition
        velocity: Tensor = self.of.last(self._layers(z, condition)[1])
        return velocity + shift + gain * z

    def divergence(self, z: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        slope1, slope2 = (1 - h.square() for h in self._layers(z, condition))
        paths = self.of.second.weight * (self.of.first.weight @ self.of.last.weight).T
        return (slope2 * linear(slope1, paths)).sum(-1) + condition[3].sum(-1)

    def _layers(self, z: Tensor, condition: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.of.first(z) + condition[0])
        return h, torch.tanh(self.of.second(h) + condition[1])
