"""Positive parameters within bounds, and quantities that are known of each datum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_vae.contracts import Quantity
from pyro_vae.networks import bounded
from pyro_vae.validation import InvalidInput, as_number, check_choice

__all__ = [
    "LOG_RATE",
    "LOG_SCALE",
    "SIZE_FACTOR",
    "Learn",
    "Positive",
    "as_bounds",
    "bounded_exp",
    "per_entry",
    "required",
]

Learn = Literal["shared", "per_feature", "network"] | None

LOG_RATE = 12.0  # rates of counts lie within e^-12 and e^12
LOG_SCALE = 20.0  # means and scales of positive numbers lie within e^-20 and e^20

SIZE_FACTOR = Quantity(
    "finite numbers > 0", lambda size, x: (size > 0) & torch.isfinite(size), has_units=False
)


class Positive(nn.Module):
    r"""A positive number within bounds: fixed, learned, or computed by a network for each datum.

    .. math:: \log v = \log a + (\log b - \log a)\, \mathrm{sigmoid}(\rho)

    A scale that runs away would make the loss NaN; this one cannot.

    Args:
        value: the number; where it starts if it is learned.
        event_shape: the shape of an event.
        learn: ``None`` keeps it fixed; ``"shared"`` learns one for all entries, ``"per_feature"``
            one each; with ``"network"`` a network adds to :math:`\rho` a number for each entry of
            each datum.
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
            "network": (),
        }
        check_choice(f"learn_{name}", learn, shapes)
        low, high = self.bounds = as_bounds(f"{name}_bounds", bounds)
        numbers = as_number(low), as_number(value), as_number(high)
        if not 0 < numbers[0] < numbers[1] < numbers[2] < math.inf:
            raise InvalidInput(
                name,
                got=f"{value!r} with {name}_bounds {self.bounds}",
                expected=f"0 < low < {name} < high",
                fix=f"move the {name} or widen {name}_bounds",
            )
        self.learned = learn is not None
        if self.learned:
            fraction = math.log(value / low) / math.log(high / low)
            raw = torch.full(shapes[learn], math.log(fraction / (1 - fraction)))
            if learn == "network":  # whose own bias moves it
                self.register_buffer("raw", raw, persistent=False)
            else:
                self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("fixed", torch.tensor(value), persistent=False)

    def forward(self, *raw: Tensor) -> Tensor:
        """The number, given what a network computed for it, if it does."""
        if not self.learned:
            return self.fixed
        low, high = self.bounds
        return low * torch.exp(math.log(high / low) * torch.sigmoid(sum(raw, self.raw)))


def as_bounds(argument: str, bounds: object) -> tuple[float, float]:
    """The interval of a learned number.

    Raises:
        InvalidInput: unless it is two of something.
    """
    if not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InvalidInput(
            argument,
            got=repr(bounds),
            expected="two numbers, the lower one first",
            fix=f"pass {argument}=(1e-3, 1e2)",
        )
    low, high = bounds
    return low, high


def bounded_exp(x: Tensor, limit: float) -> Tensor:
    r"""The exponential of an argument squashed smoothly into (-limit, limit).

    .. math:: e^{B \tanh(x / B)}

    Close to :math:`e^x` for small x, and never 0 or infinite.

    Example:
        >>> bounded_exp(torch.tensor([0.0, 1.0, -1e9]), 12.0).log().round(decimals=3)
        tensor([  0.0000,   0.9980, -12.0000])
    """
    return torch.exp(bounded(x, limit))


def required(name: str, value: Tensor | None) -> Tensor:
    """A known quantity.

    Raises:
        InvalidInput: if there is none.
    """
    if value is None:
        raise InvalidInput(
            f"context[{name!r}]",
            got="none",
            expected="a known quantity of each datum, for this likelihood",
            fix=f"pass a context such as {{{name!r}: values}}",
        )
    return value


def per_entry(value: Tensor, event_shape: Sequence[int]) -> Tensor:
    """A known quantity (N,) or (N, *event), in the form that broadcasts with (*batch, *event).

    Example:
        >>> per_entry(torch.ones(7), (3, 4)).shape
        torch.Size([7, 1, 1])
    """
    return value.reshape(-1, *(1,) * len(event_shape)) if value.dim() == 1 else value
