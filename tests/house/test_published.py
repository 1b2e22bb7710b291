"""The rows of experiments/results: each is a recipe with options that parse and build."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.recipes.build import build_optimizer, build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe

FOLDER = Path(__file__).parents[2] / "experiments" / "results"
ROWS = json.loads((FOLDER / "rows.json").read_text())


def test_rows_have_names_of_their_own_and_every_recipe_has_a_row():
    names = [row["name"] for row in ROWS]
    assert len(names) == len(set(names))
    assert {row["recipe"] for row in ROWS} == {path.name for path in FOLDER.glob("*.yaml")}
    assert {row["on"] for row in ROWS} == {"cpu", "gpu"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_row_parses_and_builds(row):
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    recipe = parser.recipe(
        parser.parse(
            [*row["options"], "--seed", "3"],
            read_recipe(FOLDER / row["recipe"], row.get("trust", "").split()),
        )
    )
    data = pv.datasets.Dataset(
        (torch.rand(40, 1, 28, 28) > 0.5).float(), torch.arange(40) % 10, name=recipe.data
    )
    program = build_program(recipe, data)
    assert program.event_shape == (1, 28, 28) and recipe.seed == 3
    optimizer = build_optimizer(recipe)(program.parameters(), lr=recipe.learning_rate)
    assert recipe.schedule(0.0) == 1 and optimizer.defaults["lr"] == recipe.learning_rate
    named = re.search(r"k = (\d+)$", row["what"])
    assert recipe.objective().num_particles == (int(named[1]) if named else 1)


def test_the_cut_recipe_is_the_first_stages_of_the_whole_one():
    whole, cut = pv.training.schedules.Stages(), pv.training.schedules.Stages(count=3)
    rates = [(whole(epoch / 3280), cut(epoch / 13)) for epoch in range(13)]
    assert all(a == b for a, b in rates) and len({a for a, _ in rates}) == 3


def test_the_readme_shows_what_the_runs_wrote():
    readme = (FOLDER / "README.md").read_text()
    assert runpy.run_path(str(FOLDER / "table.py"))["rendered"](readme) == readme
    results = json.loads((FOLDER / "results.json").read_text())
    names = {f"{row['name']}-{seed}": row for row in ROWS for seed in row["seeds"]}
    assert set(results) <= set(names) and {
        path.stem for path in (FOLDER / "logs").glob("*.csv")
    } == set(results)
    for name, run in results.items():
        assert [score["log_likelihood"]["num_samples"] for score in run["scores"]] == [
            score["num_samples"] for score in names[name]["scores"][: len(run["scores"])]
        ]
        assert all(
            score["data"]["split"] == "test"
            and score["elbo"]["mean"] < score["log_likelihood"]["mean"]
            for score in run["scores"]
        )


def test_a_row_that_was_not_run_says_so():
    table = runpy.run_path(str(FOLDER / "table.py"))["results_table"]
    lines = table({}, "gpu").splitlines()[2:]
    assert len(lines) == sum(row["on"] == "gpu" for row in ROWS) and all(
        re.search(r"\| not run \|", line) for line in lines
    )


# the start of the code of Burda, Grosse and Salakhutdinov


@pytest.fixture(scope="module")
def burda():
    return runpy.run_path(str(FOLDER / "burda.py"))


def burda_program(burda, name):
    q, net = pv.posteriors.DiagonalNormal, pv.networks.MLP
    likelihood = pv.likelihoods.Bernoulli((1, 2, 3), net(4, [7]))
    if name == "VAE":
        return burda[name](pv.priors.StandardNormal(4), likelihood, q(4, net((1, 2, 3), [7])))
    return burda[name](
        [q(4, net(2, [5])), pv.priors.StandardNormal(2)],
        likelihood,
        [q(4, net((1, 2, 3), [7])), q(2, net(4, [5]))],
    )


@pytest.mark.parametrize("name", ["VAE", "HierarchicalVAE"])
def test_their_programs_start_at_the_means_of_pixels_and_at_unit_scales(burda, name):
    torch.manual_seed(0)
    program = burda_program(burda, name).double()
    x = (torch.rand(50, 1, 2, 3) < torch.tensor([0.0, 0.2, 1.0])).double()
    program.initialize(x)
    z = torch.randn(1000, 4, dtype=torch.float64)
    expected = x.mean(0).clamp(0.001, 0.999)
    program.likelihood.network.register_forward_hook(lambda *call: 0 * call[-1])
    torch.testing.assert_close(program.likelihood(z).mean, expected.expand(1000, 1, 2, 3))
    posteriors = [*program.posteriors] if name == "HierarchicalVAE" else [program.posterior]
    for q in posteriors:
        q.network.register_forward_hook(lambda *call: 0 * call[-1])
        at_start = q(torch.randn(5, *q.network.in_shape, dtype=torch.float64))
        torch.testing.assert_close(
            at_start.stddev, torch.ones_like(at_start.mean), atol=2e-4, rtol=0
        )
        assert (at_start.mean == 0).all()
    for layer in program.modules():
        if isinstance(layer, torch.nn.Linear):
            bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.8 * bound < layer.weight.abs().max() <= bound
    program.initialize(1 - x)  # as `fit` does when it goes on
    torch.testing.assert_close(program.likelihood(z).mean, expected.expand(1000, 1, 2, 3))


@pytest.mark.parametrize("fused", [False, True])
def test_their_adam_is_what_their_code_does_with_summed_gradients(burda, fused):
    torch.manual_seed(0)
    value = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
    theirs, first, second = value.detach().clone(), torch.zeros(6), torch.ones(6)
    optimizer = burda["Adam"]([value], lr=0.01, batch_size=20, fused=fused)
    for t in range(1, 30):
        summed = torch.sin(theirs + t) * 20
        value.grad = torch.sin(value.detach() + t)
        optimizer.step()
        first, second = 0.99 * first + 0.01 * summed, 0.999 * second + 0.001 * summed.square()
        rate = 0.01 * (1 - 0.999**t) ** 0.5 / (1 - 0.99**t)
        eps = 1e-4 * (1 - 0.999**t) ** 0.5  # torch's stands beside the corrected moment
        theirs = theirs - rate * first / (second.sqrt() + eps)
        torch.testing.assert_close(value.detach(), theirs)
