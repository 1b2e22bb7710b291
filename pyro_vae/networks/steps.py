"""Networks for sequences with features of each step: of a whole sequence, or step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyro_vae.networks.dense import MLP
from pyro_vae.networks.maps import check_map_shape, check_map_size
from pyro_vae.networks.recurrent import Cell, recurrence
from pyro_vae.networks.shapes import Size, as_shape, over_batch
from pyro_vae.validation import InvalidInput, as_counts, check_count

__all__ = ["RecurrentSmoother", "StepwiseMLP"]


class RecurrentSmoother(nn.Module):
    r"""A recurrent network that reads a sequence in both directions: features of every step.

    .. math:: h_t = [\mathrm{cell}(x_{:,t}, h^{\rightarrow}_{t-1}),\; \mathrm{cell}(x_{:,t},
              h^{\leftarrow}_{t+1})], \quad t = 1, \dots, T

    then dense layers at each step. Each step's features depend on the whole sequence.

    Args:
        in_shape: (channels, length).
        width: size of the state in each direction.
        hidden: widths of dense layers at each step; with ``[]`` the features are both states, and
            the context's features.
        context: number of context features, 0 for none; they join at the first dense layer.
        cell: ``"GRU"`` or ``"LSTM"``.
        layers: how many recurrent layers are stacked.

    Raises:
        InvalidInput: on an input that is no sequence, or an unknown cell.

    Source: Schuster and Paliwal (1997), Bidirectional recurrent neural networks.

    Example:
        >>> RecurrentSmoother((3, 50), width=32)(torch.zeros(4, 3, 50)).shape
        torch.Size([4, 64, 50])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        width: int = 64,
        hidden: Sequence[int] = (),
        *,
        context: int = 0,
        cell: Cell = "GRU",
        layers: int = 1,
    ):
        super().__init__()
        check_count("width", width)
        self.in_shape = check_map_shape(in_shape, 2)
        self.width, self.hidden, self.context = width, as_counts("hidden", hidden), context
        self.cell, self.layers = cell, layers
        self.recurrence = recurrence(cell, self.in_shape[0], width, layers, True)
        self.dense = MLP(2 * width, self.hidden, context=context)
        self.out_shape = (*self.dense.out_shape, self.in_shape[1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        states = over_batch(lambda rows: self.recurrence(rows.mT)[0], x, 2)
        return self.dense(states, of_each_step(context)).mT


class StepwiseMLP(nn.Module):
    r"""The same dense layers at each step of a path, for p(x_t | z_t).

    From a path (T, \*state) to features (width, T), of which a likelihood's last layer makes a
    sequence (channels, T) by one linear map for all steps.

    Args:
        in_shape: (T, \*state), the latent's shape; (T,) for a state of one number.
        size: the length T, or a sequence's (channels, length).
        hidden: widths of the layers; with ``[]`` the features are the states themselves, for linear
            models.
        context: number of context features, 0 for none; they join in the first layer at each step.
        activation: the nonlinearity, a module class without arguments.

    Raises:
        InvalidInput: on a size that is no sequence's, or one of another length than the path's.

    Source: Krishnan, Shalit and Sontag (2017), Structured inference networks for nonlinear state
    space models.

    Example:
        >>> StepwiseMLP((50, 3), (2, 50), [16])(torch.zeros(7, 50, 3)).shape
        torch.Size([7, 16, 50])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size = (),
        hidden: Sequence[int] = (64,),
        *,
        context: int = 0,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.in_shape, self.hidden = as_shape(in_shape), as_counts("hidden", hidden)
        self.context, self.activation = context, activation
        self.size = check_map_size(size, 1)
        if self.size != self.in_shape[:1]:
            raise InvalidInput(
                "size",
                got=f"{self.size[0]} steps for a path of {self.in_shape[0]}",
                expected="(channels, length) of the length of the latent path, (T, state)",
                fix=f"pass latent=({self.size[0]}, 3) for instance, or use MLP",
            )
        state = math.prod(self.in_shape[1:])
        self.dense = MLP(state, self.hidden, context=context, activation=activation)
        self.out_shape = (*self.dense.out_shape, *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        states = x.reshape(*x.shape[: x.dim() - len(self.in_shape)], *self.size, -1)
        return self.dense(states, of_each_step(context)).mT


def of_each_step(context: Tensor | None) -> Tensor | None:
    r"""Features (\*batch, C) of a datum as those of each of its steps (\*batch, 1, C)."""
    return None if context is None else context.unsqueeze(-2)
