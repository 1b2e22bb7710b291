"""Data sets of Hugging Face's ``datasets``, whose tables are memory-mapped Arrow files."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch

from pyro_vae.datasets.arrays import package_of, read_array
from pyro_vae.datasets.contained import saved_data
from pyro_vae.datasets.hub import HubData, frame_of, read_hub, values_of
from pyro_vae.datasets.rows_of_tables import of_tables
from pyro_vae.datasets.sources import Reading, Source
from pyro_vae.datasets.stored import Rows
from pyro_vae.validation import InvalidInput

if TYPE_CHECKING:
    import pandas

__all__ = ["opened"]

SAVED = ("state.json", "dataset_dict.json")


def opened(data: object, reading: Reading) -> Source | None:
    """A folder of ``save_to_disk``, or a data set in Python; ``None`` for other data."""
    path = None
    if isinstance(data, str | Path):
        path = Path(data)
        if not any((path / name).exists() for name in SAVED):
            return None
        data = saved_data(path)
    if package_of(data, ("datasets",)) is None:
        return None
    held = partial(HubRows, path)
    source = read_hub(data, reading, path, held, partial(_tables, path))
    return source if path is None else Source(**(vars(source) | {"name": path.stem}))


def _rows_of(part: HubData, places: object) -> HubData:
    return cast(Selects, part).select(places)


class HasSplit(Protocol):
    split: object


class Selects(Protocol):
    def select(self, rows: object) -> HubData: ...


class HubRows(Rows):
    """A column of images or arrays."""

    def __init__(self, path: Path | None, part: HubData, column: str, inside: Path | None):
        self.part, self.column, self.inside = part, column, inside
        self.alone = threading.Lock()
        first = read_array("x", values_of(_rows_of(part, [0]), column, inside))
        shape, dtype = (len(part), *first.values.shape[1:]), first.values.numpy().dtype
        split = str(cast(HasSplit, part).split)
        super().__init__(shape, dtype, path, f"{column} {split} {len(part)}", first.scale)

    def rows(self, places: np.ndarray) -> np.ndarray:
        with self.alone:
            few = values_of(_rows_of(self.part, places), self.column, self.inside)
        read = read_array("x", few)
        if read.values.shape[1:] != torch.Size(self.shape[1:]) or read.scale != self.scale:
            raise InvalidInput(
                "in_memory",
                got=f"'off' for data whose {self.column} have several shapes or bit depths",
                expected="one shape",
                fix="bring them to one shape, or read them into memory (--in-memory on)",
            )
        return read.values.numpy().astype(self.dtype, copy=False)


class HubTable:
    """A data set without images or arrays."""

    def __init__(self, part: HubData):
        self.part = part

    @property
    def names(self) -> list[str]:
        return list(self.part.features)

    def __len__(self) -> int:
        return len(self.part)

    def columns(self, names: Sequence[str]) -> pandas.DataFrame:
        return frame_of(self.part, names)

    def rows(self, start: int, stop: int) -> pandas.DataFrame:
        return frame_of(_rows_of(self.part, range(start, stop)))


def _tables(path: Path | None, tables: Mapping[str, HubData], reading: Reading) -> Source:
    return of_tables({split: HubTable(part) for split, part in tables.items()}, reading, path)
