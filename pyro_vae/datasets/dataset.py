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

import hashlib
from functools import cached_property
from typing import Literal

import numpy as np
import torch.utils.data
from torch import Tensor

from pyro_vae.datasets.binarize import batch_keys, grey_levels, uniform
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_finite, rows_of

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
            binarised.
        context: labels (N,) or covariates (N, C), or ``None``.
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
        values: Tensor | np.ndarray,
        context: Tensor | np.ndarray | None = None,
        *,
        name: str = "data",
        split: str = "train",
        binarize: Binarize = "none",
        seed: int = BINARIZE_SEED,
        missing: bool = False,
        vocabulary: Vocabulary | None = None,
    ):
        check_choice("binarize", binarize, BINARIZE)
        self.values = as_tensor("x", values)
        if not self.values.is_floating_point():
            self.values = self.values.float()
        self.context = None if context is None else as_tensor("y", context)
        if self.values.dim() == 0:
            raise InvalidInput(
                "x", got="a single number", expected="data (N, *event)", fix="stack the data"
            )
        if self.context is not None and len(self.context) != len(self.values):
            raise InvalidInput(
                "y",
                got=f"{len(self.context)} labels",
                expected=f"{len(self.values)}, one for each datum",
                fix="align y with x",
            )
        self.name, self.split, self.vocabulary = name, split, vocabulary
        self.binarize, self.seed, self.missing = binarize, seed, missing
        self.published_validation: Dataset | None = None
        self._levels: Tensor | None = None
        if missing:  # one of the many NaNs, so that equal data have equal bytes
            self.values = torch.where(torch.isnan(self.values), torch.nan, self.values)
        if binarize != "none":
            check_finite("x", self.values, missing)
            seen = self.values[~torch.isnan(self.values)]
            low, high = (seen.min().item(), seen.max().item()) if len(seen) else (0.0, 1.0)
            if low < 0 or high > 1:
                raise InvalidInput(
                    "x",
                    got=f"values from {low:.4g} to {high:.4g} to binarise",
                    expected="grey values in [0, 1]",
                    fix="rescale x, or pass binarize='none'",
                )
        if binarize == "fixed":
            self.values = self._fixed_draw()

    def _fixed_draw(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(self.values.shape, generator=generator, dtype=torch.float32)
        return self._binarized(self.values, drawn.to(self.values.device))

    @cached_property
    def x(self) -> Tensor:
        r"""The data that are scored (N, \*event): the values, or their fixed draw."""
        return self._fixed_draw() if self.binarize == "dynamic" else self.values

    def batch(self, index: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """A training batch (x, context) of the data at ``index``.

        Args:
            index: places of the data.
            keys: keys of the draw of dynamic binarisation, see `batch_keys`; by default new ones.
        """
        if self._levels is None:
            x = self.values.index_select(0, index)
        else:
            x = (self._levels.index_select(0, index).float() / 255).to(self.values.dtype)
        if self.binarize == "dynamic":
            keys = batch_keys(1, x.device)[0] if keys is None else keys
            x = self._binarized(x, uniform(x.shape, keys).to(x.dtype))
        return x, None if self.context is None else self.context.index_select(0, index)

    def _binarized(self, values: Tensor, uniform: Tensor) -> Tensor:
        """Draw 1 with the value as its probability, else 0; missing values stay missing."""
        drawn = (uniform < values).to(values.dtype)
        return torch.where(torch.isnan(values), values, drawn) if self.missing else drawn

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the data that are scored: of x, the context and a text's words."""
        digest = hashlib.sha256()
        for part in (self.x, self.context):
            if part is not None:
                array = part.detach().cpu().contiguous().numpy()
                digest.update(f"{array.shape}{array.dtype}".encode())
                digest.update(array.data)
        if self.vocabulary is not None:
            digest.update("\n".join(self.vocabulary.words).encode())
        return digest.hexdigest()

    @property
    def text(self) -> list[str] | None:
        """The sentences that x spells; ``None`` if x is not a text."""
        return None if self.vocabulary is None else self.vocabulary.decode(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    @property
    def num_classes(self) -> int | None:
        """The number of classes, the largest label + 1; ``None`` if the context has no labels."""
        if self.context is None or self.context.is_floating_point() or self.context.dim() != 1:
            return None
        return int(self.context.max()) + 1

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index):
        if isinstance(index, int | np.integer):
            return self.x[index] if self.context is None else (self.x[index], self.context[index])
        values = self.values[index]
        x = values if self.x is self.values else self.x[index]
        return self._like(values, x, rows_of(self.context, index))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Dataset:
        """The same data on another device, with floating-point tensors in another dtype."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, dtype) if value.is_floating_point() else value.to(device)

        values = move(self.values)
        x = values if self.x is self.values else move(self.x)
        moved = self._like(values, x, None if self.context is None else move(self.context))
        moved._levels = grey_levels(moved.values) if self.binarize == "dynamic" else None
        return moved

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
        if self.num_classes is None or self.context is None:
            raise InvalidInput(
                "labelled_repeats",
                got=f"{times} with data {self.name!r}, which have no labels",
                expected="data with labels",
                fix="leave it out",
            )
        known = (self.context >= 0).nonzero()[:, 0]
        once = torch.arange(len(self), device=known.device)
        return self[torch.cat([once, known.repeat(times - 1)])]

    def _like(self, values: Tensor, x: Tensor, context: Tensor | None) -> Dataset:
        # x is carried along, not drawn anew: a datum's draw must not depend on the other data.
        part = object.__new__(Dataset)
        part.values, part.context = values, context
        part.name, part.split, part.binarize = self.name, self.split, self.binarize
        part.seed, part.missing = self.seed, self.missing
        part.vocabulary, part.published_validation = self.vocabulary, self.published_validation
        part._levels = None
        part.__dict__["x"] = x
        return part


Data = Dataset | torch.utils.data.Dataset | Tensor | tuple[Tensor, Tensor | None]


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
    if isinstance(data, Tensor | np.ndarray):
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


def as_tensor(argument: str, value: Tensor | np.ndarray) -> Tensor:
    """A tensor or an array of numbers as a tensor without gradient."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise InvalidInput(
                argument,
                got=f"an array of {value.dtype}",
                expected="numbers",
                fix="convert it to numbers",
            )
        signed = value.astype(np.int64) if value.dtype.kind == "u" else value
        value = torch.from_numpy(np.ascontiguousarray(signed))
    return value.detach()
