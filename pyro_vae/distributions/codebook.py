"""Grids of codes, each an entry of a codebook."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import cross_entropy

__all__ = ["AutoregressiveCodes", "CodeGrid", "nearest_code"]

MOST_STATES = 4096  # that are listed


def nearest_code(z: Tensor, codebook: Tensor, event_dim: int) -> Tensor:
    r"""Numbers (\*batch, \*grid) of the entries (V, D) nearest to vectors (\*batch, D, \*grid).

    Example:
        >>> nearest_code(torch.tensor([[0.9, -0.2], [0.1, 1.3]]), torch.eye(2), event_dim=2)
        tensor([0, 1])
    """
    vectors = z.movedim(-event_dim, -1)
    # The squared distance but for the vector's own square, which is the same for all entries.
    distance = codebook.square().sum(-1) - 2 * vectors @ codebook.T
    return distance.argmin(-1)


class Entries(Constraint):
    """Grids of vectors, each of which is an entry of a codebook."""

    is_discrete = True

    def __init__(self, codebook: Tensor, event_dim: int):
        self.codebook, self.event_dim = codebook, event_dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        codes = nearest_code(value, self.codebook, self.event_dim)
        entries = self.codebook[codes].movedim(-1, -self.event_dim)
        # A straight-through entry is f + (e - f), which rounds.
        near = (value - entries).abs() <= 1e-4 * (1 + entries.abs())
        return near.flatten(value.dim() - self.event_dim).all(-1)

    def __str__(self) -> str:
        return f"entries of a codebook of {len(self.codebook)}"


class CodeGrid(TorchDistribution):
    r"""A distribution over codes, whose values are the codebook's vectors.

    .. math:: P(z) = P(k), \quad z_s = e_{k_s}

    A value is scored as the entries nearest to it.

    Args:
        codes: a distribution of integers k, its event the grid.
        codebook: the entries (V, D).

    Example:
        >>> from torch.distributions import Categorical, Independent
        >>> grid = CodeGrid(Independent(Categorical(torch.ones(7, 7, 16)), 2), torch.randn(16, 4))
        >>> grid.event_shape, round(grid.log_prob(grid.sample()).item() / 49, 3)
        (torch.Size([4, 7, 7]), -2.773)
    """

    arg_constraints: dict = {}

    def __init__(self, codes: Distribution, codebook: Tensor):
        self.codes, self.codebook = codes, codebook
        event_shape = torch.Size((codebook.shape[-1], *codes.event_shape))
        super().__init__(codes.batch_shape, event_shape, validate_args=False)

    @property
    def support(self) -> Constraint:
        return Entries(self.codebook, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> CodeGrid:
        return CodeGrid(self.codes.expand(torch.Size(batch_shape)), self.codebook)

    def vectors(self, codes: Tensor) -> Tensor:
        r"""The vectors (\*batch, D, \*grid) of codes (\*batch, \*grid)."""
        return self.codebook[codes.long()].movedim(-1, -len(self.event_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.vectors(self.codes.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.codes.log_prob(nearest_code(value, self.codebook, len(self.event_shape)))

    @property
    def has_enumerate_support(self) -> bool:
        return len(self.codebook) ** math.prod(self.codes.event_shape) <= MOST_STATES

    def enumerate_support(self, expand: bool = True) -> Tensor:
        grid = self.codes.event_shape
        numbers = torch.arange(len(self.codebook), device=self.codebook.device)
        states = torch.cartesian_prod(*[numbers] * math.prod(grid))
        states = states.reshape(-1, *(1,) * len(self.batch_shape), *grid)
        return self.vectors(states.expand(-1, *self.batch_shape, *grid) if expand else states)


class CodeNetwork(Protocol):
    """A network that scores and draws codes on a grid, such as `pyro_vae.priors.PixelCNN`."""

    latent: tuple[int, ...]  # (D, *grid)

    @property
    def rows_and_columns(self) -> tuple[int, ...]:
        """The grid as a matrix."""

    def logits(self, codes: Tensor, given: Tensor | None) -> Tensor:
        """Log-odds (N, V, *rows_and_columns) of each code, given those before it."""

    def draw(self, num: int, given: Tensor | None) -> Tensor:
        """Grids of codes, ``num`` of them."""


class AutoregressiveCodes(TorchDistribution):
    r"""Integers on a grid, each given those before it.

    .. math:: P(k) = \prod_s P(k_s \mid k_{<s}, c)

    Args:
        network: that of :math:`P(k_s \mid k_{<s}, c)`, such as `pyro_vae.priors.PixelCNN`.
        given: a map c (\*batch, C, rows, columns), of one place where it is the same for all, or
            ``None``.
        batch_shape: by default the map's.
    """

    arg_constraints: dict = {}
    support = constraints.nonnegative_integer

    def __init__(
        self, network: CodeNetwork, given: Tensor | None, batch_shape: torch.Size | None = None
    ):
        self.network, self.given = network, given
        if batch_shape is None:
            batch_shape = torch.Size(() if given is None else given.shape[:-3])
        super().__init__(batch_shape, torch.Size(network.latent[1:]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> AutoregressiveCodes:
        return AutoregressiveCodes(self.network, self.given, torch.Size(batch_shape))

    def _rows_of_given(self, batch: torch.Size) -> Tensor | None:
        if self.given is None:
            return None
        event = self.given.shape[-3:]
        return self.given.expand(*batch, *event).reshape(-1, *event)

    def log_prob(self, codes: Tensor) -> Tensor:
        several = codes.shape[: codes.dim() - len(self.event_shape)]
        batch = torch.broadcast_shapes(several, self.batch_shape)
        grid = codes.long().expand((*batch, *self.event_shape))
        grid = grid.reshape(-1, *self.network.rows_and_columns)
        logits = self.network.logits(grid, self._rows_of_given(batch))
        return -cross_entropy(logits, grid, reduction="none").flatten(1).sum(1).reshape(batch)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        drawn = self.network.draw(math.prod(batch), self._rows_of_given(batch))
        return drawn.reshape((*batch, *self.event_shape))
