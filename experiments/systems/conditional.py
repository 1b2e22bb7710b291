"""Compare a CVAE with a VAE: labels of samples, likelihood, what z tells of the label.

    python experiments/systems/conditional.py CVAE VAE [--figure FILE.png]

Prints

- the share of 2,000 samples to which a 3-nearest-neighbour classifier, fitted to the 60,000 real
  training images, gives the label they were drawn for;
- log p(x | y) - log 10, a lower bound on log p(x) of the model with a uniform label, paired with
  the VAE's log p(x): first 1,000 test images, K = 1000;
- how often a linear probe reads the label off means of q(z | x, y), and off draws.

The figure is a grid, one label a row.
"""

import argparse
import math

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyro_vae as pv
from pyro_vae.evaluation.comparison import compare
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure


def probe(program, train, test, draws: bool) -> float:
    codes = [pv.encode(program, data, draws=draws)["z"].numpy() for data in (train, test)]
    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        codes[0], train.context.numpy()
    )
    return reader.score(codes[1], test.context.numpy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs=2, metavar=("CVAE", "VAE"))
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    cvae, vae = (pv.load(run) for run in options.runs)
    train, test = pv.datasets.load("mnist")
    grey, _ = pv.datasets.load("mnist", binarize="none")
    judge = KNeighborsClassifier(3).fit(grey.x.flatten(1).numpy(), grey.context.numpy())
    labels = torch.arange(10).repeat_interleave(200)
    samples = pv.generate(cvae, len(labels), context=labels, seed=1)
    hits = torch.as_tensor(judge.predict(samples.flatten(1).numpy())) == labels
    share = hits.double().mean().item()
    print(
        f"samples with the label asked for: {share:.1%} +- "
        f"{math.sqrt(share * (1 - share) / len(labels)):.1%}, by label "
        + ", ".join(f"{hits[labels == label].double().mean():.1%}" for label in range(10)),
        flush=True,
    )
    few = test[:1000]
    given, alone = (evaluate(program, few, 1000)["log_likelihood"] for program in (cvae, vae))
    print(
        f"log p(x | y) - log 10: {given.mean - math.log(10):.2f} +- {given.se:.2f}; log p(x): "
        f"{alone.mean:.2f} +- {alone.se:.2f}"
    )
    paired = compare(given, alone)
    print(
        f"difference {paired.mean - math.log(10):+.2f} +- {paired.se:.2f} (Monte Carlo error "
        f"{paired.mc_se:.3f})",
        flush=True,
    )
    for name, program in (("CVAE", cvae), ("VAE", vae)):
        print(
            f"{name}: a linear probe reads the label from means of z "
            f"{probe(program, train[:20_000], test, False):.1%}, "
            f"from draws {probe(program, train[:20_000], test, True):.1%} of the time",
            flush=True,
        )
    if options.figure:
        grid = samples.reshape(10, 200, 1, 28, 28)[:, :12].flatten(0, 1)
        save_figure(options.figure, lambda ax: plot_data(grid, ax, columns=12), size=(6, 5))


if __name__ == "__main__":
    main()
