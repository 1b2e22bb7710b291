"""Ten steps of each deep recipe on a CPU: eagerly, or by one captured graph.

    python experiments/full/deep/steps.py [RECIPE.yaml ...] [--batch 1] [--captured]

Each step is one batch of smooth noise, in the place of CIFAR-10, with the recipe's objective,
optimiser, clipping and layers in bfloat16. A captured graph is interpreted: to compile one of this
size for a CPU takes longer than the steps.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from sizes import FOLDER, recipe_of

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.recipes.build import build_objective, build_optimizer, build_program

STEPS = 10


def images(number, shape):
    """Images of 4 x 4 patches of one colour, or of 0 or 1."""
    channels, *size = shape
    patches = torch.randint(256, (number, channels, 4, 4)) / 255
    return torch.nn.functional.interpolate(patches if channels > 1 else patches.round(), size)


def steps(program, recipe, batches, captured):
    """The loss of each step, in nats per datum."""
    objective = build_objective(recipe)
    optimizer = build_optimizer(recipe)(program.parameters(), lr=recipe.learning_rate)

    def loss(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(recipe.autocast)):
            return objective.differentiable_loss(program.model, program.guide, x) / len(x)

    parameters = list(program.parameters())
    of_batch = LossAndGradients(loss, parameters).eager
    if captured:
        of_batch = Captured(of_batch, [batches[0]])
    for x in batches:
        value, *gradients = of_batch(x)
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        yield float(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", type=Path, default=sorted(FOLDER.glob("*.yaml")))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--captured", action="store_true")
    options = parser.parse_args()
    for path in options.recipes:
        recipe = recipe_of(path)
        torch.manual_seed(0)
        x = images(STEPS * options.batch, (3, 32, 32) if "cifar" in path.name else (1, 28, 28))
        program = build_program(recipe, pv.datasets.Dataset(x))
        start = time.monotonic()
        losses = list(steps(program, recipe, x.split(options.batch), options.captured))
        print(
            f"{path.name}: {STEPS} steps of {options.batch} in {time.monotonic() - start:.0f} s, "
            f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB, "
            f"loss {losses[0]:.0f} to {losses[-1]:.0f} nats"
        )


if __name__ == "__main__":
    main()
