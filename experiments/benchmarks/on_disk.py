"""Training from disk: its speed beside memory, and how much memory it and data in memory take.

    python experiments/benchmarks/on_disk.py [--parts speed large million] [--folder /tmp]

``speed`` trains the 784-400-20 net on 60,000 data, in memory and from an .npy, in interleaved
rounds. ``large`` trains 300 steps on a sparse file of 20 GB, and ``million`` an epoch of a million
rows of 50 numbers in memory, each in a process of its own whose anonymous memory is watched.
"""

import argparse
import json
import operator
import os
import statistics
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

GIGABYTE = 1e9


class Watch:
    """The peak of a process's memory, looked at every few milliseconds."""

    def __init__(self):
        self.peak = {"RssAnon": 0, "VmRSS": 0}
        self.started = time.perf_counter()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(value.split()[0]) * 1024)
            time.sleep(0.003)

    def say(self, stage):
        time.sleep(0.02)
        seconds = time.perf_counter() - self.started
        peaks = ", ".join(f"{name} {value / GIGABYTE:.2f} GB" for name, value in self.peak.items())
        print(f"{stage:12} {seconds:6.1f} s  peak {peaks}", flush=True)


def sparse(path, number, size):
    """An .npy of zeros that takes no room on the disk."""
    import numpy as np

    if path.exists():
        return
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (number, size)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * number * size)


def grey(path, number):
    import numpy as np

    if not path.exists():
        levels = np.random.default_rng(0).integers(0, 256, size=(number, 784))
        np.save(path, levels.astype(np.float32) / 255)


def mlp(size, hidden, latent, likelihood):
    import torch

    import pyro_vae as pv

    torch.manual_seed(0)
    return pv.VAE(
        pv.priors.StandardNormal(latent),
        likelihood(size, pv.networks.MLP(latent, [hidden])),
        pv.posteriors.DiagonalNormal(latent, pv.networks.MLP(size, [hidden])),
    )


def steps_of(program, data, batch_size, compile):
    import torch

    import pyro_vae as pv
    from pyro_vae.training.steps import GradientSteps

    steps = GradientSteps(
        program, data.to("cpu", torch.float32), pv.objectives.ELBO(), 100, batch_size, 1e-3,
        partial(torch.optim.Adam, fused=True), pv.training.schedules.Constant(), 0, None, 0, False,
    )  # fmt: skip
    steps.find_plates()
    steps.initialize()
    steps.validate()
    steps.decide(compile)
    steps.compile()
    return steps


def forget(path):
    """Take a file's pages out of the system's cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed(folder, rounds):
    import pyro_vae as pv

    path = folder / "grey.npy"
    grey(path, 66_667)
    runs = {}
    for name in ("on", "off"):
        train, _ = pv.datasets.load(path, binarize="dynamic", in_memory=name)
        vae = mlp(784, 400, 20, pv.likelihoods.Bernoulli)
        runs[name] = steps_of(vae, train, 128, "on")
        runs[name].run(0)
    runs["off, cold"] = runs["off"]
    times = {name: [] for name in runs}
    for epoch in range(1, rounds + 1):
        for name, steps in runs.items():
            if name == "off, cold":
                forget(path)
            start = time.perf_counter()
            steps.run(epoch)
            times[name].append((time.perf_counter() - start) / steps.per_epoch * 1e3)
        print({name: round(each[-1], 3) for name, each in times.items()}, "ms a step", flush=True)
    result = {
        "ms a step": {name: statistics.median(each) for name, each in times.items()},
        "disk / memory": {
            name: statistics.median(map(operator.truediv, times["on"], times[name]))
            for name in ("off", "off, cold")
        },
        "of minima": min(times["on"]) / min(times["off"]),
        "load": os.getloadavg(),
    }
    print(json.dumps(result, indent=1))


def large(folder):
    watch = Watch()
    import pyro_vae as pv
    from pyro_vae.training.steps import GradientSteps

    assert GradientSteps is not None
    watch.say("imports")
    path = folder / "large.npy"
    sparse(path, 6_377_551, 784)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    train, test = pv.datasets.load(path, in_memory="off")
    watch.say("load")
    assert len(train.sha256) == 64
    watch.say("hash")
    steps = steps_of(mlp(784, 400, 20, pv.likelihoods.Normal), train, 128, "on")
    watch.say("compile")
    steps.run(0, stop=300)
    watch.say("300 steps")
    score = pv.elbo(steps.program, test[:2000], 10)
    watch.say("score")
    assert score.values.isfinite().all()
    path.unlink()


def million(folder):
    watch = Watch()
    import numpy as np

    import pyro_vae as pv
    import pyro_vae.training.fit

    watch.say("imports")
    path = folder / "million.npy"
    if not path.exists():
        file = np.lib.format.open_memmap(path, "w+", np.float32, (1_000_000, 50))
        random = np.random.default_rng(0)
        for start in range(0, len(file), 50_000):
            file[start : start + 50_000] = random.standard_normal((50_000, 50), dtype=np.float32)
        print("written: start again", flush=True)
        return
    vae = mlp(50, 64, 5, pv.likelihoods.Normal)
    pv.fit(vae, np.zeros((2000, 50)), epochs=1, progress=False, compile="off")
    watch.say("2000 rows")  # what any training imports
    train, test = pv.datasets.load(path, in_memory="on")
    watch.say("load")
    pv.fit(vae, train, epochs=1, batch_size=1024, progress=False, compile="off")
    watch.say("fit")
    pv.elbo(vae, test, 10)
    watch.say("score")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=["speed", "large", "million"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    parts = {"speed": partial(speed, rounds=options.rounds), "large": large, "million": million}
    for part in options.parts:
        print(f"{part}, load {os.getloadavg()[0]:.1f}", flush=True)
        if options.here:
            parts[part](options.folder)
            continue
        for _ in range(2 if part == "million" else 1):
            command = [sys.executable, __file__, "--here", "--parts", part]
            command += ["--folder", str(options.folder), "--rounds", str(options.rounds)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
