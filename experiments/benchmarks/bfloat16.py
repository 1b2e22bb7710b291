"""Time steps whose layers compute in bfloat16 against those in float32.

    python experiments/benchmarks/bfloat16.py [--rounds 3]

Compiled steps on MNIST, batches of 128, one thread: for each program CPU milliseconds of a step,
the median over rounds that take turns, the range of the ratio, and the objective of the last of
three epochs. CPU seconds are hardly changed by other work on the machine. Prints a table in
Markdown. With ``ONEDNN_MAX_CPU_ISA=AVX512_CORE`` it shows a processor that has no bfloat16.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import pyro_vae as pv

IMAGE, BATCH, EPOCHS = (1, 28, 28), 128, 3


def vae(latent: int, encoder: nn.Module, decoder: nn.Module) -> pv.VAE:
    return pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.Bernoulli(IMAGE, decoder),
        pv.posteriors.DiagonalNormal(latent, encoder),
    )


def flat(kind: type[nn.Module], latent: int, hidden: list[int]) -> pv.VAE:
    return vae(latent, kind(IMAGE, hidden), kind(latent, hidden))


def residual() -> pv.VAE:
    encoder = pv.networks.ResidualConv(IMAGE, [16, 32], hidden=[256])
    return vae(40, encoder, pv.networks.ResidualConvTranspose(40, IMAGE, [32, 16], hidden=[256]))


# A program, its objective, and the steps of an epoch.
CASES: dict[str, tuple[Callable[[], pv.VAE], Callable[[], object], int]] = {
    "784-400-20": (lambda: flat(pv.networks.MLP, 20, [400]), pv.objectives.ELBO, 200),
    "784-512-512-64": (lambda: flat(pv.networks.MLP, 64, [512, 512]), pv.objectives.ELBO, 100),
    "gated 300-300, 40": (
        lambda: flat(pv.networks.GatedMLP, 40, [300, 300]), pv.objectives.ELBO, 100,
    ),
    "residual convolutions": (residual, pv.objectives.ELBO, 20),
    "the same, DReG of 5": (residual, lambda: pv.objectives.DReG(num_particles=5), 10),
}  # fmt: skip


class Clock(pv.training.Callback):
    """CPU seconds at the end of each epoch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def epoch(self, training: pv.training.Training) -> None:
        self.times.append(time.process_time())


def timed(name: str, data: pv.datasets.Dataset, autocast: bool) -> tuple[float, float]:
    """CPU milliseconds of a step after the first epoch, and the last objective."""
    make, objective, steps = CASES[name]
    torch.manual_seed(0)
    clock = Clock()
    history = pv.fit(
        make(), data[: BATCH * steps], objective=objective(), epochs=EPOCHS, batch_size=BATCH,
        autocast=autocast, compile="on", callbacks=[clock], progress=False,
    )  # fmt: skip
    spent = clock.times[-1] - clock.times[0]
    return 1000 * spent / (steps * (EPOCHS - 1)), history["objective"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    data, _ = pv.datasets.load("mnist", binarize="dynamic")
    print("| | float32 | bfloat16 | ratio | objective | in bfloat16 |\n|---|---|---|---|---|---|")
    for name in CASES:
        found = [[timed(name, data, autocast) for autocast in (False, True)] for _ in range(rounds)]
        plain, half = (statistics.median(pair[i][0] for pair in found) for i in (0, 1))
        ratios = sorted(b / a for (a, _), (b, _) in found)
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        bounds = " | ".join(f"{bound:.2f}" for _, bound in found[0])
        print(f"| {name} | {plain:.2f} ms | {half:.2f} ms | {ratio} | {bounds} |", flush=True)


if __name__ == "__main__":
    main()
