"""Binary images whose pixels depend on those before them."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["AutoregressiveBits"]

MOST_STATES = 4096


class BitNetwork(Protocol):
    """A network from bits to the log-odds of the bits after them."""

    def said(self, x: Tensor) -> Tensor:
        """g at every pixel of images x (N, *event), in the same shape."""

    def said_at(self, i: int, x: Tensor) -> Tensor:
        """g (N,) at pixel i of flat images x (N, D)."""


class AutoregressiveBits(TorchDistribution):
    r"""Bits row by row, each given those before it.

    .. math:: P(x) = \prod_i P(x_i \mid x_1, \dots, x_{i-1}), \quad
              \mathrm{logit}\, P(x_i = 1 \mid \cdot) = a_i + g_i(x_1, \dots, x_{i-1})

    The term g does not depend on the batch: for K draws of a and one x it is computed once. The
    mean has no closed form.

    Args:
        logits: a (\*batch, \*event).
        network: that of g, such as `pyro_vae.likelihoods.AutoregressiveBernoulli`.
        event_dims: the number of dimensions of the event.
    """

    arg_constraints: dict = {}

    def __init__(self, logits: Tensor, network: BitNetwork, event_dims: int):
        self.logits, self.network = logits, network
        batch = logits.dim() - event_dims
        super().__init__(logits.shape[:batch], logits.shape[batch:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.boolean, self.event_dim)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> AutoregressiveBits:
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        return AutoregressiveBits(logits, self.network, self.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        said = self.network.said(value.reshape(-1, *self.event_shape)).reshape(value.shape)
        logits, x = torch.broadcast_tensors(self.logits + said, value)
        nats = binary_cross_entropy_with_logits(logits, x.to(logits), reduction="none")
        return -nats.flatten(-self.event_dim).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        logits = self.logits.expand(*batch, *self.event_shape)
        logits = logits.reshape(-1, math.prod(self.event_shape))
        x = torch.zeros_like(logits)
        for i in range(x.shape[1]):
            x[:, i] = torch.bernoulli(torch.sigmoid(logits[:, i] + self.network.said_at(i, x)))
        return x.reshape(*batch, *self.event_shape)

    @property
    def has_enumerate_support(self) -> bool:
        return 2 ** math.prod(self.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        bits = torch.arange(2, dtype=self.logits.dtype, device=self.logits.device)
        every = torch.cartesian_prod(*[bits] * math.prod(self.event_shape))
        states = every.reshape(-1, *(1,) * len(self.batch_shape), *self.event_shape)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states
