"""Bound the memory and the time in which a program is built from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.watching import Watching

__all__ = ["Budget", "check_integers"]

LEAST_BYTES = 2**29  # that any program may take while it is built, whatever its weights
TIMES = 8  # the weights' own size, for what is computed on the way
LEAST_STEPS = 20_000  # of torch, each some microseconds, and one for every hundred bytes of weights
LARGEST = 2**20  # an integer that needs no weights to justify it, such as a number of trials


class Budget(Watching):
    """Stop a constructor before it makes more tensors than a file's weights account for.

    Args:
        weights: bytes of the weights' file.

    Raises:
        MemoryError: within the context, before the tensor that is too much is made.
    """

    def __init__(self, weights: int):
        super().__init__()
        self.bytes, self.steps = LEAST_BYTES + TIMES * weights, LEAST_STEPS + weights // 100

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if "device" in given:  # what is made of nothing but sizes is first made without memory
            self._count(func(*args, **{**given, "device": "meta"}), args)
            return func(*args, **given)
        made = func(*args, **given)
        self._count(made, args)
        return made

    def _count(self, made: object, args: Sequence[object]) -> None:
        known = {id(value) for value in args}
        self.steps -= 1
        self.bytes -= sum(
            value.nbytes
            for value in tree_leaves(made)
            if isinstance(value, Tensor) and id(value) not in known
        )
        if self.bytes < 0 or self.steps < 0:
            raise MemoryError("sizes that the weights beside it do not have")


def check_integers(value: object, weights: int) -> None:
    """Raise `MemoryError` on an integer, such as a layer's width, that the weights cannot have."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            check_integers(item, weights)
    elif isinstance(value, int) and abs(value) > max(LARGEST, weights):
        raise MemoryError(f"{value:.3g}, a size that the weights beside it do not have")
