"""The main job on real MNIST, short: experiments/README.md quotes the long one."""

import pytest
import torch
from common import DATA

import pyro_vae as pv
from pyro_vae.recipes.build import build_program
from pyro_vae.recipes.recipe import read_recipe
from pyro_vae.testing import check_program

pytestmark = pytest.mark.skipif(
    DATA is None, reason="PYRO_VAE_DATA names no folder with the real data"
)


def test_a_vae_learns_in_one_epoch():
    torch.manual_seed(0)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(20),
        likelihood=pv.likelihoods.Bernoulli((1, 28, 28), pv.networks.MLP(20, [400])),
        posterior=pv.posteriors.DiagonalNormal(20, pv.networks.MLP((1, 28, 28), [400])),
    )
    train, test = pv.datasets.load("mnist")
    pv.fit(vae, train, epochs=1, progress=False)
    few = test[:200]
    scores = pv.evaluation.evaluate(vae, few, 200)
    elbo, log_p = scores["elbo"], scores["log_likelihood"]
    assert -150 < elbo.mean < log_p.mean < -90
    assert elbo.se > 10 * elbo.mean_mc_se


@pytest.mark.parametrize("context", [0, 10])
def test_convolutional_programs_keep_the_contract(context):
    nets = pv.networks
    vae = pv.VAE(
        prior=pv.priors.GaussianMixture(5),
        likelihood=pv.likelihoods.Bernoulli(
            (1, 28, 28), nets.ConvTranspose(5, (28, 28), [8, 4], context=context)
        ),
        posterior=pv.posteriors.DiagonalNormal(5, nets.Conv((1, 28, 28), [4, 8], context=context)),
        context=nets.OneHot(10) if context else None,
    )
    test = pv.datasets.load("mnist")[1][:6]
    check_program(vae, test.x, context=test.context if context else None)


@pytest.mark.parametrize("name", ["vae_mnist", "cvae_mnist"])
def test_the_recipes_build(name):
    from jsonargparse import ArgumentParser

    from pyro_vae.recipes.parser import RecipeParser

    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    recipe = parser.recipe(parser.parse([], read_recipe(f"experiments/{name}.yaml")))
    train, _ = pv.datasets.load(recipe.data, binarize=recipe.binarize)
    assert build_program(recipe, train).event_shape == (1, 28, 28)
