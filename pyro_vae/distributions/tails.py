r"""Logarithms of tail probabilities, right to the last digits however far out.

In a suitable coordinate y the densities of Gamma, Student t and Beta are log-concave. So the tail
beyond :math:`y_0`, on the side away from the mode, is

.. math:: e^{h(y_0)} \int_0^\infty e^{g(\delta)}\, d\delta, \quad g(\delta) = h(y_0 + \delta) -
          h(y_0) \le 0,

which an exponential quadrature gives with its derivatives in all parameters; the other tail is its
complement. Poisson and negative binomial tails are those of Gamma and Beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Distribution,
    Exponential,
    Gamma,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.adapters import TorchToPyro
from pyro_vae.distributions.supports import ends_of, number_inside, stated_support
from pyro_vae.validation import InvalidInput

__all__ = ["log1mexp", "log_between", "log_tails", "poisson_tails", "tails_inside"]

Tails = tuple[Tensor, Tensor]  # log P(X <= x) and log P(X >= x)


def log_tails(distribution: Distribution, value: Tensor) -> Tails:
    r"""The logarithms of :math:`P(X \le x)` and :math:`P(X \ge x)`, in double precision.

    Both are finite, with gradients, where the probabilities underflow; beyond the ends of the
    support they are 0 and minus infinity, without a slope. A distribution of your own needs a
    method ``cdf``, and is then right to where that rounds to 0 or 1; or register a function for its
    class by ``tails_inside.register``.

    Args:
        distribution: of single numbers (\*batch); if it is discrete, of whole numbers.
        value: x (\*batch), any numbers, infinite ones too.

    Raises:
        InvalidInput: for a distribution without a distribution function.

    Example:
        >>> log_tails(torch.distributions.Normal(0.0, 1.0), torch.tensor(1e4))[1]
        tensor(-50000010.1293, dtype=torch.float64)
        >>> log_tails(torch.distributions.Poisson(1.0), torch.tensor(-0.5))
        (tensor(-inf, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    support = stated_support(distribution)
    low, high = _true_ends(distribution)
    if support.is_discrete:  # where the ends themselves occur
        is_low, is_high = value < low, (value > high) | (value == math.inf)
    else:
        is_low, is_high = value <= low, value >= high
    is_beyond = is_low | is_high
    # For masking the result alone would give NaN gradients.
    inside = torch.where(is_beyond, number_inside(support, value), value)
    below, above = tails_inside(distribution, inside)
    below = torch.where(is_low, -math.inf, torch.where(is_high, 0.0, below))
    return below, torch.where(is_low, 0.0, torch.where(is_high, -math.inf, above))


def _true_ends(distribution: Distribution) -> tuple[float | Tensor, float | Tensor]:
    """The ends of a support, where our Beta's states the representable numbers next to them."""
    base = distribution.wrapped if isinstance(distribution, TorchToPyro) else distribution
    return (0.0, 1.0) if isinstance(base, Beta) else ends_of(stated_support(base))


@singledispatch
def tails_inside(distribution: Distribution, value: Tensor) -> Tails:
    """The same as `log_tails`, of values between the ends; functions for classes go here.

    Those of counts take any numbers between the ends, not only whole ones.
    """
    support = stated_support(distribution)
    if support.is_discrete:
        start, last = torch.zeros_like(value) + ends_of(support)[0], value.ceil() - 1
        below = _cdf(distribution, value.floor())
        before = torch.where(last < start, 0.0, _cdf(distribution, torch.maximum(last, start)))
    else:
        below = before = _cdf(distribution, value)
    is_none, is_all = below <= 0, before >= 1  # whose logarithms have no slope
    log_below = torch.where(is_none, 1.0, below).log()
    log_above = torch.log1p(-torch.where(is_all, 0.0, before))
    return torch.where(is_none, -math.inf, log_below), torch.where(is_all, -math.inf, log_above)


def _cdf(distribution: Distribution, value: Tensor) -> Tensor:
    try:
        return distribution.cdf(value).double()
    except NotImplementedError:
        raise InvalidInput(
            "of",
            got=f"{type(distribution).__name__}, whose tail probabilities are unknown",
            expected="a density with a distribution function",
            fix="choose one such as Normal, LogNormal, Gamma or Weibull",
        ) from None


def log_between(distribution: Distribution, low: Tensor, high: Tensor) -> Tensor:
    r"""The logarithm of :math:`P(a \le X \le b)`, from the side on which less is subtracted.

    Example:
        >>> far = torch.tensor([40.0, 41.0])
        >>> log_between(torch.distributions.Normal(0.0, 1.0), *far)
        tensor(-804.6084, dtype=torch.float64)
    """
    is_discrete = bool(stated_support(distribution).is_discrete)
    if is_discrete:
        low, high = low.double().ceil(), high.double().floor()
    below_low, above_low = log_tails(distribution, low)
    below_high, above_high = log_tails(distribution, high)
    if is_discrete:  # where the ends themselves are between
        below_low = log_tails(distribution, low - 1)[0]
        above_high = log_tails(distribution, high + 1)[1]
    is_low = below_high < above_low
    whole = torch.where(is_low, below_high, above_low)
    outside = torch.where(is_low, below_low, above_high)
    is_possible = whole > -math.inf
    return whole + log1mexp(torch.where(is_possible, outside - whole, 0.0))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, exact at both ends; minus infinity at 0, without a slope.

    Example:
        >>> log1mexp(torch.tensor([-1e-20, -50.0], dtype=torch.float64))
        tensor([-4.6052e+01, -1.9287e-22], dtype=torch.float64)
    """
    is_near, is_below = x > -math.log(2), x < 0
    near, far = torch.where(is_near & is_below, x, -1.0), torch.where(is_near, -1.0, x)
    exact = torch.where(is_near, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))
    return torch.where(is_below, exact, -math.inf)


# in closed form


@tails_inside.register
def _wrapped(p: TorchToPyro, x: Tensor) -> Tails:
    return tails_inside(p.wrapped, x)


@tails_inside.register
def _normal(p: Normal, x: Tensor) -> Tails:
    z = (x.double() - p.loc.double()) / p.scale.double()
    return log_below_unit_normal(z), log_below_unit_normal(-z)


@tails_inside.register
def _log_normal(p: LogNormal, x: Tensor) -> Tails:
    return tails_inside(p.base_dist, x.double().log())


@tails_inside.register
def _laplace(p: Laplace, x: Tensor) -> Tails:
    z = (x.double() - p.loc.double()) / p.scale.double()
    size = torch.where(z < 0, -z, z)
    far = -size - math.log(2)
    return _by_side(z < 0, far, log1mexp(far))


@tails_inside.register
def _exponential(p: Exponential, x: Tensor) -> Tails:
    above = -x.double() * p.rate.double()
    return log1mexp(above), above


def log_below_unit_normal(z: Tensor) -> Tensor:
    """The logarithm of a standard normal variable's probability of lying below z.

    Far below, the derivative of torch's own is right to 9 digits only.
    """
    is_far = z < -1
    near, far = torch.where(is_far, 0.0, z), torch.where(is_far, z, -1.0)
    tail = torch.log(torch.special.erfcx(-far * math.sqrt(0.5))) - math.log(2)
    return torch.where(is_far, tail - far.square() / 2, torch.special.log_ndtr(near))


# by quadrature


@tails_inside.register
def _gamma(p: Gamma, x: Tensor) -> Tails:
    return gamma_tails(p.concentration.double(), x.double().log() + p.rate.double().log())


@tails_inside.register
def _poisson(p: Poisson, x: Tensor) -> Tails:
    return poisson_tails(p.rate.double().log(), x.double())


@tails_inside.register
def _beta(p: Beta, x: Tensor) -> Tails:
    a, b, x = p.concentration1.double(), p.concentration0.double(), x.double()
    return beta_tails(a, b, x.log() - torch.log1p(-x))


@tails_inside.register
def _negative_binomial(p: NegativeBinomial, x: Tensor) -> Tails:
    r, y, k = p.total_count.double(), -p.logits.double(), x.double()
    above = beta_tails(r, k.ceil().clamp_min(1), y)[1]
    return beta_tails(r, k.floor() + 1, y)[0], torch.where(k > 0, above, 0.0)


@tails_inside.register
def _student(p: StudentT, x: Tensor) -> Tails:
    df, z = p.df.double(), (x.double() - p.loc.double()) / p.scale.double()
    size = torch.where(z < 0, -z, z) / df.sqrt()
    y = torch.asinh(size)
    rest = torch.sigmoid(-2 * y)

    def gain(step: Tensor) -> Tensor:
        return -df * (step + torch.log1p(rest * torch.expm1(-2 * step)))

    log_cosh = y + torch.log1p(torch.exp(-2 * y)) - math.log(2)
    normaliser = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * math.log(math.pi)
    far = normaliser - df * log_cosh + log_integral(gain, y)
    return _by_side(z < 0, far, log1mexp(far))


def poisson_tails(log_rate: Tensor, k: Tensor) -> Tails:
    """Log-probabilities of at most and of at least k counts, for any numbers k >= 0."""
    above = gamma_tails(k.ceil().clamp_min(1), log_rate)[0]
    return gamma_tails(k.floor() + 1, log_rate)[1], torch.where(k > 0, above, 0.0)


def gamma_tails(a: Tensor, y: Tensor) -> Tails:
    """Log-probabilities that a Gamma variable of concentration a lies below and above e^y."""
    a, y = torch.broadcast_tensors(a, y)
    r = y.exp()
    is_low = r < a

    def gain(step: Tensor) -> Tensor:
        lower = -a * step - r * torch.expm1(-step)
        upper = a * step - r * torch.expm1(step.clamp_max(300))
        return torch.where(is_low, lower, upper)

    far = a * y - r - torch.lgamma(a) + log_integral(gain, y)
    return _by_side(is_low, far, log1mexp(far))


def beta_tails(a: Tensor, b: Tensor, y: Tensor) -> Tails:
    """Log-probabilities that the log-odds of a Beta variable lie below and above y."""
    a, b, y = torch.broadcast_tensors(a, b, y)
    is_low = y < torch.log(a / b)
    falls, side = torch.where(is_low, a, b), torch.where(is_low, y, -y)
    rest = torch.sigmoid(side)

    def gain(step: Tensor) -> Tensor:
        return -falls * step - (a + b) * torch.log1p(rest * torch.expm1(-step))

    normaliser = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    start = a * logsigmoid(y) + b * logsigmoid(-y)
    far = normaliser + start + log_integral(gain, y)
    return _by_side(is_low, far, log1mexp(far))


NODES = torch.linspace(-3.8, 3.8, 128, dtype=torch.float64)
HALVINGS = 12


def log_integral(gain: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """log of the integral of e^g over steps from 0 to infinity, for concave g with g(0) = 0."""
    with torch.no_grad():  # a step at which g is about -1, between e^-90 and e^90
        log_scale, half = torch.zeros_like(like), 45.0
        for _ in range(HALVINGS):
            is_far = gain(log_scale.exp()) < -1
            log_scale, half = log_scale + torch.where(is_far, -half, half), half / 2
    tau = NODES.to(like.device)
    step = torch.exp(tau - torch.exp(-tau))
    log_weights = (tau[1] - tau[0]).log() + step.log() + torch.log1p(torch.exp(-tau))
    scale = log_scale.exp()
    at_nodes = [gain(s * scale) + w for s, w in zip(step, log_weights)]
    return log_scale + torch.stack(at_nodes).logsumexp(0)


def _by_side(is_low: Tensor, far: Tensor, rest: Tensor) -> Tails:
    """The tails at a point, from the one on the side away from the mode and its complement."""
    return torch.where(is_low, far, rest), torch.where(is_low, rest, far)
