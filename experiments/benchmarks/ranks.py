"""What several processes gain: throughput of two against one, and the all-reduce for up to 64.

    python experiments/benchmarks/ranks.py [--rounds 3]

Prints tables in Markdown; ``--rounds 0`` prints that of the all-reduce alone. Every process has one
thread; one and two processes take turns, so that what else the machine does falls on both.
The all-reduce is measured at two processes of gloo and modelled beyond: a ring of 2 (P - 1)
messages of n / P values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import torch
import torch.distributed as dist

import pyro_vae as pv

BATCHES = (128, 1024)
SIZES = (1_000_000, 10_000_000, 100_000_000)  # parameters
PROCESSES = (2, 4, 8, 16, 32, 64)
NUMBER, EPOCHS = 8192, 4


class Clock(pv.training.Callback):
    """Notes the clock and the processor's time of this process after each epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def epoch(self, training: object) -> None:
        self.seen.append((time.perf_counter(), time.process_time()))


def throughput(batch: int) -> tuple[float, float]:
    """Milliseconds of a step of the 784-400-20 net, by the clock and by the processor's time."""
    torch.manual_seed(0)
    data = pv.datasets.Dataset((torch.rand(NUMBER, 784) < 0.3).float())
    vae = pv.VAE(
        pv.priors.StandardNormal(20),
        pv.likelihoods.Bernoulli(784, pv.networks.MLP(20, [400])),
        pv.posteriors.DiagonalNormal(20, pv.networks.MLP(784, [400])),
    )
    clock = Clock()
    pv.fit(
        vae,
        data,
        epochs=EPOCHS,
        batch_size=batch,
        compile="on",
        progress=False,
        device="cpu",
        callbacks=[clock],
    )
    steps = NUMBER / batch
    epochs = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(clock.seen)]
    by_clock, by_processor = (1000 * statistics.median(each) / steps for each in zip(*epochs))
    return by_clock, by_processor


def reduction(size: int) -> float:
    """Milliseconds of an all-reduce of so many float32, the least: what else runs only adds."""
    buffer, times = torch.ones(size), []
    for _ in range(max(8, min(200, 10**8 // size))):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(buffer)
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def work(batch: int, reduce: bool) -> None:
    """What each process does; the first prints the result."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    found: object = [reduction(size) for size in (1, *SIZES)] if reduce else throughput(batch)
    if int(os.environ.get("RANK", "0")) == 0:
        print("RESULT", json.dumps(found), flush=True)


def run(processes: int, *options: str) -> object:
    """The result of so many processes."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, __file__, "--work", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(line.removeprefix("RESULT "))


def ring(processes: int, size: int, latency: float, per_value: float) -> float:
    """Milliseconds of a ring: 2 (P - 1) messages of n / P values, one after another."""
    return 2 * (processes - 1) * (latency + size / processes * per_value)


def print_reductions(measured: list[float], step: float) -> None:
    """The table of the all-reduce, and where more processes stop paying.

    Args:
        measured: milliseconds at two processes, of one value and of each of `SIZES`.
        step: milliseconds of one processor for a batch of 1024 of the 784-400-20 net, which
            has 0.65 M parameters; a larger net takes in proportion.
    """
    latency, measured = measured[0] / 2, measured[1:]
    per_value = min(took / size for size, took in zip(SIZES, measured))
    print(f"\nlatency {latency:.3f} ms a message, {4e-6 / per_value:.2f} GB/s\n")
    print("| parameters | P | MB sent by each | all-reduce, ms | of it measured | speed-up |")
    print("|---:|---:|---:|---:|---:|---:|")
    for size, known in zip(SIZES, measured):
        alone = step * size / 0.65e6
        for processes in PROCESSES:
            sent = 2 * (processes - 1) / processes * 4 * size / 1e6
            took = ring(processes, size, latency, per_value)
            gain = alone / (alone / processes + took)
            seen = f"{known:.1f}" if processes == 2 else ""
            print(
                f"| {size / 1e6:.0f} M | {processes} | {sent:.1f} | {took:.1f} | {seen} | "
                f"{gain:.1f} |"
            )


def main(rounds: int) -> None:
    """Measure and print."""
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors, torch {torch.__version__}"
    )
    print("\nms of a step, by the clock and by the processor's time of the first process")
    print("\n| batch | one process | two | one / two, clock | processor |")
    print("|---:|---:|---:|---|---|")
    step = 40.0  # where no round measures it
    for batch in BATCHES if rounds else ():
        found = [[run(count, "--batch", str(batch)) for count in (1, 2)] for _ in range(rounds)]
        ones, twos = zip(*found)
        (one, one_cpu), (two, two_cpu) = (
            map(statistics.median, zip(*each)) for each in (ones, twos)
        )
        step = one_cpu
        clock, processor = (
            ", ".join(f"{a[place] / b[place]:.2f}" for a, b in found) for place in (0, 1)
        )
        print(
            f"| {batch} | {one:.1f}, {one_cpu:.1f} | {two:.1f}, {two_cpu:.1f} | {clock} | "
            f"{processor} |",
            flush=True,
        )
    print_reductions(run(2, "--reduce"), step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=128, help=argparse.SUPPRESS)
    parser.add_argument("--reduce", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.batch, options.reduce)
    else:
        main(options.rounds)
