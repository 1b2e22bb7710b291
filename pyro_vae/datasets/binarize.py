"""Binarisation of grey levels: fixed by a seed, or drawn anew at each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.utils.data
from torch import Tensor

__all__ = ["batch_keys", "grey_levels", "uniform"]


def grey_levels(values: Tensor) -> Tensor | None:
    """The values as bytes k if all are exactly k / 255, else ``None``.

    A batch of bytes is read from a quarter of the memory.
    """
    levels = []
    for part in values.split(4096):
        levels.append((part * 255).round().to(torch.uint8))
        if not torch.equal((levels[-1].float() / 255).to(values.dtype), part):
            return None
    return torch.cat(levels) if levels else None


def batch_keys(num_batches: int, device: torch.device | str = "cpu") -> Tensor:
    """Keys (num_batches, 2) for `uniform`, from torch's random numbers."""
    return torch.randint(-(2**31), 2**31, (num_batches, 2), dtype=torch.int32, device=device)


def uniform(shape: Sequence[int], keys: Tensor) -> Tensor:
    """Uniform numbers on [0, 1), multiples of 2^-24, each a hash of its position and two keys.

    A batch has a hundred times more pixels than latents. A generator draws numbers one after the
    other; these are drawn in parallel, within the compiled step, and are equal on every device.

    Args:
        shape: their shape.
        keys: two 32-bit integers (2,), see `batch_keys`.

    Source: the multipliers are those of Wellons' search for integer hashes of low bias
    (``lowbias32``).

    Example:
        >>> uniform((100_000,), torch.tensor([1, 2], dtype=torch.int32)).mean().round(decimals=2)
        tensor(0.5000)
    """
    position = torch.arange(math.prod(shape), dtype=torch.int32, device=keys.device)
    bits = position * -1640531527 + keys[0]  # products of 32-bit integers wrap around
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * 0x7FEB352D ^ keys[1]
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * -2073254261
    return ((bits >> 8).float() * 2.0**-24 + 0.5).reshape(shape)
