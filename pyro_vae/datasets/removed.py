"""Entries removed from data, completely at random, to see how well they are filled in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_vae.datasets.arrays import as_tensor

__all__ = ["removed_of"]


def removed_of(
    x: object, fraction: float, generator: torch.Generator
) -> Tensor | dict[str, Tensor]:
    """The values of one site, or of each of several, with entries removed."""
    if isinstance(x, Mapping):
        return {name: _removed(part, fraction, generator) for name, part in x.items()}
    return _removed(x, fraction, generator)


def _removed(x: object, fraction: float, generator: torch.Generator) -> Tensor:
    """The values, each entry removed with the given probability."""
    values = as_tensor("x", x)
    values = values if values.is_floating_point() else values.float()
    drawn = torch.rand(values.shape, generator=generator, dtype=torch.float32)
    return torch.where(drawn < fraction, torch.nan, values)
