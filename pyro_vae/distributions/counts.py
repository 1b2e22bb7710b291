"""Distributions of counts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["MultinomialGivenTotal", "ZeroInflatedNegativeBinomial"]

AT_ONCE = 1024  # words of a datum that are drawn at once


class MultinomialGivenTotal(dist.TorchDistribution):
    r"""Counts given their total, which each datum has for itself.

    .. math:: P(x \mid n) = \frac{n!}{\prod_v x_v!} \prod_v p_v^{x_v}, \quad n = \sum_v x_v

    Torch's own has one total for all data and gives all others probability zero. Here the total is
    read off x, and the masses sum to one over the x of each total. Samples, mean and variance have
    ``total_count``, or the totals of a datum by `given`.

    Args:
        total_count: the total n of samples: one for all, or a tensor (\*batch).
        logits: unnormalised log-probabilities (\*batch, V).

    Example:
        >>> p = MultinomialGivenTotal(10, logits=torch.zeros(2))
        >>> p.log_prob(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).exp()
        tensor([0.5000, 0.5000])
        >>> p.mean, p.given(torch.tensor([3.0, 1.0])).mean
        (tensor([5., 5.]), tensor([2., 2.]))
    """

    arg_constraints = {"logits": constraints.real_vector}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(
        self, total_count: int | Tensor, logits: Tensor, validate_args: bool | None = None
    ):
        total = torch.as_tensor(total_count, dtype=logits.dtype, device=logits.device)
        batch = torch.broadcast_shapes(total.shape, logits.shape[:-1])
        self.total_count = total.expand(batch)
        self.logits = (logits - logits.logsumexp(-1, keepdim=True)).expand(*batch, -1)
        super().__init__(batch, logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> MultinomialGivenTotal:
        return self._with_total(self.total_count, torch.Size(batch_shape))

    def given(self, x: Tensor) -> MultinomialGivenTotal:
        """The same distribution with the totals of x (\\*batch, V)."""
        total = x.sum(-1).to(self.logits)
        return self._with_total(total, torch.broadcast_shapes(total.shape, self.batch_shape))

    def _with_total(self, total: Tensor, batch: torch.Size) -> MultinomialGivenTotal:
        new = self._get_checked_instance(MultinomialGivenTotal)
        new.total_count, new.logits = total.expand(batch), self.logits.expand(*batch, -1)
        super(MultinomialGivenTotal, new).__init__(batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def probs(self) -> Tensor:
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        return self.total_count.unsqueeze(-1) * self.probs

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.probs)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        coefficient = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
        return coefficient + (value * self.logits).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        words, total = dist.Categorical(logits=self.logits), self.total_count.expand(shape[:-1])
        counts, most = self.logits.new_zeros(shape), int(total.max()) if total.numel() else 0
        for first in range(0, most, AT_ONCE):
            places = torch.arange(first, min(first + AT_ONCE, most), device=counts.device)
            drawn = words.sample(torch.Size((len(places), *sample_shape))).movedim(0, -1)
            counts.scatter_add_(-1, drawn, (places < total.unsqueeze(-1)).to(counts))
        return counts


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
