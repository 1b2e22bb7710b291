"""Compare an autoencoder's reconstructions with principal components, and on noisy images.

    python experiments/systems/reconstruction.py RUN [RUN ...] [--noise 0.5] [--figure FILE.png]

Prints for each run the squared error per pixel on the 10,000 test images, and that of
scikit-learn's PCA of the same dimension fitted to the 60,000 training images. With ``--noise`` it
also prints the error of reconstructions of noisy test images against the clean ones: for normal
noise of that scale, for half of the pixels masked, and for salt and pepper on three tenths. The
figure shows ten noisy images and each run's reconstructions of them.
"""

import argparse
import math

import torch
from sklearn.decomposition import PCA

import pyro_vae as pv
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--noise", type=float, default=None)
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    train, test = pv.datasets.load("mnist", binarize="none")
    programs = {run: pv.load(run) for run in options.runs}
    for run, program in programs.items():
        latent = math.prod(program.posterior.latent)
        pca = PCA(latent, random_state=0).fit(train.x.flatten(1).numpy())
        flat = test.x.flatten(1).numpy()
        by_pca = ((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean()
        print(
            f"{run}: {latent} dimensions, squared error {squared_error(program, test).mean:.5f}, "
            f"PCA {by_pca:.5f}"
        )
    if options.noise is None:
        return
    corruptions = {
        f"noise of scale {options.noise}": pv.networks.corruptions.GaussianNoise(options.noise),
        "half masked": pv.networks.corruptions.Masking(0.5),
        "salt and pepper on 0.3": pv.networks.corruptions.SaltAndPepper(0.3),
    }
    torch.manual_seed(0)
    for name, corruption in corruptions.items():
        noisy = corruption(test.x)
        errors = {
            run: squared_error(program, noisy, test.x).mean for run, program in programs.items()
        }
        print(
            f"{name}: the images themselves {(noisy - test.x).square().mean():.5f}, "
            + ", ".join(f"{run} {error:.5f}" for run, error in errors.items())
        )
    if options.figure:
        noisy = corruptions[f"noise of scale {options.noise}"](test.x[:12])
        rows = torch.cat(
            [
                test.x[:12],
                noisy.clamp(0, 1),
                *(pv.reconstruct(program, noisy).clamp(0, 1) for program in programs.values()),
            ]
        )
        save_figure(
            options.figure,
            lambda ax: plot_data(rows, ax, columns=12),
            size=(8, 0.7 * (2 + len(programs))),
        )


if __name__ == "__main__":
    main()
