"""Networks of dense layers, for events of any shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.networks.head import Join
from pyro_vae.networks.shapes import (
    Size,
    as_context,
    as_shape,
    broadcast_batch,
    check_context_features,
    flatten_event,
)
from pyro_vae.validation import InvalidInput, as_counts, check_probability

__all__ = ["MLP", "GatedMLP"]


class MLP(nn.Module):
    r"""Dense layers, :math:`h_i = a(W_i h_{i-1} + b_i)`; the context joins in the first.

    Args:
        in_shape: event shape of the input; flattened.
        hidden: widths of the layers; ``[]`` gives the (flattened) input itself, for linear models.
        context: number of context features, 0 for none.
        activation: the nonlinearity, a module class without arguments.
        dropout: probability of dropping a unit while training.

    Example:
        >>> net = MLP((1, 28, 28), [400], context=10)
        >>> net(torch.zeros(5, 1, 28, 28), context=torch.zeros(3, 5, 10)).shape
        torch.Size([3, 5, 400])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        hidden: Sequence[int] = (400,),
        *,
        context: int = 0,
        activation: type[nn.Module] = nn.ReLU,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_probability("dropout", dropout)
        self.in_shape, self.hidden = as_shape(in_shape), as_counts("hidden", hidden)
        self.context, self.activation, self.dropout = as_context(context), activation, dropout
        widths = [math.prod(self.in_shape), *self.hidden]
        self.layers = nn.ModuleList(
            Join(before, after, context if i == 0 else 0)
            for i, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.nonlinearity = (
            nn.Sequential(activation(), nn.Dropout(dropout)) if dropout else activation()
        )
        self.out_shape = (self.hidden[-1] if self.hidden else widths[0] + self.context,)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = flatten_event(x, len(self.in_shape))
        if not self.layers:
            check_context_features(self.context, context)
            return h if context is None else torch.cat(broadcast_batch(h, context), dim=-1)
        h = self.nonlinearity(self.layers[0](h, context))
        for layer in self.layers[1:]:
            h = self.nonlinearity(layer(h))
        return h


class GatedMLP(nn.Module):
    r"""Fully connected layers with a gate on each unit.

    .. math:: h_i = (W_i h_{i-1} + b_i) \odot \mathrm{sigmoid}(V_i h_{i-1} + c_i)

    The context joins in the first layer, the gate's part of it too.

    Args:
        in_shape: event shape of the input; flattened.
        hidden: widths of the layers, one or more.
        context: number of context features, 0 for none.
        dropout: probability of dropping a unit while training.

    Raises:
        InvalidInput: without a layer.

    Source: Dauphin et al. (2017), Language Modeling with Gated Convolutional Networks; Tomczak and
    Welling (2018), VAE with a VampPrior.

    Example:
        >>> net = GatedMLP((1, 28, 28), [300, 300], context=10)
        >>> net(torch.zeros(5, 1, 28, 28), context=torch.zeros(3, 5, 10)).shape
        torch.Size([3, 5, 300])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        hidden: Sequence[int] = (300, 300),
        *,
        context: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_probability("dropout", dropout)
        self.in_shape, self.hidden = as_shape(in_shape), as_counts("hidden", hidden)
        self.context, self.dropout = as_context(context), dropout
        if not self.hidden:
            raise InvalidInput(
                "hidden",
                got="[]",
                expected="one layer or more",
                fix="pass hidden=[300], or use MLP",
            )
        widths = [math.prod(self.in_shape), *self.hidden]
        self.layers = nn.ModuleList(
            Join(before, 2 * after, context if i == 0 else 0)
            for i, (before, after) in enumerate(itertools.pairwise(widths))
        )
        gate = nn.GLU(dim=-1)
        self.gate = nn.Sequential(gate, nn.Dropout(dropout)) if dropout else gate
        self.out_shape = (self.hidden[-1],)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.gate(self.layers[0](flatten_event(x, len(self.in_shape)), context))
        for layer in self.layers[1:]:
            h = self.gate(layer(h))
        return h
