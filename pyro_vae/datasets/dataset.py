r"""Data sets: tensors in memory with a name, an explicit binarisation policy and a SHA-256.

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
from typing import Literal

import numpy as np
import torch.utils.data
from torch import Tensor

from pyro_vae.contracts import EventShape, Tensors
from pyro_vae.datasets.arrays import as_tensor, as_tensors, only_tensor, sha256_of
from pyro_vae.datasets.binarize import batch_keys, grey_levels, uniform
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.validation import (
    InvalidInput,
    check_choice,
    check_count,
    check_finite,
    count_of,
    map_tensors,
    rows_of,
    tensors_of,
)

__all__ = ["BINARIZE", "BINARIZE_SEED", "Binarize", "Data", "Dataset", "as_dataset", "as_tensor"]

Binarize = Literal["none", "dynamic", "fixed"]

BINARIZE = ("none", "dynamic", "fixed")
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
        values: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray | Dataset],
        context: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray] | None = None,
        *,
        name: str = "data",
        split: str = "train",
        binarize: Binarize = "none",
        seed: int = BINARIZE_SEED,
        missing: bool = False,
        vocabulary: Vocabulary | None = None,
    ):
        check_choice("binarize", binarize, BINARIZE)
        self.name, self.split, self.vocabulary = name, split, vocabulary
        self.binarize, self.seed, self.missing = binarize, seed, missing
        self.published_validation: Dataset | None = None
        self._levels: Tensor | None = None
        self.parts: dict[str, Dataset] = {}
        self.context = None if context is None else as_tensors("y", context)
        if isinstance(values, Mapping):
            self.parts = _parts_of(values, binarize, seed, missing)
            self.missing = any(part.missing for part in self.parts.values())
            self.values: Tensors = {key: part.kept for key, part in self.parts.items()}
        else:
            self.values = self._checked(as_tensor("x", values))
        for name, part in tensors_of(self.context).items():
            if len(part) != len(self):
                raise InvalidInput(
                    "y" + f"[{name!r}]" * bool(name),
                    got=f"{len(part)} labels",
                    expected=f"{len(self)}, one for each datum",
                    fix="align y with x",
                )

    def _checked(self, values: Tensor) -> Tensor:
        """The values of a single tensor, as they are kept."""
        if not values.is_floating_point():
            values = values.float()
        if values.dim() == 0:
            raise InvalidInput(
                "x", got="a single number", expected="data (N, *event)", fix="stack the data"
            )
        if self.missing:  # one of the many NaNs, so that equal data have equal bytes
            values = torch.where(torch.isnan(values), torch.nan, values)
        if self.binarize != "none":
            check_finite("x", values, self.missing)
            seen = values[~torch.isnan(values)]
            low, high = (seen.min().item(), seen.max().item()) if len(seen) else (0.0, 1.0)
            if low < 0 or high > 1:
                raise InvalidInput(
                    "x",
                    got=f"values from {low:.4g} to {high:.4g} to binarise",
                    expected="grey values in [0, 1]",
                    fix="rescale x, or pass binarize='none'",
                )
        return self._fixed_draw(values) if self.binarize == "fixed" else values

    def _fixed_draw(self, values: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(values.shape, generator=generator, dtype=torch.float32)
        return self._binarized(values, drawn.to(values.device))

    @cached_property
    def x(self) -> Tensors:
        r"""The data that are scored (N, \*event): the values, or their fixed draw."""
        if not isinstance(self.values, Tensor):
            return {name: part.tensor for name, part in self.parts.items()}
        return self._fixed_draw(self.values) if self.binarize == "dynamic" else self.values

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
        return tuple(self.kept.shape[1:])

    @property
    def device(self) -> torch.device:
        """The device of the data."""
        return next(iter(tensors_of(self.values).values())).device

    def batch(self, index: Tensor, keys: Tensor | None = None) -> tuple[Tensors, Tensors | None]:
        """A training batch (x, context) of the data at ``index``.

        Args:
            index: places of the data.
            keys: keys of the draw of dynamic binarisation, see `batch_keys`; by default new ones.
        """
        if keys is None:
            keys = batch_keys(1, self.device)[0]
        x = self._batch(index, keys)
        return x, map_tensors(lambda value: value.index_select(0, index), self.context)

    def _batch(self, index: Tensor, keys: Tensor) -> Tensors:
        if not isinstance(self.values, dict):
            return self._batch_of(self.values, index, keys)
        # Other keys for each part, or two parts would share their random numbers.
        return {
            name: part._batch_of(part.kept, index, keys + place)
            for place, (name, part) in enumerate(self.parts.items())
        }

    def _batch_of(self, values: Tensor, index: Tensor, keys: Tensor) -> Tensor:
        if self._levels is None:
            x = values.index_select(0, index)
        else:
            x = (self._levels.index_select(0, index).float() / 255).to(values.dtype)
        if self.binarize == "dynamic":
            x = self._binarized(x, uniform(x.shape, keys).to(x.dtype))
        return x

    def _binarized(self, values: Tensor, uniform: Tensor) -> Tensor:
        """Draw 1 with the value as its probability, else 0; missing values stay missing."""
        drawn = (uniform < values).to(values.dtype)
        return torch.where(torch.isnan(values), values, drawn) if self.missing else drawn

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the data that are scored: of x, the context and a text's words."""
        sources = (self, *self.parts.values())
        words = [source.vocabulary.words for source in sources if source.vocabulary is not None]
        return sha256_of(self.x, self.context, words)

    @property
    def text(self) -> list[str] | None:
        """The sentences that x spells; ``None`` if x is not a text."""
        return None if self.vocabulary is None else self.vocabulary.decode(self.tensor)

    @property
    def event_shape(self) -> EventShape:
        """The shape of one datum, or of each of its parts."""
        if isinstance(self.values, dict):
            return {name: tuple(value.shape[1:]) for name, value in self.values.items()}
        return self.datum_shape

    @property
    def num_classes(self) -> int | None:
        """The number of classes, the largest label + 1; ``None`` if the context has no labels."""
        labels = self.labels
        return None if labels is None else int(labels.max()) + 1

    @property
    def labels(self) -> Tensor | None:
        """The context if it is one label (N,) for each datum, else ``None``."""
        context = self.context
        if not isinstance(context, Tensor) or context.is_floating_point() or context.dim() != 1:
            return None
        return context

    def __len__(self) -> int:
        return count_of(self.values)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            x, context = (map_tensors(lambda v: v[index], part) for part in (self.x, self.context))
            return x if context is None else (x, context)
        parts = {name: part[index] for name, part in self.parts.items()}
        values = rows_of(self.values, index) if not parts else None
        x = rows_of(self.x, index) if self.x is not self.values else values
        return self._like(values, x, rows_of(self.context, index), parts)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """The same data on another device, with floating-point tensors in another dtype."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)

        parts = {name: part.to(device, dtype) for name, part in self.parts.items()}
        values = map_tensors(move, self.values) if not parts else None
        x = map_tensors(move, self.x) if self.x is not self.values else values
        moved = self._like(values, x, map_tensors(move, self.context), parts)
        if self.binarize == "dynamic" and isinstance(moved.values, Tensor):
            moved._levels = grey_levels(moved.values)
        return moved

    def with_context(self, context: Tensors | None) -> Dataset:
        """The same data with another context."""
        return self._like(None if self.parts else self.values, self.x, context, self.parts)

    def hold_out(self, size: int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split into training data and ``size`` validation data, at random by ``seed``.

        If the data set was published with validation data, they are chosen from those, and all of
        this data set is left to train on.

        Raises:
            InvalidInput: if there are too few.
        """
        source = self.published_validation or self
        most = len(source) - (source is self)  # some must be left to train on
        if not 0 < size <= most:
            raise InvalidInput(
                "validation",
                got=str(size),
                expected=f"1 to {most} data held out of {len(source)}",
                fix="hold out fewer",
            )
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
        held = source[order[:size].sort().values]
        held.split = "validation"
        return (self[order[size:].sort().values] if source is self else self), held

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

    def _like(
        self,
        values: Tensors | None,
        x: Tensors | None,
        context: Tensors | None,
        parts: dict[str, Dataset],
    ) -> Dataset:
        part = copy.copy(self)
        part.parts, part.context, part._levels = parts, context, None
        part.values = {key: one.kept for key, one in parts.items()} if values is None else values
        for cached in ("x", "sha256"):
            vars(part).pop(cached, None)
        if not parts:  # carried along: a datum's draw must not depend on the other data
            vars(part)["x"] = x
        return part


def _parts_of(
    values: Mapping[str, Tensor | np.ndarray | Dataset],
    binarize: Binarize,
    seed: int,
    missing: bool,
) -> dict[str, Dataset]:
    """The data of each observed site."""
    if binarize != "none":
        raise InvalidInput(
            "binarize",
            got=f"{binarize!r} for a dictionary of {', '.join(values)}",
            expected="a policy for each of its parts",
            fix=f"pass Dataset({{name: Dataset(x, binarize={binarize!r}), ...}})",
        )
    parts = {
        name: part if isinstance(part, Dataset) else Dataset(part, seed=seed, missing=missing)
        for name, part in values.items()
    }
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) != 1:
        raise InvalidInput(
            "x",
            got=f"parts of lengths {lengths}" if parts else "an empty dictionary",
            expected="the same number of data in each",
            fix="align them, with NaN where a datum lacks a part (missing=True)",
        )
    return parts


Data = Dataset | torch.utils.data.Dataset | Tensors | tuple[Tensors, Tensors | None]


def as_dataset(data: Data) -> Dataset:
    """Turn a `Dataset`, a torch data set, a tensor x or a pair (x, context) into a `Dataset`.

    A torch data set is read into memory once, so its random transforms are drawn once.

    Example:
        >>> as_dataset((torch.zeros(5, 2), torch.arange(5))).num_classes
        5
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, torch.utils.data.Dataset):
        return _from_torch(data)
    if isinstance(data, Tensor | np.ndarray | Mapping):
        return Dataset(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset(data[0], data[1])
    raise InvalidInput(
        "data",
        got=type(data).__name__,
        expected="a data set, a tensor x, or a pair (x, context)",
        fix="pass torch.as_tensor(x) or pv.datasets.load('mnist')",
    )


def _from_torch(data: torch.utils.data.Dataset) -> Dataset:
    # The loader draws a seed, which must not come from the caller's random state.
    loader = torch.utils.data.DataLoader(data, batch_size=1024, generator=torch.Generator())
    batches = list(loader)
    name = type(data).__name__
    if batches and not isinstance(batches[0], Tensor):
        return Dataset(*(torch.cat(parts) for parts in list(zip(*batches))[:2]), name=name)
    return Dataset(torch.cat(batches), name=name)
