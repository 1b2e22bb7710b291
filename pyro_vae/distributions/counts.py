"""Distributions of counts."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.tails import poisson_tails, tails_inside

__all__ = [
    "MultinomialGivenTotal",
    "NegativeBinomial",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
]

AT_ONCE = 1024  # words of a datum that are drawn at once


class MultinomialGivenTotal(dist.TorchDistribution):
    r"""Multinomial counts given their total, which may differ between data.

    .. math:: P(x \mid n) = \frac{n!}{\prod_v x_v!} \prod_v p_v^{x_v}, \quad n = \sum_v x_v

    Torch's own has one total for all data and gives all others probability zero. Here the total is
    read off x, and the masses sum to one over the x of each total. Samples, mean and variance have
    ``total_count``, or the totals of a datum by `at_datum`.

    Args:
        total_count: the total n of samples: one for all, or a tensor (\*batch).
        logits: unnormalised log-probabilities (\*batch, V).

    Example:
        >>> p = MultinomialGivenTotal(10, logits=torch.zeros(2))
        >>> p.log_prob(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).exp()
        tensor([0.5000, 0.5000])
        >>> p.mean, p.at_datum(torch.tensor([3.0, 1.0])).mean
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
        self.logits = logits.log_softmax(-1).expand(*batch, -1)
        super().__init__(batch, logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> MultinomialGivenTotal:
        return self._with_total(self.total_count, torch.Size(batch_shape))

    def at_datum(self, x: Tensor) -> MultinomialGivenTotal:
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


class Poisson(dist.TorchDistribution):
    r"""Poisson counts given by their log-rate, in double precision.

    .. math:: \log P(x) = x \log \lambda - \lambda - \log x!

    In float32 the three terms of torch's own cancel: at a rate of :math:`e^{12}` it is off by 0.04.
    Where a rate underflows, torch's own has no gradient.

    Args:
        log_rate: :math:`\log \lambda` (\*batch).

    Example:
        >>> Poisson(torch.tensor([12.0, -1e4])).log_prob(torch.tensor([162755.0, 1.0]))
        tensor([-6.9189e+00, -1.0000e+04])
    """

    arg_constraints = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None):
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> Poisson:
        return Poisson(self.log_rate.expand(torch.Size(batch_shape)), validate_args=False)

    @property
    def rate(self) -> Tensor:
        return self.log_rate.exp()

    mean = variance = rate

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return torch.poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_rate, x = self.log_rate.double(), value.double()
        exact = x * log_rate - log_rate.exp() - torch.lgamma(x + 1)
        return exact.to(self.log_rate.dtype)


@tails_inside.register
def _poisson(p: Poisson, x: Tensor) -> tuple[Tensor, Tensor]:
    return poisson_tails(p.log_rate.double(), x.double())


class NegativeBinomial(dist.NegativeBinomial):
    r"""Overdispersed counts, their log-probability computed in double precision.

    .. math:: P(x) = \frac{\Gamma(x + r)}{x!\, \Gamma(r)}\, \mathrm{sigmoid}(-l)^r\,
              \mathrm{sigmoid}(l)^x

    In float32 the log-gammas of torch's own cancel: at r = 10,000 it is off by 0.005.

    Example:
        >>> p = NegativeBinomial(torch.tensor(1e4), logits=torch.tensor(1e-4).log())
        >>> p.log_prob(torch.tensor(1.0))
        tensor(-1.0000)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        r, logits = self.total_count.double(), self.logits.double()
        exact = dist.NegativeBinomial(r, logits=logits, validate_args=False)
        return exact.log_prob(value.double()).to(self.logits.dtype)


class ZeroInflatedNegativeBinomial(dist.ZeroInflatedDistribution):
    r"""A negative binomial whose mass at zero is raised by a gate.

    .. math:: P(x) = g\, [x = 0] + (1 - g)\, \mathrm{NB}(x; r, l), \quad g = \mathrm{sigmoid}(a)

    Pyro's own can no longer be expanded to a plate once its gate's probability has been read, its
    log-probability then loses digits, and it loses them where a is large. Here all is computed from
    the gate's log-odds.

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
        base = NegativeBinomial(total_count, logits=logits, validate_args=False)
        super().__init__(base, gate_logits=gate_logits, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> ZeroInflatedNegativeBinomial:
        base, gate = self.base_dist.expand(batch_shape), self.gate_logits.expand(batch_shape)
        return ZeroInflatedNegativeBinomial(
            base.total_count, logits=base.logits, gate_logits=gate, validate_args=False
        )

    @property
    def gate(self) -> Tensor:
        return torch.sigmoid(self.gate_logits)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        counted = logsigmoid(-self.gate_logits) + self.base_dist.log_prob(value)
        at_zero = torch.logaddexp(logsigmoid(self.gate_logits), counted)
        return torch.where(value == 0, at_zero, counted)
