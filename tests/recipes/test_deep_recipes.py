"""The deep recipes, at the size that they are written for: their first pass has finite numbers."""

from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.recipes.build import build_objective, build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe

DEEP = sorted((Path(__file__).parents[2] / "experiments" / "full" / "deep").glob("*.yaml"))


@pytest.mark.parametrize("path", DEEP, ids=lambda path: path.stem)
def test_a_deep_recipe_starts_with_a_finite_loss_and_gradient(path):
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    recipe = parser.recipe(parser.parse([], read_recipe(path)))
    torch.manual_seed(0)
    colours = torch.randint(256, (1, 3, 32, 32)) / 255
    x = colours if "cifar" in path.stem else colours[:, :1, :28, :28].round()
    program = build_program(recipe, pv.datasets.Dataset(x))
    loss = build_objective(recipe).differentiable_loss(program.model, program.guide, x)
    loss.backward()
    entries = sum(torch.Size(latent).numel() for latent in program.path.latents)
    assert 0 < loss.item() < 10 * x.numel() + entries  # nats
    assert all(p.grad is None or p.grad.isfinite().all() for p in program.parameters())
