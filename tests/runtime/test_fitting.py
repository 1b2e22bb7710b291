"""A pair of parts that does not fit is refused by a line that names parts that do."""

import re
from itertools import product

import pytest
import torch

import pyro_vae as pv
from pyro_vae.distributions import stated_support
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.fitting import PAIRS, likelihood_that_holds
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
X = torch.rand(6, 5)

PRIORS = {
    name: vars(pv.priors)[name]
    for name in sorted({pair[0] for pair in PAIRS.values()} | {"Dirichlet", "RelaxedCategorical"})
}
POSTERIORS = {
    name: vars(pv.posteriors)[name]
    for name in sorted({pair[1] for pair in PAIRS.values()} | {"Flow", "RelaxedCategorical"})
}


def program(prior, posterior):
    return pv.VAE(
        PRIORS[prior](4),
        pv.likelihoods.Normal(5, MLP(4, [8])),
        POSTERIORS[posterior](4, MLP(5, [8])),
    )


def refusal(prior, posterior):
    try:
        check_data(program(prior, posterior), pv.datasets.as_dataset(X))
    except InvalidInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize("prior,posterior", list(product(PRIORS, POSTERIORS)))
def test_what_a_refusal_names_fits(prior, posterior):
    line = refusal(prior, posterior)
    if not line:
        return
    named = dict(re.findall(r"--(prior|posterior) (\w+)", line))
    assert set(named) == {"prior", "posterior"}, line
    assert not refusal(prior, named["posterior"]), line
    assert not refusal(named["prior"], posterior), line


def test_pairs_fit():
    for prior, posterior in PAIRS.values():
        assert not refusal(prior, posterior)


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[0.0, 7.0]]),
        torch.tensor([[0.25, 0.5]]),
        torch.tensor([[0.0, 0.5]]),
        torch.tensor([[0.1, 9.5]]),
        torch.tensor([[-0.1, 9.5]]),
        torch.tensor([[torch.nan, 1.0]]),
    ],
)
def test_the_likelihood_named_holds_the_data(x):
    likelihood = vars(pv.likelihoods)[likelihood_that_holds(x)](2, MLP(3, [4]))
    support = stated_support(likelihood(torch.zeros(1, 3)))
    assert support.check(x.nan_to_num(1.0 if x.nan_to_num().max() == 1 else 0.5)).all()


def test_data_outside_of_a_likelihood_name_another():
    vae = pv.VAE(
        pv.priors.StandardNormal(4),
        pv.likelihoods.Bernoulli(5, MLP(4, [8])),
        pv.posteriors.DiagonalNormal(4, MLP(5, [8])),
    )
    with pytest.raises(InvalidInput, match=r"such as Normal .--likelihood Normal"):
        pv.fit(vae, torch.randn(6, 5), epochs=1, progress=False)
    with pytest.raises(InvalidInput, match=r"binarise grey values.*such as Beta"):
        pv.fit(vae, X, epochs=1, progress=False)


@pytest.mark.parametrize(
    "likelihood, more",
    [("DiscretizedLogistic", ""), ("ContinuousBernoulli", ""), ("Bernoulli", "--binarize dynamic")],
)
def test_bytes_of_images_are_told_their_scale(likelihood, more):
    """What is told is what to do: then they fit."""
    x = torch.randint(256, (20, 1, 4, 4)).to(torch.uint8)
    p_x = vars(pv.likelihoods)[likelihood]((1, 4, 4), MLP(2, [8]))
    vae = pv.VAE(
        pv.priors.StandardNormal(2), p_x, pv.posteriors.DiagonalNormal(2, MLP((1, 4, 4), [8]))
    )
    with pytest.raises(InvalidInput, match=rf"--scale 255.*{more}"):
        check_data(vae, pv.datasets.as_dataset(x))
    binarize = "dynamic" if more else "none"
    check_data(vae, pv.datasets.load(x, scale=255, binarize=binarize)[0])
