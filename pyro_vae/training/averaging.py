"""A moving average of the weights, by which a program is validated, saved and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]

PREFIX = "average."  # of the names of its tensors in a state


class MovingAverage:
    r"""The exponential moving average of parameters over the steps of a training.

    .. math:: \bar\theta_t = \frac{1 - \beta}{1 - \beta^t} \sum_{s=1}^t \beta^{t-s} \theta_s

    The denominator makes it an average of the steps taken, as in Adam: the first weights have no
    part in it. It is kept as the average of a parameter that is always 1.

    Args:
        parameters: what is averaged, in place.
        decay: :math:`\beta`, between 0 and 1; some :math:`1 / (1 - \beta)` steps count.

    Source: Polyak and Juditsky (1992); Kingma and Ba (2015), section 7.2.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor(1.0))
        >>> average = MovingAverage([weight], decay=0.5)
        >>> for value in (1.0, 4.0):
        ...     _ = weight.data.fill_(value)
        ...     average.update()
        >>> with average.in_place():
        ...     print(weight.item())  # (1 * 1 + 2 * 4) / 3
        3.0
        >>> weight.item()
        4.0
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float):
        self.parameters, self.share = [x.detach() for x in parameters], 1 - decay
        self.sums = [torch.zeros_like(x) for x in self.parameters]
        self.one = torch.ones((), dtype=torch.float64, device=self.parameters[0].device)
        self.total = torch.zeros_like(self.one)

    def update(self) -> None:
        """Take in the parameters after a step."""
        torch._foreach_lerp_(self.sums, self.parameters, self.share)
        self.total.lerp_(self.one, self.share)

    def values(self) -> list[Tensor]:
        """The averages; before the first step, the parameters themselves."""
        if self.total == 0:
            return [x.clone() for x in self.parameters]
        return [(x / self.total).to(x.dtype) for x in self.sums]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the parameters are the averages."""
        before = [x.clone() for x in self.parameters]
        self.put()
        try:
            yield
        finally:
            torch._foreach_copy_(self.parameters, before)

    def put(self) -> None:
        """Give the parameters the averages, for good."""
        torch._foreach_copy_(self.parameters, self.values())

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, not copied."""
        return {f"{PREFIX}{i}": x for i, x in enumerate((*self.sums, self.total))}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; other names are ignored.

        Raises:
            KeyError: if one is missing.
        """
        for name, x in self.tensors().items():
            x.copy_(tensors[name])
