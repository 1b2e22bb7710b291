"""What unlabelled images add to a classifier: the accuracy of a semi-supervised VAE's, and of the same one on the labelled images alone.

    python experiments/systems/semi_supervised.py RUN LABELLED

The classifier alone has the run's architecture, the same labelled images drawn anew in each of 300 passes, Adam 1e-3.
"""

import sys

import torch

import pyro_vae as pv


def main(run: str, labelled: int) -> None:
    program = pv.load(run)
    train, test = pv.datasets.load("mnist", labelled=labelled)
    unknown = torch.full_like(test.context, -1)
    guessed = pv.encode(program, (test.x, unknown))["y"].argmax(1)
    torch.manual_seed(0)
    alone = torch.nn.Sequential(pv.networks.MLP(test.event_shape, program.hidden), torch.nn.Linear(program.hidden[-1], 10))
    adam = torch.optim.Adam(alone.parameters(), lr=1e-3)
    known = (train.context >= 0).nonzero()[:, 0]
    for _ in range(300):
        for rows in known[torch.randperm(len(known))].split(100):
            x, y = train.batch(rows)
            adam.zero_grad()
            torch.nn.functional.cross_entropy(alone(x), y).backward()
            adam.step()
    with torch.no_grad():
        by_itself = alone(test.x).argmax(1)
    for name, answer in (("with the unlabelled images", guessed), ("the labelled images alone", by_itself)):
        share = (answer == test.context).double().mean().item()
        print(f"{labelled} labels, {name}: {share:.1%} +- {(share * (1 - share) / len(test)) ** 0.5:.1%} of the test images")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
