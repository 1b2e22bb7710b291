"""Judge decoded draws by a classifier, and by precision, recall, density and coverage.

    python experiments/systems/generation.py RUN [RUN ...] [--figure FILE.png]

Each run decodes 5,000 draws from its prior. An autoencoder has none and decodes 5,000 draws from
N(0, I), and 5,000 from the normal distribution that fits its codes of training images. The
classifier is scikit-learn's, an MLP of 128 units on the 60,000 training images; its confidence is
the mean of the highest probability. Draws are compared with the first 5,000 test images in the
space of its hidden units (k = 5): in pixels the mean of all images would be near every image. The
other 5,000 test images show the best attainable.
"""

import argparse
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import pyro_vae as pv
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure

COUNT = 5000


@torch.no_grad()
def decoded(program, z: torch.Tensor) -> torch.Tensor:
    return program.likelihood(z).mean.clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    train, test = pv.datasets.load("mnist", binarize="none")
    binary, _ = pv.datasets.load("mnist")
    judge = MLPClassifier(
        [128], max_iter=8, early_stopping=True, n_iter_no_change=8, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # eight passes are enough for a judge
        judge.fit(train.x.flatten(1).numpy(), train.context.numpy())
    real, others = test.x[:COUNT], test.x[COUNT:]
    print(
        "the classifier is right on "
        f"{judge.score(test.x.flatten(1).numpy(), test.context.numpy()):.1%} of the test images"
    )
    shown = []

    def features(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(
            np.maximum(x.flatten(1).numpy() @ judge.coefs_[0] + judge.intercepts_[0], 0)
        )

    def report(name: str, x: torch.Tensor) -> None:
        probabilities = judge.predict_proba(x.flatten(1).numpy())
        shares = np.bincount(probabilities.argmax(1), minlength=10) / len(x)
        entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
        points = pv.evaluation.fidelity(features(real), features(x))
        print(
            f"| {name} | {probabilities.max(1).mean():.3f} | {np.exp(entropy):.1f} | "
            f"{points.precision:.3f} | {points.recall:.3f} | "
            f"{points.density:.3f} | {points.coverage:.3f} |",
            flush=True,
        )

    print(
        "| draws | confidence | labels in use | precision | recall | density | coverage "
        "|\n|---|---|---|---|---|---|---|"
    )
    report("other test images", others)
    noise = torch.randn(COUNT, 1000, generator=torch.Generator().manual_seed(0))
    for run in options.runs:
        program = pv.load(run)
        several = isinstance(program, pv.HierarchicalVAE)
        prior = program.priors[-1] if several else program.prior
        if not several and isinstance(prior, pv.priors.Flat | pv.priors.StandardNormal):
            x, drawn = (
                decoded(program, noise[:, : program.posterior.latent[0]]),
                "N(0, I)",
            )  # the same noise for all
        else:
            x, drawn = pv.generate(program, COUNT), type(prior).__name__
        report(f"{run}, {drawn}", x)
        shown.append(x[:20])
        if isinstance(prior, pv.priors.Flat):
            codes = pv.encode(program, binary)["z"]
            fitted = torch.distributions.MultivariateNormal(codes.mean(0), codes.T.cov())
            torch.manual_seed(0)
            x = decoded(program, fitted.sample((COUNT,)))
            report(f"{run}, the normal that fits its codes", x)
            shown.append(x[:20])
    if options.figure:
        save_figure(
            options.figure,
            lambda ax: plot_data(torch.cat(shown), ax, columns=20),
            size=(9, 0.55 * len(shown)),
        )


if __name__ == "__main__":
    main()
