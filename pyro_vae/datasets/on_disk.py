"""A tensor whose rows stay on disk until they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from pyro_vae.datasets.arrays import read_array
from pyro_vae.datasets.stored import BLOCK_BYTES, Rows
from pyro_vae.validation import InvalidInput

__all__ = ["OnDisk", "Step", "blocks_of", "chosen"]

MOST_AT_ONCE = 2**28  # bytes that any operation may read

Index = slice | int | Sequence[int] | Tensor | np.ndarray


class Step(NamedTuple):
    """What is done to rows after they are read.

    Args:
        name: what it is, with its settings, for the hash's place in the cache.
        make: from rows, as they are so far, and their places in the file, to new rows.
    """

    name: str
    make: Callable[[Tensor, Tensor], Tensor]


class OnDisk(Tensor):
    r"""A tensor (N, \*event) of rows on disk: an index reads, whatever else is done reads all.

    It has the shape, dtype and device of the tensor that it stands for. What slices it before it
    computes, as all scores do, works within a few rows of memory.

    Raises:
        InvalidInput: on an operation that would read more than 256 MB at once.
    """

    source: Rows
    places: Tensor | None
    steps: tuple[Step, ...]

    @staticmethod
    def __new__(
        cls,
        source: Rows,
        places: Tensor | None = None,
        steps: tuple[Step, ...] = (),
        like: Tensor | None = None,
    ) -> OnDisk:
        if like is None:  # what one row becomes
            first = torch.zeros(1, dtype=torch.int64) if places is None else places[:1]
            like = _made(source, first, steps)
        number = len(source) if places is None else len(places)
        made = torch.Tensor._make_wrapper_subclass(
            cls, (number, *like.shape[1:]), dtype=like.dtype, device=like.device
        )
        made.source, made.places, made.steps = source, places, steps
        return made

    def then(
        self, name: str, make: Callable[[Tensor, Tensor], Tensor], like: Tensor | None = None
    ) -> OnDisk:
        """The same rows after another step, which makes some like ``like``; by default it is run.

        Args:
            name: see `Step`.
            make: see `Step`.
            like: no rows, of the shape and dtype that the step makes.
        """
        return OnDisk(self.source, self.places, (*self.steps, Step(name, make)), like)

    def chosen(self, index: Index) -> OnDisk:
        """Some of the rows, which stay on disk."""
        return OnDisk(self.source, self._places(index), self.steps, self._like())

    def read(self, index: Index) -> Tensor:
        """Some of the rows, in memory."""
        with _disable_current_modes():
            made = _made(self.source, self._places(index), self.steps)
            return made.to(self.device, self.dtype)

    def prefetch(self, index: Index) -> None:
        """Tell the system that some of the rows are read soon."""
        self.source.prefetch(np.sort(self._places(index).numpy()))

    @property
    def identity(self) -> str:
        """What changes if any of its numbers do; empty if nothing tells."""
        if not self.source.identity:
            return ""
        places = "" if self.places is None else _digest(self.places.numpy())
        return json.dumps(
            [self.source.identity, self.source.name, places, [step.name for step in self.steps]]
        )

    def _places(self, index: Index) -> Tensor:
        """The places in the file of rows by slice, by their own places, or by truth values."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)))
        rows = torch.as_tensor(index, device="cpu")
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows.long()
        low, high = (int(rows.min()), int(rows.max())) if len(rows) else (0, -1)
        if low < -len(self) or high >= len(self):
            raise IndexError(f"a row beyond the {len(self)} that there are")
        if low < 0:
            rows = torch.where(rows < 0, rows + len(self), rows)
        return rows if self.places is None else self.places[rows]

    def _like(self, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        return torch.empty(
            0, *self.shape[1:], dtype=dtype or self.dtype, device=device or self.device
        )

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDisk({tuple(self.shape)}, {self.dtype}, {self.device})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in ABOUT:
                return func(*args, **kwargs)
            if func in OWN and isinstance(args[0], OnDisk):
                return OWN[func](*args, **kwargs)
            return func(*_read(args), **_read(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return func(*_read(args), **_read(kwargs or {}))


def _made(source: Rows, places: Tensor, steps: tuple[Step, ...]) -> Tensor:
    values = read_array("x", source.read(places.numpy())).values
    for step in steps:
        values = step.make(values, places)
    return values


def _read(values: Any) -> Any:
    """Arguments with all that is on disk read, if it is not too much."""
    if isinstance(values, OnDisk):
        if values.nbytes > MOST_AT_ONCE:
            raise InvalidInput(
                "data",
                got=f"an operation on all {values.nbytes / 1e9:,.1f} GB of data on disk",
                expected="some of the data",
                fix="pass data[:10_000], or read them all with in_memory='on' (--in-memory on)",
            )
        return values.read(slice(None))
    if isinstance(values, dict):
        return {name: _read(value) for name, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(map(_read, values))
    return values


def _moved(self: OnDisk, *args: Any, **kwargs: Any) -> OnDisk:
    like = self._like().to(*args, **kwargs)
    return OnDisk(self.source, self.places, self.steps, like)


def _item(self: OnDisk, index: Any) -> Tensor:
    """What an index gives of a tensor in memory, of which only these rows are read.

    The last operation is that of the tensor in memory: who counts memory counts the same.
    """
    first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
    if isinstance(first, int | np.integer):
        return self.read([int(first)])[(0, *rest)]
    if isinstance(first, slice):
        return self.read(first)[(slice(None), *rest)]
    if isinstance(first, list):
        rising = sorted(set(first))
        place = {row: i for i, row in enumerate(rising)}
        return self.read(rising)[([place[row] for row in first], *rest)]
    return self.read(first)[(slice(None), *rest)]


def _select(self: OnDisk, dim: int, index: Tensor) -> Tensor:
    return self.read(index) if dim == 0 else self.read(slice(None)).index_select(dim, index)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


# What is known of a tensor without its numbers.
PROPERTIES = (
    "shape", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_meta", "is_nested",
    "ndim", "nbytes", "is_quantized", "is_sparse", "grad_fn", "is_leaf",
)  # fmt: skip
ABOUT = {
    *(vars(base)[name].__get__ for name in PROPERTIES for base in Tensor.__mro__
      if name in vars(base)),
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.element_size, Tensor.__len__, Tensor.__hash__,
    Tensor.is_floating_point, Tensor.is_complex, torch.is_floating_point, torch.is_complex,
    Tensor.__repr__, Tensor.get_device,
}  # fmt: skip

OWN: dict[Any, Callable[..., Tensor]] = {
    Tensor.__getitem__: _item,
    Tensor.index_select: _select,
    torch.index_select: _select,
    Tensor.to: _moved,
    Tensor.float: lambda self: _moved(self, torch.float32),
    Tensor.double: lambda self: _moved(self, torch.float64),
    Tensor.cpu: lambda self: _moved(self, "cpu"),
    Tensor.detach: lambda self: self,
}


def chosen(values: Tensor, index: Index) -> Tensor:
    """Rows of a tensor; those of one on disk stay there."""
    return values.chosen(index) if isinstance(values, OnDisk) else values[index]  # type: ignore[index]


def blocks_of(values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a tensor in order, some at a time in memory, and which they are."""
    most = values.source.block_bytes if isinstance(values, OnDisk) else BLOCK_BYTES
    size = max(1, most // max(1, values.nbytes // max(1, len(values))))
    for start in range(0, len(values), size):
        few = slice(start, min(start + size, len(values)))
        yield few, values[few]
