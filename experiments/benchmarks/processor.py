"""Where a step's time goes on this machine, and what the machine can do at most.

    python experiments/benchmarks/processor.py [--cases mlp-128 digits] [--steps 2000]

It prints, in Markdown: processor, caches and huge pages; matrix products of the step's shapes by
our kernel, by torch, by oneDNN and by the OpenBLAS of NumPy; memory bandwidth; what waking a thread
costs; a compiled step by Inductor's profiler, kernel by kernel, with its context switches; and the
processor's counters, where ``perf`` may read them. Nothing else may run: two threads beside another
process wait for one another, and a step then takes a hundred times as long.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import machines
import numpy as np
import pyro
import steps
import torch

from pyro_vae.compilation.capture import Captured

SHAPES = [  # rows, columns and depth of the products of a step of the MLP and of the digits net
    (128, 400, 784), (128, 784, 400), (400, 784, 128), (128, 40, 400), (128, 400, 20),
    (128, 128, 64), (128, 64, 128),
]  # fmt: skip

WAKING = r"""
#include <omp.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int pauses[] = {0, 20, 100, 1000, 10000}, threads = omp_get_max_threads();
    for (int p = 0; p < 5; p++) {
        double spent = 0;
        for (int i = 0; i < 200; i++) {
            if (pauses[p]) usleep(pauses[p]);
            double start = omp_get_wtime();
            #pragma omp parallel num_threads(threads)
            { volatile int nothing = omp_get_thread_num(); (void)nothing; }
            spent += omp_get_wtime() - start;
        }
        printf("%d %.2f\n", pauses[p], 1e6 * spent / 200);
    }
}
"""


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(run: Callable[[], object], least: float = 0.15) -> float:
    """The median time of a run over some time."""
    run()
    times, start = list[float](), time.perf_counter()
    while time.perf_counter() < start + least or len(times) < 5:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def machine() -> None:
    about = machines.machine()
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    rows = [[name, str(value)] for name, value in about.items()]
    if huge.exists():
        in_use = [x for x in Path("/proc/meminfo").read_text().splitlines() if "AnonHuge" in x]
        rows.append(["huge pages", f"{huge.read_text().strip()}; {' '.join(in_use[0].split())}"])
    table(["machine", ""], rows)


def contenders(m: int, n: int, k: int) -> list[Callable[[], object]]:
    """A product by our kernel in a compiled graph, by torch, by oneDNN and by NumPy."""
    a, b = torch.randn(m, k), torch.randn(k, n)
    graph = Captured(lambda a, b: torch.mm(a, b) + 0, [a, b])
    graph.compile([a, b])
    left, right, array = a.numpy(), b.numpy(), np.empty((m, n), np.float32)
    in_onednn, weight, out = a.to_mkldnn(), b.T.contiguous().to_mkldnn(), torch.empty(m, n)
    return [
        lambda: graph(a, b),
        lambda: torch.mm(a, b, out=out),
        lambda: torch.nn.functional.linear(in_onednn, weight),
        lambda: np.matmul(left, right, out=array),
    ]


def products() -> None:
    """GFlop/s of one thread; of NumPy, whatever OPENBLAS_NUM_THREADS says."""
    rows = []
    with threads(1), torch.no_grad():
        for m, n, k in SHAPES:
            rates = [2e-9 * m * n * k / seconds_of(run) for run in contenders(m, n, k)]
            rows.append([f"{m} x {n}, depth {k}", *(f"{rate:.0f}" for rate in rates)])
    head = ["product, GFlop/s of one thread", "ours, in a graph", "torch", "oneDNN", "OpenBLAS"]
    table(head, rows)


def rate_of_copies(size: int, count: int) -> float:
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    with threads(count):
        return 2e-9 * size / seconds_of(lambda: target.copy_(source))


def bandwidth() -> None:
    counts = (1, torch.get_num_threads())
    rows = [
        [f"{size / 2**20:g} MiB", *(f"{rate_of_copies(size, count):.0f}" for count in counts)]
        for size in (2**18, 2**20, 2**23, 2**28)
    ]
    table(["a copy, GB/s read and written", "one thread", "all threads"], rows)


def waking() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "waking.c"), Path(folder, "waking")
        source.write_text(WAKING)
        subprocess.run(["gcc", "-O2", "-fopenmp", source, "-o", program], check=True)
        lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    table(["us since the last work", "us for an empty loop over all threads"], rows)


def kernels(name: str, count: int) -> None:
    """A compiled step, kernel by kernel, called one by one."""
    import torch._inductor.config as inductor
    from torch.profiler import ProfilerActivity, profile

    case = next(case for case in steps.CASES if case.name == name)
    batches = torch.bernoulli(torch.rand(16, *case.batch)).unbind()
    turns = list(itertools.islice(itertools.cycle(batches), count))
    with pyro.validation_enabled(False):
        plain = steps.ours(case, compiled=True)
        for x in turns[:200]:
            plain(x)
        before = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for x in turns:
            plain(x)
        after = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        with inductor.patch({"cpp.enable_kernel_profile": True}):
            profiled = steps.ours(case, compiled=True)
            for x in turns[:200]:
                profiled(x)
            with profile(activities=[ProfilerActivity.CPU]) as found:
                for x in turns[:500]:
                    profiled(x)
    step = 1e6 * (after[1] - before[1]) / count
    waits, lost = (
        (getattr(after[0], kind) - getattr(before[0], kind)) / count
        for kind in ("ru_nvcsw", "ru_nivcsw")
    )
    print(f"{name}: {step:.0f} us a step; {waits:.3f} waits and {lost:.3f} switches away a step")
    calls = [
        (each.self_cpu_time_total / min(count, 500), each.key) for each in found.key_averages()
    ]
    rows = [[key[:60], f"{us:.2f}"] for us, key in sorted(calls, reverse=True) if us >= 0.5]
    shown = sum(us for us, _ in calls)
    rows.append(["products, Adam and calls between: what is left", f"{step - shown:.2f}"])
    table([f"{name}: kernel", "us a step"], rows)


def counters(name: str, count: int) -> None:
    """What ``perf`` counts over so many steps."""
    perf = shutil.which("perf")
    if perf is None:
        print("perf is not installed")
        return
    events = "cycles,instructions,cache-misses,context-switches,cpu-migrations,page-faults"
    code = f"import processor; processor.kernels({name!r}, {count})"
    command = [perf, "stat", "-e", events, sys.executable, "-c", code]
    folder = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True
    )
    lines = [line.strip() for line in ran.stderr.splitlines()]
    print(*[x for x in lines if any(word in x for word in events.split(","))], sep="\n")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [case.name for case in steps.CASES]
    parser.add_argument("--cases", nargs="+", choices=names, default=["mlp-128", "digits"])
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    machine()
    products()
    bandwidth()
    waking()
    for name in options.cases:
        kernels(name, options.steps)
    counters(options.cases[0], options.steps)


if __name__ == "__main__":
    main(sys.argv[1:])
