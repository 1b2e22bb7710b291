"""Likelihoods inside others are named on the command line and in recipes as components are."""

import numpy as np
import pytest
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.recipes.build import build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe

LOG_NORMAL = '{"class_path": "LogNormal", "init_args": {"scale": 0.5}}'
WRAPPERS = ["ZeroInflated", "Truncated", "Censored"]


def recipe_of(argv, values=()):
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    return parser.recipe(parser.parse(argv, dict(values)))


def part_of(argv, values=()):
    data = pv.datasets.Dataset(np.ones((4, 3)))
    return build_program(recipe_of(argv, values), data).likelihood.part


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_of_is_a_name_or_a_component(wrapper):
    named = ["--likelihood", wrapper, "--likelihood.of", "LogNormal"]
    assert type(part_of(named)).__name__ == "LogNormal"
    for said in (
        ["--likelihood.of", LOG_NORMAL],
        [f"--likelihood.of={LOG_NORMAL}"],
        ["--likelihood.of.class_path", "LogNormal", "--likelihood.of.init_args", '{"scale": 0.5}'],
    ):
        part = part_of(["--likelihood", wrapper, *said])
        assert type(part).__name__ == "LogNormal" and part.scale == 0.5


def test_a_recipe_names_it_likewise(tmp_path):
    path = tmp_path / "rain.yaml"
    path.write_text(
        "likelihood:\n  class_path: ZeroInflated\n  init_args:\n    of: " + LOG_NORMAL + "\n"
    )
    part = part_of([], read_recipe(path))
    assert type(part).__name__ == "LogNormal" and part.scale == 0.5
    latent = part_of(["--likelihood", "LatentSize", "--likelihood.of", "Poisson"])
    assert isinstance(latent, pv.likelihoods.Poisson) and latent.size_factor == "total"


def test_what_the_command_line_cannot_pass_is_said_in_one_line(tmp_path, capsys):
    np.savez(tmp_path / "weeks.npz", x=np.ones((20, 2)))
    options = ["--data", str(tmp_path / "weeks.npz"), "--likelihood.of", "Weibull"]
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", *options, "--likelihood", "Censored", *out]) == 2
    assert "expected a dictionary with 'censored'" in capsys.readouterr().err
