"""What is changed of what was read: entries removed, grey values drawn, units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pyro_vae.datasets.columns import Columns
from pyro_vae.datasets.dataset import BINARIZE, Dataset, from_source
from pyro_vae.datasets.removed import removed_of
from pyro_vae.datasets.sources import Binarize, Part, Source
from pyro_vae.datasets.stored import is_stored
from pyro_vae.validation import InvalidInput, check_choice, check_probability, check_seed

__all__ = ["Changes"]


@dataclass(frozen=True)
class Changes:
    """What is changed of what was read; the arguments are those of `pyro_vae.datasets.load`."""

    binarize: Binarize | None
    seed: int
    missing: bool
    missing_fraction: float
    scale: float | None
    channels: Literal["first", "last"] | None

    def __post_init__(self) -> None:
        if self.binarize is not None:
            check_choice("binarize", self.binarize, BINARIZE)
        check_seed(self.seed)

    def sets_of(self, source: Source, like: Columns | None, in_units: bool) -> dict[str, Dataset]:
        """The data sets by split, their context ``like`` another, some to come ``in_units``."""
        share, draws = self.missing_fraction, torch.Generator().manual_seed(self.seed)
        check_probability("missing_fraction", share)
        if is_stored(source):
            _check_on_disk(share, in_units)
        for split, (x, y) in list(source.parts.items()) if share else ():
            source.parts[split] = Part(removed_of(x, share, draws), y)
        return from_source(
            source,
            binarize=self.binarize,
            seed=self.seed,
            missing=self.missing or share > 0,
            scale=self.scale,
            channels=self.channels,
            context_like=like,
        )


def _check_on_disk(missing_fraction: float, standardize: bool) -> None:
    """Raise `InvalidInput` on what is made of all data at once."""
    for argument, value in (("missing_fraction", missing_fraction), ("standardize", standardize)):
        if value:
            raise InvalidInput(
                argument,
                got=f"{value} for data that stay on disk",
                expected="data in memory, all of which it looks at together",
                fix="read them with in_memory='on' (--in-memory on), or write the file so",
            )
