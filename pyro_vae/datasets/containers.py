"""Python objects as data: the one place where a container of any library becomes parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from pyro_vae.datasets.annotated import read_annotated
from pyro_vae.datasets.arrays import package_of
from pyro_vae.datasets.frames import as_frame, is_frame
from pyro_vae.datasets.hub import read_hub
from pyro_vae.datasets.sources import Part, Reading, Source, by_split
from pyro_vae.datasets.tables import read_frames
from pyro_vae.validation import InvalidInput

__all__ = ["read_object"]

NAMES = {"x", "y", "context"}  # of an item that is a dictionary

TORCH = torch.utils.data


@runtime_checkable
class Sized(Protocol):
    def __len__(self) -> int: ...


@runtime_checkable
class Indexed(Protocol):
    def __getitem__(self, index: int, /) -> object: ...


def read_object(data: object, reading: Reading = Reading()) -> Source:
    """Any container of data as a source, with x and, where there is one, a context.

    A pair (x, context) is a tuple. A dictionary by split, ``{"train": ..., "test": ...}``, has
    parts of any kind.

    Raises:
        InvalidInput: for what holds no data, a stream without a length, or more than x and context
            for each datum.

    Example:
        >>> read_object((np.zeros((5, 2)), ["a", "b", "a", "a", "b"])).parts["train"].x.shape
        (5, 2)
    """
    library = package_of(data, LIBRARIES)
    if library is not None:
        return LIBRARIES[library](data, reading)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return read_frames({"train": as_frame(data)}, reading, "table")
    if isinstance(data, Mapping):
        return _from_mapping(data, reading)
    if isinstance(data, TORCH.DataLoader):
        with torch.random.fork_rng(devices=[]):  # it draws a seed, which is not the caller's
            return _from_loader(data)
    if isinstance(data, TORCH.IterableDataset):
        return _of_items(_bounded(data, type(data).__name__), type(data).__name__)
    if isinstance(data, TORCH.Dataset):
        return _from_dataset(data)
    if isinstance(data, tuple) and data and package_of(data[0], FRAMES) and is_frame(data[0]):
        table = read_frames({"train": as_frame(data[0])}, reading, "table")
        return replace(table, parts={"train": _pair((table.parts["train"].x, *data[1:]))})
    if isinstance(data, tuple):
        return Source("data", {"train": _pair(data)})
    if isinstance(data, list) and len(data) == 2 and all(_is_array(each) for each in data):
        if len(data[0]) == len(data[1]) and data[0].ndim > data[1].ndim == 1:
            return Source("data", {"train": _pair(tuple(data))})
        raise InvalidInput(
            "data",
            got="a list of two arrays",
            expected="x, or a tuple (x, context)",
            fix="pass (x, context) for data with a context, torch.cat(xs) for two pieces of one "
            "data set, or torch.stack(xs) for two data",
        )
    if isinstance(data, Iterator):
        raise _endless(type(data).__name__)
    if isinstance(data, str | Path):
        raise InvalidInput(
            "data",
            got=repr(str(data)),
            expected="data, not their name or path",
            fix=f"read them first: train, test = pv.datasets.load({str(data)!r})",
        )
    return Source("data", {"train": Part(data)})  # type: ignore[arg-type]


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def _pair(data: tuple[object, ...]) -> Part:
    if len(data) not in (1, 2):
        raise InvalidInput(
            "data",
            got=f"{len(data)} arrays",
            expected="x, or a tuple (x, context)",
            fix="join what belongs to the context: (x, torch.column_stack([y, w]))",
        )
    x, y = (*data, None)[:2]
    return Part(x, y)  # type: ignore[arg-type]


def _from_mapping(data: Mapping[object, object], reading: Reading) -> Source:
    """Parts by split, arrays named x and y, columns or observed sites by name."""
    names = [str(name) for name in data]
    splits = by_split(names, "a dictionary")
    if splits and len(splits) == len(names):
        values = {split: data[name] for split, name in splits.items()}
        if all(package_of(value, FRAMES) and is_frame(value) for value in values.values()):
            frames = {split: as_frame(value) for split, value in values.items()}
            return read_frames(frames, reading, "table")
        read = {split: read_object(value, reading) for split, value in values.items()}
        first = read["train"]
        parts = {split: source.parts["train"] for split, source in read.items()}
        notes = tuple(dict.fromkeys(note for source in read.values() for note in source.notes))
        return Source(
            first.name, parts, scale=first.scale, columns=first.columns, notes=notes,
            missing=any(source.missing for source in read.values()),
        )  # fmt: skip
    if "x" in names and set(names) <= NAMES:
        return Source("data", {"train": _pair_of_names(data)})
    if all(isinstance(value, Sequence) and not isinstance(value, str) for value in data.values()):
        return read_frames({"train": as_frame(dict(data))}, reading, "table")
    if all(isinstance(value, Tensor | np.ndarray | TORCH.Dataset) for value in data.values()):
        return Source("data", {"train": Part(data)})  # type: ignore[arg-type]
    raise InvalidInput(
        "data",
        got=f"a dictionary with {', '.join(names[:5]) or 'nothing'}",
        expected="x and y, train and test, or a list for each column of a table",
        fix="pass a pair (x, context) or a table: pandas.DataFrame(columns)",
    )


def _pair_of_names(item: Mapping[object, object]) -> Part:
    return Part(item["x"], item.get("y", item.get("context")))  # type: ignore[arg-type]


def _from_dataset(data: TORCH.Dataset[object]) -> Source:
    """A torch data set, each of its data read once."""
    name = type(data).__name__
    if isinstance(data, TORCH.TensorDataset):
        return Source(name, {"train": _pair(data.tensors)})
    if not isinstance(data, Sized) or not isinstance(data, Indexed):
        raise _endless(name)
    indexed: Indexed = data
    return _of_items((indexed[i] for i in range(len(data))), name)


def _from_loader(loader: TORCH.DataLoader[object]) -> Source:
    """The data of a loader's batches."""
    name = type(loader.dataset).__name__
    notes = []
    if isinstance(loader.dataset, TORCH.IterableDataset):
        batches = _bounded(loader, name)
    else:
        batches = iter(loader)
        count = len(loader.dataset) if isinstance(loader.dataset, Sized) else 0
        size = loader.batch_size or 1
        if loader.drop_last and count % size:
            notes.append(f"the loader's drop_last leaves {count % size} of {count} data out")
        if not _visits_all(loader):
            notes.append(
                f"the loader's {type(loader.sampler).__name__} chooses which data are read"
            )
    parts = [_item(batch, name) for batch in batches]
    if not parts:
        raise _empty(name)
    x = torch.cat([torch.as_tensor(part.x) for part in parts])
    y = None if parts[0].y is None else _joined([part.y for part in parts])
    return Source(name, {"train": Part(x, y)}, notes=tuple(notes))


def _joined(parts: Sequence[object]) -> Tensor | np.ndarray:
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return np.concatenate([np.asarray(part) for part in parts])


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
        raise _endless(name) from None
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


def _of_items(items: Iterator[object], name: str) -> Source:
    """Data given one by one, each x or a pair (x, context)."""
    parts = [_item(item, name) for item in items]
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
    x = [part.x for part in parts]
    y = [_scalar(part.y) for part in parts] if has_context == {True} else None
    return Source(name, {"train": Part(x, y)})  # type: ignore[arg-type]


def _scalar(value: object) -> object:
    """A label that is a tensor without dimensions as a number."""
    return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value


def _item(item: object, name: str) -> Part:
    """One datum, or a batch of them, as x and its context."""
    if isinstance(item, Mapping):
        if "x" in item and set(item) <= NAMES:
            return _pair_of_names(item)
        raise InvalidInput(
            "data",
            got=f"{name}, whose data are dictionaries with {', '.join(map(str, item))}",
            expected="x, or x and y",
            fix="name them so, or pass a pair: ([d['image'] for d in data], "
            "[d['label'] for d in data])",
        )
    if isinstance(item, tuple | list) and not all(isinstance(v, int | float) for v in item):
        return _pair(tuple(item))
    if isinstance(item, tuple):  # a pair of numbers
        return _pair(item)
    return Part(item)  # type: ignore[arg-type]


def _endless(name: str) -> InvalidInput:
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


# by library, none of which is imported here


def _from_frame(data: object, reading: Reading) -> Source:
    if not is_frame(data):
        return Source("data", {"train": Part(data)})  # type: ignore[arg-type]
    return read_frames({"train": as_frame(data)}, reading, "table")


FRAMES = ("pandas", "polars", "pyarrow")

LIBRARIES: dict[str, Callable[[object, Reading], Source]] = {
    **dict.fromkeys(FRAMES, _from_frame),
    "anndata": read_annotated,
    "datasets": read_hub,
}
