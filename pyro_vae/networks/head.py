"""Layers that components build on networks: heads for parameters, joins for contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae.networks.shapes import (
    Size,
    as_shape,
    check_context_features,
    flatten_event,
    over_batch,
)

__all__ = ["Head", "Join", "bounded"]


class Join(nn.Module):
    r"""An affine map of an input and a context, :math:`h = W x + V c + b`.

    The same function as a linear layer on ``[x, c]``, but each part is multiplied at its own batch
    shape and only the results are broadcast.
    """

    def __init__(self, in_features: int, out_features: int, context: int = 0):
        super().__init__()
        self.context_features = context
        self.input = nn.Linear(in_features, out_features)
        self.context = nn.Linear(context, out_features, bias=False) if context else None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.input(x)
        check_context_features(self.context_features, context)
        return h if self.context is None else h + self.context(context)


class Head(nn.Module):
    """The last layer of a component on a network: a tensor of event shape for each parameter.

    Linear on vectors; one linear map for all places, a convolution of kernel size 1, where features
    and event are images of the same height and width, or sequences of the same length.

    Args:
        in_shape: the network's ``out_shape``.
        event_shape: the shape of each parameter.
        parameters: how many there are.
    """

    def __init__(self, in_shape: Size, event_shape: Size, parameters: int = 1):
        super().__init__()
        self.in_shape, self.event_shape = as_shape(in_shape), as_shape(event_shape)
        self.parameters_count = parameters
        rank = len(self.in_shape)
        is_sequence_or_image = rank in (2, 3) and len(self.event_shape) == rank
        self.is_map = is_sequence_or_image and self.in_shape[1:] == self.event_shape[1:]
        self.layer: nn.Conv1d | nn.Conv2d | nn.Linear
        if self.is_map:
            convolution = nn.Conv1d if rank == 2 else nn.Conv2d
            before, after = self.in_shape[0], self.event_shape[0]
            self.layer = convolution(before, parameters * after, kernel_size=1)
        else:
            before, after = math.prod(self.in_shape), math.prod(self.event_shape)
            self.layer = nn.Linear(before, parameters * after)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        # Under autocast the layer returns half precision; densities need the parameters' precision.
        dtype, rank = self.layer.weight.dtype, len(self.in_shape)
        if self.is_map:
            maps = over_batch(self.layer, features, rank).to(dtype)
            return maps.chunk(self.parameters_count, dim=-rank)
        out = self.layer(flatten_event(features, rank)).to(dtype)
        return tuple(
            part.reshape(*part.shape[:-1], *self.event_shape)
            for part in out.chunk(self.parameters_count, dim=-1)
        )


def bounded(x: Tensor, limit: float) -> Tensor:
    r"""An argument squashed smoothly into (-limit, limit), :math:`B \tanh(x / B)`.

    Its derivative has all its digits also where the argument is far out; that of torch's own tanh
    is a difference.
    """
    scaled = x / limit
    near = torch.where(scaled.abs() < 0.5, scaled, 0.0)
    rest = torch.exp(-2 * torch.where(x < 0, -scaled, scaled))  # 1 - tanh = 2 rest / (1 + rest)
    far = (1 - rest) / (1 + rest)
    far = torch.where(x < 0, -far, far)
    return limit * torch.where(scaled.abs() < 0.5, torch.tanh(near), far)
