"""Grids of codes, each an entry of a codebook."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn.functional import cross_entropy

__all__ = ["AutoregressiveCodes", "CodeGrid", "nearest_code"]


def nearest_code(z: Tensor, codebook: Tensor, event_dim: int) -> Tensor:
    r"""The numbers (\*batch, \*grid) of the entries (V, D) nearest to vectors (\*batch, D, \*grid).

    Example:
        >>> nearest_code(torch.tensor([[0.9, -0.2], [0.1, 1.3]]), torch.eye(2), event_dim=2)
        tensor([0, 1])
    """
    vectors = z.movedim(-event_dim, -1)
    distance = (
        codebook.square().sum(-1) - 2 * vectors @ codebook.T
    )  # and the vector's own square, which is the same for all
    return distance.argmin(-1)


class Entries(Constraint):
    """Vectors that are entries of a codebook, at every place of a grid."""

    is_discrete = True

    def __init__(self, codebook: Tensor, event_dim: int):
        self.codebook, self.event_dim = codebook, event_dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        entries = self.codebook[nearest_code(value, self.codebook, self.event_dim)].movedim(
            -1, -self.event_dim
        )
        # Straight through, an entry is f + (e - f), which rounds.
        near = (value - entries).abs() <= 1e-4 * (1 + entries.abs())
        return near.flatten(value.dim() - self.event_dim).all(-1)

    def __str__(self) -> str:
        return f"entries of a codebook of {len(self.codebook)}"


class CodeGrid(TorchDistribution):
    r"""A distribution of codes, as the codebook's vectors that stand for them.

    .. math:: P(z) = P(k), \quad z_s = e_{k_s}

    A value is scored as its nearest entries.

    Args:
        codes: a distribution of integers k, its event the grid.
        codebook: the entries (V, D).

    Example:
        >>> codes = torch.distributions.Independent(torch.distributions.Categorical(logits=torch.zeros(7, 7, 16)), 2)
        >>> grid = CodeGrid(codes, torch.randn(16, 4))
        >>> grid.event_shape, round(grid.log_prob(grid.sample()).item() / 49, 3)
        (torch.Size([4, 7, 7]), -2.773)
    """

    arg_constraints: dict = {}

    def __init__(self, codes: Any, codebook: Tensor):
        self.codes, self.codebook = codes, codebook
        super().__init__(
            codes.batch_shape,
            torch.Size((codebook.shape[-1], *codes.event_shape)),
            validate_args=False,
        )

    @property
    def support(self) -> Constraint:
        return Entries(self.codebook, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> CodeGrid:
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
        states = torch.cartesian_prod(*[numbers] * math.prod(grid)).reshape(
            -1, *(1,) * len(self.batch_shape), *grid
        )
        return self.vectors(states.expand(-1, *self.batch_shape, *grid) if expand else states)


class AutoregressiveCodes(TorchDistribution):
    r"""Integers on a grid, each given those before it: the distribution that `pyro_vae.priors.PixelCNN` is of.

    Args:
        network: what has ``logits``, ``draw``, ``latent`` and ``rows_and_columns``.
        context: features (\*batch, C), or ``None``.
        batch_shape: by default the context's.
    """

    arg_constraints: dict = {}
    support = constraints.nonnegative_integer

    def __init__(self, network: Any, context: Tensor | None, batch_shape: torch.Size | None = None):
        self.network, self.context = network, context
        batch = (
            torch.Size(() if context is None else context.shape[:-1])
            if batch_shape is None
            else batch_shape
        )
        super().__init__(batch, torch.Size(network.latent[1:]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> AutoregressiveCodes:
        return AutoregressiveCodes(self.network, self.context, torch.Size(batch_shape))

    def _rows_of_context(self, batch: torch.Size) -> Tensor | None:
        return (
            None
            if self.context is None
            else self.context.expand(*batch, -1).reshape(-1, self.context.shape[-1])
        )

    def log_prob(self, codes: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(
            codes.shape[: codes.dim() - len(self.event_shape)], self.batch_shape
        )
        grid = (
            codes.long()
            .expand((*batch, *self.event_shape))
            .reshape(-1, *self.network.rows_and_columns)
        )
        logits = self.network.logits(grid, self._rows_of_context(batch))
        return -cross_entropy(logits, grid, reduction="none").flatten(1).sum(1).reshape(batch)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        batch = torch.Size(sample_shape) + self.batch_shape
        return self.network.draw(math.prod(batch), self._rows_of_context(batch)).reshape(
            (*batch, *self.event_shape)
        )


MOST_STATES = 4096
