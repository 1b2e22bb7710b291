"""Distributions on finitely many levels, such as bytes, and on categories."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

__all__ = [
    "Binomial",
    "BinomialOfTrials",
    "CategoricalCode",
    "DiscretizedLogistic",
    "Grid",
    "OrderedCategory",
]


class Binomial(dist.Binomial):
    r"""Numbers of successes in n trials, their log-probability exact at any log-odds.

    .. math:: \log P(x) = \log \binom{n}{x} + x \log s(l) + (n - x) \log s(-l)

    with s the logistic function, computed in double precision. Torch's own subtracts large terms:
    where success is all but certain its value and its gradient are rounding errors.

    Example:
        >>> Binomial(100_000, logits=torch.tensor(20.0)).log_prob(torch.tensor(100_000.0))
        tensor(-0.0002)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        n, x, logits = self.total_count.double(), value.double(), self.logits.double()
        ways = torch.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
        exact = ways + x * logsigmoid(logits) + (n - x) * logsigmoid(-logits)
        return exact.to(self.logits.dtype)


class BinomialOfTrials(Binomial):
    """`Binomial`, each datum with its own number of trials, so of any count."""

    support = constraints.nonnegative_integer
    has_enumerate_support = False

    def log_prob(self, value: Tensor) -> Tensor:
        occurs = value <= self.total_count
        return torch.where(occurs, super().log_prob(torch.where(occurs, value, 0.0)), -torch.inf)


class Grid(constraints.Constraint):
    """Values k / (levels - 1), k = 0, ..., levels - 1, to within rounding."""

    is_discrete = True

    def __init__(self, levels: int):
        self.levels = levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        steps = value * (self.levels - 1)
        return ((steps - steps.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        return f"Grid({self.levels} levels in [0, 1])"


class DiscretizedLogistic(TorchDistribution):
    r"""A logistic variable rounded to a grid of levels in [0, 1].

    The two end levels take all that lies beyond them:

    .. math:: P(x) = F(x + h) - F(x - h), \quad F(t) = \mathrm{sigmoid}((t - \mu) / s), \quad h =
              \frac{1}{2 (L - 1)},

    with F(x - h) = 0 at x = 0 and F(x + h) = 1 at x = 1, so that the L masses sum to one exactly.
    In logarithms, and without a difference that could cancel,

    .. math:: \log P(x) = \log F(x + h) + \log (1 - F(x - h)) + \log (1 - e^{-2 h / s}).

    Args:
        loc: the location mu, in the units of x.
        scale: the scale s, in the units of x.
        levels: the number of levels L.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++.

    Example:
        >>> p = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1), levels=256)
        >>> p.log_prob(p.enumerate_support()).logsumexp(0).abs() < 1e-5
        tensor(True)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_enumerate_support = True

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ):
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self):
        return Grid(self.levels)

    @property
    def half_step(self) -> float:
        return 0.5 / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        half = self.half_step
        below = logsigmoid((value + half - self.loc) / self.scale)
        above = logsigmoid((self.loc - value + half) / self.scale)
        between = below + above + torch.log(-torch.expm1(-2 * half / self.scale))
        return torch.where(value < half, below, torch.where(value > 1 - half, above, between))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            tiny = torch.finfo(self.loc.dtype).tiny
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            uniform = uniform.clamp_min(tiny)
            value = self.loc + self.scale * (uniform.log() - torch.log1p(-uniform))
            last = self.levels - 1
            return (value * last).round().clamp(0, last) / last

    @property
    def mean(self) -> Tensor:
        r"""Of the rounded variable, :math:`\frac{1}{L - 1} \sum_{k \ge 1} P(x \ge k / (L - 1))`."""
        last = self.levels - 1
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):  # one by one, for all at once may not fit into memory
            total = total + torch.sigmoid((self.loc - (k - 0.5) / last) / self.scale)
        return total / last

    def enumerate_support(self, expand: bool = True) -> Tensor:
        last = self.levels - 1
        values = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device) / last
        values = values.reshape(-1, *(1,) * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values

    def expand(self, batch_shape: torch.Size, _instance=None) -> DiscretizedLogistic:
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.levels = self.levels
        super(DiscretizedLogistic, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


class CategoricalCode(dist.Categorical):
    r"""A category as its number 0, ..., C - 1, in the dtype of the probabilities.

    .. math:: P(x) = \mathrm{softmax}(l)_x

    Columns of a table hold categories so. Samples of torch's own are integers and its mean is NaN;
    here the mean is :math:`\sum_k k\, P(k)`, the expected level where categories are ordered. The
    most likely category represents the others.

    Args:
        logits: unnormalised log-probabilities (..., C).

    Example:
        >>> CategoricalCode(logits=torch.zeros(3)).mean
        tensor(1.)
    """

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return super().sample(sample_shape).to(self.logits.dtype)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return super().enumerate_support(expand).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._codes).sum(-1)

    @property
    def representative(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        return (self.probs * self._codes.square()).sum(-1) - self.mean.square()

    @property
    def _codes(self) -> Tensor:
        return torch.arange(self._num_events, dtype=self.logits.dtype, device=self.logits.device)


class OrderedCategory(TorchDistribution):
    r"""An ordered category 0, ..., C - 1: the interval in which a logistic variable falls.

    .. math:: P(x \le k) = \mathrm{sigmoid}(c_k - \mu)

    with cutpoints :math:`c_0 < \dots < c_{C-2}`. As for `DiscretizedLogistic`, no difference of
    probabilities is taken.

    Args:
        loc: :math:`\mu` (\*batch).
        first: the first cutpoint (\*batch).
        gaps: the distances between cutpoints (\*batch, C - 2), positive.

    Source: McCullagh (1980), Regression Models for Ordinal Data.

    Example:
        >>> p = OrderedCategory(torch.tensor(0.0), torch.tensor(-1.0), torch.tensor([2.0]))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 2.0])).exp()
        tensor([0.2689, 0.4621, 0.2689])
    """

    arg_constraints: dict = {}
    has_enumerate_support = True

    def __init__(self, loc: Tensor, first: Tensor, gaps: Tensor):
        batch = torch.broadcast_shapes(loc.shape, first.shape, gaps.shape[:-1])
        self.loc, self.first = loc.expand(batch), first.expand(batch)
        self.gaps = gaps.expand(*batch, -1)
        super().__init__(batch, validate_args=False)

    @property
    def categories(self) -> int:
        return self.gaps.shape[-1] + 2

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self):
        return constraints.integer_interval(0, self.categories - 1)

    def expand(self, batch_shape: torch.Size, _instance=None) -> OrderedCategory:
        batch = torch.Size(batch_shape)
        return OrderedCategory(
            self.loc.expand(batch), self.first.expand(batch), self.gaps.expand(*batch, -1)
        )

    @property
    def logits(self) -> Tensor:
        """The log-probability of each category (\\*batch, C)."""
        first = (self.first - self.loc).unsqueeze(-1)
        below = torch.cat([first, first + self.gaps.cumsum(-1)], -1)  # c_k - mu
        between = (
            logsigmoid(below[..., 1:])
            + logsigmoid(-below[..., :-1])
            + torch.log(-torch.expm1(-self.gaps))
        )
        return torch.cat([logsigmoid(below[..., :1]), between, logsigmoid(-below[..., -1:])], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        logits, which = torch.broadcast_tensors(self.logits, value.unsqueeze(-1).long())
        return logits.gather(-1, which[..., :1]).squeeze(-1)

    @property
    def probs(self) -> Tensor:
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        return (self.probs * self._codes).sum(-1)

    @property
    def variance(self) -> Tensor:
        return (self.probs * self._codes.square()).sum(-1) - self.mean.square()

    @property
    def _codes(self) -> Tensor:
        return torch.arange(self.categories, dtype=self.loc.dtype, device=self.loc.device)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return (
            torch.distributions.Categorical(logits=self.logits)
            .sample(sample_shape)
            .reshape(shape)
            .to(self.loc.dtype)
        )

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = self._codes.reshape(-1, *(1,) * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values
