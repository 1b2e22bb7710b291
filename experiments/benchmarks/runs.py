"""Measure whole runs: an epoch against its steps, ``auto`` against eager, peak memory.

    python experiments/benchmarks/runs.py [--parts epoch cold memory] [--nets mlp digits] [--steps
    10 1000 10000 100000]

Each run of ``cold`` and ``memory`` is a process of its own, start-up included; the ways take turns,
round by round. An ``auto`` run starts with an empty compiler cache. Seconds are of the clock; CPU
seconds are those of the process and of the compilers that it waited for. Writes ``runs.json``, with
one entry for each kind of machine, and prints what it found.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from machines import Measurements

import pyro_vae as pv
from pyro_vae.training.run import Run

HERE = Path(__file__).parent


NETS = {"mlp": (784, 400, 20), "digits": (64, 128, 2)}  # features, hidden, latent


def program(net: str = "mlp") -> pv.VAE:
    torch.manual_seed(0)
    mlp = pv.networks.MLP
    features, hidden, latent = NETS[net]
    return pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.Bernoulli((features,), mlp(latent, [hidden])),
        pv.posteriors.DiagonalNormal(latent, mlp((features,), [hidden])),
    )


def data(num: int, net: str = "mlp") -> pv.datasets.Dataset:
    return pv.datasets.Dataset(
        torch.randint(256, (num, NETS[net][0])) / 255, binarize="dynamic"
    )  # grey levels, as images have


def epoch(rounds: int = 50) -> dict[str, float]:
    """Divide the time of a compiled epoch in `fit` by that of its steps on ready-made batches."""
    ratios, times = [], []
    measure, kept = Run._measure, []

    def keep(self, *what):
        kept.append(self)
        return measure(self, *what)

    with mock.patch.object(Run, "_measure", keep):
        pv.fit(program(), data(12_800), epochs=1, compile="on", progress=False)
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
            whole._measure(i, whole.steps.run(i), 0.0)
            end = time.perf_counter()
            if i:
                ratios.append((end - middle) / (middle - start))
                times.append((middle - start, end - middle))
    return {
        "epoch / its steps": statistics.median(ratios),
        "of minima": min(t[1] for t in times) / min(t[0] for t in times),
    }


def whole_run(net: str, compile: str, steps: int) -> None:
    """One run in this process, to be timed from outside; 100 steps an epoch at most."""
    per_epoch = min(steps, 100)
    pv.fit(
        program(net),
        data(128 * per_epoch, net),
        epochs=steps // per_epoch,
        compile=compile,
        progress=False,
    )
    print(json.dumps({"peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(net: str, compile: str, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        start, cpu = time.perf_counter(), cpu_seconds()
        out = subprocess.run(
            [sys.executable, __file__, "--one", net, compile, str(steps)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache},
        )
        return {
            "seconds": time.perf_counter() - start,
            "CPU seconds": cpu_seconds() - cpu,
        } | json.loads(out.stdout.splitlines()[-1])


def compared(
    net: str, ways: tuple[str, str], steps: int, rounds: int
) -> dict[str, float | dict[str, float]]:
    """For each quantity, the least of each way and the median over rounds of their ratio."""
    rows = [[timed(net, way, steps) for way in ways] for _ in range(rounds)]
    return {
        what: {
            **{way: min(row[i][what] for row in rows) for i, way in enumerate(ways)},
            "ratio": statistics.median(row[0][what] / row[1][what] for row in rows),
        }
        for what in rows[0][0]
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=["epoch", "cold", "memory"],
        default=["epoch", "cold", "memory"],
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--one", nargs=3)
    options = parser.parse_args(argv)
    if options.one:
        return whole_run(*options.one[:2], int(options.one[2]))
    written = Measurements(options.out / "runs.json")
    found = written.here.setdefault("parts", {})
    plans: list[tuple[str, Callable[[], dict]]] = []
    if "epoch" in options.parts:
        plans.append(("epoch", epoch))
    if "memory" in options.parts:
        plans.append(
            ("memory, 200 steps", partial(compared, "mlp", ("on", "off"), 200, options.rounds))
        )
    if "cold" in options.parts:
        plans += [
            (
                f"cold, {net}, {steps} steps",
                partial(
                    compared, net, ("auto", "off"), steps, options.rounds if steps < 10_000 else 1
                ),
            )
            for steps in options.steps
            for net in options.nets
        ]
    for name, measure in plans:
        found[name] = measure()
        print(json.dumps({name: found[name]}, indent=1), flush=True)
        written.write()


if __name__ == "__main__":
    main(sys.argv[1:])
