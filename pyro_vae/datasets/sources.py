"""What readers of files and objects return: parts of a data set, and what is known about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.known import Given, Known, known_names, names_in
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.validation import MOST, InvalidInput, nearest_name, short

__all__ = [
    "Binarize",
    "Part",
    "Parts",
    "Reading",
    "Source",
    "Texts",
    "RESIZED",
    "by_split",
    "check_reading",
    "contexts_of",
    "parts_of",
    "say",
    "split_of",
]

Binarize = Literal["none", "dynamic", "fixed"]

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

LOG = logging.getLogger("pyro_vae.datasets")


class Part(NamedTuple):
    """A part of a data set as read: values, and a context if there is one."""

    x: np.ndarray | Tensor | Mapping[str, object]  # by site, where there are several
    y: Given | None = None


Parts = dict[str, Part]  # by split
Texts = dict[str, list[list[str]]]  # by split, the words of each sentence


@dataclass(frozen=True)
class Reading:
    """What a user says about data that are to be read.

    Args:
        key: the name of the array, layer or column that is x, where there are several; names
            separated by commas are several observed sites.
        resize: height and width that images are resized to.
        target: the column with the labels.
        context: the columns that are the context.
        known: the columns, or the arrays, that hold known quantities, by the quantities' names.
        columns: a kind or a likelihood for columns, by name.
        like: the columns of x that the table must have, with their numbers for categories.
        context_like: the columns of the context likewise.
        vocabulary: the words whose numbers a text is given.
    """

    key: str | None = None
    resize: Sequence[int] | None = None
    target: str | None = None
    context: Sequence[str] = ()
    known: Known = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    like: Columns | None = None
    context_like: Columns | None = None
    vocabulary: Vocabulary | None = None

    @classmethod
    def of(
        cls,
        key: str | Sequence[str] | None,
        resize: Sequence[int] | None,
        target: str | None,
        context: str | Sequence[str],
        known: Mapping[str, str | Sequence[str]] | None,
        columns: Mapping[str, str] | None,
        like: Columns | None,
        context_like: Columns | None,
    ) -> Reading:
        """The same, where a context may be the name of one column and a key a list of names."""
        key = key if key is None or isinstance(key, str) else ",".join(key)
        given = (context,) if isinstance(context, str) else tuple(context)
        return cls(
            key, resize, target, given, known_names(known), columns or {}, like, context_like
        )

    @property
    def keys(self) -> list[str]:
        """The names in the key."""
        return [name.strip() for name in (self.key or "").split(",") if name.strip()]

    @property
    def known_columns(self) -> list[str]:
        """The columns, or the arrays, that hold known quantities."""
        return names_in(self.known)

    @property
    def given(self) -> list[str]:
        """The columns that are given with x: the labels, or the context.

        Raises:
            InvalidInput: if both are named, and a data set has but one context.
        """
        if self.target is None or list(self.context) in ([], [self.target]):
            return list(self.context) if self.target is None else [self.target]
        names = list(dict.fromkeys([self.target, *self.context]))
        raise InvalidInput(
            "context",
            got=f"{', '.join(self.context)}, and {self.target} as the target",
            expected="either columns of the context or one of labels",
            fix=f"name them all as the context, {names} (--context {','.join(names)}), without a "
            "target",
        )


@dataclass(frozen=True)
class Source:
    """The parts of a data set as read, before any binarisation.

    Args:
        name: the data set's name.
        parts: what was read, by split.
        binarize: the policy, unless the user asks for another one.
        vocabulary: of text.
        scale: what x is to be divided by, such as 255 for images of 8 bits; by default what its
            kind says.
        missing: whether the source marks missing entries, which are NaN in x.
        columns: of a table, the columns of x.
        context_columns: of a table, the columns of the context.
        known: the columns, or the arrays, that hold the known quantities in the contexts.
        notes: what was skipped, rescaled or dropped, a sentence each.
    """

    name: str
    parts: Parts
    binarize: Binarize = "none"
    vocabulary: Vocabulary | None = None
    scale: float | None = None
    missing: bool = False
    columns: Columns | None = None
    context_columns: Columns | None = None
    known: Known = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def say(name: str, notes: Sequence[str]) -> None:
    """Log what a reader changed, a line each, under ``pyro_vae.datasets``."""
    for note in notes:
        LOG.warning("%s", short(f"{name}: {note}", MOST))


def split_of(name: str) -> str | None:
    """The split that a folder or a part is named after.

    Example:
        >>> split_of("Val"), split_of("cats")
        ('validation', None)
    """
    return next((split for split, names in SPLITS.items() if name.lower() in names), None)


def parts_of(
    lengths: Sequence[int], splits: Sequence[str], x: np.ndarray, y: Given | None
) -> Parts:
    """The rows of each split, of values and contexts of all."""
    values = np.split(x, np.cumsum(lengths)[:-1])
    return {s: Part(*both) for s, both in zip(splits, zip(values, contexts_of(lengths, y)))}


def contexts_of(lengths: Sequence[int], y: Given | None) -> list[Given | None]:
    """The context of each split, of one of all rows."""
    ends = np.cumsum(lengths)[:-1]
    if isinstance(y, Mapping):
        parts = {name: np.split(value, ends) for name, value in y.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(lengths))]
    return [None] * len(lengths) if y is None else [*np.split(y, ends)]


def by_split(names: Sequence[str], where: str) -> dict[str, str]:
    """Splits and the names that stand for them; empty unless a name stands for training data.

    Raises:
        InvalidInput: if two names stand for one split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split is not None and split in found:
            raise InvalidInput(
                "data",
                got=f"{where} with both {found[split]} and {name}",
                expected=f"one part for {split}",
                fix="merge or rename them",
            )
        if split is not None:
            found[split] = name
    return found if "train" in found else {}


RESIZED = "images are resized to"


def check_reading(source: Source, reading: Reading) -> None:
    """Raise `InvalidInput` if what was said of data is of another kind of data."""
    if reading.resize is not None and not any(RESIZED in note for note in source.notes):
        raise InvalidInput(
            "resize",
            got=f"{list(reading.resize)} for {source.name}, which is no folder of images",
            expected="a folder of images, each of which is resized as it is read",
            fix="leave it out, or resize the images before",
        )
    if reading.vocabulary is not None and source.vocabulary is None:
        raise InvalidInput(
            "data",
            got=f"{source.name}, which is no text",
            expected="a text, to be read in the words of a vocabulary",
            fix="pass a .txt with a sentence on each line",
        )
    if reading.known and not source.known:
        quantity, names = next(iter(reading.known.items()))
        raise InvalidInput(
            f"known {quantity}",
            got=f"{names[0]!r} for {source.name}, whose data have no columns",
            expected="a table, or a file of named arrays",
            fix="leave it out, or in Python pass a pair (x, {" + repr(quantity) + ": values})",
        )
    named = [*filter(None, [reading.target]), *reading.context, *reading.columns]
    if named and source.columns is None and source.context_columns is None:
        raise InvalidInput(
            "context" if reading.context else "target" if reading.target else "columns",
            got=f"{named[0]!r} for {source.name}, whose data have no columns",
            expected="labels or covariates" if reading.context else "a table",
            fix=nearest_name(named[0], ["labels", "covariates"])
            if reading.context
            else "leave it out",
        )
