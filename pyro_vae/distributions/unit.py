"""Distributions on the unit interval."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

__all__ = ["Beta", "ContinuousBernoulli"]

# Below these |logits| the sums of the first terms of the series are exact in float64.
SMALL = 0.5
SMALL_FOR_QUANTILES = 0.02


class Beta(dist.Beta):
    r"""The Beta distribution on the open interval, where its log-density is finite.

    .. math:: p(x) = \frac{x^{\alpha - 1} (1 - x)^{\beta - 1}}{B(\alpha, \beta)}, \quad 0 < x < 1

    Torch's own rounds some samples to 0 or 1 and accepts these as data. The log-density is computed
    in double precision, for in float32 the log-gammas of large parameters cancel.

    Example:
        >>> Beta(torch.tensor(2.0), torch.tensor(1.0)).support.check(torch.tensor([0.0, 0.5, 1.0]))
        tensor([False,  True, False])
    """

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        return constraints.interval(*self._ends)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return super().rsample(sample_shape).clamp(*self._ends)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration1.double(), self.concentration0.double()
        exact = dist.Beta(a, b, validate_args=False).log_prob(value.double())
        return exact.to(self.concentration1.dtype)

    @property
    def _ends(self) -> tuple[float, float]:
        """The representable numbers next to 0 and to 1."""
        numbers = torch.finfo(self.concentration1.dtype)
        return numbers.tiny, 1 - numbers.eps / 2


class ContinuousBernoulli(dist.TorchDistribution):
    r"""A density on [0, 1] that is exponential in x, computed from its log-odds.

    .. math:: p(x) = e^{l x - A(l)}, \quad A(l) = \log \frac{e^l - 1}{l}, \quad A(0) = 0

    Torch's own goes through probabilities, which saturate: in float32 it is constant for l above
    16, with a gradient of zero. Here the density, its mean, its quantiles and their gradients hold
    for all log-odds; near l = 0 they are sums of series.

    Args:
        logits: l (\*batch), log-odds in nats.

    Source: Loaiza-Ganem and Cunningham (2019), The Continuous Bernoulli.

    Example:
        >>> p = ContinuousBernoulli(torch.tensor([1.0, 30.0]))
        >>> p.log_prob(torch.zeros(2)), p.mean
        (tensor([ -0.5413, -26.5988]), tensor([0.5820, 0.9667]))
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance=None) -> ContinuousBernoulli:
        return ContinuousBernoulli(self.logits.expand(torch.Size(batch_shape)), validate_args=False)

    @property
    def _is_small(self) -> Tensor:
        return self.logits.abs() < SMALL

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        size, small = _apart(self.logits, SMALL)
        # From the end where the density is highest, so that nothing large is subtracted.
        distance = torch.where(self.logits > 0, 1 - value, value)
        large = size.log() - torch.log(-torch.expm1(-size)) - size * distance
        near_zero = small * (value - 0.5) - _centred_normaliser(small)
        return torch.where(self._is_small, near_zero, large)

    @property
    def mean(self) -> Tensor:
        size, small = _apart(self.logits, SMALL)
        low = 1 / size + torch.exp(-size) / torch.expm1(-size)  # that of -|l|
        large = torch.where(self.logits > 0, 1 - low, low)
        return torch.where(self._is_small, 0.5 + small * _series(small.square(), MEAN), large)

    @property
    def variance(self) -> Tensor:
        size, small = _apart(self.logits, SMALL)
        large = 1 / size.square() - torch.exp(-size) / torch.expm1(-size).square()
        return torch.where(self._is_small, _series(small.square(), VARIANCE), large)

    def entropy(self) -> Tensor:
        size, small = _apart(self.logits, SMALL)
        scaled_mean = 1 + size * torch.exp(-size) / torch.expm1(-size)  # |l| times that of -|l|
        large = scaled_mean - size.log() + torch.log(-torch.expm1(-size))
        square = small.square()
        near_zero = _centred_normaliser(small) - square * _series(square, MEAN)
        return torch.where(self._is_small, near_zero, large)

    def cdf(self, value: Tensor) -> Tensor:
        x = value.clamp(0, 1)
        size = self.logits.abs().clamp_min(torch.finfo(self.logits.dtype).tiny)
        distance = torch.where(self.logits > 0, 1 - x, x)
        low = torch.expm1(-size * distance) / torch.expm1(-size)
        return torch.where(self.logits > 0, 1 - low, low)

    def icdf(self, value: Tensor) -> Tensor:
        size, small = _apart(self.logits, SMALL_FOR_QUANTILES)
        is_high = self.logits > 0
        u, rest = torch.where(is_high, 1 - value, value), torch.where(is_high, value, 1 - value)
        # log(1 - u + u e^-|l|), without the difference where u is small.
        near_start = torch.log1p(u.clamp_max(0.5) * torch.expm1(-size))
        near_end = torch.log(rest.clamp_min(torch.finfo(u.dtype).tiny) + u * torch.exp(-size))
        low = (-torch.where(u < 0.5, near_start, near_end) / size).clamp(0, 1)
        low = torch.where(rest == 0, 1.0, low)
        large = torch.where(is_high, 1 - low, low)
        # log(1 + u (e^l - 1)) / l, summed over the cumulants of a Bernoulli variable.
        v, skew = value * (1 - value), 1 - 2 * value
        fourth = v * (1 - 6 * v) / 24 + small * v * skew * (1 - 12 * v) / 120
        near_zero = value + small * (v / 2 + small * (v * skew / 6 + small * fourth))
        return torch.where(self.logits.abs() < SMALL_FOR_QUANTILES, near_zero, large)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        logits = self.logits.expand(self._extended_shape(sample_shape))
        return self.icdf(torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).eps / 2))


# Coefficients of l^2n: of A(l) - l / 2 (from l^2 on), of (mean - 1/2) / l, and of the variance,
# which are each the derivative of the one before.
NORMALISER = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600, -691 / 15692092416000)
MEAN = tuple(2 * n * c for n, c in enumerate(NORMALISER, 1))
VARIANCE = tuple((2 * n - 1) * c for n, c in enumerate(MEAN, 1))


def _apart(logits: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """|l| where it is large and l where it is small, elsewhere numbers that give no infinities."""
    is_small = logits.abs() < limit
    return torch.where(is_small, 1.0, logits.abs()), torch.where(is_small, logits, 0.0)


def _series(square: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    total = torch.full_like(square, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = coefficient + square * total
    return total


def _centred_normaliser(logits: Tensor) -> Tensor:
    """A(l) - l / 2 for small l, an even function."""
    return logits.square() * _series(logits.square(), NORMALISER)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl_continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    """E_p[log p(x) - log q(x)], which is linear in x and so taken at p's mean."""
    return p.log_prob(p.mean) - q.log_prob(p.mean)
