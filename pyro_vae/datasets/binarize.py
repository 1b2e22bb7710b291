"""Binarisation of grey levels: fixed by a seed, or drawn anew at each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch.utils.data
from torch import Tensor

from pyro_vae.validation import check_seed

__all__ = ["FixedDraw", "batch_keys", "binarized", "grey_levels", "uniform"]

BLOCK = 4096  # data whose uniform numbers are held at once
MOST_KEPT = 2**26  # bytes of a block that is kept for what asks for it next


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


class UniformBlocks:
    """Uniform numbers for blocks of data in their order, from any block on.

    They are one stream of a generator. Its state at the start of each block is kept once it is
    known (5 KB), so that the numbers of some data are drawn without those of all before them.

    Args:
        seed: of the stream.
    """

    def __init__(self, seed: int):
        check_seed(seed)
        self.seed = seed
        self.states: dict[int, dict[int, Tensor]] = {}  # by the size of a datum, by block
        self.last: tuple[tuple[object, ...], Tensor] | None = None

    def __call__(self, block: int, size: int, event: Sequence[int]) -> Tensor:
        """The numbers (size, *event) of a block; those before it have `BLOCK` data."""
        last, key = self.last, (block, size, *event)
        if last is not None and last[0] == key:
            return last[1]
        states = self.states.setdefault(math.prod(event), {})
        generator = torch.Generator().manual_seed(self.seed)
        at = max((known for known in list(states) if known <= block), default=0)
        if at in states:
            generator.set_state(states[at])
        for passed in range(at, block):
            torch.rand((BLOCK, *event), generator=generator, dtype=torch.float32)
            states[passed + 1] = generator.get_state()
        drawn = torch.rand((size, *event), generator=generator, dtype=torch.float32)
        if size == BLOCK:
            states[block + 1] = generator.get_state()
        self.last = (key, drawn) if drawn.nbytes <= MOST_KEPT else None
        return drawn


@dataclass(frozen=True)
class FixedDraw:
    """The draw of fixed binarisation: a datum's does not depend on which others are chosen.

    Args:
        seed: of all draws.
        total: how many data were drawn for, if those at hand are a part of them.
        rows: the places (N,) of those at hand among them.
        blocks: the uniform numbers of a seed.
    """

    seed: int
    total: int | None = None
    rows: Tensor | None = None
    blocks: UniformBlocks | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.blocks is None:
            object.__setattr__(self, "blocks", UniformBlocks(self.seed))

    def of(self, num: int, index: slice | Sequence[int] | Tensor) -> FixedDraw:
        """The draw of a part of ``num`` data."""
        rows = torch.arange(num) if self.rows is None else self.rows
        chosen = index.cpu() if isinstance(index, Tensor) else index
        return replace(self, total=self.total or num, rows=rows[chosen])

    def __call__(self, stored: Tensor, draw: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What ``draw`` makes of data and their uniform numbers, a block of data at a time."""
        assert self.blocks is not None
        total, event = self.total or len(stored), stored.shape[1:]
        first = draw(stored[:1], torch.zeros(1, *event, device=stored.device))
        made = first.new_empty(stored.shape)
        rows = torch.arange(len(stored)) if self.rows is None else self.rows
        order = rows.argsort()
        blocks, counts = (rows[order] // BLOCK).unique_consecutive(return_counts=True)
        for block, here in zip(blocks.tolist(), order.split(counts.tolist())):
            start = BLOCK * block
            drawn = self.blocks(block, min(BLOCK, total - start), event)
            few = here.to(stored.device)
            made[few] = draw(stored[few], drawn[rows[here] - start].to(stored.device))
        return made


def binarized(values: Tensor, uniform: Tensor, missing: bool) -> Tensor:
    """Draw 1 with the value as its probability, else 0; missing values stay missing."""
    drawn = (uniform < values).to(values.dtype)
    return torch.where(torch.isnan(values), values, drawn) if missing else drawn


def batch_keys(num_batches: int, device: torch.device | str = "cpu") -> Tensor:
    """Keys (num_batches, 2) for `uniform`, from torch's random numbers."""
    return torch.randint(-(2**31), 2**31, (num_batches, 2), dtype=torch.int32, device=device)


def uniform(shape: Sequence[int], keys: Tensor, rows: Tensor | None = None) -> Tensor:
    """Uniform numbers on [0, 1), multiples of 2^-24, each a hash of its position and two keys.

    A batch has a hundred times more pixels than latents. A generator draws numbers one after the
    other; these are drawn in parallel, within the compiled step, and are equal on every device.

    Args:
        shape: their shape.
        keys: two 32-bit integers (2,), see `batch_keys`.
        rows: the places in a whole batch of the rows that are drawn; by default they are all.

    Source: the multipliers are those of Wellons' search for integer hashes of low bias
    (``lowbias32``).

    Example:
        >>> uniform((100_000,), torch.tensor([1, 2], dtype=torch.int32)).mean().round(decimals=2)
        tensor(0.5000)
    """
    position = torch.arange(math.prod(shape), dtype=torch.int32, device=keys.device)
    if rows is not None:
        inner = math.prod(shape[1:])
        within = torch.arange(inner, dtype=torch.int32, device=keys.device)
        position = (rows.int()[:, None] * inner + within).reshape(-1)
    bits = position * -1640531527 + keys[0]  # products of 32-bit integers wrap around
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * 0x7FEB352D ^ keys[1]
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * -2073254261
    return ((bits >> 8).float() * 2.0**-24 + 0.5).reshape(shape)
