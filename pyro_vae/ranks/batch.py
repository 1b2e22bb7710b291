"""A batch whose rows lie in several processes: its random numbers, its statistics.

Each process draws the noise of the whole batch and keeps its rows. So the processes together draw
what one would.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode, wrap_torch_function
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae.ranks.group import Group

__all__ = [
    "CannotShare",
    "DrawnShapes",
    "StatisticsAsked",
    "WholeBatchNoise",
    "WholeBatchStatistics",
    "whole_batch",
]

aten = torch.ops.aten

# Draws whose parameters are numbers. They fill a tensor, copy the shape of one, or are given one.
IN_PLACE = (
    aten.normal_.default,
    aten.uniform_.default,
    aten.bernoulli_.float,
    aten.exponential_.default,
    aten.cauchy_.default,
    aten.log_normal_.default,
    aten.geometric_.default,
)
ALIKE = (aten.rand_like.default, aten.randn_like.default)
OF_A_SHAPE = (aten.rand.default, aten.randn.default)


class CannotShare(Exception):
    """A program whose rows cannot be computed apart; the message says why."""


def is_draw(func: OpOverload) -> bool:
    """Whether an operation takes random numbers."""
    return torch.Tag.nondeterministic_seeded in func.tags


class DrawnShapes(TorchDispatchMode):
    """Note the shape of every draw, to find out which of its dimensions is that of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        drawn = func(*args, **(kwargs or {}))
        if is_draw(func):
            first = drawn[0] if isinstance(drawn, tuple) else drawn
            self.shapes.append(tuple(first.shape))
        return drawn

    def dims(self, other: DrawnShapes) -> list[int | None]:
        """The dimension of the data in each draw, by the draws for another number of data.

        Raises:
            CannotShare: if the numbers of draws differ.
        """
        if len(self.shapes) != len(other.shapes):
            raise CannotShare("how often it draws depends on the number of data")
        return [
            next((dim for dim, (a, b) in enumerate(zip(*pair)) if a != b), None)
            for pair in zip(self.shapes, other.shapes)
        ]


class WholeBatchNoise(TorchDispatchMode):
    """Draw noise for a whole batch, in the program's order, and keep some of its rows.

    Args:
        dims: the dimension of the data in each draw, ``None`` in those that all data share.
        whole: the number of data of the whole batch.
        rows: which of its rows (n,) to keep.

    Raises:
        CannotShare: on a draw whose parameters are those of single data.
    """

    def __init__(self, dims: Sequence[int | None], whole: int, rows: Tensor):
        super().__init__()
        self.dims, self.whole, self.rows = iter(dims), whole, rows

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dim = next(self.dims) if is_draw(func) else None
        if dim is None:
            return func(*args, **kwargs)
        if func in IN_PLACE:
            like, *rest = args
            drawn = func(like.new_empty(self._whole_shape(like.shape, dim)), *rest, **kwargs)
            return like.copy_(drawn.index_select(dim, self.rows))
        if func in ALIKE:
            like = args[0].new_empty(self._whole_shape(args[0].shape, dim))
            return func(like, **kwargs).index_select(dim, self.rows)
        if func in OF_A_SHAPE:
            return func(self._whole_shape(args[0], dim), **kwargs).index_select(dim, self.rows)
        raise CannotShare(f"{func.__name__.split('.')[0]} draws from parameters of single data")

    def _whole_shape(self, shape: Sequence[int], dim: int) -> list[int]:
        return [*shape[:dim], self.whole, *shape[dim + 1 :]]


@wrap_torch_function(lambda rows: (rows,))
def whole_batch(rows: Tensor) -> Tensor:
    """The rows (M, ...) of all processes that share a batch, without gradients.

    In a single process they are the rows themselves. A component calls it for what it learns from
    a batch outside of the loss, as a codebook does.
    """
    return rows


class WholeBatchStatistics(TorchFunctionMode):
    """Compute in each process the statistics of the whole batch, where a program asks for some.

    These are what `torch.nn.functional.batch_norm` normalises by in training, and `whole_batch`.

    Args:
        group: the processes.
        share: 1, or 0 in a process whose rows are padding.
    """

    def __init__(self, group: Group, share: Tensor):
        super().__init__()
        self.group, self.share = group, share

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is whole_batch:
            rows = args[0].detach()
            return self.group.all_gather(rows if self.share else rows[:0])
        if func is torch.nn.functional.batch_norm:
            given = _arguments(args, kwargs)
            if given["training"]:
                return self._batch_norm(given)
        return func(*args, **kwargs)

    def _batch_norm(self, given: Mapping[str, Any]) -> Tensor:
        x, weight, bias = given["input"], given["weight"], given["bias"]
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        own = self.share * (x.numel() // x.shape[1])
        (number,) = self.group.all_reduce([own.to(x)])
        mean = _Sum.apply((x * self.share).sum(dims), self.group) / number
        apart = x - mean.view(shape)
        var = _Sum.apply((apart.square() * self.share).sum(dims), self.group) / number
        if given["running_mean"] is not None:
            with torch.no_grad():
                given["running_mean"].lerp_(mean, given["momentum"])
                given["running_var"].lerp_(var * number / (number - 1), given["momentum"])
        out = apart * (var + given["eps"]).rsqrt().view(shape)
        return out if weight is None else out * weight.view(shape) + bias.view(shape)


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of `torch.nn.functional.batch_norm` by name."""
    bound = inspect.signature(torch.nn.functional.batch_norm).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(context, own: Tensor, group: Group) -> Tensor:
        context.group = group
        return group.all_reduce([own])[0]

    @staticmethod
    def backward(context, gradient: Tensor):
        return context.group.all_reduce([gradient])[0], None


class StatisticsAsked(TorchFunctionMode):
    """Note whether a program asks for statistics of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.batch_norm:
            self.found |= _arguments(args, kwargs)["training"]
        self.found |= func is whole_batch
        return func(*args, **kwargs)
