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
        parser.parse([*row["options"], "--seed", "3"], read_recipe(FOLDER / row["recipe"]))
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
