"""The processes that share each batch, and what they say to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Group", "PeerLost", "of_this_process", "speaks"]

Value = TypeVar("Value")


class PeerLost(RuntimeError):
    """Another process of the group ended, or did not answer in time."""


@dataclass(frozen=True)
class Group:
    """The processes that train one model together.

    Args:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def rows(self, number: int) -> range:
        """The rows of a batch that are this process's; of a small batch, it may have none.

        Example:
            >>> [list(Group(rank, 2).rows(5)) for rank in (0, 1)]
            [[0, 1], [2, 3, 4]]
        """
        return range(self.rank * number // self.size, (self.rank + 1) * number // self.size)

    def all_reduce(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums of tensors over all processes, by one reduction of one flat buffer."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _peers():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all processes, in their order."""
        with _peers():
            own = torch.tensor([len(rows)], device=rows.device)
            counts = [torch.empty_like(own) for _ in range(self.size)]
            dist.all_gather(counts, own)
            most = max(int(count) for count in counts)
            padded = rows.new_zeros((most, *rows.shape[1:]))
            padded[: len(rows)] = rows
            parts = [torch.empty_like(padded) for _ in counts]
            dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts)])

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values."""
        with _peers():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def in_turns(self, tasks: Iterable[Callable[[], Tensor]]) -> Iterator[Tensor]:
        """The results of tasks, in order; each is computed by one process and told to all."""
        left = iter(tasks)
        while turn := list(islice(left, self.size)):
            own = turn[self.rank]() if self.rank < len(turn) else None
            for source in range(len(turn)):
                yield self._told_by(source, own)

    def _told_by(self, source: int, own: Tensor | None) -> Tensor:
        mine = own if source == self.rank else None
        with _peers():
            about = [None if mine is None else (mine.shape, mine.dtype, mine.device.type)]
            dist.broadcast_object_list(about, source)
            value = torch.empty(0) if mine is None else mine.contiguous()
            if mine is None and about[0] is not None:
                shape, dtype, device = about[0]
                value = torch.empty(shape, dtype=dtype, device=device)
            dist.broadcast(value, source)
        return value

    def told(self, find_out: Callable[[], Value]) -> Value:
        """What the first process finds out, told to all; an error is raised in each of them."""
        told: list[Value | Exception | None] = [None]
        if self.is_first:
            try:
                told = [find_out()]
            except Exception as error:
                told = [error]
        with _peers():
            dist.broadcast_object_list(told, 0)
        (found,) = told
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value]

    def equal(self, value: str) -> bool:
        """Whether all processes have the same value."""
        values: list[str | None] = [None] * self.size
        with _peers():
            dist.all_gather_object(values, value)
        return len(set(values)) == 1


def speaks() -> bool:
    """Whether this process writes files and prints: alone, or the first of its group."""
    group = of_this_process()
    return group is None or group.is_first


def of_this_process() -> Group | None:
    """The group that this process is in, if `torch.distributed` has made one of several."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return Group(dist.get_rank(), dist.get_world_size())


@contextmanager
def _peers() -> Iterator[None]:
    """What the engine raises where another process is gone, under a name of ours."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
