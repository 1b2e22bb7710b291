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
    """Keep ``labelled`` of the labels that there are, equally many per class; all others are -1."""
    classes, labels = data.num_classes, data.labels
    if not classes or labels is None:
        raise InvalidInput(
            "labelled",
            got=f"{labelled} with data {data.name!r}, "
            + ("which have no labels" if labels is None else "all of whose labels are -1, unknown"),
            expected="data with labels",
            fix="leave it out",
        )
    each, rest = divmod(labelled, classes)
    fewest, rarest = torch.bincount(labels[labels >= 0], minlength=classes).min(0)
    if not fewest:
        raise InvalidInput(
            "labelled",
            got=f"{labelled} with data {data.name!r}, none of which has label {rarest} of "
            f"0 to {classes - 1}",
            expected="data of each label",
            fix="label some, or number the labels from 0 on without a gap",
        )
    if rest or not 0 < each <= fewest:
        raise InvalidInput(
            "labelled",
            got=str(labelled),
            expected=f"a multiple of {classes}, equally many of each label, of which there are "
            f"{fewest} or more",
            fix=f"pass {classes * max(1, min(each, int(fewest)))}",
        )
    order = shuffled(len(data), seed)
    kept = torch.cat([order[labels[order] == label][:each] for label in range(classes)])
    context = torch.full_like(labels, -1)
    context[kept] = labels[kept]
    return data.with_context(with_rest(data.context, context))
