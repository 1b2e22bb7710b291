"""How much is computed at once: measured allocations against a budget in bytes."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_vae.compilation.watching import Watching
from pyro_vae.validation import InvalidInput

__all__ = [
    "Cost",
    "DEFAULT_MEMORY",
    "bytes_allocated",
    "chunks",
    "enough_memory",
    "in_fixed_blocks",
    "is_out_of_memory",
    "rows_within",
]

DEFAULT_MEMORY = 256 * 2**20

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Cost:
    """Bytes that grow with the number of data N and the number of draws K.

    Args:
        per_datum: for each datum, whatever K: its encoding, for one.
        per_draw: for each draw for each datum.

    Example:
        >>> cost = Cost(per_datum=100, per_draw=10)
        >>> cost.draws_at_once(budget=150, num_samples=50)
        5
        >>> cost.data_at_once(budget=1200, num_samples=50)
        2
    """

    per_datum: int
    per_draw: int

    @classmethod
    def of(cls, run: Callable[[int, int], object]) -> Cost:
        """The cost of ``run(num_data, num_samples)``."""
        alone, twice_drawn, two_data = (
            _bytes_of(run, *counts) for counts in ((1, 1), (1, 2), (2, 1))
        )
        per_draw = max(1, twice_drawn - alone)
        return cls(max(0, two_data - alone - per_draw), per_draw)

    def draws_at_once(self, budget: int, num_samples: int) -> int:
        """How many of a single datum's draws fit, at least one."""
        return min(num_samples, max(1, (budget - self.per_datum) // self.per_draw))

    def data_at_once(self, budget: int, num_samples: int) -> int:
        """How many data fit with that many draws each, at least one."""
        return max(1, budget // (self.per_datum + num_samples * self.per_draw))


@contextmanager
def enough_memory(what: str, fix: str) -> Iterator[None]:
    """Turn running out of memory, on the host or a GPU, into one line.

    Args:
        what: what needs the memory.
        fix: what to lower.

    Raises:
        InvalidInput: with how much was asked for.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        size = re.search(r"allocate ([\d.,]+ ?(?:bytes|[KMGT]i?B))", str(error))
        place = "GPU" if isinstance(error, torch.OutOfMemoryError) else "host"
        raise InvalidInput(
            "memory",
            got=f"{what}, which asked for {_in_units(size[1]) if size else 'some'} more than the "
            f"{place} has free",
            expected="arrays that fit",
            fix=fix,
        ) from error


OUT_OF_MEMORY = re.compile(
    r"(?:can't|cannot) allocate memory|out of memory|bad_alloc|ALLOC_FAILED|Unable to allocate|"
    "failed to map segment|can't start new thread",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or a GPU."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def _in_units(size: str) -> str:
    """A size in bytes in larger units; one in units stays.

    Example:
        >>> _in_units("40000000000 bytes"), _in_units("9000000 bytes"), _in_units("2.5 GiB")
        ('37.3 GiB', '8.6 MiB', '2.5 GiB')
    """
    count, _, unit = size.partition(" ")
    if unit != "bytes":
        return size
    large = int(count) >= 2**30
    return f"{int(count) / 2 ** (30 if large else 20):,.1f} {'GiB' if large else 'MiB'}"


def bytes_allocated(run: Callable[[int], object]) -> int:
    """Bytes that ``run(2)`` allocates beyond ``run(1)``.

    All tensors count, so it is an upper bound on what is kept.
    """
    once, twice = (_bytes_of(run, count) for count in (1, 2))
    return max(1, twice - once)


def rows_within(memory_budget: int, run: Callable[[int], object]) -> int:
    """How many rows ``run(rows)`` may handle at once within a memory budget, at least one."""
    return max(1, memory_budget // bytes_allocated(run))


def _bytes_of(run: Callable[..., object], *counts: int) -> int:
    with _AllocationMeter() as meter:
        run(*counts)
    return meter.bytes


def in_fixed_blocks(fn: Callable[P, R]) -> Callable[P, R]:
    """Mark a function whose memory is bounded by blocks of fixed size, whatever the user says.

    ``memory_budget``, an argument that it had in version 0.1.0, is answered by a warning.
    """

    @functools.wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.pop("memory_budget", None) is not None:
            warnings.warn(
                f"{fn.__name__} has no use for memory_budget: it works in blocks of fixed size, so "
                "that no number depends on memory. Leave it out",
                DeprecationWarning,
                stacklevel=2,
            )
        return fn(*args, **kwargs)

    return wrapped


def chunks(total: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``total`` in order."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


class _AllocationMeter(Watching):
    """Add up the sizes of all tensors that operations return while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = (leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        self.bytes += sum(leaf.nbytes for leaf in made if leaf.layout is torch.strided)
        return out
