"""Measure what unlabelled images add to the accuracy of a semi-supervised VAE.

    python experiments/systems/semi_supervised.py RUN [RUN ...] [--figure FILE.png]

Prints for each run the share of the 10,000 test images that get the right label (probabilities are
averaged over ten draws of z). Beside it stand the shares of two classifiers that see the run's
labelled images alone, drawn anew in each of 300 passes, Adam 1e-3: the same program, and the
encoder's layers trained on cross-entropy. Then mean and spread over the runs. The figure has draws
from the first run's clusters, a row for each label.
"""

import argparse
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

import pyro_vae as pv
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure
from pyro_vae.recipes.build import build_program
from pyro_vae.recipes.parser import RecipeParser
from pyro_vae.recipes.recipe import read_recipe


def accuracy(program, test) -> float:
    unknown = (test.x, torch.full_like(test.context, -1))
    probabilities = sum(pv.encode(program, unknown, seed=seed)["y"] for seed in range(10))
    return (probabilities.argmax(1) == test.context).double().mean().item()


def cross_entropy(encoder, known, test, seed: int) -> float:
    torch.manual_seed(seed)
    alone = torch.nn.Sequential(
        pv.networks.MLP(test.event_shape, encoder.hidden), torch.nn.Linear(encoder.hidden[-1], 10)
    )
    adam = torch.optim.Adam(alone.parameters(), lr=1e-3)
    for _ in range(300):
        for rows in torch.randperm(len(known)).split(100):
            x, y = known.batch(rows)
            adam.zero_grad()
            torch.nn.functional.cross_entropy(alone(x), y).backward()
            adam.step()
    with torch.no_grad():
        return (alone(test.x).argmax(1) == test.context).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    rows = []
    for run in options.runs:
        recipes = RecipeParser(ArgumentParser())
        recipe = recipes.recipe(recipes.parse([], read_recipe(Path(run) / "recipe.yaml")))
        train, test = pv.datasets.load(
            recipe.data, labelled=recipe.labelled, labelled_seed=recipe.seed
        )
        known, program = train[train.context >= 0], pv.load(run)
        small = build_program(recipe, train)
        pv.fit(
            small,
            known,
            objective=recipe.objective(),
            epochs=300,
            batch_size=100,
            seed=recipe.seed,
            progress=False,
        )
        network = program.posterior.network
        rows.append(
            [
                accuracy(program, test),
                accuracy(small, test),
                cross_entropy(getattr(network, "network", network), known, test, recipe.seed),
            ]
        )
        print(
            f"{run}, {recipe.labelled} labels: {rows[-1][0]:.2%}; the labelled images alone: the "
            f"same program {rows[-1][1]:.2%}, "
            f"cross-entropy {rows[-1][2]:.2%}",
            flush=True,
        )
    if len(rows) > 1:
        table = torch.tensor(rows)
        for name, mean, spread in zip(
            ("with the unlabelled images", "the same program alone", "cross-entropy alone"),
            table.mean(0),
            table.std(0),
        ):
            print(f"{name}: {mean:.1%}, standard deviation over runs {spread:.1%}")
    if options.figure:
        draws = pv.generate(pv.load(options.runs[0]), 120, context=torch.arange(120) // 12, seed=1)
        save_figure(
            options.figure,
            lambda ax: plot_data(draws, ax, columns=12, rows=[str(label) for label in range(10)]),
            size=(6, 5),
        )


if __name__ == "__main__":
    main()
