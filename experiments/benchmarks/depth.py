"""Seconds to capture and compile a step of a deep hierarchy, whole and in parts that repeat.

    python experiments/benchmarks/depth.py [--levels 3 6 12 24] [--rounds 2]

The hierarchy is that of ``experiments/full/deep/mnist.yaml``, its two grids repeated. Each time is
that of a process of its own, with an empty compiler cache and one thread, byte code compiled
before: by the clock, and in CPU seconds of Python and of the C++ compiler.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

DEEP = Path(__file__).parent.parent / "full" / "deep"


def measured(levels: int, way: str) -> None:
    """Compile one step and print what it took."""
    import pyro
    import torch
    from sizes import recipe_of

    import pyro_vae as pv
    from pyro_vae.compilation.gradients import LossAndGradients
    from pyro_vae.recipes.build import build_program

    pyro.enable_validation(False)
    torch.set_num_threads(1)
    grids = levels - 1  # besides the vector at the top
    text = (DEEP / "mnist.yaml").read_text()
    text = text.replace("times: 4", f"times: {max(1, round(grids * 4 / 11))}")
    text = text.replace("times: 7", f"times: {grids - max(1, round(grids * 4 / 11))}")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        recipe = recipe_of(file.name)
    torch.manual_seed(0)
    program = build_program(recipe, pv.datasets.Dataset(torch.zeros(2, 1, 28, 28)))
    x, objective = torch.rand(100, 1, 28, 28).round(), pv.objectives.AnalyticELBO()

    def loss(x):
        return objective.differentiable_loss(program.model, program.guide, x)

    whole = patch("pyro_vae.compilation.inductor.parts_of", lambda graph, inputs: None)
    start, before = time.perf_counter(), cpu_seconds()
    with whole if way == "whole" else nullcontext():
        graph = LossAndGradients(loss, list(program.parameters()), bool, program).captured(x)
    python, compiler = (b - a for a, b in zip(before, cpu_seconds()))
    assert graph is not None and graph.is_compiled
    print(graph.size, time.perf_counter() - start, python, compiler)


def cpu_seconds() -> list[float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return [each.ru_utime + each.ru_stime for each in used]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", nargs="+", type=int, default=[3, 6, 12, 24])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args(argv)
    if options.one:
        sys.path.insert(0, str(DEEP))
        return measured(int(options.one[0]), options.one[1])
    print("| levels | operations | | clock | Python | C++ compiler |\n|---|---|---|---|---|---|")
    for levels in options.levels:
        for way in ("whole", "parts"):
            found = []
            for _ in range(options.rounds):
                with tempfile.TemporaryDirectory() as cache:
                    environment = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache)
                    command = [sys.executable, __file__, "--one", str(levels), way]
                    done = subprocess.run(
                        command, env=environment, check=True, capture_output=True, text=True
                    )
                found.append([float(word) for word in done.stdout.split()[-4:]])
            size, *seconds = (statistics.median(values) for values in zip(*found))
            print(
                f"| {levels} | {size:.0f} | {way} |", *(f"{s:.1f} |" for s in seconds), flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
