"""Data of any kind as a data set in memory."""

from __future__ import annotations

from typing import Literal

import torch.utils.data

from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.containers import read_object
from pyro_vae.datasets.in_memory import BINARIZE, BINARIZE_SEED, Dataset
from pyro_vae.datasets.labels import read_labels
from pyro_vae.datasets.sources import Binarize, Source, say
from pyro_vae.validation import InvalidInput

__all__ = ["BINARIZE", "BINARIZE_SEED", "Binarize", "Data", "Dataset", "as_dataset", "from_source"]

Data = object  # what `as_dataset` takes; the libraries whose types it knows are not imported


def as_dataset(data: Data) -> Dataset:
    """Turn data of any kind into a `Dataset` in memory.

    A tensor, an array of numpy (of any byte order, masked) or another library, nested lists, a
    sparse matrix of scipy or torch, a nested tensor, a table or a series of pandas, polars or
    pyarrow, an AnnData, a data set of Hugging Face, any torch data set or loader, a dictionary, or
    a pair (x, context) of those.

    A torch data set is read into memory once, so its random transforms are drawn once. What is
    skipped or filled in is logged, a line each, and kept as ``notes``.

    Raises:
        InvalidInput: for what holds no numbers, a stream without a length, or data that would have
            to be guessed at.

    Example:
        >>> as_dataset((torch.zeros(5, 2), torch.arange(5))).num_classes
        5
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, torch.utils.data.Subset) and isinstance(data.dataset, Dataset):
        return data.dataset[torch.as_tensor(data.indices)]
    source = read_object(data)
    dataset = from_source(source)["train"]
    say(dataset.name, dataset.notes)
    return dataset


def from_source(
    source: Source,
    *,
    binarize: Binarize | None = None,
    seed: int = BINARIZE_SEED,
    missing: bool = False,
    scale: float | None = None,
    channels: Literal["first", "last"] | None = None,
    context_like: Columns | None = None,
) -> dict[str, Dataset]:
    """The data sets of a source, by split, whose labels have the same numbers in all.

    Raises:
        InvalidInput: if data of two splits have two shapes, or only one split has a context.
    """
    labels = read_labels([part.y for part in source.parts.values()], context_like)
    context = dict(zip(source.parts, labels.values))
    sets = {
        split: Dataset(
            part.x,
            context[split],
            name=source.name,
            split=split,
            binarize=binarize or source.binarize,
            seed=seed,
            missing=missing or source.missing,
            vocabulary=source.vocabulary,
            scale=source.scale if scale is None else scale,
            channels=channels,
            columns=source.columns,
            context_columns=source.context_columns or labels.columns,
        )
        for split, part in source.parts.items()
    }
    _check_one_shape(sets)
    read = (note for each in sets.values() for note in each.notes)
    notes = dict.fromkeys((*source.notes, *labels.notes, *read))
    for each in sets.values():
        each.notes, each.known = tuple(notes), dict(source.known)
        each.missing = any(other.missing for other in sets.values())
    return sets


def _check_one_shape(sets: dict[str, Dataset]) -> None:
    first = next(iter(sets.values()))
    for split, each in sets.items():
        if each.event_shape != first.event_shape:
            raise InvalidInput(
                "data",
                got=f"data of shape {each.event_shape} in {split}",
                expected=f"{first.event_shape}, as in {first.split}",
                fix="bring them to one shape",
            )
