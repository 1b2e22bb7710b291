r"""Data sets: tensors with a name, an explicit binarisation policy and a SHA-256.

A Bernoulli has no density on grey pixels, so the binarisation policy is part of the data and of
every number reported about them:

- ``"none"``: values stay as they are.
- ``"fixed"``: each grey value v in [0, 1] becomes 1 with probability v, once, from a seed.
- ``"dynamic"``: v is drawn anew at each visit in training; scores use the draw of ``"fixed"``, so
  that a test set is the same for everyone.

A NaN is an error unless ``missing=True`` says that it marks a missing entry.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch.utils.data
from torch import Tensor

from pyro_vae.contracts import EventShape, Tensors
from pyro_vae.datasets.arrays import package_of
from pyro_vae.datasets.binarize import FixedDraw, batch_keys, binarized, grey_levels, uniform
from pyro_vae.datasets.columns import Columns, known_columns
from pyro_vae.datasets.facts import Facts, facts_of
from pyro_vae.datasets.form import Form, decoded, drawn_in_blocks, drawn_on_disk, is_large, keep
from pyro_vae.datasets.forms import (
    check_held_out,
    check_lengths,
    check_one_each,
    check_set_by_part,
    only_tensor,
    sha256_of,
    shuffled,
)
from pyro_vae.datasets.known import Known, labels_in
from pyro_vae.datasets.labels import read_labels
from pyro_vae.datasets.on_disk import OnDisk, chosen
from pyro_vae.datasets.shown import data_html, data_words
from pyro_vae.datasets.sources import Binarize
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.datasets.units import in_new_units
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    check_count,
    count_of,
    map_tensors,
    rows_of,
    tensors_of,
)

if TYPE_CHECKING:
    import pandas

__all__ = ["BINARIZE", "BINARIZE_SEED", "Dataset"]

BINARIZE = get_args(Binarize)
BINARIZE_SEED = 777


class Dataset(torch.utils.data.Dataset):
    r"""Data in memory, to be scored (``x``) and to be trained on (``batch``).

    Slices, index tensors and masks give a `Dataset`; an integer gives one datum, ``x`` or ``(x,
    context)``.

    Args:
        values: data (N, \*event), made floating point; grey values in [0, 1] if they are
            binarised. For several observed sites, a dictionary of data by the sites' names; an
            entry may be a `Dataset` with a binarisation or a vocabulary of its own.
        context: labels (N,) or covariates (N, C), or a dictionary of such by name, or ``None``.
        name: its name in results.
        split: ``"train"``, ``"test"`` or another part's name.
        binarize: the policy: ``"none"``, ``"fixed"`` or ``"dynamic"``, see the module.
        seed: seed of the fixed draw.
        missing: whether NaN marks a missing entry.
        vocabulary: of text, the words whose numbers x holds.
        scale: what values are divided by, such as 255 for bytes; known noise and bounds too.
        channels: ``"last"`` moves the channels of images (N, H, W, C) first; ``"first"`` says that
            they are there.
        columns: of a table, the columns of x, see `pyro_vae.datasets.Columns`.
        context_columns: of a table, the columns of the context; of labels, their names.

    Raises:
        InvalidInput: if values to be binarised lie outside [0, 1], or the context has another
            length.

    Example:
        >>> data = Dataset(torch.rand(100, 1, 8, 8), torch.arange(100) % 10, binarize="dynamic")
        >>> len(data[:20]), data[:20].x.unique().tolist(), len(data.sha256)
        (20, [0.0, 1.0], 64)
    """

    def __init__(
        self,
        values: object,
        context: object = None,
        *,
        name: str = "data",
        split: str = "train",
        binarize: Binarize = "none",
        seed: int = BINARIZE_SEED,
        missing: bool = False,
        vocabulary: Vocabulary | None = None,
        scale: float | None = None,
        channels: Literal["first", "last"] | None = None,
        columns: Columns | None = None,
        context_columns: Columns | None = None,
    ):
        check_choice("binarize", binarize, BINARIZE)
        self.name, self.split, self.vocabulary = name, split, vocabulary
        self.binarize, self.seed, self.missing = binarize, seed, missing
        self.columns, self.context_columns = columns, context_columns
        self.notes: tuple[str, ...] = ()
        self.known: Known = {}  # the columns, or arrays, that hold known quantities of the context
        self.published_validation: Dataset | None = None
        self.as_read: dict[str, Tensor] = {}  # what was standardised, "x" and "context"
        self.in_old_units: tuple[str, ...] = ()  # entries of the context beside a rescaled x
        self._draw, self._dtype = FixedDraw(seed), torch.float32  # the type of values kept as bytes
        self.parts: dict[str, Dataset] = {}
        self.context: Tensors | None = None
        if isinstance(values, Mapping) and package_of(values, ("scipy",)) is None:  # no matrix
            check_set_by_part(values, binarize=binarize, scale=scale, channels=channels)
            self.parts = _parts_of(values, seed, missing)
            self.missing = any(part.missing for part in self.parts.values())
            self.notes = tuple(note for part in self.parts.values() for note in part.notes)
            self._stored: Tensors = {}
        else:
            form = Form(binarize, self._draw, missing, 1.0, channels)
            kept = keep(values, form, scale)
            self._stored, self.missing, self.notes = kept.values, kept.missing, kept.notes
        if context is not None:
            labels = read_labels([context])
            self.context, self.in_old_units = in_new_units(labels.values[0], 0.0, scale or 1.0)
            self.context_columns = context_columns or labels.columns
            self.notes = (*self.notes, *labels.notes)
        check_one_each(self.context, len(self))

    @property
    def values(self) -> Tensors:
        r"""The data (N, \*event) before they are drawn."""
        if self.parts:
            return {name: part.kept for name, part in self.parts.items()}
        return map_tensors(self._decoded, self._stored)

    def _decoded(self, stored: Tensor) -> Tensor:
        """Numbers of what is kept, which may be grey levels as bytes."""
        return decoded(stored, self._dtype)

    @cached_property
    def x(self) -> Tensors:
        r"""The data that are scored (N, \*event): the values, or their fixed draw."""
        if self.parts:
            return {name: part.tensor for name, part in self.parts.items()}
        stored = only_tensor(self._stored)
        if self.binarize != "dynamic":
            return stored
        if isinstance(stored, OnDisk):
            return drawn_on_disk(stored, self._draw, self.missing)
        return self._draw(
            stored, lambda few, drawn: binarized(self._decoded(few), drawn, self.missing)
        )

    @property
    def tensor(self) -> Tensor:
        r"""The data that are scored (N, \*event), of one observed site.

        Raises:
            InvalidInput: if there are several.
        """
        return only_tensor(self.x)

    @property
    def kept(self) -> Tensor:
        r"""The values (N, \*event) before they are drawn, of one observed site."""
        return only_tensor(self.values)

    @property
    def datum_shape(self) -> tuple[int, ...]:
        """The shape of one datum of a single observed site."""
        return tuple(only_tensor(self._stored).shape[1:])

    @property
    def device(self) -> torch.device:
        """The device of the data."""
        parts = list(self.parts.values())
        return parts[0].device if parts else only_tensor(self._stored).device

    def batch(
        self, index: Tensor, keys: Tensor | None = None, rows: Tensor | None = None
    ) -> tuple[Tensors, Tensors | None]:
        """A training batch (x, context) of the data at ``index``.

        Args:
            index: places of the data.
            keys: keys of the draw of dynamic binarisation, see `batch_keys`; by default new ones.
            rows: which rows of the batch to give, drawn as in the whole batch; by default all.
        """
        keys = batch_keys(1, self.device)[0] if keys is None else keys
        index = index if rows is None else index.index_select(0, rows)
        context = map_tensors(lambda value: value.index_select(0, index), self.context)
        if not self.parts:
            return self._batch_of(index, keys, rows), context
        # Other keys for each part, or two parts would share their random numbers.
        parts = enumerate(self.parts.items())
        return {n: part._batch_of(index, keys + i, rows) for i, (n, part) in parts}, context

    def _batch_of(self, index: Tensor, keys: Tensor, rows: Tensor | None) -> Tensor:
        x = self._decoded(only_tensor(self._stored).index_select(0, index))
        if self.binarize == "dynamic":
            x = binarized(x, uniform(x.shape, keys, rows).to(x.dtype), self.missing)
        return x

    @property
    def looked_at(self) -> Tensors:
        """The data that are scored, of which large ones are drawn anew at each look."""
        if self.binarize == "dynamic" and "x" not in vars(self) and is_large(self._stored):
            return drawn_in_blocks(only_tensor(self._stored), self._draw, self._dtype)
        return self.x

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the data that are scored: of x, the context and a text's words."""
        return sha256_of(*self._hashed) if self.in_one_piece else self.facts.sha256

    @property
    def in_one_piece(self) -> bool:
        """Whether x is in memory; else it is read or drawn some data at a time."""
        return not (self.is_on_disk or isinstance(self.looked_at, OnDisk))

    @property
    def _hashed(self) -> tuple[Tensors, Tensors | None, list[list[str]]]:
        sources = (self, *self.parts.values())
        words = [source.vocabulary.words for source in sources if source.vocabulary is not None]
        return self.looked_at, self.context, words

    @property
    def is_on_disk(self) -> bool:
        """Whether data stay on disk, and are read some at a time."""
        stored = (tensors_of(each._stored) for each in (self, *self.parts.values()))
        return any(isinstance(value, OnDisk) for each in stored for value in each.values())

    @cached_property
    def facts(self) -> Facts:
        """What a pass over data finds: their hash, and what their values are."""
        return facts_of(self.name, *self._hashed)

    @property
    def text(self) -> list[str] | None:
        """The sentences that x spells; ``None`` if x is not a text."""
        return None if self.vocabulary is None else self.vocabulary.decode(self.tensor)

    @property
    def event_shape(self) -> EventShape:
        """The shape of one datum, or of each of its parts."""
        if self.parts:
            return {name: part.datum_shape for name, part in self.parts.items()}
        return self.datum_shape

    @property
    def num_classes(self) -> int | None:
        """The number of classes, the largest label + 1; ``None`` if the context has no labels."""
        labels = self.labels
        return None if labels is None else int(labels.max()) + 1

    @property
    def labels(self) -> Tensor | None:
        """The context, or its entry ``context``, if it is a label (N,) for each datum."""
        return labels_in(self.context)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ..., if they have names."""
        columns = self.context_columns
        return columns[0].categories if columns is not None and self.labels is not None else ()

    __repr__, _repr_html_ = data_words, data_html

    def __len__(self) -> int:
        return len(next(iter(self.parts.values()))) if self.parts else count_of(self._stored)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            x, context = (map_tensors(lambda v: v[index], part) for part in (self.x, self.context))
            return x if context is None else (x, context)
        parts = {name: part[index] for name, part in self.parts.items()}
        stored = map_tensors(lambda value: chosen(value, index), self._stored)
        part = self._like(stored, rows_of(self.context, index), parts)
        part.as_read = {name: value[index] for name, value in self.as_read.items()}
        if self.binarize == "dynamic" and not parts and not self.is_on_disk:
            part._draw = self._draw.of(len(self), index)
            if "x" in vars(self):
                vars(part)["x"] = rows_of(self.x, index)
        return part

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """The same data on another device, with floating-point tensors in another dtype."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)

        parts = {name: part.to(device, dtype) for name, part in self.parts.items()}
        stored = map_tensors(move, self._stored)
        moved = self._like(stored, map_tensors(move, self.context), parts)
        moved._dtype, moved.as_read = dtype or self._dtype, self.as_read
        vars(moved).update({k: v for k, v in vars(self).items() if k == "facts"})  # as it was read
        is_kept = not is_large(stored) or moved._dtype != self._dtype
        if self.binarize == "dynamic" and not parts and is_kept:  # before rounding may change it
            vars(moved)["x"] = map_tensors(move, self.x)
            values = only_tensor(stored)
            is_read = values.is_floating_point() and not self.is_on_disk
            levels = grey_levels(values) if is_read else None
            if levels is not None:
                moved._stored, moved._dtype = levels, values.dtype
        return moved

    def taken(self, index: Tensor) -> Dataset:
        """Some of the data in memory, to be trained on."""
        parts = {name: part.taken(index) for name, part in self.parts.items()}
        return self._like(rows_of(self._stored, index), rows_of(self.context, index), parts)

    def frame(self, x: Tensor | None = None) -> pandas.DataFrame:
        """A pandas table of x, or of the data, in the columns' own units and with their names.

        The data are as they were read, to the last digit. Data that are no table are refused.
        """
        columns = known_columns(self.name, self.columns)
        if x is None and "x" in self.as_read:
            return columns.frame(self.as_read["x"], restored=True)
        return columns.frame(self.tensor if x is None else x)

    def with_context(self, context: Tensors | None) -> Dataset:
        """The same data with another context."""
        part = self._like(self._stored, context, self.parts)
        part.in_old_units = ()
        if "x" in vars(self):
            vars(part)["x"] = self.x
        return part

    def hold_out(self, size: int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split into training data and ``size`` validation data, at random by ``seed``.

        If the data set was published with validation data, they are chosen from those, and all of
        this data set is left to train on.

        Raises:
            InvalidInput: if there are too few, or on a seed that is none.
        """
        source = self.published_validation or self
        check_held_out(size, len(source) - (source is self), len(source))  # some stay
        order = shuffled(len(source), seed)
        held, rest = source[order[:size].sort().values], order[size:].sort().values
        held.split = "validation"
        return (self[rest] if source is self else self), held

    def repeat_labelled(self, times: int) -> Dataset:
        """The data with each labelled datum repeated ``times`` times, and label -1 kept once.

        If 100 of 60,000 images have a label, one batch of 256 in three holds any of them. Visited
        60 times an epoch, they are a tenth of every batch, and count 60 times in the epoch's
        objective.
        """
        check_count("labelled_repeats", times)
        if times == 1:
            return self
        labels = self.labels
        if labels is None:
            raise InvalidInput(
                "labelled_repeats",
                got=f"{times} with data {self.name!r}, which have no labels",
                expected="data with labels",
                fix="leave it out",
            )
        known = (labels >= 0).nonzero()[:, 0]
        once = torch.arange(len(self), device=known.device)
        return self[torch.cat([once, known.repeat(times - 1)])]

    def _like(self, stored: Tensors, context: Tensors | None, parts: dict[str, Dataset]) -> Dataset:
        """Other data with the same policy, and the same draw of each datum."""
        part = copy.copy(self)
        part._stored, part.context, part.parts, part.as_read = stored, context, parts, {}
        for cached in ("x", "sha256", "facts"):
            vars(part).pop(cached, None)
        return part


def _parts_of(values: Mapping[str, object], seed: int, missing: bool) -> dict[str, Dataset]:
    """The data of each observed site."""
    parts = {
        name: part if isinstance(part, Dataset) else Dataset(part, seed=seed, missing=missing)
        for name, part in values.items()
    }
    check_lengths({name: len(part) for name, part in parts.items()})
    return parts
