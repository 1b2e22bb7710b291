"""Known quantities of a context that are in the units of x, and change with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.contracts import Tensors

__all__ = ["OF_X", "in_new_units"]

# From an entry, and the center and scale of x, in float64, to the entry that belongs to
# (x - center) / scale.
OF_X: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "scale": lambda value, center, scale: value / scale,
    "inverse_variance": lambda value, center, scale: value * scale**2,
    "upper": lambda value, center, scale: (value - center) / scale,
}


def in_new_units(
    context: Tensors | None, center: Tensor | float, scale: Tensor | float
) -> tuple[Tensors | None, tuple[str, ...]]:
    r"""The context of (x - center) / scale, and the names of its entries that stay as they are.

    Args:
        context: that of x; entries of a dictionary whose names are in `OF_X` change with it.
        center: what is subtracted, of each column (C,) or of all entries.
        scale: what is divided by after that, of the same shape.

    Example:
        >>> context = {"scale": torch.tensor([2.0, 4.0]), "censored": torch.tensor([0, 1])}
        >>> changed, left = in_new_units(context, 0.0, 2.0)
        >>> changed["scale"].tolist(), left
        ([1.0, 2.0], ('censored',))
    """
    center, scale = (torch.as_tensor(each, dtype=torch.float64) for each in (center, scale))
    if not isinstance(context, dict) or not (center != 0).any() | (scale != 1).any():
        return context, ()
    changed = {
        name: _converted(name, value, center, scale)
        for name, value in context.items()
        if name in OF_X
    }
    return {**context, **changed}, tuple(name for name in context if name not in OF_X)


def _converted(name: str, value: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    """An entry (N,) or (N, \\*event) in new units; one of another shape stays, to be refused."""
    dtype = value.dtype if value.is_floating_point() else torch.get_default_dtype()
    if center.dim():  # one for each column: an entry of each datum becomes one of each column
        value = value[:, None] if value.dim() == 1 else value
        if value.dim() != 2 or value.shape[1] not in (1, len(center)):
            return value
    center, scale = center.to(value.device), scale.to(value.device)
    return OF_X[name](value.double(), center, scale).to(dtype)
