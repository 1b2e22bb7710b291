"""Data that stay on disk: what is asked of every kind of file, and which kinds there are.

A kind is one module whose name begins with ``stored_``. It has one function, ``opened``, that gives
a `Source` whose x are `Rows`, or ``None`` for data of another kind. Nothing else names it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import pyro_vae.datasets as room
from pyro_vae.datasets.known import Given
from pyro_vae.datasets.sources import Part, Reading, Source
from pyro_vae.files.reading import Kind, files_in
from pyro_vae.validation import InvalidInput

__all__ = [
    "ArrayRows", "Rows", "fits", "identity_of", "in_spans", "is_large", "is_stored",
    "open_stored", "refused", "with_labels",
]  # fmt: skip

FOLDER = Kind("data", "data that hold their files themselves", "copy them into it", 2**50)

# Bytes between two rows that are read with them, and of all that is read at once.
BETWEEN, SPAN = 2**16, 2**22

# A file is looked at more closely, and may stay on disk, if so many times its size is more than the
# memory that is free: what it holds may be compressed.
UNPACKED = 64


BLOCK_BYTES = 2**24  # read at once in a pass over all rows


class Rows(ABC):
    r"""Numbers (N, \*event) that are read some rows at a time.

    Args:
        shape: (N, \*event).
        dtype: of the numbers as they are read.
        path: the file or folder that they lie in; ``None`` for an object, of which nothing tells
            whether it changes. Its hash is then made anew in each process.
        name: which of the numbers in the file they are.
        scale: what they are to be divided by, 255 for images of 8 bits.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype,
        path: Path | None = None,
        name: str = "",
        scale: float = 1.0,
    ):
        self.shape, self.dtype, self.path, self.scale = tuple(shape), dtype, path, scale
        self.name, self.identity = name, "" if path is None else identity_of(path)

    block_bytes = BLOCK_BYTES
    is_plain = False  # whether the numbers lie in the file as they are, so that reading is copying

    @abstractmethod
    def rows(self, places: np.ndarray) -> np.ndarray:
        r"""The rows (n, \*event) at places (n,), which rise."""

    def prefetch(self, places: np.ndarray) -> None:  # noqa: B027, most have no way
        """Tell the system that the rows at places (n,), which rise, are read soon."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """The size of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def check_same(self) -> None:
        """Raise `InvalidInput` if the file has changed since it was opened."""
        if self.path is not None and identity_of(self.path) != self.identity:
            raise InvalidInput(
                "data",
                got=f"{self.path}, which changed while it was in use",
                expected="a file that stays as it is",
                fix="start again once it is written",
            )

    def read(self, places: np.ndarray) -> np.ndarray:
        """The rows at places in any order, some of them repeated."""
        if len(places) < 2 or bool((np.diff(places) > 0).all()):
            return self.rows(places)
        rising, inverse = np.unique(places, return_inverse=True)
        return self.rows(rising)[inverse]


class Sliced(Protocol):
    """An array of HDF5 or Zarr."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __getitem__(self, rows: Any, /) -> object: ...


class ArrayRows(Rows):
    """The rows of an array that gives slices, the last one kept: its chunks are unpacked once."""

    def __init__(self, array: Sliced, path: Path, name: str):
        super().__init__(array.shape, array.dtype, path, name)
        self.array = array
        self.alone = threading.Lock()  # a file has one place that it is read at
        self.kept = (0, np.empty((0, *self.shape[1:]), self.dtype))

    def rows(self, places: np.ndarray) -> np.ndarray:
        out = np.empty((len(places), *self.shape[1:]), self.dtype)
        done = 0
        for start, stop, within in in_spans(places, self.row_bytes):
            with self.alone:
                span = self._span(start, stop)
            out[done : done + len(within)] = span[within]
            done += len(within)
        return out

    def _span(self, start: int, stop: int) -> np.ndarray:
        """Rows one after the other, from what was read last if they are in it."""
        first, kept = self.kept
        if not first <= start <= stop <= first + len(kept):
            most = max(1, SPAN // max(1, self.row_bytes))
            first, last = start - start % most, -(-stop // most) * most
            kept = np.asarray(self.array[first : min(last, len(self))])
            self.kept = first, kept
        return kept[start - first : stop - first]


def in_spans(places: np.ndarray, row_bytes: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """The spans of a file that hold rows: where each begins and ends, and the rows within it.

    Rows that lie close together are read as one span, and what lies between them is left out.

    Args:
        places: of the rows (n,), which rise.
        row_bytes: the size of a row.

    Example:
        >>> [(start, stop, within.tolist()) for start, stop, within in
        ...  in_spans(np.array([3, 4, 6, 99]), row_bytes=2**13)]
        [(3, 7, [0, 1, 3]), (99, 100, [0])]
    """
    far = np.diff(places) > max(1, BETWEEN // max(1, row_bytes))
    most = max(1, SPAN // max(1, row_bytes))
    far |= np.diff(places // most) > 0
    for part in np.split(places, np.flatnonzero(far) + 1) if len(places) else []:
        yield int(part[0]), int(part[-1]) + 1, part - part[0]


def identity_of(path: Path) -> str:
    """What changes if a file or a folder does: of path, size, time and inode of each file.

    Their hash stands for them, as a folder may have millions of files.
    """
    digest = hashlib.sha256()
    for file in sorted(files_in(path, FOLDER)) if path.is_dir() else [path]:
        state = os.stat(file)
        words = (file.absolute(), state.st_size, state.st_mtime_ns, state.st_ino)
        digest.update(" ".join(map(str, words)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def is_large(path: Path) -> bool:
    """Whether what a file or a folder holds might not fit in half of the memory that is free."""
    if path.is_dir():
        size = sum(
            os.lstat(Path(place, name)).st_size
            for place, _, names in os.walk(path)
            for name in names
        )
    else:
        size = path.stat().st_size if path.exists() else 0
    return size * UNPACKED > free_memory() / 2


def free_memory() -> float:
    """Bytes of memory that a process may still take, as far as the system says."""
    limits = [float("inf")]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024.0 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        limits.append(int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError):  # no Linux, or a group without a limit
        pass
    return min(limits)


def stored_in(source: Source) -> list[Rows]:
    """All that stays on disk of the x of a source, each of which may have several sites."""
    given = [part.x for part in source.parts.values()]
    sites = [x for each in given for x in (each.values() if isinstance(each, Mapping) else [each])]
    return [x for x in sites if isinstance(x, Rows)]


def fits(source: Source) -> bool:
    """Whether the numbers of a source fit in half of the memory that is free."""
    return sum(map(bytes_of, stored_in(source))) <= free_memory() / 2


def is_stored(source: Source) -> bool:
    """Whether the x of a source stay on disk."""
    return bool(stored_in(source))


def bytes_of(rows: Rows) -> int:
    """How much memory rows would take as numbers of a data set: whole ones become float32."""
    size = rows.dtype.itemsize if rows.dtype.kind == "f" else 4
    return int(np.prod(rows.shape, dtype=np.int64)) * size


def open_stored(data: object, reading: Reading) -> Source | None:
    """A source that stays on disk, its x made of `Rows`; ``None`` for what cannot stay there.

    Raises:
        InvalidInput: if it could, but not as it is saved.
    """
    for module in pkgutil.iter_modules(room.__path__):
        if module.name.startswith("stored_"):
            kind = importlib.import_module(f"{room.__name__}.{module.name}")
            source: Source | None = kind.opened(data, reading)
            if source is not None:
                return source
    return None


def refused(data: object) -> InvalidInput:
    """What is said of data that cannot stay on disk."""
    return InvalidInput(
        "in_memory",
        got=f"'off' for {data if isinstance(data, str | Path) else type(data).__name__}",
        expected="an .npy, an uncompressed .npz, .h5, .zarr or .parquet, a folder of images or of "
        "Hugging Face's, or a torch Dataset",
        fix="save it as one of these, or leave in_memory out (--in-memory auto)",
    )


def whole(rows: Rows) -> np.ndarray:
    """All rows in memory: for labels, which are few."""
    return rows.read(np.arange(len(rows)))


def _in_memory(y: Given | Rows | None) -> Given | None:
    """A context read as a whole, each of its entries where there are several."""
    if isinstance(y, Mapping):
        return {name: whole(v) if isinstance(v, Rows) else v for name, v in y.items()}
    return whole(y) if isinstance(y, Rows) else y


def with_labels(source: Source) -> Source:
    """A source whose labels and covariates are in memory."""
    parts = {split: Part(x, _in_memory(y)) for split, (x, y) in source.parts.items()}
    return Source(**(vars(source) | {"parts": parts}))
