"""Measure what the latent of clips or colour images keeps: place, motion, hue, label.

    python experiments/systems/clips_and_colours.py RUN [--figure FILE.png]

Prints

- the bits per dimension of independent entries, to compare with those of `pyro-vae evaluate`;
- the squared error per entry of reconstructions, of as many principal components, of the training
  mean and, for clips, of each frame guessed to be the one before;
- how well a linear classifier reads the label off the means of q(z | x) and off the components;
- the share of variance (R squared) that a linear regression on each explains: for clips, of the
  digit's place in the first, middle and last frame and of its velocity in the middle; for colour
  images, of the cosine and sine of the hue.

The figure has test data and their reconstructions, or with ``--samples`` draws from the prior.
"""

import argparse
import math
from pathlib import Path

import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

import pyro_vae as pv
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.inspection.embedding import embed
from pyro_vae.inspection.probes import linear_probe
from pyro_vae.plotting.data import is_clip, plot_data, plot_reconstructions
from pyro_vae.plotting.files import save_figure
from pyro_vae.recipes.recipe import read_recipe

SCORED = 200  # as many test data as the tables' scores are of


def places(x: torch.Tensor) -> torch.Tensor:
    """Row and column (N, T, 2) of the middle of the lit pixels of each frame."""
    size = torch.arange(x.shape[-1], dtype=x.dtype)
    total = x.sum((2, 3)).clamp_min(1e-6)
    return torch.stack([(x.sum(3) * size).sum(2), (x.sum(2) * size).sum(2)], -1) / total[..., None]


def movement(x: torch.Tensor) -> dict[str, torch.Tensor]:
    at = places(x)
    middle = x.shape[1] // 2
    return {
        "place, first frame": at[:, 0],
        "place, middle": at[:, middle],
        "place, last": at[:, -1],
        "velocity in the middle": at[:, middle] - at[:, middle - 1],
    }


def hue(x: torch.Tensor) -> dict[str, torch.Tensor]:
    red, green, blue = x.flatten(2).sum(2).T
    angle = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)
    return {"hue": torch.stack([angle.cos(), angle.sin()], -1)}


def independent_bits(train: torch.Tensor, test: torch.Tensor) -> float:
    """Bits per dimension under independent entries with training frequencies, one added."""
    top = 1 if train.unique().numel() <= 2 else 255
    levels, levels_test = ((x.flatten(1) * top).round().long() for x in (train, test))
    counts = torch.ones(levels.shape[1], top + 1).scatter_add_(
        1, levels.T, torch.ones(levels.T.shape)
    )
    return -(counts / counts.sum(1, keepdim=True)).log2().gather(1, levels_test.T).mean().item()


def r_squared(codes, values, codes_test, values_test) -> float:
    """The share of variance that a linear regression on codes explains in test data."""
    fit = LinearRegression().fit(codes.numpy(), values.numpy())
    return fit.score(codes_test.numpy(), values_test.numpy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--figure", default=None)
    parser.add_argument("--samples", action="store_true")
    options = parser.parse_args()
    program = pv.load(options.run)
    train, test = pv.datasets.load(read_recipe(Path(options.run) / "recipe.yaml")["data"])
    train = train[:10_000]
    pca = PCA(math.prod(program.posterior.latent), svd_solver="randomized", random_state=0).fit(
        train.x.flatten(1).numpy()
    )
    spaces = {
        "means of q(z | x)": [embed(program, data, draws=False) for data in (train, test)],
        f"{pca.n_components_} principal components": [
            torch.from_numpy(pca.transform(data.x.flatten(1).numpy())) for data in (train, test)
        ],
    }
    by_pca = torch.from_numpy(
        pca.inverse_transform(spaces[f"{pca.n_components_} principal components"][1].numpy())
    )
    print(
        f"squared error per entry: {squared_error(program, test).mean:.4f}, principal components "
        f"{(by_pca - test.x.flatten(1)).square().mean():.4f}, training mean "
        f"{(test.x - train.x.mean(0)).square().mean():.4f}"
    )
    print(
        f"bits per dimension of the first {SCORED} test data if every entry were on its own: "
        f"{independent_bits(train.x, test.x[:SCORED]):.3f}"
    )
    if is_clip(test.event_shape):
        print(f"each frame guessed to be the one before: {test.x.diff(dim=1).square().mean():.4f}")
    told = movement if is_clip(test.event_shape) else hue
    for name, (codes, codes_test) in spaces.items():
        found = linear_probe(codes, train.context, codes_test, test.context)
        explained = [
            f"{what} R^2 {r_squared(codes, value, codes_test, told(test.x)[what]):.3f}"
            for what, value in told(train.x).items()
        ]
        print(f"{name}: label {found}; " + ", ".join(explained), flush=True)
    if options.figure and options.samples:
        save_figure(options.figure, lambda ax: plot_data(pv.generate(program, 12), ax), size=(7, 3))
    elif options.figure:
        few = test[:3] if is_clip(test.event_shape) else test[:12]
        save_figure(
            options.figure,
            lambda ax: plot_reconstructions(few.x, pv.reconstruct(program, few), ax),
            size=(7, 5.4) if is_clip(test.event_shape) else (8, 1.8),
        )


if __name__ == "__main__":
    main()
