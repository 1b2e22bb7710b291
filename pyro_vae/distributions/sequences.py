"""Sequences of categories, each given those before it, up to an end category."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn.functional import cross_entropy

__all__ = ["AutoregressiveSequences"]

MOST_STATES = 4096


class EndedSequences(Constraint):
    """Sequences of categories 0, ..., C - 1; 0 is the end, and only zeros follow it."""

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


class SequenceNetwork(Protocol):
    """A network that scores and draws sequences of categories."""

    categories: int
    event_shape: tuple[int, ...]

    def logits(self, x: Tensor, given: Tensor) -> Tensor:
        """Log-odds (M, T, C) of each category given those before, for x (M, T)."""

    def draw(self, given: Tensor, greedy: bool = False) -> Tensor:
        """Draw sequences (M, T), or take the most probable category at each step."""


class AutoregressiveSequences(TorchDistribution):
    r"""Sequences of T categories, each given those before it; the first 0 is the end.

    .. math:: P(x) = \prod_{t=1}^{n} P(x_t \mid x_1, \dots, x_{t-1}), \quad n = \min \{ t : x_t = 0
              \} \text{ or } T

    Behind the end all entries are 0 with certainty, so this is the probability of the sequence with
    its end and without its padding. Categories have no mean; `mode` is what a greedy search finds.

    Args:
        network: that of the conditionals, such as
            `pyro_vae.likelihoods.AutoregressiveCategorical`.
        given: features (\*batch, F) that all steps depend on.
    """

    arg_constraints: dict = {}

    def __init__(self, network: SequenceNetwork, given: Tensor):
        self.network, self.given = network, given
        super().__init__(given.shape[:-1], torch.Size(network.event_shape), validate_args=False)

    @property
    def support(self) -> Constraint:
        return EndedSequences(self.network.categories)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> AutoregressiveSequences:
        return AutoregressiveSequences(self.network, self.given.expand(*batch_shape, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        x = value.long().expand(*batch, -1).reshape(-1, *self.event_shape)
        logits = self.network.logits(x, self._rows(batch))
        # Rows of categories: over another dimension than the last it takes twice as long.
        nats = -cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="none").reshape(x.shape)
        before_the_end = torch.cat([torch.ones_like(x[:, :1]), (x[:, :-1] != 0).cumprod(-1)], -1)
        return torch.where(before_the_end.bool(), nats, 0.0).sum(-1).reshape(batch)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        return self._shaped(self.network.draw(self._rows(batch)), batch)

    @property
    def mode(self) -> Tensor:
        """The sequence of a greedy search, which is often but not always the most probable one."""
        greedy = self.network.draw(self._rows(self.batch_shape), greedy=True)
        return self._shaped(greedy, self.batch_shape)

    def _rows(self, batch: torch.Size) -> Tensor:
        return self.given.expand(*batch, -1).reshape(-1, self.given.shape[-1])

    def _shaped(self, x: Tensor, batch: torch.Size) -> Tensor:
        return x.to(self.given.dtype).reshape(*batch, *self.event_shape)

    @property
    def has_enumerate_support(self) -> bool:
        return self.network.categories ** math.prod(self.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        given, event = self.given, self.event_shape
        numbers = torch.arange(self.network.categories, dtype=given.dtype, device=given.device)
        every = torch.cartesian_prod(*[numbers] * math.prod(event)).reshape(-1, *event)
        states = every[self.support.check(every)]
        states = states.reshape(-1, *(1,) * len(self.batch_shape), *event)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states
