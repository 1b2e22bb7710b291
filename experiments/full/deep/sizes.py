"""Parameters and memory of the deep recipes, and how both grow with depth; nothing is computed.

    python experiments/full/deep/sizes.py [RECIPE.yaml ...]

Programs are built and differentiated on torch's meta device, which has shapes and no values.
Activations are the bytes that autograd keeps for the backward pass of one datum, in float32.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.recipes.build import build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe

FOLDER = Path(__file__).parent
DEPTHS = (3, 6, 12, 24, 40)


def recipe_of(path):
    parser = RecipeParser(ArgumentParser(exit_on_error=False))
    return parser.recipe(parser.parse([], read_recipe(path)))


def sizes(recipe, shape):
    """Parameters, and bytes of activations of one datum without and with checkpoints."""
    with torch.device("meta"):
        program = build_program(recipe, pv.datasets.Dataset(torch.zeros(2, *shape, device="cpu")))
        program.to("meta")
        bytes_kept = [kept(program, shape, checkpoint) for checkpoint in (False, True)]
    return sum(p.numel() for p in program.parameters()), *bytes_kept


def kept(program, shape, checkpoint):
    for part in program.modules():
        if isinstance(part, pv.networks.Cells):
            part.checkpoint = checkpoint
    parameters, seen = {id(p) for p in program.parameters()}, {}

    def pack(tensor):
        if id(tensor) not in parameters:
            seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    x = torch.zeros(1, *shape)
    objective = pv.objectives.ELBO()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        objective.differentiable_loss(program.model, program.guide, x)
    return sum(seen.values())


def main(paths):
    import pyro

    pyro.enable_validation(False)
    for path in paths:
        shape = (1, 28, 28) if "cifar" not in path.name else (3, 32, 32)
        count, whole, with_checkpoints = sizes(recipe_of(path), shape)
        print(
            f"{path.name}: {count:,} parameters, {16 * count / 2**30:.2f} GiB with Adam and "
            f"gradients, activations {whole / 2**20:.1f} MiB a datum, "
            f"{with_checkpoints / 2**20:.1f} with checkpoints"
        )
    recipe = recipe_of(FOLDER / "mnist.yaml")
    for depth in DEPTHS:
        lowest, middle, top = recipe.levels
        levels = [replace(lowest, times=1), replace(middle, times=depth - 2), top]
        count, whole, _ = sizes(replace(recipe, levels=levels), (1, 28, 28))
        print(f"{depth} levels: {count:,} parameters, activations {whole / 2**20:.2f} MiB a datum")


if __name__ == "__main__":
    given = [Path(path) for path in sys.argv[1:]]
    main(given or sorted(FOLDER.glob("*.yaml")))
