"""Measure the start: from the shell to the end of the first step, as whole processes.

    python experiments/benchmarks/start.py [--rounds 5]

A VAE 784-400-20 on batches of 128, on one thread: ours, and the same written by hand in PyTorch. A
first time has an empty compiler cache; again has the cache that the first time left. Python's byte
code is kept, and a round before the first fills the page cache. The ways take turns, round by
round. Seconds are of the clock; CPU seconds are those of the process and of its compilers. Writes
``start.json``, with one entry for each kind of machine: the median of each way, its least and most.
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

HERE = Path(__file__).parent

WAYS = ("ours", "by hand")
MODES = ("eager", "compiled, first time", "compiled, again")


def ours(is_compiled: bool) -> None:
    import torch

    import pyro_vae as pv

    mlp = pv.networks.MLP
    program = pv.VAE(
        pv.priors.StandardNormal(20),
        pv.likelihoods.Bernoulli((784,), mlp(20, [400])),
        pv.posteriors.DiagonalNormal(20, mlp((784,), [400])),
    )
    mode = "on" if is_compiled else "off"
    pv.fit(program, torch.rand(128, 784).round(), epochs=1, compile=mode, progress=False)


def by_hand(is_compiled: bool) -> None:
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits, softplus

    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def loss_of(x):
        loc, raw = encoder(x).chunk(2, -1)
        scale = softplus(raw)
        logits = decoder(loc + scale * torch.randn_like(scale))
        kl = 0.5 * (loc**2 + scale**2 - 1) - scale.log()
        nats = binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl.sum()
        return nats / len(x)

    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], fused=True)
    loss = (torch.compile(loss_of) if is_compiled else loss_of)(torch.rand(128, 784).round())
    loss.backward()
    optimizer.step()


def timed(way: str, mode: str, cache: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a process that takes one step."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, __file__, "--one", way, mode]
    subprocess.run(words, check=True, env=environment, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def one_round() -> dict[str, tuple[float, float]]:
    found = {}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as cache:
            for mode in MODES:
                found[f"{way}, {mode}"] = timed(way, mode, cache)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        way, mode = options.one
        return {"ours": ours, "by hand": by_hand}[way](mode != "eager")
    rounds = [one_round() for _ in range(options.rounds + 1)][1:]
    found = {}
    for name in rounds[0]:
        seconds, cpu = zip(*(each[name] for each in rounds))
        found[name] = {
            "seconds": round(statistics.median(seconds), 2),
            "least": round(min(seconds), 2),
            "most": round(max(seconds), 2),
            "CPU seconds": round(statistics.median(cpu), 2),
        }
    import torch
    from machines import Measurements  # here, so that no way imports torch beforehand

    torch.set_num_threads(1)  # as the ways have it

    written = Measurements(HERE / "start.json")
    written.here["ways"] = found
    written.write()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
