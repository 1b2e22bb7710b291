"""The command line and the functions behind it have the same defaults."""

import inspect
import json
from dataclasses import MISSING, fields

import pytest
import torch
from commands import FAST, FEW
from common import small_vae

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.recipes.data import suited_to
from pyro_vae.recipes.recipe import Recipe

pytestmark = pytest.mark.usefixtures("quick_figures")


def test_fit_trains_as_the_command_does():
    of_fit = {
        name: parameter.default
        for name, parameter in inspect.signature(pv.fit).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    of_command = {each.name: each.default for each in fields(Recipe) if each.default is not MISSING}
    # An objective, an optimiser and validation data are objects there, and names or counts here.
    shared = of_fit.keys() & of_command.keys() - {"objective", "optimizer", "validation"}
    assert {"epochs", "batch_size", "learning_rate", "seed", "compile", "device"} <= shared
    assert {name: of_fit[name] for name in shared} == {name: of_command[name] for name in shared}


def test_digits_are_grey_where_nothing_else_was_said():
    assert suited_to("digits", ["prior", "epochs"]).keys() == {"binarize", "likelihood"}
    for given in (["binarize"], ["likelihood"], ["prior", "likelihood"]):
        assert suited_to("digits", given) == {}
    assert suited_to("mnist", []) == {}


def test_the_default_run_states_its_likelihood_and_keeps_it_when_resumed(tmp_path):
    folder = tmp_path / "run"
    assert main(["train", "--out", str(folder), *FAST]) == 0
    grey = pv.datasets.load("digits", binarize="none")[1][:30]
    saved = json.loads((folder / "evaluation.json").read_text())
    assert saved["data"]["sha256"] == grey.sha256 and saved["data"]["binarize"] == "none"
    assert pv.load(folder).likelihood.levels == 17 == len(grey.x.unique())
    assert main(["train", "--out", str(folder), "--resume", "--epochs", "3", *FEW]) == 0
    assert main(["evaluate", str(folder), "--limit", "30", "--num-samples", "20"]) == 0
    for flags in (["--likelihood", "Bernoulli"], ["--binarize", "dynamic"]):
        other = tmp_path / flags[1]
        assert main(["train", "--out", str(other), *FAST, *flags]) == 0
        assert type(pv.load(other).likelihood).__name__ == "Bernoulli"
        saved = json.loads((other / "evaluation.json").read_text())
        assert saved["data"]["binarize"] == "dynamic"


def test_a_script_that_seeds_its_weights_gives_the_same_numbers_twice():
    train, test = (part[:64] for part in pv.datasets.load("digits"))

    def script() -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vae = pv.VAE(
                pv.priors.StandardNormal(2),
                pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [8])),
                pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [8])),
            )
        pv.fit(vae, train, epochs=2, seed=0, compile="off", progress=False)
        return pv.elbo(vae, test, 5).values

    first = script()
    torch.rand(7)  # what else a notebook has drawn makes no difference
    assert torch.equal(first, script())


def test_the_seed_alone_does_not_fix_weights_drawn_before():
    first, other = small_vae(seed=0), small_vae(seed=1)
    x = torch.zeros(4, 1, 8, 8)
    for vae in (first, other):
        pv.fit(vae, x, epochs=1, seed=0, compile="off", progress=False)
    assert not torch.equal(pv.elbo(first, x, 5).values, pv.elbo(other, x, 5).values)
    assert "torch.manual_seed" in (pv.fit.__doc__ or "")
