"""Python objects as data: the one place where a container of any library becomes parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.utils.data
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from pyro_vae.datasets.annotated import read_annotated
from pyro_vae.datasets.arrays import package_of
from pyro_vae.datasets.frames import FRAMES, as_frame, is_frame
from pyro_vae.datasets.hub import read_hub
from pyro_vae.datasets.sources import Part, Reading, Source, by_split
from pyro_vae.datasets.tables import read_frames
from pyro_vae.datasets.torch_sets import NAMES, check_two, endless, from_torch, of_items
from pyro_vae.validation import InvalidInput

__all__ = ["read_object"]

TORCH = torch.utils.data


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
    if package_of(data, ("scipy",)):  # one of its kinds is a dictionary
        return _plain(data)
    if isinstance(data, Mapping):
        return _from_mapping(data, reading)
    torch_set = from_torch(data)
    if torch_set is not None:
        return torch_set
    if isinstance(data, tuple) and not isinstance(data, PackedSequence):
        return _pair(data, reading)
    if isinstance(data, list):
        return _from_list(data, reading)
    if isinstance(data, Iterator):
        raise endless(type(data).__name__)
    if isinstance(data, str | Path):
        raise InvalidInput(
            "data",
            got=repr(str(data)),
            expected="data, not their name or path",
            fix=f"read them first: train, test = pv.datasets.load({str(data)!r})",
        )
    return _plain(data)


def _plain(x: object, y: object = None) -> Source:
    return Source("data", {"train": Part(x, y)})  # type: ignore[arg-type]


def _from_list(data: list[object], reading: Reading) -> Source:
    """A list of data, of pairs (x, context) or of a table's rows."""
    if len(data) == 2 and all(_is_array(each) for each in data):
        first, second = (np.ndim(each) for each in data)  # type: ignore[arg-type]
        if len(data[0]) == len(data[1]) and first > second == 1:  # type: ignore[arg-type]
            return _plain(*data)
        raise InvalidInput(
            "data",
            got="a list of two arrays",
            expected="x, or a tuple (x, context)",
            fix="pass (x, context) for data with a context, torch.cat(xs) for two pieces of one "
            "data set, or torch.stack(xs) for two data",
        )
    if data and all(isinstance(each, TORCH.Dataset) for each in data):
        raise InvalidInput(
            "data",
            got=f"a list of {len(data)} data sets",
            expected="one, or a dictionary by split",
            fix="pass one of them, or {'train': sets[0], 'test': sets[1]}",
        )
    if data and all(isinstance(each, Mapping) for each in data):
        names = {str(name) for each in data if isinstance(each, Mapping) for name in each}
        if not (names <= NAMES and "x" in names):
            return read_frames({"train": as_frame(data)}, reading, "table")
        return of_items(iter(data), "a list")
    if data and all(_is_pair(each) for each in data):
        return of_items(iter(data), "a list")
    return _plain(data)


def _is_pair(item: object) -> bool:
    """Whether a list's entry is a datum with its context, not two numbers or two arrays alike."""
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    return (_is_array(item[0]) or package_of(item[0], ("PIL",)) is not None) and np.shape(
        item[0]
    ) != np.shape(item[1])


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray) and value.ndim > 0


def _pair(data: Sequence[object], reading: Reading) -> Source:
    """x of any kind, and its context."""
    check_two(data)
    x, y = (*data, None)[:2]
    if not isinstance(x, Mapping | TORCH.Dataset) and package_of(x, LIBRARIES) is None:
        return _plain(x, y)
    if isinstance(x, Mapping) and not _is_table(x):  # several observed sites
        return _plain(x, y)
    source = read_object(x, reading)
    if y is None:
        return source
    if len(source.parts) > 1 or source.parts["train"].y is not None:
        raise InvalidInput(
            "data",
            got=f"a pair whose x, {type(x).__name__}, has a context or parts of its own",
            expected="x alone, and its context",
            fix="pass x without a context",
        )
    return replace(source, parts={"train": Part(source.parts["train"].x, y)})  # type: ignore[arg-type]


def _is_table(data: Mapping[object, object]) -> bool:
    """Whether a dictionary holds a table's columns: lists or series."""
    return bool(data) and all(
        (isinstance(value, Sequence) and not isinstance(value, str))
        or (package_of(value, FRAMES) is not None and not is_frame(value))
        for value in data.values()
    )


def _from_mapping(data: Mapping[object, object], reading: Reading) -> Source:
    """Parts by split, arrays named x and y, columns or observed sites by name."""
    names = [str(name) for name in data]
    splits = by_split(names, "a dictionary")
    if splits and len(splits) == len(names):
        return _of_splits({split: data[name] for split, name in splits.items()}, reading)
    if splits and {"train", "test"} <= set(splits):
        others = [name for name in names if name not in splits.values()]
        raise InvalidInput(
            "data",
            got=f"a dictionary with {', '.join(names[:5])}",
            expected="train, test and validation",
            fix=f"leave out {', '.join(others[:5])}",
        )
    if "x" in names and set(names) <= NAMES:
        if len(names) == 3:
            raise InvalidInput(
                "data",
                got="a dictionary with both y and context",
                expected="one of them",
                fix="pass (x, {'y': y, 'context': context}) for both",
            )
        return _pair([data["x"], data.get("y", data.get("context"))], reading)
    if _is_table(data):
        return read_frames({"train": as_frame(dict(data))}, reading, "table")
    if data and all(_is_array(value) or isinstance(value, TORCH.Dataset) or
                    package_of(value, ("scipy",)) for value in data.values()):  # fmt: skip
        return _plain(data)
    raise InvalidInput(
        "data",
        got=f"a dictionary with {', '.join(name[:40] for name in names[:5]) or 'nothing'}",
        expected="x and y, train and test, or a list for each column of a table",
        fix="pass a pair (x, context) or a table: pandas.DataFrame(columns)",
    )


def _of_splits(values: Mapping[str, object], reading: Reading) -> Source:
    """Data by split, each of any kind: tables and cells are matched by their columns' names."""
    library = next(iter({package_of(value, LIBRARIES) for value in values.values()}))
    one_library = all(package_of(value, LIBRARIES) == library for value in values.values())
    if one_library and library == "anndata":
        return read_annotated(values, reading)
    if one_library and library == "datasets":
        return read_hub(values, reading)
    if all(package_of(value, FRAMES) and is_frame(value) for value in values.values()):
        return read_frames({s: as_frame(value) for s, value in values.items()}, reading, "table")
    read = {split: read_object(value, reading) for split, value in values.items()}
    first = read["train"]
    for split, source in read.items():
        known = [
            None if part is None else part.to_json() for part in (source.columns, first.columns)
        ]
        if known[0] != known[1]:
            raise InvalidInput(
                "data",
                got=f"tables of other columns in {split} than in train",
                expected="tables of the same columns and categories",
                fix="pass tables alone, {'train': frame, 'test': frame}, and name the context: "
                "target='species'",
            )
    return replace(
        first,
        parts={split: source.parts["train"] for split, source in read.items()},
        notes=tuple(dict.fromkeys(note for source in read.values() for note in source.notes)),
        missing=any(source.missing for source in read.values()),
    )


# by library, none of which is imported here


def _from_frame(data: object, reading: Reading) -> Source:
    if not is_frame(data):
        return Source("data", {"train": Part(data)})  # type: ignore[arg-type]
    return read_frames({"train": as_frame(data)}, reading, "table")


def _from_cells(data: object, reading: Reading) -> Source:
    return read_annotated({"train": data}, reading)


LIBRARIES: dict[str, Callable[[object, Reading], Source]] = {
    **dict.fromkeys(FRAMES, _from_frame),
    "anndata": _from_cells,
    "datasets": read_hub,
}
