"""Distributions of paths z_1, ..., z_T: chains of states, and independent paths side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["GaussianMarkovPath", "MarkovPath", "ParallelPaths", "Transition"]

Transition = Callable[[Tensor, slice], Distribution]
r"""From states before (\*batch, S, D) and which S steps they lead to, to densities of the next."""


class MarkovPath(TorchDistribution):
    r"""A chain of states, each drawn given the one before it.

    .. math:: p(z) = \prod_{t=1}^{T} p_t(z_t \mid z_{t-1})

    from a fixed :math:`z_0`. The density of a path takes one pass over all steps at once, a draw
    goes step by step.

    Args:
        transition: gives :math:`p_t` of the steps in a slice, of batch shape (\*batch, S) and event
            shape (D,), for states before them (\*batch, S, D).
        start: :math:`z_0` (D,).
        batch_shape: of the distribution.
        event_shape: (T, \*state), with D entries in a state.

    Example:
        >>> from pyro.distributions import Normal
        >>> def transition(before, steps):
        ...     return Normal(0.9 * before, 1.0).to_event(1)
        >>> walk = MarkovPath(transition, torch.zeros(3), (), (5, 3))
        >>> walk.rsample((2,)).shape, walk.log_prob(torch.zeros(5, 3))
        (torch.Size([2, 5, 3]), tensor(-13.7841))
    """

    arg_constraints: dict = {}
    has_rsample = True

    def __init__(
        self,
        transition: Transition,
        start: Tensor,
        batch_shape: Sequence[int],
        event_shape: Sequence[int],
    ):
        self.transition, self.start = transition, start
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> MarkovPath:
        return MarkovPath(self.transition, self.start, batch_shape, self.event_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        state = self.start.expand(*batch, 1, *self.start.shape)
        states = []
        for step in range(self.event_shape[0]):
            state = self.transition(state, slice(step, step + 1)).rsample()
            states.append(state)
        return torch.cat(states, -2).reshape(*batch, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        states = value.reshape(*batch, self.event_shape[0], -1)
        start = self.start.expand(*batch, 1, *self.start.shape)
        before = torch.cat([start, states[..., :-1, :]], -2)
        steps = self.transition(before, slice(0, self.event_shape[0])).log_prob(states)
        return steps.sum(-1).expand(torch.broadcast_shapes(batch, self.batch_shape))


class GaussianMarkovPath(MarkovPath):
    r"""A chain of normal states: a normal over paths whose precision is block tridiagonal.

    .. math:: z_t = A_t z_{t-1} + b_t + L_t \epsilon_t, \quad \epsilon_t \sim \mathcal{N}(0, I),
              \quad z_0 = 0

    Every normal over paths with such a precision is one of these, the posterior of a linear state
    space model among them. The density is computed in double precision: a large gain makes states
    of which the noise is only the last digits.

    Args:
        gain: A (\*batch, T, D, D); the first is not used.
        offset: b (\*batch, T, D).
        scale_tril: L (\*batch, T, D, D), lower triangular with a positive diagonal.
        event_shape: (T, \*state); by default (T, D).

    Source: Archer, Park, Buesing, Cunningham and Paninski (2015), Black box variational inference
    for state space models.

    Example:
        >>> eye = torch.eye(2).expand(3, 2, 2)
        >>> walk = GaussianMarkovPath(eye, torch.zeros(3, 2), eye)
        >>> walk.variance[:, 0]
        tensor([1., 2., 3.])
    """

    def __init__(
        self,
        gain: Tensor,
        offset: Tensor,
        scale_tril: Tensor,
        event_shape: Sequence[int] | None = None,
    ):
        self.gain, self.offset, self.scale_tril = gain, offset, scale_tril
        batch = torch.broadcast_shapes(gain.shape[:-3], offset.shape[:-2], scale_tril.shape[:-3])
        start = offset.new_zeros(offset.shape[-1])
        super().__init__(self._normal, start, batch, event_shape or offset.shape[-2:])

    def _normal(self, before: Tensor, steps: slice) -> Distribution:
        gain, tril = self.gain[..., steps, :, :], self.scale_tril[..., steps, :, :]
        loc = torch.einsum("...ij,...j->...i", gain, before) + self.offset[..., steps, :]
        return MultivariateNormal(loc, scale_tril=tril, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        gain, offset, tril = self.gain.double(), self.offset.double(), self.scale_tril.double()
        exact = GaussianMarkovPath(gain, offset, tril, self.event_shape)
        return MarkovPath.log_prob(exact, value.double()).to(self.offset.dtype)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> GaussianMarkovPath:
        batch, (length, size) = torch.Size(batch_shape), self.offset.shape[-2:]
        return GaussianMarkovPath(
            self.gain.expand(*batch, length, size, size),
            self.offset.expand(*batch, length, size),
            self.scale_tril.expand(*batch, length, size, size),
            self.event_shape,
        )

    @property
    def mean(self) -> Tensor:
        state, states = self.start, []
        for step in range(self.event_shape[0]):
            gain = self.gain[..., step, :, :]
            state = torch.einsum("...ij,...j->...i", gain, state) + self.offset[..., step, :]
            states.append(state.expand(*self.batch_shape, -1))
        return torch.stack(states, -2).reshape(*self.batch_shape, *self.event_shape)

    @property
    def covariances(self) -> Tensor:
        r"""The covariance matrix of each state (\*batch, T, D, D)."""
        noise = self.scale_tril @ self.scale_tril.mT
        covariance, states = torch.zeros_like(noise[..., 0, :, :]), []
        for step in range(self.event_shape[0]):
            gain = self.gain[..., step, :, :]
            covariance = gain @ covariance @ gain.mT + noise[..., step, :, :]
            states.append(covariance.expand(*self.batch_shape, *covariance.shape[-2:]))
        return torch.stack(states, -3)

    @property
    def variance(self) -> Tensor:
        diagonal = self.covariances.diagonal(dim1=-2, dim2=-1)
        return diagonal.reshape(*self.batch_shape, *self.event_shape)

    def entropy(self) -> Tensor:
        per_entry = 0.5 * math.log(2 * math.pi * math.e)
        log_scales = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()
        total = log_scales.sum((-1, -2)) + per_entry * math.prod(self.event_shape)
        return total.expand(self.batch_shape)


class ParallelPaths(TorchDistribution):
    r"""Independent paths (T,), one for each coordinate of a state, as one of events (T, \*state).

    Args:
        base: distributions of vectors (T,), of batch shape (\*batch, D).
        event_shape: (T, \*state), with D entries in a state.

    Example:
        >>> from pyro.distributions import MultivariateNormal
        >>> base = MultivariateNormal(torch.zeros(3, 5), torch.eye(5))
        >>> ParallelPaths(base, (5, 3)).sample((2,)).shape
        torch.Size([2, 5, 3])
    """

    arg_constraints: dict = {}

    def __init__(self, base: TorchDistribution, event_shape: Sequence[int]):
        self.base = base
        super().__init__(base.batch_shape[:-1], torch.Size(event_shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    @property
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> ParallelPaths:
        batch = torch.Size([*batch_shape, self.base.batch_shape[-1]])
        return ParallelPaths(self.base.expand(batch), self.event_shape)

    @property
    def mean(self) -> Tensor:
        return self._shaped(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self._shaped(self.base.variance)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._shaped(self.base.sample(sample_shape))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._shaped(self.base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = value.shape[: value.dim() - len(self.event_shape)]
        paths = value.reshape(*batch, self.event_shape[0], -1).mT
        return self.base.log_prob(paths).sum(-1)

    def entropy(self) -> Tensor:
        return self.base.entropy().sum(-1)

    def _shaped(self, paths: Tensor) -> Tensor:
        return paths.mT.reshape(*paths.shape[:-2], *self.event_shape)
