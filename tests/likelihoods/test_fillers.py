"""What stands for a missing entry, or beside a zero, lies where the density is, whatever bounds."""

import math

import pytest
import torch
from torch.distributions import constraints

import pyro_vae as pv
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.distributions import ObservedEvents, words_of
from pyro_vae.distributions.supports import number_inside
from pyro_vae.likelihoods import Missing
from pyro_vae.networks import MLP, WithMask
from pyro_vae.runtime.checks import check_data
from pyro_vae.validation import InvalidInput

BOUNDED = [
    ("Gamma", 2.0, None),
    ("Gamma", 0.0, 0.3),
    ("Weibull", 2.0, None),
    ("LogNormal", 2.0, None),
    ("Beta", 0.6, 0.9),
    ("Normal", -9.0, -8.0),
    ("StudentT", None, -3.0),
    ("Poisson", 2.0, 3.0),
    ("NegativeBinomial", 4.0, None),
]


def within(of, low, high):
    return {"class_path": "Truncated", "init_args": {"of": of, "low": low, "high": high}}


def wrapped(of, low, high):
    """Likelihoods of two entries that have one within bounds somewhere inside."""
    network, inner = MLP(1, [8]), within(of, low, high)
    groups = [{"columns": [1], **inner}, {"columns": [0], "class_path": "Bernoulli"}]
    return {
        "Truncated": pv.likelihoods.Truncated(2, network, of, low, high),
        "Mixed": pv.likelihoods.Mixed(2, network, groups=groups),
        "ZeroInflated": pv.likelihoods.ZeroInflated(2, network, inner),
    }


@pytest.mark.parametrize("name", ["Truncated", "Mixed", "ZeroInflated"])
@pytest.mark.parametrize("of, low, high", BOUNDED)
def test_missing_entries_within_bounds_have_no_slope(of, low, high, name, float64):
    likelihood = wrapped(of, low, high)[name]
    z = torch.randn(3, 1)
    complete = likelihood(z).sample()
    x = complete.clone()
    x[0, 0] = x[1] = math.nan
    value = Missing(likelihood)(z).log_prob(x)
    assert value[1] == 0
    torch.testing.assert_close(value[2], likelihood(z).log_prob(complete)[2])
    slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)
    # An event that is missing as a whole.
    lacking = torch.full_like(x, math.nan)
    assert (ObservedEvents(likelihood(z)).log_prob(lacking) == 0).all()
    value = ObservedEvents(likelihood(z)).log_prob(torch.cat([lacking[:1], complete[1:]]))
    slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("of, low, high", BOUNDED)
def test_missing_entries_within_bounds_train(of, low, high):
    likelihood = pv.likelihoods.Truncated(2, MLP(1, [8]), of, low, high)
    x = likelihood(torch.randn(30, 1)).sample()
    x[::3, 0] = math.nan
    network = WithMask(2, MLP(4, [8]))
    program = pv.VAE(
        pv.priors.StandardNormal(1), Missing(likelihood), pv.posteriors.DiagonalNormal(1, network)
    )
    pv.fit(program, Dataset(x, missing=True), epochs=1, progress=False)
    assert all(parameter.isfinite().all() for parameter in program.parameters())


def test_censored_entries_may_be_missing_whatever_their_codes(float64):
    likelihood = pv.likelihoods.Censored(1, MLP(1, []), of="Gamma", interval=True)
    z, codes = torch.ones(5, 1), torch.tensor([0, 1, -1, 2, 2])
    upper = torch.tensor([0.0, 0.0, 0.0, 0.1, math.inf])
    x = torch.full((5, 1), math.nan)
    value = Missing(likelihood)(z, censored=codes, upper=upper).log_prob(x)
    slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
    assert (value == 0).all() and all(s is None or (s == 0).all() for s in slopes)


def test_zeros_beside_a_density_that_is_infinite_at_one(float64):
    likelihood = pv.likelihoods.ZeroInflated(2, MLP(1, []), of="Beta")
    value = likelihood(torch.ones(1, 1)).log_prob(torch.tensor([[0.0, 0.4]]))
    slopes = torch.autograd.grad(value.sum(), likelihood.parameters(), allow_unused=True)
    assert all(slope is None or slope.isfinite().all() for slope in slopes)


INTERVALS = [
    constraints.real,
    constraints.positive,
    constraints.nonnegative,
    constraints.unit_interval,
    constraints.less_than(-5.0),
    constraints.greater_than(1e30),
    constraints.interval(torch.tensor([0.6, -8.0, 1e-9]), torch.tensor([0.9, -7.5, 2e-9])),
    constraints.half_open_interval(0.0, 1e-6),
]
WHOLE = [
    constraints.boolean,
    constraints.nonnegative_integer,
    constraints.integer_interval(2, 3),
    constraints.integer_interval(torch.tensor([0.0, 7.0, -3.0]), torch.tensor([0.0, 9.0, -3.0])),
]


@pytest.mark.parametrize("support", [*INTERVALS, *WHOLE], ids=repr)
def test_there_is_a_number_inside_of_every_interval(support):
    like = torch.zeros(2, 3)
    got = number_inside(constraints.independent(support, 1), like)
    assert got.shape == like.shape and got.dtype == like.dtype and support.check(got).all()
    if not support.is_discrete:  # and neither of its ends
        ends = [getattr(support, end, math.nan) for end in ("lower_bound", "upper_bound")]
        assert not any((got == end).any() for end in ends)


def modalities():
    expert = pv.posteriors.DiagonalNormal
    return pv.MultimodalVAE(
        pv.priors.StandardNormal(1),
        {
            "seen": pv.likelihoods.Bernoulli(2, MLP(1, [8])),
            "count": Missing(pv.likelihoods.Truncated(2, MLP(1, [8]), "Poisson", low=2)),
        },
        pv.posteriors.ProductOfExperts(
            1, {"seen": expert(1, MLP(2, [8])), "count": expert(1, WithMask(2, MLP(4, [8])))}
        ),
    )


def test_a_modality_within_bounds_may_be_missing_as_a_whole():
    x = {"seen": torch.ones(20, 2), "count": torch.full((20, 2), 3.0)}
    x["count"][::2], x["count"][1, 0] = math.nan, math.nan
    program = modalities()
    pv.fit(program, Dataset(x, missing=True), epochs=1, progress=False)
    assert all(parameter.isfinite().all() for parameter in program.parameters())


@pytest.mark.parametrize(
    "name, wrong, words",
    [
        ("seen", 0.5, "values in Boolean or missing; binarise"),
        ("count", 1.0, "values in whole numbers from 2 to inf or missing;"),
    ],
)
def test_a_value_outside_of_a_modality_is_named_with_it(name, wrong, words):
    x = {"seen": torch.ones(5, 2), "count": torch.full((5, 2), 3.0)}
    x[name][3, 1] = wrong
    with pytest.raises(InvalidInput, match=rf"x\['{name}'\]: got 1 of 5 .*{words}") as told:
        check_data(modalities(), Dataset(x, missing=True))
    assert str(told.value).count("(") == str(told.value).count(")")


@pytest.mark.parametrize("of", ["Bernoulli", "Poisson", "Gamma", "Beta", "LogNormal", "Normal"])
def test_supports_are_named_with_their_brackets_closed(of):
    z, network = torch.zeros(1, 1), MLP(1, [])
    plain = getattr(pv.likelihoods, of)(2, network)
    parts = [plain, Missing(plain), pv.likelihoods.Mixed(2, network, wrapped_groups(of))]
    if of != "Bernoulli":
        parts.append(pv.likelihoods.Truncated(2, network, of, 0.2, 3.5))
    if of not in ("Bernoulli", "Normal"):
        parts.append(pv.likelihoods.ZeroInflated(2, network, of))
    for part in parts:
        for support in (part(z).support, ObservedEvents(part(z)).support):
            words = words_of(support)
            assert words.count("(") == words.count(")") and not words.endswith("()")
            assert "Independent" not in words and words.count("missing") <= 1


def wrapped_groups(of):
    return [{"columns": [1], "class_path": of}, {"columns": [0], "class_path": "Laplace"}]
