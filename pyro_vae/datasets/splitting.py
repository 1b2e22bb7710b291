"""Test data held out of what was read, without a second copy of it."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.datasets.in_memory import Dataset
from pyro_vae.validation import rows_of

__all__ = ["split_in_place"]

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
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held, kept = data[order[:size].sort().values], order[size:].sort().values
    start = 0
    for rows in kept.split(BLOCK):  # each to a place at or before its own
        stored[start : start + len(rows)] = stored[rows]
        start += len(rows)
    train = data._like(stored[:start], rows_of(data.context, kept), {})
    train._draw = data._draw.of(len(data), kept)
    return train, held
