"""Bounds at and beyond the ends of a support, and between whole numbers, against scipy and sums."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Distribution, Exponential, Laplace, LogNormal, Normal, constraints

import pyro_vae as pv
from pyro_vae import distributions as own
from pyro_vae.distributions import entries_of, log_between, log_tails
from pyro_vae.testing import check_density
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def number(value):
    return torch.tensor(value, dtype=torch.float64)


FAMILIES = {
    "Normal": (lambda t: Normal(t, 1.2), scipy.stats.norm(0.3, 1.2)),
    "Laplace": (lambda t: Laplace(t, 1.2), scipy.stats.laplace(0.3, 1.2)),
    "StudentT": (lambda t: own.StudentT(3.5, t, 1.2), scipy.stats.t(3.5, 0.3, 1.2)),
    "LogNormal": (lambda t: LogNormal(t, 0.8), scipy.stats.lognorm(0.8, scale=np.exp(0.3))),
    "Exponential": (Exponential, scipy.stats.expon(scale=1 / 0.3)),
    "Gamma": (lambda t: own.Gamma(number(2.5), t), scipy.stats.gamma(2.5, scale=1 / 0.3)),
    "Weibull": (
        lambda t: own.Weibull(t, number(9.0)),
        scipy.stats.weibull_min(9.0, scale=np.exp(0.3)),
    ),
    "Beta": (lambda t: own.Beta(t, number(0.7)), scipy.stats.beta(0.3, 0.7)),
    "ContinuousBernoulli": (
        own.ContinuousBernoulli,
        scipy.stats.truncexpon(0.3, loc=1, scale=-1 / 0.3),
    ),
    "Poisson": (lambda t: own.Poisson(t), scipy.stats.poisson(math.exp(0.3))),
    "NegativeBinomial": (
        lambda t: own.NegativeBinomial(number(2.2), logits=t),
        scipy.stats.nbinom(2.2, 1 / (1 + math.exp(0.3))),
    ),
}
COUNTS = ("Poisson", "NegativeBinomial")
POINTS = (-math.inf, -1.5, -1.0, -0.5, 0.0, 0.25, 1.0, 2.5, 3.0, 3e38, math.inf)


def exact_tails(name, x):
    """P(X <= x) and P(X >= x) by scipy, the latter of counts that of more than those before."""
    if name == "ContinuousBernoulli":
        below = np.expm1(0.3 * np.clip(x, 0, 1)) / np.expm1(0.3)
        return below, 1 - below
    exact = FAMILIES[name][1]
    with np.errstate(over="ignore"):
        return exact.cdf(x), exact.sf(np.ceil(x) - 1 if name in COUNTS else x)


@pytest.mark.parametrize("name", FAMILIES)
def test_tails_hold_at_any_number_and_have_finite_slopes(name):
    for x in POINTS:
        theta = number(0.3).requires_grad_()
        tails = log_tails(FAMILIES[name][0](theta), number(x))
        for got, expected in zip(tails, exact_tails(name, x)):
            torch.testing.assert_close(got.exp().item(), float(expected), rtol=1e-9, atol=1e-12)
            (slope,) = torch.autograd.grad(got, theta, retain_graph=True)
            assert slope.isfinite(), (x, got)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_interval_has_what_lies_in_it(name):
    low, high = (points.flatten() for points in np.meshgrid(POINTS, POINTS))
    before = 1 - exact_tails(name, low)[1]
    expected = np.clip(exact_tails(name, high)[0] - before, 0, None)
    theta = number(0.3).requires_grad_()
    got = log_between(
        FAMILIES[name][0](theta.expand(len(low))), torch.as_tensor(low), torch.as_tensor(high)
    )
    torch.testing.assert_close(got.exp(), torch.as_tensor(expected), rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(got.sum(), theta)
    assert slope.isfinite()


def test_an_interval_of_counts_that_holds_no_whole_number_has_none():
    p = own.Poisson(number(0.3))
    for low, high in ((2.2, 2.8), (4.0, 3.5), (3.0, 1.0), (-3.0, -0.5)):
        assert log_between(p, number(low), number(high)) == -math.inf
    for low, high in ((2.5, 3.5), (1.5, 4.0), (-2.0, 0.5)):
        mass = p.log_prob(torch.arange(math.ceil(max(low, 0)), math.floor(high) + 1)).exp().sum()
        torch.testing.assert_close(log_between(p, number(low), number(high)).exp(), mass)


class Uniform(Distribution):
    """One of 2, 3 and 4: a distribution of one's own, which validates what it is given."""

    arg_constraints: dict = {}
    support = constraints.integer_interval(2, 4)

    def cdf(self, value):
        self._validate_sample(value)
        return (value - 1) / 3


def test_a_distribution_function_of_ones_own_counts_whole_numbers():
    p = Uniform(validate_args=True)
    for x, below, above in [(1.5, 0, 3), (2, 1, 3), (2.5, 1, 2), (4, 3, 1), (4.5, 3, 0)]:
        got = torch.stack(log_tails(p, number(float(x)))).exp()
        torch.testing.assert_close(got, number([below / 3, above / 3]))


CENSORED = [name for name in FAMILIES if name not in ("StudentT", "ContinuousBernoulli")]


@pytest.mark.parametrize("of", FAMILIES)
def test_an_entry_has_the_slope_of_its_own_formula_alone(of, float64):
    """Those of other codes would be infinite, or undefined, at the ends of the support."""
    likelihood = pv.likelihoods.Censored(1, MLP(1, []), of=of, interval=True)
    ends = {"Beta": (0.0, 1.0), "ContinuousBernoulli": (0.0, 1.0)}.get(of, (0.0, math.inf))
    z = torch.ones(4, 1)
    codes, upper = torch.tensor([2, -1, 1, 2]), torch.tensor([ends[1], 0.0, 0.0, ends[1]])
    x = torch.tensor([[ends[0]], [ends[1]], [ends[0]], [1.0 if ends[1] > 1 else 0.5]])
    value = likelihood(z, censored=codes, upper=upper).log_prob(x)
    slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
    assert value.isfinite().all() and all(s is None or s.isfinite().all() for s in slopes)
    everywhere = entries_of(likelihood(z, censored=codes, upper=upper)).base.support
    if own.innermost_support(everywhere) is not constraints.real:  # they are certain
        torch.testing.assert_close(value[:3], torch.zeros(3))
    if of == "ContinuousBernoulli":
        x, observed = torch.tensor([[0.0], [1.0]]), torch.zeros(2)
        value = likelihood(z[:2], censored=observed, upper=observed).log_prob(x)
        slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
        assert all(s is None or s.isfinite().all() for s in slopes)


@pytest.mark.parametrize("of", CENSORED)
def test_intervals_without_an_upper_end_train(of):
    likelihood = pv.likelihoods.Censored(1, MLP(2, [8]), of=of, interval=True)
    program = pv.VAE(
        pv.priors.StandardNormal(2), likelihood, pv.posteriors.DiagonalNormal(2, MLP(1, [8]))
    )
    x = torch.full((20, 1), 0.5) if of not in COUNTS else torch.ones(20, 1)
    codes, upper = torch.tensor([0, 2]).repeat(10), torch.full((20,), math.inf)
    context = {"censored": codes, "upper": upper if of != "Beta" else torch.ones(20)}
    pv.fit(program, (x, context), epochs=2, progress=False)
    assert all(parameter.isfinite().all() for parameter in program.parameters())


TRUNCATED = [
    ("Poisson", 1.5, None, (2.0, math.inf)),
    ("Poisson", 0, 3.5, (0.0, 3.0)),
    ("Poisson", 2.5, 3.5, (3.0, 3.0)),
    ("NegativeBinomial", 0, 0.5, (0.0, 0.0)),
    ("NegativeBinomial", -0.5, None, (0.0, math.inf)),
    ("Exponential", -1, None, (0.0, math.inf)),
    ("Gamma", -1, 2, (0.0, 2.0)),
    ("Gamma", -1, None, (0.0, math.inf)),
    ("LogNormal", -1, None, (0.0, math.inf)),
    ("Weibull", -1, 2, (0.0, 2.0)),
    ("Beta", -1, None, None),
    ("Beta", 0.1, 2, None),
    ("ContinuousBernoulli", -1, 0.5, (0.0, 0.5)),
    ("Normal", -1, None, (-1.0, math.inf)),
]


@pytest.mark.parametrize("of, low, high, ends", TRUNCATED)
def test_truncated_bounds_are_the_ends_of_what_occurs(of, low, high, ends, float64):
    p = pv.likelihoods.Truncated(1, MLP(2, [8]), of, low, high)(torch.randn(2, 2))
    check_density(p)
    p = entries_of(p)
    assert ends is None or (p.low, p.high) == ends
    drawn, found = p.sample((200,)), p._quantiles(torch.empty(200, 2, 1))
    assert p.support.check(drawn).all() and p.support.check(found).all()
    assert p.log_prob(drawn).isfinite().all() and p.expand((2, 2, 1)).support.check(drawn).all()
    for mean in [found.mean(0), *([p.mean] if own.has_mean(p) else [])]:
        error = (drawn.var(0) + found.var(0)).div(200).sqrt() + 1e-12
        assert ((drawn.mean(0) - mean).abs() < 5 * error).all()


@pytest.mark.parametrize(
    "of, low, high",
    [("Poisson", 1.2, 1.8), ("Poisson", -3, -0.5), ("Gamma", -2, 0), ("Beta", 1, 2)],
)
def test_bounds_between_which_nothing_lies_are_refused(of, low, high):
    with pytest.raises(InvalidInput, match="between which nothing of"):
        pv.likelihoods.Truncated(1, MLP(1, []), of, low, high)(torch.ones(1, 1))


def test_a_truncated_density_without_cuts_is_the_density():
    p = own.Gamma(number([2.5]), number([0.7]))
    whole, x = own.TruncatedEntries(p, -1.0), number([0.5])
    assert whole.log_prob(x).equal(p.log_prob(x)) and whole.mean.equal(p.mean)
    check_density(whole.to_event(1))
