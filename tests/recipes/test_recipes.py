"""Every recipe of the tour builds, and its full setting for a GPU too: neither can rot."""

import inspect
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.cli.train import SECTIONS
from pyro_vae.recipes.build import build_optimizer, build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import OPTIONS, Recipe, read_recipe
from pyro_vae.runtime.checks import check_data
from pyro_vae.runtime.traces import find_plates
from pyro_vae.validation import InvalidInput

FOLDER = Path(__file__).parents[2] / "experiments"
RECIPES = sorted(FOLDER.glob("*.yaml"))
FULL = sorted(FOLDER.glob("full/*.yaml"))
# Data sets that are files: their shapes, and how many labels.
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "frey_faces": ((1, 28, 20), None),
    "moving_digits": ((8, 32, 32), 10),
    "coloured_digits": ((3, 28, 28), 10),
    "spoken_digits": ((129, 64), 10),
}


def recipe_of(path):
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    return parser.recipe(parser.parse([], read_recipe(path)))


def data_of(recipe):
    if recipe.data not in SHAPES:
        return pv.datasets.load(
            recipe.data,
            binarize=recipe.binarize,
            missing=recipe.missing,
            missing_fraction=recipe.missing_fraction,
        )[0]
    shape, classes = SHAPES[recipe.data]
    x = torch.randint(0, 2, (20, *shape), generator=torch.Generator().manual_seed(0)).float()
    labels = None if classes is None else torch.arange(20) % classes
    return pv.datasets.Dataset(x, labels, name=recipe.data, binarize=recipe.binarize or "none")


@pytest.mark.parametrize("path", [*RECIPES, *FULL], ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_recipe_builds_a_program_that_takes_its_data(path):
    recipe = recipe_of(path)
    data = data_of(recipe)
    program = build_program(recipe, data)
    check_data(program, data)
    x, context = data.batch(torch.arange(2))
    with torch.no_grad():
        find_plates(program, x, context, scored=False)
        assert torch.isfinite(
            recipe.objective().differentiable_loss(program.model, program.guide, x, context)
        )
    build_optimizer(recipe)(program.parameters(), lr=recipe.learning_rate)


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_a_full_setting_is_its_recipe_at_a_larger_size(path):
    small, full = (recipe_of(FOLDER / path.name), recipe_of(path))
    programs = [build_program(recipe, data_of(recipe)) for recipe in (small, full)]
    kinds = [
        {
            name: type(part)
            for name, part in {**program.components(), "context": program.context}.items()
        }
        for program in programs
    ]
    assert kinds[0] == kinds[1]
    assert (
        small.data == full.data
        and type(programs[0]) is type(programs[1])
        and full.epochs > small.epochs
    )
    counts = [sum(parameter.numel() for parameter in program.parameters()) for program in programs]
    assert counts[0] < counts[1]


def test_every_system_of_the_tour_has_a_full_setting():
    tour = [path.stem for path in RECIPES if "full/" in path.read_text()]
    assert tour == [path.stem for path in FULL] and len(tour) >= 10
    for path in RECIPES:
        if path.stem in tour:
            assert f"# With a GPU: full/{path.stem}.yaml." in path.read_text()


def test_an_option_of_the_command_line_in_a_recipe_is_told_to_be_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    for line, flag in (
        ("num_samples: 100", "--num-samples 100"),
        ("limit: 10", "--limit 10"),
        ("out: a run", "--out 'a run'"),
        ("resume: true", "--resume"),
    ):
        path.write_text(f"data: digits\n{line}\n")
        words = f"got an option of the command line.* pass it to train: {flag}$"
        with pytest.raises(InvalidInput, match=words):
            read_recipe(path)
    named = {name for names in SECTIONS.values() for name in names}
    assert set(OPTIONS) == named - set(inspect.signature(Recipe).parameters)
