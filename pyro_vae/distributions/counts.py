"""Distributions of counts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["MultinomialGivenTotal", "ZeroInflatedNegativeBinomial"]


class MultinomialGivenTotal(dist.Multinomial):
    r"""Counts given their total, which each datum has for itself.

    .. math:: P(x \mid n) = \frac{n!}{\prod_v x_v!} \prod_v p_v^{x_v}, \quad n = \sum_v x_v

    Torch's own has one total for all data and gives all others probability zero. Here the total is
    read off x, and the masses sum to one over the x of each total; samples and the mean have
    ``total_count``.

    Args:
        total_count: the total of samples.
        logits: unnormalised log-probabilities (..., V).

    Example:
        >>> p = MultinomialGivenTotal(10, logits=torch.zeros(2))
        >>> p.log_prob(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).exp()
        tensor([0.5000, 0.5000])
    """

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self):
        return constraints.independent(constraints.nonnegative_integer, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        coefficient = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
        return coefficient + (value * self.logits).sum(-1)


class ZeroInflatedNegativeBinomial(dist.ZeroInflatedNegativeBinomial):
    r"""A negative binomial whose mass at zero is raised by a gate.

    .. math:: P(x) = g\, [x = 0] + (1 - g)\, \mathrm{NB}(x; r, l), \quad g = \mathrm{sigmoid}(a)

    Pyro's own can no longer be expanded to a plate once its gate's probability has been read, and
    its log-probability then loses digits. Here all is computed from the gate's log-odds.

    Args:
        total_count: r.
        logits: l, the log-odds of the negative binomial's probability.
        gate_logits: a, the log-odds of the gate.

    Example:
        >>> zero = torch.tensor(0.0)
        >>> p = ZeroInflatedNegativeBinomial(torch.tensor(2.0), logits=zero, gate_logits=zero)
        >>> p.gate, p.expand([3]).mean
        (tensor(0.5000), tensor([1., 1., 1.]))
    """

    def __init__(
        self,
        total_count: Tensor,
        *,
        logits: Tensor,
        gate_logits: Tensor,
        validate_args: bool | None = None,
    ):
        super().__init__(
            total_count, logits=logits, gate_logits=gate_logits, validate_args=validate_args
        )

    @property
    def gate(self) -> Tensor:
        return torch.sigmoid(self.gate_logits)
