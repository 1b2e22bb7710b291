"""Recurrent networks, for sequences (C, T) of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_vae.networks.dense import MLP
from pyro_vae.networks.maps import check_map_shape, check_map_size, dense_after
from pyro_vae.networks.shapes import Size, as_shape, check_context_features, over_batch
from pyro_vae.validation import as_counts, check_choice, check_count

__all__ = ["Recurrent", "RecurrentDecoder"]

Cell = Literal["GRU", "LSTM"]

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"GRU": nn.GRU, "LSTM": nn.LSTM}


class Recurrent(nn.Module):
    r"""A recurrent network over a sequence, then dense layers on its last state.

    .. math:: h_t = \mathrm{cell}(x_{:,t}, h_{t-1}), \quad t = 1, \dots, T

    A category, such as a word of a sentence, is seen as a learned vector, :math:`E_{x_t}`.

    Args:
        in_shape: (channels, length), or (length,) for categories.
        width: size of the state, and of the vectors of categories.
        hidden: widths of dense layers after the last state, where the context joins; with ``[]``
            and no context the features are that state.
        context: number of context features, 0 for none; it needs a dense layer to join.
        cell: ``"GRU"`` or ``"LSTM"``.
        layers: how many are stacked.
        bidirectional: read the sequence backwards too, and give both last states.
        categories: how many categories there are; 0 for entries that are real numbers.

    Raises:
        InvalidInput: on an input that is no sequence, an unknown cell, or a context without a dense
            layer.

    Source: Hochreiter and Schmidhuber (1997) for the LSTM; Cho et al. (2014) for the GRU.

    Example:
        >>> Recurrent((3, 50), width=32, hidden=[])(torch.zeros(4, 3, 50)).shape
        torch.Size([4, 32])
        >>> Recurrent(50, width=32, categories=1000)(torch.tensor([7.0, 999.0]).repeat(4, 25)).shape
        torch.Size([4, 128])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        width: int = 128,
        hidden: Sequence[int] = (128,),
        *,
        context: int = 0,
        cell: Cell = "GRU",
        layers: int = 1,
        bidirectional: bool = False,
        categories: int = 0,
    ):
        super().__init__()
        check_count("categories", categories, minimum=0)
        check_count("width", width)
        self.in_shape = check_map_shape(in_shape, 1 if categories else 2)
        self.width, self.hidden, self.context = width, as_counts("hidden", hidden), context
        self.cell, self.layers = cell, layers
        self.bidirectional, self.categories = bidirectional, categories
        self.embedding = nn.Embedding(categories, width) if categories else None
        self.recurrence = recurrence(
            cell, width if categories else self.in_shape[0], width, layers, bidirectional
        )
        state = (width * (1 + bidirectional),)
        self.dense = dense_after(state, self.hidden, context, nn.ReLU)
        self.out_shape = self.dense.out_shape if self.dense else state

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = over_batch(self._last_state, x, len(self.in_shape))
        if self.dense is None:
            check_context_features(0, context)
            return h
        return self.dense(h, context)

    def _last_state(self, x: Tensor) -> Tensor:
        steps = x.transpose(-1, -2) if self.embedding is None else self.embedding(x.long())
        states = self.recurrence(steps)[0]
        # Backwards, the last state is the one at the first entry.
        return torch.cat([states[:, -1, : self.width], states[:, 0, self.width :]], dim=-1)


class RecurrentDecoder(nn.Module):
    r"""Dense layers, then a recurrent network that sees their output at every step.

    .. math:: h_t = \mathrm{cell}(g(z), h_{t-1}), \quad t = 1, \dots, T

    The features have shape (width, T). The network sees z alone, never earlier entries of x: the
    entries of x are independent given z, and z carries all that connects them. With
    ``bidirectional`` each step knows how far away both ends are.

    Args:
        in_shape: event shape of the input, usually the latent's; flattened.
        size: the length T, or a sequence's (channels, length).
        width: size of the state.
        hidden: widths of dense layers before; the context joins at the first dense layer.
        context: number of context features, 0 for none.
        cell: ``"GRU"`` or ``"LSTM"``.
        layers: how many are stacked.
        bidirectional: run backwards too; there are then 2 width features for each step.

    Raises:
        InvalidInput: on a size that is no sequence's, or an unknown cell.

    Source: Hochreiter and Schmidhuber (1997) for the LSTM; Cho et al. (2014) for the GRU.

    Example:
        >>> RecurrentDecoder(20, (3, 50), width=32)(torch.zeros(7, 20)).shape
        torch.Size([7, 32, 50])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size = (),
        width: int = 128,
        hidden: Sequence[int] = (),
        *,
        context: int = 0,
        cell: Cell = "GRU",
        layers: int = 1,
        bidirectional: bool = False,
    ):
        super().__init__()
        check_count("width", width)
        self.in_shape, self.width = as_shape(in_shape), width
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.cell, self.layers, self.bidirectional = cell, layers, bidirectional
        self.size = check_map_size(size, 1)
        self.dense = MLP(self.in_shape, [*self.hidden, width], context=context)
        self.recurrence = recurrence(cell, width, width, layers, bidirectional)
        self.out_shape = (width * (1 + bidirectional), *self.size)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return over_batch(self._features, self.dense(x, context), 1)

    def _features(self, h: Tensor) -> Tensor:
        return self.recurrence(h.unsqueeze(1).expand(-1, *self.size, -1))[0].transpose(-1, -2)


def recurrence(cell: str, before: int, width: int, layers: int, bidirectional: bool) -> nn.Module:
    """Torch's recurrent network of the given name."""
    check_choice("cell", cell, CELLS)
    check_count("layers", layers)
    return CELLS[cell](
        before, width, num_layers=layers, batch_first=True, bidirectional=bidirectional
    )
