"""Annealed importance sampling of MNIST images, compiled against eager.

    python experiments/benchmarks/anneal.py [--temperatures 500] [--data 100] [--rounds 2]

A VAE 784-400-20, 16 chains, 10 leapfrog steps. The two take turns; the scores must agree within
rounding. ``PYRO_VAE_DATA`` says where MNIST lies; without it the images are noise, which takes as
long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch

import pyro_vae as pv


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--temperatures", type=int, default=500)
    parser.add_argument("--data", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    net = pv.networks.MLP
    vae = pv.VAE(
        pv.priors.StandardNormal(20),
        pv.likelihoods.Bernoulli((1, 28, 28), net(20, [400])),
        pv.posteriors.DiagonalNormal(20, net((1, 28, 28), [400])),
    )
    x = torch.rand(options.data, 1, 28, 28).round()
    if "PYRO_VAE_DATA" in os.environ:
        x = pv.datasets.load("mnist", binarize="fixed")[1].tensor[: options.data]
    seconds, scores = {"on": [], "off": []}, {}
    for _ in range(options.rounds):
        for compile in seconds:
            start = time.perf_counter()
            scores[compile] = pv.evaluation.ais(
                vae, x, 16, options.temperatures, seed=0, compile=compile
            )
            seconds[compile].append(time.perf_counter() - start)
    first = {name: times[0] for name, times in seconds.items()}
    compiled, eager = (statistics.median(seconds[name]) for name in ("on", "off"))
    off = (scores["on"].mean - scores["off"].mean) / scores["off"].mean_mc_se
    print(f"{options.data} data, 16 chains, {options.temperatures} temperatures")
    print(f"compiled {compiled:.1f} s (with compiling, {first['on']:.1f}), eager {eager:.1f} s")
    print(f"ratio {compiled / eager:.2f}; the scores differ by {off:.2g} of their standard errors")


if __name__ == "__main__":
    main(sys.argv[1:])
