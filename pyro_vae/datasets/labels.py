"""Contexts as numbers: labels by name, flags and covariates, numbered alike in all splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from pyro_vae.contracts import Tensors
from pyro_vae.datasets.arrays import Array, package_of, read_array
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.frames import FRAMES, as_frame, is_frame
from pyro_vae.datasets.kinds import in_order
from pyro_vae.datasets.known import REST
from pyro_vae.datasets.sources import Reading
from pyro_vae.datasets.tables import covariates
from pyro_vae.validation import InvalidInput

__all__ = ["Labels", "read_labels"]

FLAGS = ("False", "True")


class Labels(NamedTuple):
    """The contexts of several splits as tensors, with the names of what they number.

    Args:
        values: the context of each split.
        columns: the names of labels, or the columns of covariates.
        notes: what was changed, a sentence each.
    """

    values: list[Tensors | None]
    columns: Columns | None = None
    notes: tuple[str, ...] = ()


@runtime_checkable
class Named(Protocol):
    """A series of pandas or polars."""

    name: object


def read_labels(given: Sequence[object], like: Columns | None = None) -> Labels:
    """Labels (N,), covariates (N, C) or several of them by name, of each split.

    Texts, categories and truth values become numbers that are the same in all splits: those of
    ``like`` where it names them. A missing label is -1.

    Raises:
        InvalidInput: if only some splits have a context, or a name is none of ``like``'s.

    Example:
        >>> labels = read_labels([["dog", "cat", None], ["dog"]])
        >>> [part.tolist() for part in labels.values], labels.columns[0].categories
        ([[1, 0, -1], [1]], ('cat', 'dog'))
    """
    if all(each is None for each in given):
        return Labels([None] * len(given))
    if any(each is None for each in given):
        raise InvalidInput(
            "y",
            got="a context of some splits and none of others",
            expected="all or none",
            fix="give each split its y (-1 for unknown labels), or none of them",
        )
    if all(isinstance(each, Mapping) for each in given):
        return _by_name([dict(each) for each in given if isinstance(each, Mapping)], like)
    if all(package_of(each, FRAMES) and is_frame(each) for each in given):
        return _of_frames(given)
    read = [read_array("y", each) for each in given]
    column = _column(given, read, like)
    values: list[Tensors | None] = [_numbered(each, column) for each in read]
    notes = tuple(dict.fromkeys(f"y: {note}" for each in read for note in each.notes))
    return Labels(values, None if column is None else Columns((column,)), notes)


def _by_name(given: Sequence[Mapping[object, object]], like: Columns | None) -> Labels:
    keys = [[str(key) for key in each] for each in given]
    if any(set(each) != set(keys[0]) for each in keys):
        raise InvalidInput(
            "y",
            got="contexts of splits with " + " and ".join(", ".join(each) for each in keys),
            expected="the same entries in all",
            fix="give each split the same",
        )
    found = {
        str(key): read_labels([each[key] for each in given], like if key == REST else None)
        for key in given[0]
    }
    values: list[Tensors | None] = [
        {key: _one(labels.values[i]) for key, labels in found.items()} for i in range(len(given))
    ]
    notes = [note for labels in found.values() for note in labels.notes]
    for key, labels in found.items():
        if labels.columns is not None and labels.columns[0].categories:
            notes.append(f"{key}: {', '.join(labels.columns[0].categories[:10])} are 0, 1, ...")
    rest = found.get(REST)
    return Labels(values, None if rest is None else rest.columns, tuple(notes))


def _one(values: Tensors | None) -> Tensor:
    assert isinstance(values, Tensor)
    return values


def _of_frames(given: Sequence[object]) -> Labels:
    """Tables, each column a covariate; a single column with categories makes labels."""
    import pandas

    frames = [as_frame(each) for each in given]
    whole = pandas.concat(frames, ignore_index=True)
    values, columns = covariates(whole, [str(name) for name in whole.columns], Reading())
    ends = np.cumsum([len(frame) for frame in frames])[:-1]
    assert values is not None
    return Labels([torch.from_numpy(part) for part in np.split(values, ends)], columns)


def _column(given: Sequence[object], read: Sequence[Array], like: Columns | None) -> Column | None:
    """The name and the categories of labels that have names."""
    names = [(str(part.name) if isinstance(part, Named) and package_of(part, FRAMES) and
              part.name is not None else "label") for part in given]  # fmt: skip
    if all(each.values.dtype == torch.bool and each.values.dim() == 1 for each in read):
        return Column(names[0], "binary", FLAGS)
    categories = [each.names for each in read if each.names]
    if not categories:
        return None
    if len(set(categories)) == 1:
        found = categories[0]
    else:
        found = tuple(in_order({name for each in categories for name in each}))
    if like is not None and len(like) == 1 and like[0].categories:
        _check_known(found, like[0])
        return like[0]
    return Column(names[0], "category", found)


def _check_known(found: Sequence[str], column: Column) -> None:
    unknown = [name for name in found if name not in column.categories]
    if unknown:
        raise InvalidInput(
            f"context {column.name}",
            got=repr(unknown[0]),
            expected=f"one of {', '.join(column.categories[:10])}, as in the training data",
            fix="correct it, or leave these data out",
        )


def _numbered(read: Array, column: Column | None) -> Tensor:
    """Labels (N,) as integers, -1 where one is missing, or covariates."""
    values = read.values
    if read.names and column is not None:
        places = [column.categories.index(name) for name in read.names]
        table = torch.tensor([*places, -1])  # the last is that of a missing label, -1
        return table[values.long()]
    if not values.is_floating_point():
        return values.long()
    if read.missing and values.dim() == 1:
        known = values[~torch.isnan(values)]
        if bool((known % 1 == 0).all()):
            return torch.nan_to_num(values, nan=-1.0).long()
    return values
