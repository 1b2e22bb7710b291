"""Check by a 3-nearest-neighbour classifier whether a CVAE's samples carry their label.

    python experiments/cvae_labels.py RUN [SAMPLES_PER_LABEL]

RUN is a trained run of ``experiments/cvae_mnist.yaml``. The classifier is fitted to real images.
Prints, label by label, the share of samples to which it gives the label they were drawn for, and
its own accuracy on real test images.
"""

import sys

import torch
from sklearn.neighbors import KNeighborsClassifier

import pyro_vae as pv


def main(run: str, per_label: int = 100) -> None:
    program = pv.load(run)
    train, test = pv.datasets.load("mnist", binarize="none")
    judge = KNeighborsClassifier(n_neighbors=3, n_jobs=-1).fit(
        train.x.flatten(1).numpy(), train.context.numpy()
    )
    real = judge.score(test[:2000].x.flatten(1).numpy(), test[:2000].context.numpy())
    labels = torch.arange(10).repeat_interleave(per_label)
    samples = pv.generate(program, len(labels), context=labels, seed=1)
    hits = torch.as_tensor(judge.predict(samples.flatten(1).numpy())) == labels
    share = hits.float().mean().item()
    print(f"classifier on 2,000 real test images: {real:.1%}")
    for label in range(10):
        print(f"label {label}: {hits[labels == label].float().mean().item():.0%} of {per_label}")
    print(
        f"all: {share:.1%} +- {(share * (1 - share) / len(labels)) ** 0.5:.1%} of {len(labels)} "
        "samples"
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
