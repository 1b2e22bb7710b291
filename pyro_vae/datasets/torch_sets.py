"""Torch's data sets and loaders, and data that come one by one, each read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from pyro_vae.datasets.arrays import package_of
from pyro_vae.datasets.sources import Part, Source
from pyro_vae.validation import InvalidInput

__all__ = [
    "NAMES", "Indexed", "Sized", "check_two", "contexts_of", "endless", "from_torch", "item_of",
    "of_items",
]  # fmt: skip

NAMES = {"x", "y", "context"}  # of an item that is a dictionary

TORCH = torch.utils.data


@runtime_checkable
class Sized(Protocol):
    def __len__(self) -> int: ...


@runtime_checkable
class Indexed(Protocol):
    def __getitem__(self, index: int, /) -> object: ...


def from_torch(data: object) -> Source | None:
    """A loader or a data set of torch; ``None`` for anything else."""
    if isinstance(data, TORCH.DataLoader):
        with torch.random.fork_rng(devices=[]):  # it draws a seed, which is not the caller's
            return _from_loader(data)
    if isinstance(data, TORCH.IterableDataset):
        return of_items(_bounded(data, type(data).__name__), type(data).__name__)
    return _from_dataset(data) if isinstance(data, TORCH.Dataset) else None


def _from_dataset(data: TORCH.Dataset[object]) -> Source:
    """A torch data set, each of its data read once."""
    name = type(data).__name__
    if isinstance(data, TORCH.TensorDataset):
        check_two(data.tensors)
        return Source(name, {"train": Part(*data.tensors)})
    if not isinstance(data, Sized) or not isinstance(data, Indexed):
        raise endless(name)
    indexed: Indexed = data
    return of_items((indexed[i] for i in range(len(data))), name)


def _from_loader(loader: TORCH.DataLoader[object]) -> Source:
    """The data of a loader's batches, each once."""
    name = type(loader.dataset).__name__
    is_stream = isinstance(loader.dataset, TORCH.IterableDataset)
    batches = _bounded(loader, name) if is_stream else iter(loader)
    count = len(loader.dataset) if isinstance(loader.dataset, Sized) else 0
    notes = []
    if not is_stream and not _visits_all(loader):
        notes.append(f"the loader's {type(loader.sampler).__name__} chooses which data are read")
    if loader.batch_size is None and loader.batch_sampler is None:  # it gives data one by one
        return replace(of_items(batches, name), notes=tuple(notes))
    parts = [item_of(batch, name) for batch in batches]
    if not parts:
        raise _empty(name)
    x = _joined([part.x for part in parts], name)
    y = None if parts[0].y is None else _joined([part.y for part in parts], name)
    left = count - len(x)  # type: ignore[arg-type]
    if left > 0:
        cause = "drop_last" if loader.drop_last else "sampler"
        notes.append(f"the loader's {cause} leaves {left} of {count} data out")
    return Source(name, {"train": Part(x, y)}, notes=tuple(notes))  # type: ignore[arg-type]


def _joined(parts: Sequence[object], name: str) -> object:
    """Batches of tensors, arrays, lists or dictionaries of them as one."""
    if all(isinstance(part, Mapping) for part in parts):
        return {key: _joined([part[key] for part in parts], name) for key in parts[0]}  # type: ignore[index, attr-defined]
    if all(isinstance(part, list | tuple) for part in parts):
        return [entry for part in parts for entry in part]  # type: ignore[attr-defined]
    arrays = [np.asarray(part) if not isinstance(part, Tensor) else part for part in parts]
    shapes = {tuple(array.shape[1:]) for array in arrays}
    if len(shapes) > 1 or any(array.ndim == 0 for array in arrays):
        raise InvalidInput(
            "data",
            got=f"batches of {name} of data of shapes {', '.join(map(str, sorted(shapes)))}",
            expected="one shape",
            fix="pass the data set itself, whose sequences are filled to the longest, or a "
            "collate_fn that fills all to one length",
        )
    if all(isinstance(array, Tensor) for array in arrays):
        return torch.cat([array for array in arrays if isinstance(array, Tensor)])
    return np.concatenate([np.asarray(array) for array in arrays])


def _visits_all(loader: TORCH.DataLoader[object]) -> bool:
    sampler = loader.sampler
    if isinstance(sampler, TORCH.RandomSampler):
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return isinstance(sampler, TORCH.SequentialSampler)


def _bounded(stream: object, name: str) -> Iterator[object]:
    """What a stream of known length holds, and no more."""
    try:
        length = len(stream)  # type: ignore[arg-type]
    except TypeError:
        raise endless(name) from None
    items = list(itertools.islice(iter(stream), length + 1))  # type: ignore[call-overload]
    if len(items) != length:
        raise InvalidInput(
            "data",
            got=f"a stream {name} of length {length} that holds "
            + ("more" if len(items) > length else str(len(items))),
            expected="as many data as its length says",
            fix="correct its __len__",
        )
    return iter(items)


def of_items(items: Iterator[object], name: str) -> Source:
    """Data given one by one, each x or a pair (x, context)."""
    parts = [item_of(item, name) for item in items]
    if not parts:
        raise _empty(name)
    has_context = {part.y is not None for part in parts}
    if len(has_context) > 1:
        raise InvalidInput(
            "data",
            got=f"{name}, of whose data some have a context",
            expected="all or none",
            fix="give each datum its context",
        )
    x: object = [part.x for part in parts]
    y = contexts_of([part.y for part in parts]) if has_context == {True} else None
    return Source(name, {"train": Part(x, y)})  # type: ignore[arg-type]


def contexts_of(given: Sequence[object]) -> object:
    """The contexts of data one by one, which may be dictionaries."""
    if not all(isinstance(each, Mapping) for each in given):
        return [_scalar(each) for each in given]
    keys = {tuple(each) for each in given if isinstance(each, Mapping)}
    if len(keys) > 1:
        raise InvalidInput(
            "y",
            got="contexts with " + " and ".join(", ".join(map(str, each)) for each in sorted(keys)),
            expected="the same entries for each datum",
            fix="give each datum the same",
        )
    return {key: [_scalar(each[key]) for each in given] for key in next(iter(keys))}  # type: ignore[index]


def _scalar(value: object) -> object:
    """A label that is a tensor without dimensions as a number."""
    return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value


def item_of(item: object, name: str) -> Part:
    """One datum, or a batch of them, as x and its context."""
    if isinstance(item, Mapping):
        if "x" in item and set(item) <= NAMES and len(item) < 3:
            return Part(item["x"], item.get("y", item.get("context")))
        raise InvalidInput(
            "data",
            got=f"{name}, whose data are dictionaries with {', '.join(map(str, item))}",
            expected="x, or x and y",
            fix="name them so, or pass a pair: ([d['image'] for d in data], "
            "[d['label'] for d in data])",
        )
    if isinstance(item, tuple) or (isinstance(item, list) and _holds_arrays(item)):
        check_two(item)
        return Part(*item)  # type: ignore[arg-type]
    return Part(item)  # type: ignore[arg-type]


def _holds_arrays(item: list[object]) -> bool:
    """Whether a list is a pair that a loader made, not a datum of numbers or a batch of images."""
    is_image = all(package_of(each, ("PIL",)) is not None for each in item)
    return not is_image and not all(isinstance(each, int | float) for each in item)


def endless(name: str) -> InvalidInput:
    return InvalidInput(
        "data",
        got=f"a stream {name} without a length",
        expected="data that end",
        fix="pass what you need of it: list(itertools.islice(stream, 10_000))",
    )


def _empty(name: str) -> InvalidInput:
    return InvalidInput(
        "data",
        got=f"{name}, without data",
        expected="at least one datum",
        fix="check what it reads",
    )


def check_two(data: Sequence[object]) -> None:
    if len(data) not in (1, 2):
        raise InvalidInput(
            "data",
            got=f"{len(data)} arrays",
            expected="x, or a tuple (x, context)",
            fix="join what belongs to the context: (x, torch.column_stack([y, w]))",
        )
