"""Data sets of torch whose data are made when they are asked for."""

from __future__ import annotations

import threading

import numpy as np
import torch
import torch.utils.data

from pyro_vae.datasets.arrays import read_array
from pyro_vae.datasets.sources import Part, Reading, Source
from pyro_vae.datasets.stored import Rows
from pyro_vae.datasets.torch_sets import Indexed, Sized, contexts_of, item_of
from pyro_vae.validation import InvalidInput

__all__ = ["opened"]

TORCH = torch.utils.data


def opened(data: object, reading: Reading) -> Source | None:
    """Any data set of torch with a length and an index; ``None`` for other data.

    If its data have a context, it is read once for that.
    """
    if not isinstance(data, TORCH.Dataset) or isinstance(data, TORCH.IterableDataset):
        return None
    if not isinstance(data, Sized) or not isinstance(data, Indexed) or not len(data):
        return None
    name, indexed = type(data).__name__, data
    y = None
    if item_of(indexed[0], name).y is not None:
        y = contexts_of([item_of(indexed[i], name).y for i in range(len(data))])
    return Source(name, {"train": Part(ItemRows(indexed, len(data), name), y)})  # type: ignore[arg-type]


class ItemRows(Rows):
    """The x of a data set's items."""

    def __init__(self, items: Indexed, number: int, name: str):
        self.items, self.of = items, name
        self.alone = threading.Lock()  # which need not be ready for two threads
        self.scale, first = 1.0, self._read([0])
        again = self._read([0])
        if not torch.equal(first.nan_to_num(), again.nan_to_num()):
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {name}, whose first datum is another each time",
                expected="data that stay as they are",
                fix="leave out its random transforms, or read it once (in_memory='on')",
            )
        super().__init__((number, *first.shape[1:]), first.numpy().dtype, scale=self.scale)

    def rows(self, places: np.ndarray) -> np.ndarray:
        values = self._read(places.tolist())
        if tuple(values.shape[1:]) != self.shape[1:]:
            raise InvalidInput(
                "in_memory",
                got=f"'off' for {self.of}, with data of shapes {self.shape[1:]} and others",
                expected="one shape",
                fix="fill them to one length, or read them into memory (in_memory='on')",
            )
        return values.numpy().astype(self.dtype, copy=False)

    def _read(self, places: list[int]) -> torch.Tensor:
        with self.alone:
            read = read_array("x", [item_of(self.items[i], self.of).x for i in places])
        self.scale = read.scale
        values = read.values
        return values.float() if values.dtype == torch.bfloat16 else values
