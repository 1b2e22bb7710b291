"""Schedules of temperatures: how annealing moves from its start to the posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.validation import InvalidInput, check_count

__all__ = ["Geometric", "Linear", "Schedule", "Sigmoid", "temperatures"]

Schedule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Linear:
    r"""Temperatures equally spaced, :math:`\beta(t) = t`.

    Example:
        >>> Linear()(torch.linspace(0, 1, 3))
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __call__(self, time: Tensor) -> Tensor:
        return time


@dataclass(frozen=True)
class Sigmoid:
    r"""Temperatures denser at both ends, a logistic curve scaled to reach 0 and 1:

    .. math:: \beta(t) = \frac{\tilde\beta(t) - \tilde\beta(0)}{\tilde\beta(1) - \tilde\beta(0)},
              \quad \tilde\beta(t) = \mathrm{sigmoid}(\delta\,(2 t - 1))

    Args:
        delta: how much denser.

    Source: Wu, Burda, Salakhutdinov and Grosse (2017), On the Quantitative Analysis of
    Decoder-Based Generative Models.

    Example:
        >>> Sigmoid()(torch.linspace(0, 1, 3))
        tensor([0.0000, 0.5000, 1.0000])
    """

    delta: float = 4.0

    def __call__(self, time: Tensor) -> Tensor:
        low = 1 / (1 + math.exp(self.delta))
        return (torch.sigmoid(self.delta * (2 * time - 1)) - low) / (1 - 2 * low)


@dataclass(frozen=True)
class Geometric:
    r"""Temperatures dense near the start, their spacings in a constant ratio:

    .. math:: \beta(t) = \frac{r^t - 1}{r - 1}

    Args:
        ratio: r, the last spacing over the first.

    Example:
        >>> Geometric(ratio=9.0)(torch.linspace(0, 1, 3))
        tensor([0.0000, 0.2500, 1.0000])
    """

    ratio: float = 1e3

    def __call__(self, time: Tensor) -> Tensor:
        return (self.ratio**time - 1) / (self.ratio - 1)


def temperatures(schedule: Schedule, num_temperatures: int) -> list[float]:
    check_count("num_temperatures", num_temperatures)
    betas = schedule(torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64))
    ends = torch.stack([betas[0].abs(), (betas[-1] - 1).abs()]).max()
    if not (torch.isfinite(betas).all() and ends < 1e-6 and (betas.diff() >= 0).all()):
        raise InvalidInput(
            "schedule",
            got=f"temperatures from {betas[0]:.3g} to {betas[-1]:.3g}",
            expected="a function that rises from 0 at 0 to 1 at 1",
            fix="use Linear(), Sigmoid() or Geometric()",
        )
    betas[0], betas[-1] = 0.0, 1.0
    return betas.tolist()
