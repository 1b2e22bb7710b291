"""Entries that occur only within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, Normal, Transform, biject_to, constraints
from torch.distributions.constraints import Constraint

from pyro_vae.distributions.adapters import TorchToPyro, as_pyro
from pyro_vae.distributions.supports import ends_of, stated_support, words_of
from pyro_vae.distributions.tails import log_between, log_tails
from pyro_vae.validation import InvalidInput

__all__ = ["TruncatedEntries", "Within"]

PROPOSALS = 100  # draws of the base before quantiles are computed
HALVINGS = 48  # of the interval in which a quantile is looked for, of numbers that are not whole
FARTHEST = 200.0  # the logarithm of a draw's largest distance from its bound
MOST = 2.0**40  # the largest count that is drawn


class TruncatedEntries(TorchDistribution):
    r"""Independent entries given that each lies within bounds.

    .. math:: p(x) = \frac{p_0(x)}{P_0(a \le X \le b)}, \quad a \le x \le b

    What lies outside never occurs; of a censored entry the bound is seen. Bounds are kept as the
    ends of what occurs: those beyond the base's support as its ends, those of counts as whole
    numbers.

    Args:
        base: the distribution of single entries (\*batch), over numbers or counts.
        low: a; minus infinity for none.
        high: b; infinity for none.

    Raises:
        InvalidInput: if the base gives nothing between the bounds.

    Source: Johnson, Kotz and Balakrishnan (1994), Continuous Univariate Distributions.

    Example:
        >>> p = TruncatedEntries(torch.distributions.Exponential(torch.tensor(1.0)), low=2.0)
        >>> p.log_prob(torch.tensor([1.0, 2.5]))
        tensor([   -inf, -0.5000])
    """

    arg_constraints: dict = {}

    def __init__(self, base: Distribution, low: float = -math.inf, high: float = math.inf):
        self.base = as_pyro(base)
        self.low, self.high = bounds_within(stated_support(self.base), low, high)
        super().__init__(self.base.batch_shape, validate_args=False)

    @property
    def support(self):
        return Within(self.base.support, self.low, self.high)

    def expand(self, batch_shape: torch.Size, _instance=None) -> TruncatedEntries:
        return TruncatedEntries(self.base.expand(torch.Size(batch_shape)), self.low, self.high)

    def _log_mass(self, high: Tensor) -> Tensor:
        """The logarithm of the base's probability from its lower bound to another one."""
        if not self._cuts[0]:
            return log_tails(self.base, high)[0]
        return log_between(self.base, torch.full_like(high, self.low), high)

    def _log_whole(self, like: Tensor) -> Tensor:
        """The logarithm of the base's probability within the bounds."""
        like = like.new_empty(self.batch_shape)
        is_cut_below, is_cut_above = self._cuts
        if is_cut_above:
            return self._log_mass(torch.full_like(like, self.high))
        if not is_cut_below:
            return torch.zeros_like(like)
        return log_tails(self.base, torch.full_like(like, self.low))[1]

    @property
    def _cuts(self) -> tuple[bool, bool]:
        """Whether the lower bound cuts something off, and whether the upper one does."""
        ends = ends_of(stated_support(self.base))
        start, end = (math.nan if isinstance(end, Tensor) else end for end in ends)
        return self.low not in (-math.inf, start), self.high not in (math.inf, end)

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
        if not any(self._cuts):
            return self.base.mean
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
        steps = math.ceil(math.log2(above - below)) if self.support.is_discrete else HALVINGS
        for _ in range(steps):
            middle = low + (high - low) / 2
            reached = self._log_mass(number_at(middle)) >= target
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return number_at(high).to(drawn.dtype)

    def _search(self) -> tuple[float, float, Callable[[Tensor], Tensor]]:
        """An interval in which to look for quantiles, and the number that stands at a place."""
        if self.support.is_discrete:
            return max(-MOST, self.low) - 1, min(self.high, MOST), torch.ceil
        transform = biject_to(self.support)
        return -FARTHEST, FARTHEST, lambda place: transform(transform.sign * place)


def bounds_within(support: Constraint, low: float, high: float) -> tuple[float, float]:
    """Bounds as the ends of the values that a support has between them.

    Raises:
        InvalidInput: if it has none, or, of numbers that are not whole, a single one.

    Example:
        >>> bounds_within(constraints.nonnegative_integer, -1.0, 3.5)
        (0.0, 3.0)
    """
    is_discrete = bool(support.is_discrete)
    least, most = (
        (_rounded(low, math.ceil), _rounded(high, math.floor)) if is_discrete else (low, high)
    )
    start, end = ends_of(support)
    if not isinstance(start, Tensor):  # else entries may differ in it
        least = max(least, float(start))
    if not isinstance(end, Tensor):
        most = min(most, float(end))
    if least > most or (least == most and not is_discrete):
        raise InvalidInput(
            "low",
            got=f"{low:g} with high={high:g}, between which nothing of {words_of(support)} lies",
            expected="bounds between which there are values of the likelihood that is truncated",
            fix="move a bound, pass None for no bound, or truncate another likelihood",
        )
    return least, most


def _rounded(bound: float, to_whole: Callable[[float], int]) -> float:
    return float(to_whole(bound)) if math.isfinite(bound) else bound


class Within(Constraint):
    """The part of a constraint that lies within bounds, which belong to it."""

    def __init__(self, base: Constraint, low: float, high: float):
        self.base, self.lower_bound, self.upper_bound = base, low, high
        self.is_discrete = base.is_discrete  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        is_within = (value >= self.lower_bound) & (value <= self.upper_bound)
        return self.base.check(value) & is_within

    def __repr__(self) -> str:
        kind = "whole numbers" if self.is_discrete else "numbers"
        return f"{kind} from {self.lower_bound:g} to {self.upper_bound:g}"


@biject_to.register(Within)
def _within(constraint: Within) -> Transform:
    low, high = ends_of(constraint)
    if low == -math.inf:
        return biject_to(constraints.less_than(high))
    if high == math.inf:
        return biject_to(constraints.greater_than(low))
    return biject_to(constraints.interval(low, high))
