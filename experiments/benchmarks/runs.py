"""What a whole run costs: an epoch of `fit` against its steps alone, ``auto`` against eager runs, and peak memory.

    python experiments/benchmarks/runs.py [--parts epoch cold memory] [--steps 10 1000 10000 100000] [--out FOLDER]

Each run of ``cold`` and ``memory`` is a process of its own, in rounds that take turns; an ``auto`` run starts with an empty
compiler cache. Writes ``runs.json`` and prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import pyro_vae as pv

HERE = Path(__file__).parent


def program(hidden: int = 400, features: int = 784, latent: int = 20) -> pv.VAE:
    torch.manual_seed(0)
    mlp = pv.networks.MLP
    return pv.VAE(pv.priors.StandardNormal(latent), pv.likelihoods.Bernoulli((features,), mlp(latent, [hidden])),
                  pv.posteriors.DiagonalNormal(latent, mlp((features,), [hidden])))


def data(num: int, features: int = 784) -> pv.datasets.Dataset:
    return pv.datasets.Dataset(torch.rand(num, features), binarize="dynamic")


def epoch(rounds: int = 7) -> dict[str, float]:
    """A compiled epoch of 100 batches, as `fit` runs it, over the same steps on batches that are there already."""
    from pyro_vae import training

    ratios, times = [], []
    run = training._Run.__dict__["_run_epoch"]
    kept: list = []

    def keep(self, index, stop=None):
        kept.append(self)
        return run(self, index, stop)

    training._Run._run_epoch = keep
    pv.fit(program(), data(12_800), epochs=1, compile="on", progress=False)
    training._Run._run_epoch = run
    (whole,) = kept

    from steps import CASES, ours
    step = ours(next(case for case in CASES if case.name == "mlp-128"), compiled=True)
    batches = torch.bernoulli(torch.rand(100, 128, 784)).unbind()
    with torch.random.fork_rng():
        for i in range(rounds + 1):
            start = time.perf_counter()
            for x in batches:
                step(x)
            middle = time.perf_counter()
            whole._measure(i, whole._run_epoch(i), 0.0)
            end = time.perf_counter()
            if i:
                ratios.append((end - middle) / (middle - start))
                times.append((middle - start, end - middle))
    return {"epoch / its steps": statistics.median(ratios), "of minima": min(t[1] for t in times) / min(t[0] for t in times)}


def whole_run(compile: str, steps: int) -> None:
    """One run in this process, to be timed from outside; 100 steps an epoch at most."""
    per_epoch = min(steps, 100)
    pv.fit(program(), data(128 * per_epoch), epochs=steps // per_epoch, compile=compile, progress=False)
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def timed(compile: str, steps: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        out = subprocess.run([sys.executable, __file__, "--one", compile, str(steps)], check=True, capture_output=True, text=True,
                             env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache})
        return time.perf_counter() - start, json.loads(out.stdout.splitlines()[-1])["peak_mib"]


def compared(ways: tuple[str, str], steps: int, rounds: int) -> dict[str, float]:
    rows = [[timed(way, steps) for way in ways] for _ in range(rounds)]
    first, second = ([row[i] for row in rows] for i in range(2))
    return {f"{ways[0]} seconds": min(t for t, _ in first), f"{ways[1]} seconds": min(t for t, _ in second),
            "seconds, ratio": min(t for t, _ in first) / min(t for t, _ in second),
            "peak memory, ratio": statistics.median(a[1] / b[1] for a, b in zip(first, second))}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=["epoch", "cold", "memory"], default=["epoch", "cold", "memory"])
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args(argv)
    if options.one:
        return whole_run(options.one[0], int(options.one[1]))
    written = options.out / "runs.json"
    found = json.loads(written.read_text()) if written.exists() else {}
    for part in options.parts:
        if part == "epoch":
            found["epoch"] = epoch()
        elif part == "memory":
            found["memory, 200 steps"] = compared(("on", "off"), 200, options.rounds)
        else:
            for steps in options.steps:
                found[f"cold, {steps} steps"] = compared(("auto", "off"), steps, options.rounds if steps < 10_000 else 1)
        print(json.dumps(found, indent=1), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
