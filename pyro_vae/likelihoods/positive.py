"""Positive parameters within bounds: a scale that runs away would make the loss NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_vae.validation import InvalidInput, check_choice

__all__ = ["Learn", "Positive", "bounded_exp"]

Learn = Literal["shared", "per_feature"] | None


class Positive(nn.Module):
    r"""A positive number, fixed or learned within bounds: one for an event, or one per entry.

    .. math:: \log v = \log a + (\log b - \log a)\, \mathrm{sigmoid}(\rho)

    Args:
        value: the number, where it starts if it is learned.
        event_shape: the shape of an event.
        learn: ``None`` keeps it fixed; ``"shared"`` learns one for all entries, ``"per_feature"``
            one each.
        bounds: the interval (a, b) of a learned number.
        name: the arguments' name in errors.

    Raises:
        InvalidInput: if the number does not lie strictly within its bounds.
    """

    fixed: Tensor

    def __init__(
        self,
        value: float,
        event_shape: Sequence[int],
        learn: str | None,
        bounds: Sequence[float],
        name: str = "scale",
    ):
        super().__init__()
        shapes: dict[str | None, tuple[int, ...]] = {
            None: (),
            "shared": (),
            "per_feature": tuple(event_shape),
        }
        check_choice(f"learn_{name}", learn, shapes)  # type: ignore[arg-type]
        low, high = self.bounds = tuple(bounds)
        if not 0 < low < value < high < math.inf:
            raise InvalidInput(
                name,
                got=f"{value} with {name}_bounds {self.bounds}",
                expected=f"0 < low < {name} < high",
                fix=f"move the {name} or widen {name}_bounds",
            )
        self.learned = learn is not None
        if self.learned:
            fraction = math.log(value / low) / math.log(high / low)
            self.raw = nn.Parameter(torch.full(shapes[learn], math.log(fraction / (1 - fraction))))
        else:
            self.register_buffer("fixed", torch.tensor(value), persistent=False)

    def forward(self) -> Tensor:
        if not self.learned:
            return self.fixed
        low, high = self.bounds
        return low * torch.exp(math.log(high / low) * torch.sigmoid(self.raw))


def bounded_exp(x: Tensor, limit: float) -> Tensor:
    r"""The exponential of an argument squashed smoothly into (-limit, limit).

    .. math:: e^{B \tanh(x / B)}

    Close to :math:`e^x` for small x, and never 0 or infinite.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 1.0, -1e9]), 12.0).log().round(decimals=3)
        tensor([  0.0000,   0.9980, -12.0000])
    """
    return torch.exp(limit * torch.tanh(x / limit))
