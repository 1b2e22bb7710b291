"""Test data held out of what was read, without a second copy of it, and labels that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.datasets.forms import shuffled
from pyro_vae.datasets.in_memory import Dataset
from pyro_vae.datasets.known import with_rest
from pyro_vae.validation import InvalidInput, rows_of

__all__ = ["partly_labelled", "split_in_place"]

BLOCK = 2**16  # rows that are moved at once


def split_in_place(data: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """The split of `Dataset.hold_out`, for data that nobody else holds.

    The training rows move forward within the memory that they are in, and ``data`` is lost.
    """
    stored = data._stored
    if (
        not isinstance(stored, Tensor)
        or data.is_on_disk
        or data.published_validation is not None
        or data.parts
    ):
        return data.hold_out(size, seed)
    order = shuffled(len(data), seed)
    held, kept = data[order[:size].sort().values], order[size:].sort().values
    start = 0
    for rows in kept.split(BLOCK):  # each to a place at or before its own
        stored[start : start + len(rows)] = stored[rows]
        start += len(rows)
    train = data._like(stored[:start], rows_of(data.context, kept), {})
    train._draw = data._draw.of(len(data), kept)
    return train, held


def partly_labelled(data: Dataset, labelled: int, seed: int) -> Dataset:
    """Keep ``labelled`` labels, equally many per class; the others become -1."""
    classes = data.num_classes
    if classes is None or data.labels is None:
        raise InvalidInput(
            "labelled",
            got=f"{labelled} with data {data.name!r}, which have no labels",
            expected="data with labels",
            fix="leave it out",
        )
    each, rest = divmod(labelled, classes)
    if rest or not 0 < each <= int(torch.bincount(data.labels).min()):
        raise InvalidInput(
            "labelled",
            got=str(labelled),
            expected=f"a multiple of {classes}, equally many of each label, within those available",
            fix=f"pass {classes * max(1, min(each, int(torch.bincount(data.labels).min())))}",
        )
    order = shuffled(len(data), seed)
    kept = torch.cat([order[data.labels[order] == label][:each] for label in range(classes)])
    context = torch.full_like(data.labels, -1)
    context[kept] = data.labels[kept]
    return data.with_context(with_rest(data.context, context))
