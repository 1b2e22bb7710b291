"""What a data set makes of the numbers that were read, at once or some rows at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_vae.datasets.arrays import read_array
from pyro_vae.datasets.binarize import FixedDraw, binarized
from pyro_vae.datasets.forms import channels_first, check_grey, check_some, is_exact, scaled
from pyro_vae.datasets.on_disk import OnDisk, blocks_of
from pyro_vae.datasets.sources import Binarize
from pyro_vae.datasets.stored import Rows
from pyro_vae.validation import check_positive

__all__ = ["Form", "Kept", "decoded", "drawn_in_blocks", "drawn_on_disk", "is_large", "keep"]

Channels = Literal["first", "last"] | None

# Whole numbers of which float32 may not hold all: the largest decides, and so all are looked at.
WIDE = (torch.int32, torch.int64)


@dataclass(frozen=True)
class Form:
    """The form in which numbers are kept.

    Args:
        binarize: the policy.
        draw: the draw of fixed binarisation.
        missing: whether NaN marks a missing entry.
        scale: what they are divided by.
        channels: where the channels of images are.
        exact: whether float32 holds all whole numbers; ``None`` to find out.
    """

    binarize: Binarize
    draw: FixedDraw
    missing: bool
    scale: float
    channels: Channels
    exact: bool | None = None

    def __call__(self, values: Tensor, places: Tensor | None = None) -> Tensor:
        """Numbers, which are rows of a file if they have places in it."""
        check_some(values)
        is_grey = self.binarize == "fixed" or (self.binarize == "dynamic" and places is None)
        if is_grey and values.dtype == torch.uint8:  # before they take more memory
            check_grey(torch.stack(values.aminmax()) / self.scale, self.missing)
        if not (self.binarize == "dynamic" and self.scale == 255 and values.dtype == torch.uint8):
            values = scaled(values, self.scale, self.exact)
        # else bytes stay: a quarter of the memory of numbers, and as good
        values = channels_first(values, self.channels)
        if values.dtype == torch.uint8:
            return values
        if self.missing:  # one of the many NaNs, so that equal data have equal bytes
            values = torch.where(torch.isnan(values), torch.nan, values)
        if is_grey:
            check_grey(values, self.missing)
        if self.binarize != "fixed":
            return values
        draw = self.draw if places is None else replace(self.draw, rows=places)
        return draw(values, lambda few, uniform: binarized(few, uniform, self.missing))

    @property
    def name(self) -> str:
        """All that decides the numbers, in words."""
        return f"{self.binarize} {self.draw.seed} {self.missing} {self.scale} {self.channels}"


@dataclass(frozen=True)
class Kept:
    """Numbers as a data set keeps them, and what was found while they were read."""

    values: Tensor
    missing: bool
    notes: tuple[str, ...]


def keep(given: object, form: Form, scale: float | None) -> Kept:
    """What was read, in the form of a data set; rows of a file stay there.

    Args:
        given: numbers of any kind.
        form: the form, but for the scale.
        scale: what to divide by; by default what their kind says.
    """
    if scale is not None:
        check_positive("scale", scale)
    if isinstance(given, Rows):
        form = replace(form, scale=given.scale if scale is None else scale)
        return _on_disk(given, form)
    read = read_array("x", given)
    missing = form.missing or read.missing
    form = replace(form, scale=read.scale if scale is None else scale, missing=missing)
    return Kept(form(read.values), missing, read.notes)


def _on_disk(rows: Rows, form: Form) -> Kept:
    check_some(torch.empty(rows.shape, device="meta"))
    raw = OnDisk(rows)
    if raw.dtype in WIDE:
        form = replace(form, exact=all(is_exact(block) for _, block in blocks_of(raw)))
    form = replace(form, draw=replace(form.draw, total=len(rows)))
    return Kept(
        raw.then(form.name, form),
        form.missing,
        read_array("x", rows.read(np.zeros(1, np.int64))).notes,
    )


def drawn_on_disk(stored: OnDisk, draw: FixedDraw, missing: bool) -> OnDisk:
    """The fixed draw of grey values on disk, or of bytes."""
    total = len(stored.source)

    def make(values: Tensor, places: Tensor) -> Tensor:
        if values.dtype == torch.uint8:
            values = values.float() / 255
        check_grey(values, missing)
        few = replace(draw, total=total, rows=places)
        return few(values, lambda some, uniform: binarized(some, uniform, missing))

    like = torch.empty(
        0, *stored.shape[1:], dtype=torch.float32 if stored.dtype == torch.uint8 else stored.dtype
    )
    return stored.then(f"drawn {draw.seed} {missing}", make, like)


LARGE = 2**24  # bytes of data in memory whose draw, four times as large, is not kept


class _Kept(Rows):
    """Rows that are in memory, of which few are drawn at once: malloc keeps larger pieces."""

    block_bytes = 2**22

    def __init__(self, values: Tensor):
        super().__init__(tuple(values.shape), values[:0].numpy().dtype)
        self.values = values

    def rows(self, places: np.ndarray) -> np.ndarray:
        return self.values[torch.from_numpy(places)].numpy()


def is_large(stored: object) -> bool:
    """Whether these are grey levels in memory whose draw is not kept."""
    return (
        isinstance(stored, Tensor)
        and not isinstance(stored, OnDisk)
        and stored.dtype == torch.uint8
        and stored.device.type == "cpu"
        and stored.nbytes > LARGE
    )


def drawn_in_blocks(stored: Tensor, draw: FixedDraw, dtype: torch.dtype) -> OnDisk:
    """The fixed draw of grey levels in memory, made anew for the rows that are asked for."""
    number = len(stored)

    def make(levels: Tensor, places: Tensor) -> Tensor:
        few = draw.of(number, places)
        return few(levels, lambda some, uniform: binarized(decoded(some, dtype), uniform, False))

    return OnDisk(_Kept(stored)).then("drawn", make, torch.empty(0, *stored.shape[1:], dtype=dtype))


def decoded(levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Grey levels in bytes as numbers in [0, 1]; all else as it is."""
    if levels.dtype != torch.uint8:
        return levels
    if isinstance(levels, OnDisk):
        return levels.then("decoded", lambda few, _: decoded(few, dtype))
    return (levels.float() / 255).to(dtype)
