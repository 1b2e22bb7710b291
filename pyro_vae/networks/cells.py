"""Kinds of residual cells, of which networks on grids are made.

The contract: a kind is a `Cell`, a module of settings without weights. Its one method,
``branch(channels, size)``, makes the map from a grid (C, H, W) to one of the same shape that a cell
adds to its input. A new kind is one class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_vae.networks.maps import check_kernel
from pyro_vae.validation import InvalidInput, check_choice, check_count, check_positive

__all__ = ["Bottleneck", "Plain", "Separable"]

Normalisation = Literal["none", "weight", "spectral"]

SMALL_START = 0.1  # the factor on a branch's last weights, so that a deep stack starts as a line


class Cell(nn.Module, ABC):
    """A kind of residual cell, h + f(h): how f is made.

    Args:
        activation: the nonlinearity, a module class without arguments.
        normalisation: what each weight is divided by, before a learned gain for each channel:
            nothing, the norm of what enters the channel, or its largest singular value.
    """

    def __init__(
        self, activation: type[nn.Module] = nn.SiLU, normalisation: Normalisation = "none"
    ):
        super().__init__()
        check_choice("normalisation", normalisation, ["none", "weight", "spectral"])
        self.activation, self.normalisation = activation, normalisation

    @abstractmethod
    def branch(self, channels: int, size: Sequence[int]) -> nn.Module:
        """The map f from (C, H, W) to (C, H, W).

        Args:
            channels: C.
            size: (H, W).
        """

    def convolution(self, before: int, after: int, kernel: int = 1, groups: int = 1) -> nn.Module:
        """A convolution that keeps the grid, normalised as this kind says."""
        return Convolution(before, after, kernel, groups, self.normalisation)


class Plain(Cell):
    """Two convolutions, each after a nonlinearity.

    Args:
        kernel_size: an odd number.
        activation: the nonlinearity, a module class without arguments.
        normalisation: ``"none"``, ``"weight"`` or ``"spectral"``.

    Source: He, Zhang, Ren and Sun (2016), Identity mappings in deep residual networks.

    Example:
        >>> Plain().branch(4, (7, 7))(torch.zeros(2, 4, 7, 7)).shape
        torch.Size([2, 4, 7, 7])
    """

    def __init__(
        self,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.SiLU,
        normalisation: Normalisation = "none",
    ):
        super().__init__(activation, normalisation)
        self.kernel_size = check_kernel(kernel_size)

    def branch(self, channels: int, size: Sequence[int]) -> nn.Module:
        kernel = _kernel_within(self.kernel_size, size)
        return nn.Sequential(
            self.activation(),
            self.convolution(channels, channels, kernel),
            self.activation(),
            self.convolution(channels, channels, kernel),
        )


class Bottleneck(Cell):
    """Fewer channels within, between convolutions of kernel size 1: the cell of VDVAE.

    Args:
        fraction: the channels within, as a fraction of those outside.
        kernel_size: an odd number, of the two convolutions within.
        activation: the nonlinearity, a module class without arguments.
        normalisation: ``"none"``, ``"weight"`` or ``"spectral"``.

    Source: Child (2021), Very deep VAEs generalize autoregressive models.

    Example:
        >>> Bottleneck(0.25).branch(8, (7, 7))(torch.zeros(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """

    def __init__(
        self,
        fraction: float = 0.5,
        kernel_size: int = 3,
        activation: type[nn.Module] = nn.SiLU,
        normalisation: Normalisation = "none",
    ):
        super().__init__(activation, normalisation)
        check_positive("fraction", fraction)
        self.fraction, self.kernel_size = fraction, check_kernel(kernel_size)

    def branch(self, channels: int, size: Sequence[int]) -> nn.Module:
        kernel = _kernel_within(self.kernel_size, size)
        within = max(1, round(self.fraction * channels))
        return nn.Sequential(
            self.activation(),
            self.convolution(channels, within),
            self.activation(),
            self.convolution(within, within, kernel),
            self.activation(),
            self.convolution(within, within, kernel),
            self.activation(),
            self.convolution(within, channels),
        )


class Separable(Cell):
    """More channels within, and there a convolution of each by itself: the cell of NVAE.

    With ``squeeze`` channels are weighted by gates that a small network computes from their means
    over the grid. NVAE also normalises by batch statistics. No cell here does, for a datum's score
    must not depend on its neighbours.

    Args:
        expansion: how many times as many channels there are within.
        kernel_size: an odd number, of the convolution within.
        squeeze: whether channels are gated at the end.
        activation: the nonlinearity, a module class without arguments.
        normalisation: ``"none"``, ``"weight"`` or ``"spectral"``.

    Source: Vahdat and Kautz (2020), NVAE: a deep hierarchical variational autoencoder.

    Example:
        >>> Separable(expansion=3).branch(8, (7, 7))(torch.zeros(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """

    def __init__(
        self,
        expansion: int = 3,
        kernel_size: int = 5,
        squeeze: bool = True,
        activation: type[nn.Module] = nn.SiLU,
        normalisation: Normalisation = "none",
    ):
        super().__init__(activation, normalisation)
        check_count("expansion", expansion)
        self.expansion, self.kernel_size = expansion, check_kernel(kernel_size)
        self.squeeze = squeeze

    def branch(self, channels: int, size: Sequence[int]) -> nn.Module:
        kernel = _kernel_within(self.kernel_size, size)
        within = self.expansion * channels
        return nn.Sequential(
            self.convolution(channels, within),
            self.activation(),
            self.convolution(within, within, kernel, groups=within),
            self.activation(),
            self.convolution(within, channels),
            *([Gates(channels)] if self.squeeze else []),
        )


class Gates(nn.Module):
    """Each channel times a gate in (0, 1) that the means of all channels decide."""

    def __init__(self, channels: int):
        super().__init__()
        within = max(4, channels // 16)
        self.gates = nn.Sequential(
            nn.Linear(channels, within), nn.ReLU(), nn.Linear(within, channels), nn.Sigmoid()
        )

    def forward(self, h: Tensor) -> Tensor:
        return h * self.gates(h.mean((-2, -1)))[..., None, None]


class Convolution(nn.Conv2d):
    """A convolution that keeps the grid, its weight normalised or not."""

    gain: nn.Parameter
    direction: Tensor

    def __init__(
        self, before: int, after: int, kernel: int, groups: int, normalisation: Normalisation
    ):
        super().__init__(before, after, kernel, padding=kernel // 2, groups=groups)
        self.normalisation = normalisation
        if normalisation != "none":
            norms = self.weight.detach().flatten(1).norm(dim=1)
            self.gain = nn.Parameter(norms if normalisation == "weight" else torch.ones(after))
        if normalisation == "spectral":
            self.register_buffer("direction", nn.functional.normalize(torch.randn(after), dim=0))

    def _normalised(self) -> Tensor:
        rows = self.weight.flatten(1)
        size = rows.norm(dim=1) if self.normalisation == "weight" else self._largest(rows)
        return self.weight * (self.gain / size)[:, None, None, None]

    def _largest(self, rows: Tensor) -> Tensor:
        """The largest singular value, as far as the power iteration has come."""
        with torch.no_grad():
            right = nn.functional.normalize(rows.mT @ self.direction, dim=0)
            left = nn.functional.normalize(rows @ right, dim=0)
            if self.training:  # a step of the power iteration
                self.direction.copy_(left)
        return left @ (rows @ right)

    def forward(self, h: Tensor) -> Tensor:
        if self.normalisation == "none":
            return super().forward(h)
        return self._conv_forward(h, self._normalised(), self.bias)


class ResidualCell(nn.Module):
    r"""A cell, :math:`h + f(h)`, with f a kind's branch, which starts small.

    Args:
        kind: what f is.
        channels: C.
        size: (H, W).
    """

    def __init__(self, kind: Cell, channels: int, size: Sequence[int]):
        super().__init__()
        self.kind, self.bent = type(kind).__name__, kind.branch(channels, size)
        last = [part for part in self.bent.modules() if isinstance(part, nn.Conv2d)][-1:]
        with torch.no_grad():
            for part in last:
                is_ours = isinstance(part, Convolution) and part.normalisation != "none"
                (part.get_parameter("gain") if is_ours else part.weight).mul_(SMALL_START)

    def forward(self, h: Tensor) -> Tensor:
        bent = self.bent(h)
        if bent.shape != h.shape:
            raise InvalidInput(
                "kind",
                got=f"{self.kind}, whose branch turns a grid {tuple(h.shape[1:])} into "
                f"{tuple(bent.shape[1:])}",
                expected="a branch that keeps channels and size, for it is added to its input",
                fix="let branch(channels, size) return as many channels, with padding",
            )
        return h + bent


def _kernel_within(kernel: int, size: Sequence[int]) -> int:
    """A kernel size of which no part lies outside of the grid wherever it is put."""
    return min(kernel, 2 * max(size) - 1)
