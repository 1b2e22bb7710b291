"""Sequences of categories, each given those before it, until one of them is the end."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn.functional import cross_entropy

__all__ = ["AutoregressiveSequences"]

MOST_STATES = 4096


class EndedSequences(Constraint):
    """Categories 0, ..., C - 1 of which a 0, the end, is followed by nothing but 0."""

    is_discrete = True
    event_dim = 1

    def __init__(self, categories: int):
        self.categories = categories
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        whole = (value == value.floor()) & (value >= 0) & (value < self.categories)
        return whole.all(-1) & ((value[..., :-1] != 0) | (value[..., 1:] == 0)).all(-1)

    def __repr__(self) -> str:
        return f"0, ..., {self.categories - 1}, with nothing but 0 behind the first 0"


class AutoregressiveSequences(TorchDistribution):
    r"""Sequences of T categories, each given those before it; the first 0 is the end.

    .. math:: P(x) = \prod_{t=1}^{n} P(x_t \mid x_1, \dots, x_{t-1}), \quad n = \min \{ t : x_t = 0
              \} \text{ or } T

    What stands behind the end is 0 with certainty and counts nothing, so this is the probability of
    the sequence without its padding, end included. Categories have no mean; `mode` is what a greedy
    search finds.

    Args:
        network: what has ``categories``, ``event_shape``, ``logits`` and ``draw``, see
            `pyro_vae.likelihoods.AutoregressiveCategorical`.
        given: what all steps depend on (\*batch, F).
    """

    arg_constraints: dict = {}

    def __init__(self, network: Any, given: Tensor):
        self.network, self.given = network, given
        super().__init__(given.shape[:-1], torch.Size(network.event_shape), validate_args=False)

    @property
    def support(self) -> Constraint:
        return EndedSequences(self.network.categories)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> AutoregressiveSequences:
        return AutoregressiveSequences(self.network, self.given.expand(*batch_shape, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = value.long().expand(*batch, -1).reshape(-1, *self.event_shape)
        logits = self.network.logits(x, self._rows(batch))
        nats = -cross_entropy(logits.movedim(-1, 1), x, reduction="none")
        before_the_end = torch.cat([torch.ones_like(x[:, :1]), (x[:, :-1] != 0).cumprod(-1)], -1)
        return torch.where(before_the_end.bool(), nats, 0.0).sum(-1).reshape(batch)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        return self._shaped(self.network.draw(self._rows(batch)), batch)

    @property
    def mode(self) -> Tensor:
        """The most probable category, one step after the other: most often, but not always, the most probable sequence."""
        return self._shaped(
            self.network.draw(self._rows(self.batch_shape), greedy=True), self.batch_shape
        )

    def _rows(self, batch: torch.Size) -> Tensor:
        return self.given.expand(*batch, -1).reshape(-1, self.given.shape[-1])

    def _shaped(self, x: Tensor, batch: torch.Size) -> Tensor:
        return x.to(self.given.dtype).reshape(*batch, *self.event_shape)

    @property
    def has_enumerate_support(self) -> bool:
        return self.network.categories ** math.prod(self.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        numbers = torch.arange(
            self.network.categories, dtype=self.given.dtype, device=self.given.device
        )
        every = torch.cartesian_prod(*[numbers] * math.prod(self.event_shape)).reshape(
            -1, *self.event_shape
        )
        states = every[self.support.check(every)].reshape(
            -1, *(1,) * len(self.batch_shape), *self.event_shape
        )
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states
