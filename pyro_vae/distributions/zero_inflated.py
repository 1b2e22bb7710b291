"""Entries with more zeros than their distribution has."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.adapters import as_pyro
from pyro_vae.distributions.supports import OrElse, number_inside, stated_support

__all__ = ["OrZero", "ZeroInflatedEntries"]


class ZeroInflatedEntries(TorchDistribution):
    r"""Independent entries, each of which a gate may set to zero.

    .. math:: p(x) = g\, [x = 0] + (1 - g)\, p_0(x), \quad g = \mathrm{sigmoid}(a)

    For counts these are probabilities. For positive numbers, which are never zero themselves, g is
    the probability of a zero and :math:`(1 - g)\, p_0` the density elsewhere (a hurdle): over
    volume and a point at zero.

    Args:
        base: the distribution of single entries (\*batch), over counts or positive numbers.
        gate_logits: a (\*batch), log-odds.

    Source: Lambert (1992), Zero-Inflated Poisson Regression.

    Example:
        >>> base = torch.distributions.Exponential(torch.ones(()))
        >>> p = ZeroInflatedEntries(base, torch.zeros(()))
        >>> p.log_prob(torch.tensor([0.0, 1.0])).exp(), p.mean
        (tensor([0.5000, 0.1839]), tensor(0.5000))
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution, gate_logits: Tensor):
        batch = torch.broadcast_shapes(base.batch_shape, gate_logits.shape)
        self.base, self.gate_logits = as_pyro(base).expand(batch), gate_logits.expand(batch)
        super().__init__(batch, validate_args=False)

    @property
    def support(self):
        support = self.base.support
        return support if support.is_discrete else OrZero(support)

    def expand(self, batch_shape: torch.Size, _instance=None) -> ZeroInflatedEntries:
        batch = torch.Size(batch_shape)
        return ZeroInflatedEntries(self.base.expand(batch), self.gate_logits.expand(batch))

    @property
    def gate(self) -> Tensor:
        return torch.sigmoid(self.gate_logits)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.gate_logits) * self.base.mean

    @property
    def variance(self) -> Tensor:
        second = self.base.variance + self.base.mean.square()
        return torch.sigmoid(-self.gate_logits) * second - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        drawn = self.base.sample(sample_shape)
        return torch.where(torch.rand_like(drawn) < self.gate, 0.0, drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        is_zero, closed = value == 0, logsigmoid(self.gate_logits)
        if self.base.support.is_discrete:
            counted = logsigmoid(-self.gate_logits) + self.base.log_prob(value)
            return torch.where(is_zero, torch.logaddexp(closed, counted), counted)
        nonzero = torch.where(is_zero, number_inside(stated_support(self.base), value), value)
        counted = logsigmoid(-self.gate_logits) + self.base.log_prob(nonzero)
        return torch.where(is_zero, closed, counted)


class OrZero(OrElse):
    """A constraint on numbers under which zero is a point of its own."""

    measure = "volume and a point at zero"

    def __init__(self, base: constraints.Constraint):
        super().__init__(base, "zero")

    def check(self, value: Tensor) -> Tensor:
        return (value == 0) | self.base.check(value)


@biject_to.register(OrZero)
def _elsewhere(constraint: OrZero) -> Transform:
    return biject_to(constraint.base)
