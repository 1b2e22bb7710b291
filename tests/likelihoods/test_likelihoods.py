"""Every likelihood in `__all__` keeps its contract; a new class is tested without being listed."""

import inspect
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from common import has_entries, known_of, likelihood_of

import pyro_vae as pv
from pyro_vae import distributions
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.distributions import (
    CoupledLogistics,
    DiscretizedLogistic,
    MultinomialGivenTotal,
    entries_of,
    has_mean,
    representative_of,
)
from pyro_vae.testing import check_density, check_likelihood
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


@pytest.mark.parametrize("event", [1, 3, (1, 4, 4)])
@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_likelihood(name, event):
    likelihood = likelihood_of(name, event, MLP(2, [8]))
    known = known_of(likelihood, 4)
    check_likelihood(likelihood, torch.randn(4, 2), known=known)
    conditional = likelihood_of(name, event, MLP(2, [8], context=3))
    check_likelihood(conditional, torch.randn(4, 2), context=torch.randn(4, 3), known=known)


LEARNED = [
    (name, argument)
    for name in pv.likelihoods.__all__
    for argument in inspect.signature(getattr(pv.likelihoods, name)).parameters
    if argument.startswith("learn_")
]


@pytest.mark.parametrize("learn", [None, "shared", "per_feature", "network"])
@pytest.mark.parametrize("name, argument", LEARNED)
def test_every_kind_of_scale(name, argument, learn):
    likelihood = getattr(pv.likelihoods, name)(1, MLP(2, [8]), **{argument: learn})
    check_likelihood(likelihood, torch.randn(4, 2))
    quantity = argument.removeprefix("learn_")
    with pytest.raises(InvalidInput, match=f"{quantity}_bounds"):
        getattr(pv.likelihoods, name)(1, MLP(2, [8]), **{quantity: -1.0})


@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_means_are_those_of_the_draws(name):
    likelihood = likelihood_of(name, 3, MLP(2, [8]))
    p = likelihood(torch.randn(4, 2), **known_of(likelihood, 4))
    draws = p.sample((20_000,))
    if name == "AutoregressiveCategorical":  # names of things have no mean
        assert not has_mean(p) and torch.equal(representative_of(p), p.mode)
        return
    if name in ("AutoregressiveBernoulli", "CoupledLogisticMixture"):  # none in closed form
        assert not has_mean(p) and p.support.check(representative_of(p)).all()
        return
    assert p.mean.shape == draws.shape[1:]
    error = (draws.mean(0) - p.mean).abs() / (draws.std(0) / math.sqrt(len(draws)) + 1e-9)
    assert (error < 6).all()


@pytest.mark.parametrize("size", [1e3, 1e8])
@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_weights_however_large_give_finite_gradients(name, size):
    likelihood = likelihood_of(name, 3, MLP(2, [8], activation=torch.nn.Tanh))
    known = known_of(likelihood, 6)
    x = likelihood(torch.randn(6, 2), **known).sample()
    with torch.no_grad():  # what one bad step of an optimiser does
        for parameter in likelihood.parameters():
            parameter.mul_(size)
    z = torch.randn(6, 2, requires_grad=True)
    likelihood(z, **known).log_prob(x).sum().backward()
    assert z.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in likelihood.parameters() if p.grad is not None)


def test_a_learned_scale_cannot_leave_its_bounds():
    likelihood = pv.likelihoods.Normal(
        1, MLP(2, []), scale=0.5, learn_scale="shared", scale_bounds=(0.1, 2.0)
    )
    for raw, bound in ((-1e9, 0.1), (1e9, 2.0)):
        torch.nn.init.constant_(likelihood.sigma.raw, raw)
        assert likelihood(torch.zeros(1, 2)).variance.sqrt().item() == pytest.approx(bound)


# agreement with independent densities


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def mass_of_a_rounded_logistic(x, loc, scale, levels):
    half, logistic = 0.5 / (levels - 1), scipy.stats.logistic(loc, scale)
    return (1.0 if x > 1 - half else logistic.cdf(x + half)) - (
        0.0 if x < half else logistic.cdf(x - half)
    )


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("loc, scale", [(0.3, 0.1), (-0.5, 0.05), (1.4, 0.3), (0.5, 5.0)])
def test_the_discretised_logistic_is_a_rounded_logistic(loc, scale, levels):
    p = DiscretizedLogistic(double(loc), double(scale), levels)
    values = p.enumerate_support()
    expected = double(
        *(mass_of_a_rounded_logistic(x, loc, scale, levels) for (x,) in values.tolist())
    )
    torch.testing.assert_close(p.log_prob(values).exp()[:, 0], expected, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(p.log_prob(values).exp().sum(), double(1.0)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(
        p.mean, (p.log_prob(values).exp() * values).sum(0), rtol=1e-10, atol=1e-12
    )


def test_the_discretised_logistic_keeps_its_digits_in_single_precision():
    loc, scale = torch.tensor([-3.0, 0.5, 4.0])[:, None], torch.tensor([1e-3, 1e-2, 1.0, 100.0])
    single, both = (
        DiscretizedLogistic(loc, scale),
        DiscretizedLogistic(loc.double(), scale.double()),
    )
    values = single.enumerate_support()
    torch.testing.assert_close(
        single.log_prob(values).double(), both.log_prob(values.double()), rtol=1e-4, atol=2e-4
    )


def test_the_discretised_logistic_mixture_is_the_sum_of_its_parts():
    likelihood = pv.likelihoods.DiscretizedLogisticMixture(
        2, MLP(2, [8]), components=3, levels=8
    ).double()
    p = entries_of(likelihood(torch.randn(5, 2).double()))
    values = p.enumerate_support()
    parts = p.component_distribution.log_prob(values[..., None]).exp()
    torch.testing.assert_close(
        p.log_prob(values).exp(), (p.mixture_distribution.probs * parts).sum(-1)
    )
    assert (
        values.shape == (8, 5, 2)
        and p.support.check(values).all()
        and not p.support.check(values + 0.05).any()
    )


def coupled(parts, channels, places, levels):
    """A mixture of colours with parameters at random."""
    shape = (parts, channels, *places)
    pairs = (parts, channels * (channels - 1) // 2, *places)
    return CoupledLogistics(
        torch.randn(parts, *places).double(),
        torch.rand(shape).double(),
        0.05 + 0.3 * torch.rand(shape).double(),
        torch.randn(pairs).double(),
        levels,
        len(places),
    )


def test_coupled_channels_are_mixtures_of_chains_of_rounded_logistics():
    """One place and its masses: against the formula by hand, to one, and the draws' frequencies."""
    p, levels = coupled(2, 3, (), 4), 4
    x = p.enumerate_support()
    weights, a = p.logits.softmax(0), p.slopes
    expected = torch.zeros(len(x)).double()
    for m in range(2):
        locs = [
            p.loc[m, 0].expand(len(x)),
            p.loc[m, 1] + a[m, 0] * (x[:, 0] - 0.5),
            p.loc[m, 2] + a[m, 1] * (x[:, 0] - 0.5) + a[m, 2] * (x[:, 1] - 0.5),
        ]
        mass = weights[m].expand(len(x))
        for c, loc in enumerate(locs):
            of = [
                mass_of_a_rounded_logistic(value, at, p.scale[m, c].item(), levels)
                for value, at in zip(x[:, c].tolist(), loc.tolist())
            ]
            mass = mass * double(*of)
        expected = expected + mass
    torch.testing.assert_close(p.log_prob(x).exp(), expected, rtol=1e-9, atol=1e-14)
    assert expected.sum().item() == pytest.approx(1.0, abs=1e-12)
    draws = p.sample((50_000,))
    which = ((draws * (levels - 1)).round() @ double(16.0, 4.0, 1.0)).long()
    counts = torch.bincount(which, minlength=len(x)).numpy()
    enough = expected.numpy() * len(draws) > 5
    rest = [counts[~enough].sum()], [expected.numpy()[~enough].sum() * len(draws)]
    observed = np.concatenate([counts[enough], rest[0]])
    hoped = np.concatenate([expected.numpy()[enough] * len(draws), rest[1]])
    assert scipy.stats.chisquare(observed, hoped * observed.sum() / hoped.sum()).pvalue > 1e-3


def test_places_of_coupled_channels_are_independent():
    p = coupled(3, 3, (2, 2), 256)
    x = p.sample((5,))
    at = [
        CoupledLogistics(
            p.logits[:, i, j], p.loc[..., i, j], p.scale[..., i, j], p.slopes[..., i, j], 256, 0
        ).log_prob(x[..., i, j])
        for i in range(2)
        for j in range(2)
    ]
    torch.testing.assert_close(p.log_prob(x), torch.stack(at).sum(0))


def test_one_coupled_channel_is_a_discretised_logistic_mixture():
    plain = pv.likelihoods.DiscretizedLogisticMixture((1, 3, 3), MLP(2, [8]), components=2)
    both = pv.likelihoods.CoupledLogisticMixture((1, 3, 3), MLP(2, [8]), components=2)
    both.network = plain.network
    with torch.no_grad():
        both.head.layer.weight.copy_(plain.head.layer.weight)
        both.head.layer.bias.copy_(plain.head.layer.bias)
    z, x = torch.randn(4, 2), plain(torch.randn(4, 2)).sample()
    torch.testing.assert_close(both(z).log_prob(x), plain(z).log_prob(x))


def test_many_coupled_channels_are_refused():
    with pytest.raises(InvalidInput, match=r"got .*, 784 channels each of which follows all"):
        pv.likelihoods.CoupledLogisticMixture(784, MLP(2, [8]))


def test_the_zero_inflated_negative_binomial_agrees_with_scipy():
    mean, r, gate = 3.7, 2.5, 0.3
    p = distributions.ZeroInflatedNegativeBinomial(
        double(r), logits=double(mean / r).log(), gate_logits=double(gate).logit()
    )
    x = torch.arange(30, dtype=torch.float64)
    expected = (1 - gate) * scipy.stats.nbinom(r, r / (r + mean)).pmf(x.numpy()) + gate * (
        x.numpy() == 0
    )
    torch.testing.assert_close(p.log_prob(x).exp(), torch.as_tensor(expected))
    before = p.log_prob(x)
    assert p.mean.item() == pytest.approx((1 - gate) * mean) and p.expand(
        (2, 1)
    ).sample().shape == (2, 1)
    assert torch.equal(p.log_prob(x), before)


@pytest.mark.parametrize("total", [0, 1, 4])
def test_the_multinomial_sums_to_one_over_each_total(total):
    p = MultinomialGivenTotal(9, logits=torch.randn(3, dtype=torch.float64))
    cells = [x for x in itertools.product(range(total + 1), repeat=3) if sum(x) == total]
    masses = torch.stack([p.log_prob(double(*x)).exp() for x in cells])
    torch.testing.assert_close(
        masses,
        torch.as_tensor([scipy.stats.multinomial(total, p.probs.numpy()).pmf(x) for x in cells]),
    )
    torch.testing.assert_close(masses.sum(), double(1.0)[0])
    assert (p.sample((5,)).sum(-1) == 9).all()


SCIPY = {
    "Laplace": lambda p: scipy.stats.laplace(p.loc, p.scale).logpdf,
    "StudentT": lambda p: scipy.stats.t(p.df, p.loc, p.scale).logpdf,
    "Beta": lambda p: scipy.stats.beta(p.concentration1, p.concentration0).logpdf,
    "Binomial": lambda p: scipy.stats.binom(p.total_count, p.probs).logpmf,
    "Poisson": lambda p: scipy.stats.poisson(p.rate).logpmf,
    "Exponential": lambda p: scipy.stats.expon(scale=1 / p.rate).logpdf,
    "Gamma": lambda p: scipy.stats.gamma(p.concentration, scale=1 / p.rate).logpdf,
    "LogNormal": lambda p: scipy.stats.lognorm(p.scale, scale=p.loc.exp()).logpdf,
    "Weibull": lambda p: scipy.stats.weibull_min(p.concentration, scale=p.log_scale.exp()).logpdf,
    "NegativeBinomial": lambda p: scipy.stats.nbinom(p.total_count, 1 - p.probs).logpmf,
}


@pytest.mark.parametrize("name", SCIPY)
def test_agreement_with_scipy(name):
    with torch.no_grad():
        p = entries_of(
            getattr(pv.likelihoods, name)(3, MLP(2, [8])).double()(torch.randn(2, 2).double())
        )
        x = p.sample()
        torch.testing.assert_close(
            p.log_prob(x), torch.as_tensor(SCIPY[name](p)(x.numpy())), rtol=1e-7, atol=1e-9
        )


def test_the_continuous_bernoulli_is_a_density_also_where_its_constant_is_a_series():
    check_density(
        torch.distributions.ContinuousBernoulli(probs=double(0.5, 0.4995, 0.498, 0.1, 0.999))
    )
    p = pv.likelihoods.ContinuousBernoulli(1, MLP(1, []))
    logits = torch.linspace(-12, 12, 101)[:, None]
    with torch.no_grad():
        p.head.layer.weight.fill_(1.0)
        p.head.layer.bias.zero_()
        one, other = entries_of(p(logits)), entries_of(p(logits.flip(0)))
        kl = torch.distributions.kl_divergence(one, other)
    assert (kl > -1e-4).all()


def test_what_lies_at_an_end_of_the_interval_is_no_datum_of_beta():
    vae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Beta(3, MLP(2, [8])),
        pv.posteriors.DiagonalNormal(2, MLP(3, [8])),
    )
    with pytest.raises(InvalidInput, match="2 of 3 data outside"):
        pv.elbo(vae, torch.tensor([[0.2, 0.3, 0.0], [0.5, 0.5, 0.5], [1.0, 0.1, 0.1]]))
    draws = distributions.Beta(torch.full((1000,), 1e-3), torch.full((1000,), 1e-3)).sample()
    assert (draws > 0).all() and (draws < 1).all()


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("StudentT", {"df": 1.0}),
        ("Categorical", {"categories": 1}),
        ("Binomial", {"total_count": 0}),
        ("DiscretizedLogistic", {"levels": 1}),
        ("Multinomial", {"total_count": 0}),
        ("AutoregressiveCategorical", {"categories": 1}),
        ("AutoregressiveBernoulli", {"radius": 0}),
        ("AutoregressiveBernoulli", {"hidden": 0}),
        ("AutoregressiveCategorical", {"word_dropout": 1.0}),
    ],
)
def test_arguments_out_of_range(name, arguments):
    with pytest.raises(InvalidInput, match=f"{next(iter(arguments))}: got"):
        getattr(pv.likelihoods, name)(3, MLP(2, [8]), **arguments)


@pytest.mark.parametrize("event", [(1, 4, 5), (2, 3, 3), (6,)])
def test_pixels_depend_on_the_neighbours_before_them_alone(event, float64):
    likelihood = pv.likelihoods.AutoregressiveBernoulli(event, MLP(2, [8]), radius=2, hidden=5)
    x = torch.bernoulli(torch.full((3, *event), 0.5))
    rows, columns = x[0].numel() // event[-1], event[-1]
    said = likelihood.said(x).flatten(1)
    one_by_one = torch.stack([likelihood.said_at(i, x.flatten(1)) for i in range(said.shape[1])], 1)
    torch.testing.assert_close(said, one_by_one)
    for j in range(said.shape[1]):
        other = x.flatten(1).clone()
        other[:, j] = 1 - other[:, j]
        changed = (likelihood.said(other.reshape(x.shape)).flatten(1) != said).any(0)
        for i in range(rows * columns):
            down, right = i // columns - j // columns, i % columns - j % columns
            assert changed[i] <= (i > j and 0 <= down <= 2 and abs(right) <= 2), (i, j)
    with torch.no_grad():  # without the neighbours' part, independent pixels
        likelihood.out.weight.zero_()
    z = torch.randn(4, 3, 2)
    independent = torch.distributions.Independent(
        torch.distributions.Bernoulli(logits=likelihood(z).logits), len(event)
    )
    torch.testing.assert_close(likelihood(z).log_prob(x), independent.log_prob(x))


def test_where_there_is_no_mean_draws_are_shown():
    pixels = pv.likelihoods.AutoregressiveBernoulli((1, 8, 8), MLP(2, [8]))
    program = pv.VAE(
        pv.priors.StandardNormal(2), pixels, pv.posteriors.DiagonalNormal(2, MLP((1, 8, 8), [8]))
    )
    assert torch.equal(pv.generate(program, 5), pv.generate(program, 5))
    decoder = pv.inspection.Decoder(program)
    assert not decoder.is_smooth and torch.equal(
        decoder(torch.zeros(2, 2)), decoder(torch.zeros(2, 2))
    )
    seen = pv.reconstruct(program, torch.zeros(3, 1, 8, 8))
    assert ((seen == 0) | (seen == 1)).all() and seen.any()


# mixed columns

GROUPS = [
    {"columns": [3, 0], "class_path": "StudentT", "init_args": {"df": 5.0}},
    {"columns": [2], "class_path": "Categorical", "init_args": {"categories": 3}},
    {"columns": [1, 4], "class_path": "pyro_vae.likelihoods.Poisson"},
]


def test_mixed_columns_are_their_likelihoods_side_by_side():
    likelihood = pv.likelihoods.Mixed(5, MLP(2, [8]), groups=GROUPS)
    z = torch.randn(6, 2)
    check_likelihood(likelihood, z)
    p, features = likelihood(z), likelihood.network(z)
    x = p.sample()
    parts = [
        part(features).log_prob(x[:, group["columns"]])
        for part, group in zip(likelihood.parts, GROUPS)
    ]
    torch.testing.assert_close(p.log_prob(x), sum(parts))
    for part, group in zip(likelihood.parts, GROUPS):
        assert torch.equal(p.mean[:, group["columns"]], part(features).mean)
        assert torch.equal(p.variance[:, group["columns"]], part(features).variance)
    assert not p.support.is_discrete and set(x[:, 2].tolist()) <= {0.0, 1.0, 2.0}
    outside = x.clone()
    outside[0, 2], outside[1, 4] = 3.0, -1.0
    assert p.support.check(outside).tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    "groups, message",
    [
        ([{"columns": [0, 1], "class_path": "Normal"}], "columns 2 in no group"),
        ([{"columns": [0, 1, 2, 2], "class_path": "Normal"}], "columns 2 in no group, in two"),
        ([{"columns": [0, 1, 2], "class_path": "Norml"}], "did you mean 'Normal'"),
        ([{"columns": [0, 1, 2], "class_path": "nowhere.Normal"}], "import path"),
        ([{"columns": [0, 1, 2], "likelihood": "Normal"}], "a group with columns, likelihood"),
    ],
)
def test_groups_that_are_no_partition(groups, message):
    with pytest.raises(InvalidInput, match=message):
        pv.likelihoods.Mixed(3, MLP(2, [8]), groups=groups)


def test_entries_that_depend_on_one_another_are_no_columns():
    groups = [
        {"columns": [0, 1], "class_path": "Multinomial"},
        {"columns": [2], "class_path": "Normal"},
    ]
    with pytest.raises(InvalidInput, match="MultinomialGivenTotal, whose entries depend"):
        pv.likelihoods.Mixed(3, MLP(2, [8]), groups=groups)(torch.zeros(1, 2))


# the step as one graph

CAPTURED = [
    (name, missing)
    for name in pv.likelihoods.__all__
    for missing in (False, True)
    if not missing or has_entries(name)
]


@pytest.mark.parametrize("name, missing", CAPTURED)
def test_a_step_can_be_captured_as_one_graph(name, missing, monkeypatch):
    monkeypatch.setattr(
        Captured, "compile", lambda self, inputs: None
    )  # interpreted: the same bits as eager
    likelihood = likelihood_of(name, 4, MLP(2, [8]))
    network = MLP(4, [8])
    known = known_of(likelihood, 6)
    x = likelihood(torch.randn(6, 2), **known).sample()
    if missing:
        likelihood, network = (
            pv.likelihoods.Missing(likelihood),
            pv.networks.WithMask(4, MLP(8, [8])),
        )
        x[0, :2], x[3, 1] = torch.nan, torch.nan
    vae = pv.VAE(pv.priors.StandardNormal(2), likelihood, pv.posteriors.DiagonalNormal(2, network))

    def loss(x):
        return pv.objectives.ELBO().differentiable_loss(vae.model, vae.guide, x, known)

    results = []
    for compiled in (False, True):
        step = LossAndGradients(loss, list(vae.parameters()), lambda n, compiled=compiled: compiled)
        torch.manual_seed(7)
        value, gradients = step(x)
        results.append((value, *gradients))
    assert next(iter(step.graphs.values())) is not None, "nothing was captured"
    for eager, captured in zip(*results):
        torch.testing.assert_close(captured, eager)
