"""Residual cells on a grid, from one size to another."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyro_vae.networks.cells import Bottleneck, Cell, ResidualCell
from pyro_vae.networks.maps import check_map_shape, check_map_size
from pyro_vae.networks.shapes import (
    Shape,
    Size,
    as_context,
    as_shape,
    check_context_features,
    over_batch,
)
from pyro_vae.validation import check_count

__all__ = ["Cells"]


class Cells(nn.Module):
    r"""Residual cells on a grid (C, H, W), after a change of its size and its channels.

    .. math:: h_0 = \mathrm{resize}(x) + V c, \qquad h_i = h_{i-1} + f_i(h_{i-1})

    A grid becomes coarser by a convolution of patches where the sizes divide, else by means, and
    finer by repeated pixels. A vector is a grid of one place. It serves as an encoder, as a decoder
    and between the levels of a `pyro_vae.LadderVAE`; without cells, it is linear.

    Args:
        in_shape: (channels, height, width), or a vector's (D,).
        size: (height, width) of the grid returned, or an image's (channels, height, width); by
            default that of the input.
        width: channels of the grid returned, by default those of the input.
        cells: how many cells there are.
        context: number of context features, 0 for none; they are added at every place.
        kind: what the cells are, by default `pyro_vae.networks.cells.Bottleneck`.
        checkpoint: keep only each cell's input for the backward pass, and run the cell again there:
            less memory for a third more time.

    Raises:
        InvalidInput: on a shape that is no grid's, or fewer than 0 cells.

    Source: He, Zhang, Ren and Sun (2016); Child (2021), Very deep VAEs.

    Example:
        >>> Cells((1, 28, 28), (14, 14), width=16, cells=2)(torch.zeros(4, 2, 1, 28, 28)).shape
        torch.Size([4, 2, 16, 14, 14])
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        size: Size | None = None,
        width: int | None = None,
        cells: int = 1,
        *,
        context: int = 0,
        kind: Cell | None = None,
        checkpoint: bool = False,
    ):
        super().__init__()
        check_count("cells", cells, 0)
        self.in_shape, self.cells, self.context = as_shape(in_shape), cells, as_context(context)
        flat = len(self.in_shape) == 1
        before = (*self.in_shape, 1, 1) if flat else check_map_shape(self.in_shape, 3)
        self.size = before[1:] if size is None else check_map_size(size, 2)
        self.width, self.kind, self.checkpoint = width, kind, checkpoint
        self.out_shape = (before[0] if width is None else width, *self.size)
        check_count("width", self.out_shape[0])
        self.resize = _resize(before, self.out_shape)
        self.of_context = nn.Linear(context, self.out_shape[0], bias=False) if context else None
        made = kind or Bottleneck()
        self.body = nn.ModuleList(
            ResidualCell(made, self.out_shape[0], self.size) for _ in range(cells)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_context_features(self.context, context)
        grid = x[..., None, None] if len(self.in_shape) == 1 else x
        h = over_batch(self.resize, grid, 3)
        if self.of_context is not None:
            h = h + self.of_context(context)[..., None, None]
        return over_batch(self._run, h, 3) if self.cells else h

    def _run(self, h: Tensor) -> Tensor:
        for cell in self.body:
            h = checkpoint(Repeated(cell), h, use_reentrant=False) if self.checkpoint else cell(h)
        return h


class Repeated:
    """A cell that runs again, in the backward pass, with the buffers that it had at its first run.

    It leaves them as they are by then.
    """

    def __init__(self, cell: nn.Module):
        self.cell = cell
        self.first: tuple[Tensor, ...] | None = None

    def __call__(self, h: Tensor) -> Tensor:
        now = tuple(buffer.clone() for buffer in self.cell.buffers())
        if self.first is None:
            self.first = now
            return self.cell(h)
        self._set(self.first)
        try:
            return self.cell(h)
        finally:
            self._set(now)

    @torch.no_grad()
    def _set(self, values: Iterable[Tensor]) -> None:
        for buffer, value in zip(self.cell.buffers(), values):
            buffer.copy_(value)


def _resize(before: Shape, after: Shape) -> nn.Module:
    """A linear map from grids of one shape to those of another."""
    ratios = [a // b for a, b in zip(before[1:], after[1:])]
    if before == after:
        return nn.Identity()
    if before[1:] == after[1:]:
        return nn.Conv2d(before[0], after[0], 1)
    if all(ratio * b == a for ratio, a, b in zip(ratios, before[1:], after[1:])):
        return nn.Conv2d(before[0], after[0], kernel_size=ratios, stride=ratios)  # type: ignore[arg-type]
    to_size: nn.Module = nn.Upsample(size=after[1:])
    if any(a > b for a, b in zip(before[1:], after[1:])):
        to_size = nn.AdaptiveAvgPool2d(after[1:])
    mapped = nn.Conv2d(before[0], after[0], 1) if before[0] != after[0] else nn.Identity()
    return nn.Sequential(mapped, to_size)
