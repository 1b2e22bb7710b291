"""Distributions on the unit interval."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Beta"]


class Beta(dist.Beta):
    r"""The Beta distribution on the open interval, where its log-density is finite.

    .. math:: p(x) = \frac{x^{\alpha - 1} (1 - x)^{\beta - 1}}{B(\alpha, \beta)}, \quad 0 < x < 1

    Torch's own rounds some samples to 0 or 1 and accepts these as data.

    Example:
        >>> Beta(torch.tensor(2.0), torch.tensor(1.0)).support.check(torch.tensor([0.0, 0.5, 1.0]))
        tensor([False,  True, False])
    """

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        return constraints.interval(*self._ends)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return super().rsample(sample_shape).clamp(*self._ends)

    @property
    def _ends(self) -> tuple[float, float]:
        """The representable numbers next to 0 and to 1."""
        numbers = torch.finfo(self.concentration1.dtype)
        return numbers.tiny, 1 - numbers.eps / 2
