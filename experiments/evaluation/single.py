"""Measure how often what is said of a single datum is true, whatever the tail of its weights.

    python experiments/evaluation/single.py [--num-data 2000]

Weights of known mean, drawn directly: log-normal ones, those of a guide that is too narrow or off
the middle, Student's t, Pareto tails, a second mode with few draws, bounded ones. Each datum is
scored alone. Prints a table in Markdown.
"""

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.evaluation import summarize

Weights = tuple[Callable[[tuple[int, int]], Tensor], float]  # log-weights; the log of their mean


def log_normal(scale: float) -> Weights:
    return lambda shape: scale * torch.randn(shape), scale**2 / 2


def guide(scale: float, off: float, latent: int) -> Weights:
    """N(off, scale^2) for N(0, 1), in so many dimensions."""

    def drawn(shape: tuple[int, int]) -> Tensor:
        noise = torch.randn(latent, *shape)
        squares = noise.square() - (off + scale * noise).square()
        return latent * math.log(scale) + squares.sum(0) / 2

    return drawn, 0.0


def student(df: float) -> Weights:
    t = torch.distributions.StudentT(df)
    log_mean = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) + math.log(2 * df / (df - 1))
    return lambda shape: t.sample(shape).abs().log(), log_mean - math.log(math.pi * df) / 2


def pareto(k: float) -> Weights:
    return lambda shape: -k * torch.rand(shape).log(), -math.log(1 - k)


def modes(share: float, ratio: float) -> Weights:
    """A share of the draws in a mode whose weights are so many times larger."""
    return (
        lambda shape: 0.3 * torch.randn(shape) + math.log(ratio) * (torch.rand(shape) < share),
        0.045 + math.log(1 - share + share * ratio),
    )


def bounded(scale: float) -> Weights:
    return lambda shape: scale * torch.rand(shape).log(), -math.log1p(scale)


WEIGHTS = {
    **{f"log-normal, {s}": log_normal(s) for s in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)},
    "guide of scale 0.9, 10 dimensions": guide(0.9, 0, 10),
    "guide of scale 0.8, 5 dimensions": guide(0.8, 0, 5),
    "guide of scale 0.7, 2 dimensions": guide(0.7, 0, 2),
    "guide of scale 0.6": guide(0.6, 0, 1),
    "guide of scale 0.8, off by 0.5, 3 dimensions": guide(0.8, 0.5, 3),
    "guide of scale 1.3, 10 dimensions": guide(1.3, 0, 10),
    "guide of scale 2, 5 dimensions": guide(2.0, 0, 5),
    "guide of scale 1.2, off by 1, 3 dimensions": guide(1.2, 1.0, 3),
    "Student's t, 1.5": student(1.5),
    "Student's t, 4": student(4.0),
    "Pareto, k = 0.45": pareto(0.45),
    "Pareto, k = 0.6": pareto(0.6),
    "Pareto, k = 0.7": pareto(0.7),
    "10% of the draws 10 times as heavy": modes(0.1, 10),
    "1% of the draws 20 times as heavy": modes(0.01, 20),
    "bounded, 5": bounded(5.0),
}
DRAWS = (50, 100, 200, 1000)


def row(weights: Weights, num_samples: int, num_data: int) -> str:
    """The share with an interval, the share of those that cover, the share said in error."""
    drawn, truth = weights
    torch.manual_seed(num_samples)
    score = summarize(drawn((num_samples, num_data)))
    low, high = score.interval()
    is_stated, is_true = ~score.is_bound, (low <= truth) & (truth <= high)
    covers = is_true[is_stated].double().mean()
    error = (~is_true).double().mean()
    return f"{is_stated.double().mean():.0%}, {covers:.1%}, {error:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=2000)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    print("| weights |" + "".join(f" K = {k} |" for k in DRAWS))
    print("|---" * (1 + len(DRAWS)) + "|")
    for name, weights in WEIGHTS.items():
        rows = (row(weights, k, options.num_data) for k in DRAWS)
        print(f"| {name} |" + "".join(f" {each} |" for each in rows), flush=True)


if __name__ == "__main__":
    main()
