"""Use the encoder alone: classify from few labels, and tell clothes from digits.

    python experiments/systems/downstream.py RUN [RUN ...]

Prints the accuracy on the 10,000 test images of a linear classifier on means of q(z | x), on as
many principal components as the first run has latents, and on pixels, from 10, 100 and 1,000
labelled training images (as many of each digit, five draws of them). Then, for runs with a bound,
the AUROC of the ELBO with MNIST's test images inside and Fashion-MNIST's outside, 1,000 of each.
"""

import sys

import torch
from sklearn.decomposition import PCA

import pyro_vae as pv
from pyro_vae.inspection.anomaly import anomaly
from pyro_vae.inspection.embedding import embed
from pyro_vae.inspection.probes import linear_probe


def main(runs: list[str]) -> None:
    programs = {run: pv.load(run) for run in runs}
    train, test = pv.datasets.load("mnist")
    grey = [data.x.flatten(1) for data in pv.datasets.load("mnist", binarize="none")]
    first = next(iter(programs.values()))
    pca = PCA(first.posterior.latent[0], random_state=0).fit(grey[0].numpy())
    spaces = {
        f"means of q(z | x), {run}": [embed(program, data, draws=False) for data in (train, test)]
        for run, program in programs.items()
    }
    spaces |= {
        f"{pca.n_components_} principal components": [
            torch.as_tensor(pca.transform(x.numpy())) for x in grey
        ],
        "pixels": grey,
    }
    for name, (x, x_test) in spaces.items():
        shares = []
        for count in (10, 100, 1000):
            scores = []
            for seed in range(5):
                partly, _ = pv.datasets.load("mnist", labelled=count, seed=seed)
                known = partly.context >= 0
                scores.append(
                    linear_probe(x[known], train.context[known], x_test, test.context).value
                )
            shares.append(
                f"{torch.tensor(scores).mean():.1%} +- {torch.tensor(scores).std() / 5**0.5:.1%}"
            )
        print(f"| {name} | {' | '.join(shares)} |", flush=True)
    _, clothes = pv.datasets.load("fashion_mnist")
    for run, program in programs.items():
        if not isinstance(program.prior, pv.priors.Flat):
            found = anomaly(program, test[:1000].x, clothes[:1000].x, num_samples=20)
            print(
                f"{run}: AUROC of the ELBO, digits inside and clothes outside, {found.auroc:.4f} "
                f"+- {found.se:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
