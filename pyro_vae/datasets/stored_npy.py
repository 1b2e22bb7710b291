"""An ``.npy`` that stays on disk, read in spans of rows."""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

import numpy as np

from pyro_vae.datasets.sources import Part, Reading, Source
from pyro_vae.datasets.stored import Rows, in_spans
from pyro_vae.files.reading import Kind, npy_header, open_file, parsing
from pyro_vae.validation import InvalidInput

__all__ = ["NpyRows", "opened"]

NPY = Kind("data", "an .npy file of numbers", "write it with numpy.save(path, x)", 2**50)


def opened(data: object, reading: Reading) -> Source | None:
    """The rows of an ``.npy``; ``None`` for other data."""
    if not isinstance(data, str | Path) or Path(data).suffix.lower() != ".npy":
        return None
    path = Path(data)
    if not path.is_file():
        return None
    rows = NpyRows(path, 0, path.stat().st_size)
    return Source(path.stem, {"train": Part(rows)})  # type: ignore[arg-type]


class NpyRows(Rows):
    """The rows of an array in numpy's format, which lies in a file as it is.

    They are read, not mapped: a mapped file that is cut short ends the process.

    Args:
        path: the file.
        start: where the array begins in it.
        end: where it ends.
        name: the array's name in an archive.
    """

    is_plain = True

    def __init__(self, path: Path, start: int, end: int, name: str = ""):
        with open_file(path, NPY) as file, parsing(path, NPY):
            file.seek(start)
            shape, is_fortran, dtype = npy_header(file, end)
            self.start = file.tell()
            self.descriptor = os.dup(file.fileno())  # the same file, if another takes its name
        weakref.finalize(self, os.close, self.descriptor)
        if dtype.names or dtype.kind not in "biuf":
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {path}, an array of {'records' if dtype.names else dtype}",
                expected="numbers",
                fix="save a table as Parquet, frame.to_parquet(path)",
            )
        if is_fortran and len(shape) > 1:
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {path}, whose columns lie one after the other",
                expected="rows one after the other",
                fix="save it with numpy.save(path, numpy.ascontiguousarray(x))",
            )
        if not shape:
            NPY.refuse(path, "a single number")
        super().__init__(shape, dtype, path, name)

    def rows(self, places: np.ndarray) -> np.ndarray:
        out = np.empty((len(places), *self.shape[1:]), self.dtype)
        done = 0
        for start, stop, within in in_spans(places, self.row_bytes):
            into = out[done : done + len(within)]
            if stop - start == len(within):
                self._read(start, into)
            else:
                span = np.empty((stop - start, *self.shape[1:]), self.dtype)
                self._read(start, span)
                np.take(span, within, axis=0, out=into, mode="clip")  # other modes copy twice
            done += len(within)
        return out

    def prefetch(self, places: np.ndarray) -> None:
        if sys.platform != "linux":
            return
        for start, stop, _ in in_spans(places, self.row_bytes):
            at, length = self.start + start * self.row_bytes, (stop - start) * self.row_bytes
            os.posix_fadvise(self.descriptor, at, length, os.POSIX_FADV_WILLNEED)

    def _read(self, start: int, into: np.ndarray) -> None:
        view = memoryview(into.reshape(-1).view(np.uint8).data)
        at = self.start + start * self.row_bytes
        while len(view):
            got = os.preadv(self.descriptor, [view], at)
            if not got:
                NPY.refuse(self.path or "", "which ends too soon")
            view, at = view[got:], at + got
