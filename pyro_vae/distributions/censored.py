"""Entries of which only a bound was seen."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from pyro_vae.distributions.adapters import as_pyro
from pyro_vae.distributions.supports import number_inside
from pyro_vae.distributions.tails import log_between, log_tails

__all__ = ["ABOVE", "BELOW", "BETWEEN", "EXACT", "CensoredEntries"]

EXACT, ABOVE, BELOW, BETWEEN = 0, 1, -1, 2  # what a number x says of the variable X


class CensoredEntries(TorchDistribution):
    r"""Entries each of which is a value or a bound, as its code says.

    .. math:: \log p(x) = \begin{cases} \log p_0(x) & \text{code } 0: X = x \\
              \log P_0(X \ge x) & \text{code } 1: \text{right-censored} \\
              \log P_0(X \le x) & \text{code } {-1}: \text{left-censored} \\
              \log P_0(x \le X \le u) & \text{code } 2: \text{between } x \text{ and } u
              \end{cases}

    Samples and moments are those of the variable itself.

    Args:
        base: the distribution of single entries (\*batch).
        codes: 0, 1, -1 or 2 for each (\*batch).
        upper: u where the code is 2, any number elsewhere; ``None`` if there are no intervals.

    Source: Turnbull (1976), The Empirical Distribution Function with Arbitrarily Grouped, Censored
    and Truncated Data.

    Example:
        >>> p = torch.distributions.Exponential(torch.ones(2))
        >>> CensoredEntries(p, torch.tensor([0, 1])).log_prob(torch.tensor([3.0, 3.0]))
        tensor([-3., -3.])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution, codes: Tensor, upper: Tensor | None = None):
        self.base, self.codes, self.upper = as_pyro(base), codes, upper
        shapes = [self.base.batch_shape, codes.shape, *([] if upper is None else [upper.shape])]
        batch = torch.broadcast_shapes(*shapes)
        self.base = self.base.expand(batch)
        super().__init__(batch, validate_args=False)

    @property
    def support(self):
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.base.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        # Each formula sees only the entries that are its own: others may give it a NaN gradient.
        filler, is_exact = number_inside(self.support, value), self.codes == EXACT
        result = self.base.log_prob(torch.where(is_exact, value, filler))
        bound = torch.where(is_exact, filler, value)
        below, above = log_tails(self.base, bound)
        seen = {ABOVE: above, BELOW: below}
        if self.upper is not None:
            is_between = self.codes == BETWEEN
            low, high = (torch.where(is_between, end, filler) for end in (value, self.upper))
            seen[BETWEEN] = log_between(self.base, low, high)
        for code, log_prob in seen.items():
            result = torch.where(self.codes == code, log_prob.to(result.dtype), result)
        return result

    def expand(self, batch_shape: torch.Size, _instance=None) -> CensoredEntries:
        batch = torch.Size(batch_shape)
        upper = None if self.upper is None else self.upper.expand(batch)
        return CensoredEntries(self.base.expand(batch), self.codes.expand(batch), upper)
