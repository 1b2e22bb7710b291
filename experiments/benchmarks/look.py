"""Time the look for neighbours that comes before training and before scoring.

    python experiments/benchmarks/look.py [--seconds 12]

For small and convolutional programs: how long one look takes (the median of 20), and the share of
all looks in a `fit` and in a score that last about so many seconds. One thread; times are CPU
seconds, which other work on the machine hardly changes. Prints a table in Markdown.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch

import pyro_vae as pv
from pyro_vae.runtime.conditioned import Conditioned, conditioned

IMAGE = (1, 28, 28)


def small(features: int = 784, hidden: int = 400, latent: int = 20) -> pv.VAE:
    return pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.Bernoulli(features, pv.networks.MLP(latent, [hidden])),
        pv.posteriors.DiagonalNormal(latent, pv.networks.MLP(features, [hidden])),
    )


def convolutional() -> pv.VAE:
    return pv.VAE(
        pv.priors.StandardNormal(32),
        pv.likelihoods.Bernoulli(
            IMAGE, pv.networks.ConvTranspose(32, IMAGE, [32, 16], hidden=[128])
        ),
        pv.posteriors.DiagonalNormal(32, pv.networks.Conv(IMAGE, [16, 32], hidden=[128])),
    )


def residual() -> pv.HierarchicalVAE:
    encoder = pv.networks.ResidualConv(IMAGE, [32, 64], hidden=[300])
    normal, mlp = pv.posteriors.DiagonalNormal, pv.networks.MLP
    return pv.HierarchicalVAE(
        priors=[normal(40, mlp(40, [300])), pv.priors.StandardNormal(40)],
        likelihood=pv.likelihoods.Bernoulli(
            IMAGE, pv.networks.ResidualConvTranspose(40, IMAGE, [64, 32], hidden=[300])
        ),
        posteriors=[normal(40, encoder), normal(40, mlp(40, [300]))],
    )


PROGRAMS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "digits net 64-128-2": (lambda: small(64, 128, 2), (64,)),
    "MLP 784-400-20": (small, (784,)),
    "convolutions, 16 and 32 channels": (convolutional, IMAGE),
    "residual convolutions, two levels": (residual, IMAGE),
}


def one_look(program: torch.nn.Module, x: torch.Tensor) -> float:
    """The median time of a look, in seconds."""
    times = []
    with conditioned(program, x, seed=0, looked_at=True) as given:
        for _ in range(21):
            start = time.process_time()
            given.checked()
            times.append(time.process_time() - start)
    return statistics.median(times[1:])


def share(run: Callable[[], object]) -> tuple[float, float]:
    """How long a run takes in seconds, and which part of that its looks take."""
    spent, look = 0.0, Conditioned.checked

    def timed(given: Conditioned) -> Conditioned:
        nonlocal spent
        start = time.process_time()
        try:
            return look(given)
        finally:
            spent += time.process_time() - start

    Conditioned.checked = timed
    try:
        start = time.process_time()
        run()
        whole = time.process_time() - start
    finally:
        Conditioned.checked = look
    return whole, spent / whole


def lasting(seconds: float, run: Callable[[int], object]) -> str:
    """The share of a run whose amount of work is chosen so that it lasts about so long."""
    amount, (took, part) = 1, share(partial(run, 1))
    while took < seconds / 2:
        amount = max(amount + 1, int(amount * seconds / max(took, seconds / 10)))
        took, part = share(partial(run, amount))
    return f"{100 * part:.2f}% of {took:.0f} s"


def row(name: str, seconds: float) -> str:
    """One program's row of the table."""
    make, shape = PROGRAMS[name]
    torch.manual_seed(0)
    program, x = make(), torch.rand(2000, *shape).round()

    def fit(epochs: int) -> None:
        pv.fit(make(), x, validation=x[:200], epochs=epochs, progress=False)

    def score(tens: int) -> None:
        pv.log_likelihood(program, x, 10 * tens)

    numbers = [f"{1000 * one_look(program, x):.0f} ms", lasting(seconds, fit)]
    return " | ".join([f"| {name}", *numbers, f"{lasting(seconds, score)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| program | one look | share of a `fit` | share of a score |")
    print("|---|---|---|---|")
    for name in PROGRAMS:
        print(row(name, options.seconds), flush=True)


if __name__ == "__main__":
    main()
