"""Censored, truncated, zero-inflated, ordinal and noisy entries, against scipy and one another."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Exponential, Independent, Laplace, LogNormal, Normal

import pyro_vae as pv
from pyro_vae import distributions as own
from pyro_vae.distributions import entries_of
from pyro_vae.testing import check_density, check_likelihood
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def number(value):
    return torch.tensor(value, dtype=torch.float64)


CONTINUOUS = {
    "Normal": (Normal(number(0.3), number(1.2)), scipy.stats.norm(0.3, 1.2)),
    "Laplace": (Laplace(number(0.3), number(1.2)), scipy.stats.laplace(0.3, 1.2)),
    "StudentT": (own.StudentT(number(3.5), number(0.3), number(1.2)), scipy.stats.t(3.5, 0.3, 1.2)),
    "LogNormal": (LogNormal(number(0.3), number(0.8)), scipy.stats.lognorm(0.8, scale=np.exp(0.3))),
    "Exponential": (Exponential(number(0.7)), scipy.stats.expon(scale=1 / 0.7)),
    "Gamma": (own.Gamma(number(2.5), number(0.7)), scipy.stats.gamma(2.5, scale=1 / 0.7)),
    "Weibull": (
        own.Weibull(number(0.4), number(1.7)),
        scipy.stats.weibull_min(1.7, scale=np.exp(0.4)),
    ),
    "Beta": (own.Beta(number(2.5), number(0.7)), scipy.stats.beta(2.5, 0.7)),
}
COUNTS = {
    "Poisson": (own.Poisson(number(1.3).log()), scipy.stats.poisson(1.3)),
    "NegativeBinomial": (
        own.NegativeBinomial(number(2.2), logits=number(0.4)),
        scipy.stats.nbinom(2.2, 1 / (1 + math.exp(0.4))),
    ),
}


@pytest.mark.parametrize("code", [0, 1, -1, 2])
@pytest.mark.parametrize("name", [*CONTINUOUS, *COUNTS])
def test_censored_entries_agree_with_scipy(name, code):
    base, exact = {**CONTINUOUS, **COUNTS}[name]
    points = np.array([0.05, 0.4, 0.75]) if name in CONTINUOUS else np.array([0.0, 1.0, 6.0])
    upper = points + (0.2 if name in CONTINUOUS else 3.0)
    x, u = torch.as_tensor(points), torch.as_tensor(upper)
    got = own.CensoredEntries(base.expand((3,)), torch.full((3,), code), u).log_prob(x)
    before = points if name in CONTINUOUS else points - 1  # the points below
    expected = {
        0: exact.logpdf if name in CONTINUOUS else exact.logpmf,
        1: lambda x: np.log(exact.sf(before)),
        -1: lambda x: exact.logcdf(x),
        2: lambda x: np.log(exact.cdf(upper) - exact.cdf(before)),
    }[code](points)
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("low, high", [(0.2, math.inf), (-math.inf, 0.7), (0.2, 0.7)])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_truncated_densities_agree_with_scipy(name, low, high):
    base, exact = CONTINUOUS[name]
    p, x = own.TruncatedEntries(base, low, high), np.array([0.25, 0.5, 0.69])
    expected = exact.logpdf(x) - np.log(exact.cdf(high) - exact.cdf(low))
    torch.testing.assert_close(p.log_prob(torch.as_tensor(x)), torch.as_tensor(expected))
    assert p.log_prob(number(low - 0.1 if low > 0 else high + 0.1)).item() == -math.inf


@pytest.mark.parametrize("low, high", [(1, math.inf), (2, 5), (-math.inf, 3)])
@pytest.mark.parametrize("name", COUNTS)
def test_truncated_counts_agree_with_scipy(name, low, high):
    base, exact = COUNTS[name]
    p, x = own.TruncatedEntries(base, low, high), np.arange(max(low, 0), min(high, 60) + 1)
    expected = exact.pmf(x) / exact.pmf(x).sum()
    mass = p.log_prob(torch.as_tensor(x).double()).exp()
    torch.testing.assert_close(mass, torch.as_tensor(expected), rtol=1e-9, atol=1e-12)
    draws = p.expand((4000,)).sample()
    assert p.support.check(draws).all()
    error = (draws.mean() - (expected * x).sum()).abs() / (draws.std() / math.sqrt(len(draws)))
    assert error < 5
    if high == math.inf:
        torch.testing.assert_close(p.mean, number((expected * x).sum()))


def test_draws_far_out_are_quantiles():
    p = own.TruncatedEntries(Normal(number([0.0]), number([1.0])), low=30.0)
    draws = p.sample((4000,))
    torch.testing.assert_close(p.mean, number([30.0333]), rtol=1e-4, atol=0)
    assert (draws >= 30).all() and ((draws.mean() - p.mean) * 30 * 63).abs() < 5


def test_ordinal_categories_are_a_cut_logistic_variable():
    p = own.OrderedCategory(number(0.7), number(-1.0), number([0.5, 2.0]))
    cuts = np.array([-np.inf, -1.0, -0.5, 1.5, np.inf])
    expected = np.diff(scipy.stats.logistic(0.7).cdf(cuts))
    torch.testing.assert_close(p.probs, torch.as_tensor(expected))
    torch.testing.assert_close(p.enumerate_support(), torch.arange(4.0, dtype=torch.float64))
    torch.testing.assert_close(p.mean, number((expected * np.arange(4)).sum()))


@pytest.mark.parametrize("of", ["Gamma", "LogNormal", "Weibull", "NegativeBinomial"])
def test_zeros_beside_a_density(of):
    likelihood = pv.likelihoods.ZeroInflated(1, MLP(2, [8]), of=of)
    check_likelihood(likelihood, torch.randn(4, 2))
    p = likelihood.double()(torch.randn(4, 2).double())
    entries = p.base_dist
    zero = entries.log_prob(torch.zeros(4, 1, dtype=torch.float64)).exp()
    own_zeros = (
        entries.base.log_prob(torch.zeros(4, 1).double()).exp() if of == "NegativeBinomial" else 0.0
    )
    torch.testing.assert_close(zero, entries.gate + (1 - entries.gate) * own_zeros)


TRUNCATED = [("Normal", 0.0, 2.0), ("StudentT", -1.0, None), ("Gamma", 0.5, 3.0)]


@pytest.mark.parametrize("of, low, high", [*TRUNCATED, ("Poisson", 1, None), ("Poisson", 2, 5)])
def test_truncated_likelihoods_keep_the_contract(of, low, high):
    check_likelihood(pv.likelihoods.Truncated(1, MLP(2, [8]), of, low, high), torch.randn(3, 2))


def test_an_entry_of_infinite_noise_is_missing():
    likelihood = pv.likelihoods.NormalWithNoise(3, MLP(2, [8]))
    z, scale = torch.randn(4, 2), torch.rand(4, 3) + 0.1
    x = torch.randn(4, 3)
    holes = torch.rand(4, 3) < 0.4
    noisy = likelihood(z, scale=torch.where(holes, torch.inf, scale))
    missing = pv.likelihoods.Missing(likelihood)(z, scale=scale)
    torch.testing.assert_close(noisy.log_prob(x), missing.log_prob(x.masked_fill(holes, torch.nan)))
    inverse = pv.likelihoods.NormalWithNoise(3, likelihood.network, noise="inverse_variance")
    inverse.load_state_dict(likelihood.state_dict())
    torch.testing.assert_close(
        inverse(z, inverse_variance=torch.where(holes, 0.0, scale**-2)).log_prob(x),
        noisy.log_prob(x),
    )
    assert noisy.sample().isnan().equal(holes)
    for garbage in (1e30, torch.nan):
        odd = x.masked_fill(holes, garbage)
        value = likelihood(z, scale=torch.where(holes, torch.inf, scale)).log_prob(odd)
        (slope,) = torch.autograd.grad(value.sum(), likelihood.head.layer.weight)
        assert value.equal(noisy.log_prob(x)) and slope.isfinite().all()


def test_the_rate_of_a_count_follows_its_size():
    z, size = torch.randn(4, 2), torch.tensor([0.5, 2.0, 30.0, 1000.0])
    total = pv.likelihoods.Poisson((2, 3), MLP(2, [8]), size_factor="total")
    torch.testing.assert_close(total(z, size_factor=size).mean.flatten(1).sum(1), size)
    exposure = pv.likelihoods.NegativeBinomial(3, MLP(2, [8]), size_factor="exposure")
    one, many = exposure(z, size_factor=torch.ones(4)), exposure(z, size_factor=size)
    torch.testing.assert_close(many.mean, one.mean * size[:, None])
    each = torch.rand(4, 3) + 0.5
    torch.testing.assert_close(exposure(z, size_factor=each).mean, one.mean * each)
    inflated = pv.likelihoods.ZeroInflatedNegativeBinomial(3, MLP(2, [8]), size_factor="total")
    for likelihood in (total, exposure, inflated):
        num = likelihood.event_shape
        many = likelihood(z.expand(5, 4, 2), size_factor=size)
        assert many.batch_shape == (5, 4) and many.event_shape == num
    words = pv.likelihoods.Multinomial(3, MLP(2, [8]), size_factor="total")
    totals = torch.tensor([0.0, 3.0, 7.0, 200.0])
    assert words(z, size_factor=totals).sample().sum(-1).equal(totals)


@pytest.mark.parametrize("name", ["Poisson", "NegativeBinomial", "ZeroInflatedNegativeBinomial"])
@pytest.mark.parametrize("size_factor", ["exposure", "total"])
def test_counts_of_any_size_keep_the_contract(name, size_factor):
    likelihood = getattr(pv.likelihoods, name)(1, MLP(2, [8]), size_factor=size_factor)
    known = {"size_factor": torch.tensor([0.3, 2.0, 9.0, 20.0])}
    check_likelihood(likelihood, torch.randn(4, 2), known=known)


def test_each_datum_has_its_own_trials():
    likelihood = pv.likelihoods.Binomial(2, MLP(2, [8]), trials=True).double()
    trials, z = number([1.0, 5.0, 40.0]), torch.randn(3, 2).double()
    check_likelihood(likelihood, z, known={"trials": trials})
    p = entries_of(likelihood(z, trials=trials))
    x = p.sample()
    expected = scipy.stats.binom(trials[:, None], p.probs.detach()).logpmf(x)
    torch.testing.assert_close(p.log_prob(x).detach(), torch.as_tensor(expected))
    assert (p.log_prob(trials[:, None] + 1.0) == -torch.inf).all()


def test_groups_of_columns_take_their_own_known_quantities():
    groups = [
        {"columns": [0, 3], "class_path": "Censored", "init_args": {"of": "Weibull"}},
        {"columns": [2], "class_path": "Poisson", "init_args": {"size_factor": "exposure"}},
        {"columns": [1], "class_path": "Ordinal", "init_args": {"categories": 3}},
    ]
    mixed = pv.likelihoods.Mixed(4, MLP(2, [8]), groups=groups)
    assert set(mixed.known) == {"censored", "size_factor"}
    z, size = torch.randn(5, 2), torch.rand(5) + 0.5
    codes = torch.randint(-1, 2, (5, 4))
    x = mixed(z, censored=codes, size_factor=size).sample()
    features = mixed.network(z)
    parts = [
        mixed.parts[0](features, censored=codes[:, [0, 3]]).log_prob(x[:, [0, 3]]),
        mixed.parts[1](features, size_factor=size).log_prob(x[:, [2]]),
        mixed.parts[2](features).log_prob(x[:, [1]]),
    ]
    torch.testing.assert_close(mixed(z, censored=codes, size_factor=size).log_prob(x), sum(parts))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda net: pv.likelihoods.Censored(3, net, of="Weibul"), "did you mean 'Weibull'"),
        (lambda net: pv.likelihoods.Truncated(3, net, low=1.0, high=1.0), "low < high"),
        (lambda net: pv.likelihoods.Poisson(3, net, size_factor="sum"), "None, exposure, total"),
        (lambda net: pv.likelihoods.Normal(3, net, learn_scale="all"), "shared, per_feature, net"),
        (lambda net: pv.likelihoods.NormalWithNoise(3, net, noise="sd"), "scale, inverse_variance"),
        (lambda net: pv.likelihoods.Ordinal(3, net, categories=1), "categories: got 1"),
        (
            lambda net: pv.likelihoods.Censored(3, net, of="Categorical")(
                torch.zeros(1, 2), censored=torch.ones(1)
            ).log_prob(torch.zeros(1, 3)),
            "CategoricalCode, whose tail probabilities are unknown",
        ),
        (
            lambda net: pv.likelihoods.Censored(3, net, of="Multinomial")(
                torch.zeros(1, 2), censored=torch.ones(1)
            ),
            "whose entries depend on one another",
        ),
        (
            lambda net: pv.likelihoods.Censored(3, net)(torch.zeros(1, 2)),
            r"context\['censored'\]: got none",
        ),
    ],
)
def test_arguments_that_cannot_work(build, message):
    with pytest.raises(InvalidInput, match=message):
        build(MLP(2, [8]))


def test_a_density_of_ones_own_with_a_distribution_function_can_be_censored():
    p = own.CensoredEntries(
        torch.distributions.Cauchy(torch.zeros(1), torch.ones(1)), torch.ones(1)
    )
    torch.testing.assert_close(p.log_prob(torch.zeros(1)), torch.tensor([0.5]).log())
    check_density(Independent(own.CensoredEntries(p.base, torch.zeros(1)), 1), tolerance=0.1)
