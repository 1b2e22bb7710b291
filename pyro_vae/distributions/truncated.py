"""Entries that occur only within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Normal, Transform, biject_to, constraints

from pyro_vae.distributions.adapters import TorchToPyro, as_pyro
from pyro_vae.distributions.tails import log_between, log_tails

__all__ = ["TruncatedEntries", "Within"]

PROPOSALS = 100  # draws of the base before quantiles are computed
HALVINGS = 48  # of the interval in which a quantile is looked for
FARTHEST = 200.0  # the logarithm of a draw's largest distance from its bound
MOST = 2.0**40  # the largest count that is drawn


class TruncatedEntries(TorchDistribution):
    r"""Independent entries given that each lies within bounds.

    .. math:: p(x) = \frac{p_0(x)}{P_0(a \le X \le b)}, \quad a \le x \le b

    What lies outside never occurs; of a censored entry the bound is seen.

    Args:
        base: the distribution of single entries (\*batch), over numbers or counts.
        low: a; minus infinity for none.
        high: b; infinity for none.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous Univariate Distributions.

    Example:
        >>> p = TruncatedEntries(torch.distributions.Exponential(torch.tensor(1.0)), low=2.0)
        >>> p.log_prob(torch.tensor([1.0, 2.5]))
        tensor([   -inf, -0.5000])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution, low: float = -math.inf, high: float = math.inf):
        self.base, self.low, self.high = as_pyro(base), low, high
        super().__init__(self.base.batch_shape, validate_args=False)

    @property
    def support(self):
        return Within(self.base.support, self.low, self.high)

    def expand(self, batch_shape: torch.Size, _instance=None) -> TruncatedEntries:
        return TruncatedEntries(self.base.expand(torch.Size(batch_shape)), self.low, self.high)

    def _log_mass(self, high: Tensor) -> Tensor:
        """The logarithm of the base's probability from its lower bound to another one."""
        if self.low == -math.inf:
            return log_tails(self.base, high)[0]
        return log_between(self.base, torch.full_like(high, self.low), high)

    def _log_whole(self, like: Tensor) -> Tensor:
        """The logarithm of the base's probability within the bounds."""
        like = like.new_empty(self.batch_shape)
        if self.high < math.inf:
            return self._log_mass(torch.full_like(like, self.high))
        if self.low == -math.inf:
            return torch.zeros_like(like)
        return log_tails(self.base, torch.full_like(like, self.low))[1]

    def log_prob(self, value: Tensor) -> Tensor:
        base = self._normal
        if base is None:
            log_prob = self.base.log_prob(value)
        else:  # far from its middle two large numbers are subtracted here
            log_prob = Normal(base.loc.double(), base.scale.double()).log_prob(value.double())
        inside = (value >= self.low) & (value <= self.high)
        given = (log_prob.double() - self._log_whole(value)).to(value.dtype)
        return torch.where(inside, given, -math.inf)

    @property
    def _normal(self) -> Normal | None:
        """The base if it is normal."""
        base = self.base.wrapped if isinstance(self.base, TorchToPyro) else self.base
        return base if isinstance(base, Normal) else None

    @property
    def mean(self) -> Tensor:
        """In closed form, for normal entries and for counts that are truncated below."""
        if self._normal is not None:
            return self._mean_of_normal(self._normal)
        base = self.base.wrapped if isinstance(self.base, TorchToPyro) else self.base
        if not self.support.is_discrete or self.high < math.inf:
            raise NotImplementedError("a mean in closed form")  # torch's word for there is none
        whole = base.mean.double()
        for count in range(1, max(1, math.ceil(self.low))):
            whole = whole - count * base.log_prob(torch.full_like(base.mean, count)).double().exp()
        return (whole * torch.exp(-self._log_whole(whole))).to(base.mean.dtype)

    def _mean_of_normal(self, base: Normal) -> Tensor:
        loc, scale = base.loc.double(), base.scale.double()
        log_whole, shift = self._log_whole(loc), torch.zeros_like(loc)
        for end, sign in ((self.low, 1.0), (self.high, -1.0)):
            if abs(end) < math.inf:
                log_density = -0.5 * ((end - loc) / scale).square() - 0.5 * math.log(2 * math.pi)
                shift = shift + sign * torch.exp(log_density - log_whole)
        return (loc + scale * shift).to(base.loc.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        drawn, support = self.base.sample(sample_shape), self.support
        for _ in range(PROPOSALS):
            inside = support.check(drawn)
            if inside.all():
                return drawn
            drawn = torch.where(inside, drawn, self.base.sample(sample_shape))
        return torch.where(inside, drawn, self._quantiles(drawn))

    def _quantiles(self, drawn: Tensor) -> Tensor:
        """Draws by bisection, as many as others; for bounds in which the base seldom falls."""
        uniform = torch.rand(drawn.shape, dtype=torch.float64, device=drawn.device)
        target = uniform.log() + self._log_whole(uniform)
        below, above, number_at = self._search()
        low, high = torch.full_like(uniform, below), torch.full_like(uniform, above)
        for _ in range(HALVINGS):
            middle = low + (high - low) / 2
            reached = self._log_mass(number_at(middle)) >= target
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return number_at(high).to(drawn.dtype)

    def _search(self) -> tuple[float, float, Callable[[Tensor], Tensor]]:
        """An interval in which to look for quantiles, and the number that stands at a place."""
        if self.support.is_discrete:
            return max(0.0, self.low) - 1, min(self.high, MOST), torch.ceil
        transform = biject_to(self.support)
        return -FARTHEST, FARTHEST, lambda place: transform(transform.sign * place)


class Within(constraints.Constraint):
    """The part of a constraint that lies within bounds, which belong to it."""

    def __init__(self, base: constraints.Constraint, low: float, high: float):
        self.base, self.low, self.high = base, low, high
        self.is_discrete = base.is_discrete  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.base.check(value) & (value >= self.low) & (value <= self.high)

    def __repr__(self) -> str:
        return f"{str(self.base).rstrip('()')} from {self.low:g} to {self.high:g}"


@biject_to.register(Within)
def _within(constraint: Within) -> Transform:
    low, high = constraint.low, constraint.high
    if not constraint.base.check(torch.tensor(low if low > -math.inf else -1.0)):
        low = max(0.0, low)  # the bound of positive numbers
    if low == -math.inf:
        return biject_to(constraints.less_than(high))
    if high == math.inf:
        return biject_to(constraints.greater_than(low))
    return biject_to(constraints.interval(low, high))
