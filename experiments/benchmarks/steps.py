"""Time training steps and log-likelihoods: ours, hand-written PyTorch, Pyro, pythae, NumPyro.

    python experiments/benchmarks/steps.py [--cases mlp-128 digits] [--rounds 10] [--steps 20]
    [--out FOLDER]

All contenders of a case run in one process, in interleaved rounds over the same batches. Each takes
its steps twice a round, of which the second time counts. Ours takes
all steps of a round in one call, as `fit` takes up to sixteen. A ratio is
the median over rounds of ours / theirs, so a drift of the machine's speed affects all alike; minima
are given too. Peers that are not installed are left out (``uv sync --group peers`` installs them).
The floor is a step's own matrix products and the fused optimiser. Writes ``steps.json``, with one
entry for each kind of machine, ``steps.md`` and ``steps.png``; a case measured anew replaces the
old result of the same kind. ``ATEN_CPU_CAPABILITY=avx2`` stands for a processor without AVX-512.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import by_hand
import peers
import pyro
import torch
import torch._inductor.config
from machines import DEVICE, Measurements
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compilation.cuda_graph import Replay
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.optimizer import Update
from pyro_vae.compilation.recording import Recording

HERE = Path(__file__).parent
Round = Callable[[], object]
Results = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Case:
    """A program and the batches that it is trained on."""

    name: str
    build: Callable[[], nn.Module]
    batch: tuple[int, ...]
    objective: Callable[[], object] = pv.objectives.ELBO
    by_hand: Callable[[], nn.Module] | None = None
    sizes: tuple[int, int, int] | None = (
        None  # of a plain VAE (features, hidden, latent), for peers
    )


def plain(
    features: int,
    hidden: int | list[int],
    latent: int,
    prior=pv.priors.StandardNormal,
    posterior=pv.posteriors.DiagonalNormal,
) -> pv.VAE:
    widths, mlp = [hidden] if isinstance(hidden, int) else hidden, pv.networks.MLP
    return pv.VAE(
        prior(latent),
        pv.likelihoods.Bernoulli((features,), mlp(latent, widths[::-1])),
        posterior(latent, mlp((features,), widths)),
    )


def convolutional() -> pv.VAE:
    nets = pv.networks
    return pv.VAE(
        pv.priors.StandardNormal(20),
        pv.likelihoods.Bernoulli(
            (1, 28, 28), nets.ConvTranspose(20, (28, 28), [32, 16], hidden=[128])
        ),
        pv.posteriors.DiagonalNormal(20, nets.Conv((1, 28, 28), [16, 32], hidden=[128])),
    )


def spline(latent: int, network: nn.Module) -> nn.Module:
    return pv.posteriors.Flow(latent, network, kind="spline")


def two_levels() -> pv.HierarchicalVAE:
    normal, mlp = pv.posteriors.DiagonalNormal, pv.networks.MLP
    return pv.HierarchicalVAE(
        [normal(100, mlp(50, [100, 100])), pv.priors.StandardNormal(50)],
        pv.likelihoods.Bernoulli((784,), mlp(100, [200, 200])),
        [normal(100, mlp((784,), [200, 200])), normal(50, mlp(100, [100, 100]))],
    )


def vamp(latent: int) -> nn.Module:
    return pv.priors.VampPrior(latent, 500)


def plain_case(name: str, batch: int, *sizes: int) -> Case:
    features, *hidden, latent = sizes
    return Case(
        name,
        lambda: plain(features, hidden, latent),
        (batch, features),
        by_hand=lambda: by_hand.Plain(features, hidden, latent),
        sizes=(features, *hidden, latent) if len(hidden) == 1 else None,
    )


MNIST = 784, 400, 20
CASES = [
    plain_case("mlp-128", 128, *MNIST),
    plain_case("mlp-1024", 1024, *MNIST),
    plain_case("digits", 128, 64, 128, 2),
    plain_case("784-512-512-64", 128, 784, 512, 512, 64),
    Case("convolutional", convolutional, (128, 1, 28, 28), by_hand=by_hand.Convolutional),
    Case("two levels", two_levels, (128, 784), by_hand=by_hand.TwoLevels),
    Case(
        "VampPrior",
        lambda: plain(*MNIST, prior=vamp),
        (128, 784),
        by_hand=lambda: by_hand.Vamp(784, [400], 20, 500),
    ),
    Case(
        "spline flow posterior",
        lambda: plain(*MNIST, posterior=spline),
        (128, 784),
        by_hand=lambda: by_hand.Spline(*MNIST),
    ),
    Case(
        "IWAE-50",
        lambda: plain(784, 200, 50),
        (20, 784),
        lambda: pv.objectives.IWAE(num_particles=50),
        by_hand=lambda: by_hand.Weighted(784, [200], 50, 50),
    ),
]
GROWTH = {
    "batch": ([16, 64, 256, 1024], lambda n: Case("", lambda: plain(784, 400, 20), (n, 784))),
    "latent size": ([2, 20, 200], lambda n: Case("", lambda: plain(784, 400, n), (128, 784))),
    "K (IWAE)": (
        [1, 5, 25],
        lambda n: Case(
            "", lambda: plain(784, 400, 20), (64, 784), lambda: pv.objectives.IWAE(num_particles=n)
        ),
    ),
    "layers": ([1, 2, 4], lambda n: Case("", lambda: plain(784, [400] * n, 20), (128, 784))),
}


# contenders


def over(step: Callable[[Tensor], object], batches: Sequence[Tensor]) -> Round:
    """A round of a step, run once beforehand."""

    def run() -> None:
        for x in batches:
            step(x)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    run()
    return run


@dataclass(frozen=True)
class Ours:
    """A step of ours."""

    step: LossAndGradients
    update: Update

    def __call__(self, x: Tensor, rate: Tensor | None = None) -> Tensor:
        loss, gradients = self.step(x)
        self.update(gradients, rate)
        return loss

    def in_one_call(self, batches: Sequence[Tensor]) -> Round:
        """Run all of a round's steps as `fit` does, after runs of single ones."""
        dtype = torch.float32 if DEVICE == "cuda" else torch.float64
        rates = torch.full((len(batches),), 1e-3, device=DEVICE, dtype=dtype)
        stacked = [torch.stack(list(batches)), rates]
        graph = self.step.captured(batches[0])
        assert graph is not None
        if DEVICE == "cuda":
            replay: Replay | Recording = Replay(self, stacked)
        else:
            replay = Recording(self, stacked, graph, self.update, [], len(batches))

        def run() -> None:
            replay(stacked)
            if DEVICE == "cuda":
                torch.cuda.synchronize()

        run()
        return run


def ours(case: Case, compiled: bool) -> Ours:
    program, objective = case.build().to(DEVICE), case.objective()
    parameters = list(program.parameters())

    def loss(x: Tensor) -> Tensor:
        return objective.differentiable_loss(program.model, program.guide, x) / len(x)

    with torch.no_grad():
        loss(torch.zeros(2, *case.batch[1:], device=DEVICE))  # the objective finds its plates
    step = LossAndGradients(loss, parameters, lambda n: compiled)
    update = Update(torch.optim.Adam(parameters, lr=1e-3, fused=True), parameters)
    if compiled:
        step.captured(torch.zeros(case.batch, device=DEVICE))
        update.compile()
    return Ours(step, update)


def svi(case: Case) -> Callable[[Tensor], float]:
    program = case.build().to(DEVICE)

    def guide(x: Tensor) -> None:
        pyro.module(case.name, program)
        program.guide(x)

    pyro.clear_param_store()
    objective = case.objective()
    loss = pyro.infer.Trace_ELBO() if type(objective) is pv.objectives.ELBO else objective
    return pyro.infer.SVI(program.model, guide, pyro.optim.Adam({"lr": 1e-3}), loss).step


def contenders(case: Case, batches: Sequence[Tensor]) -> dict[str, Round]:
    own = ours(case, compiled=True)
    steps: dict[str, Callable[[Tensor], object]] = {
        "ours, a call for each step": own,
        "ours, eager": ours(case, compiled=False),
        "Pyro SVI.step": svi(case),
    }
    if case.by_hand is not None:
        nets = [case.by_hand().to(DEVICE) for _ in range(3)]
        numbers = [sum(p.numel() for p in net.parameters()) for net in (nets[0], case.build())]
        if numbers[0] != numbers[1]:
            raise ValueError(f"{case.name}: {numbers[0]} parameters by hand, {numbers[1]} in ours")
        steps |= {
            "floor": by_hand.floor(nets[0], batches[0]),
            "hand-written": by_hand.trained(nets[1], compiled=False),
            "hand-written, torch.compile": by_hand.trained(nets[2], compiled=True),
        }
    others: dict[str, Round] = {}
    if case.sizes is not None:
        others = peers.rounds(*case.sizes, [x.cpu() for x in batches])
    elif case.name == "convolutional":
        others = peers.convolutional_rounds([x.cpu() for x in batches])
    found = {name: over(step, batches) for name, step in steps.items()} | others
    return {"ours": own.in_one_call(batches), **found}


# measurement


def measure(
    runs: dict[str, Round], rounds: int, per_round: int, warm: bool = True
) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if (
                warm
            ):  # not timed: the caches are warm then, and the threads of the one before asleep
                run()
            start = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - start) / per_round)
    return {
        name: {
            "median_us": 1e6 * statistics.median(values),
            "min_us": 1e6 * min(values),
            "ours_over_theirs": statistics.median(a / b for a, b in zip(seconds["ours"], values)),
            "ours_over_theirs_of_minima": min(seconds["ours"]) / min(values),
        }
        for name, values in seconds.items()
    }


def importance_sampling(
    rounds: int, num_samples: int = 5000, num_data: int = 20
) -> dict[str, dict[str, float]]:
    """Microseconds for each draw of log p(x) with K draws, on the plain VAE."""
    program = plain(784, 400, 20).to(DEVICE)
    x = torch.bernoulli(torch.rand(num_data, 784))
    rows = 8192

    first, second = torch.randn(20, 400, device=DEVICE), torch.randn(400, 784, device=DEVICE)
    z = torch.randn(rows, 20, device=DEVICE)

    def products() -> None:
        for _ in range(num_data * num_samples // rows):
            torch.mm(torch.mm(z, first), second)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    runs = {
        "ours": chunks_of(program, x, num_samples, compiled=True),
        "ours, eager": chunks_of(program, x, num_samples, compiled=False),
        "matrix products of the decoder": products,
    }
    if peers.importlib.util.find_spec("pythae") and DEVICE == "cpu":
        model = peers.pythae_model(784, 400, 20).eval()
        runs["pythae get_nll"] = lambda: model.get_nll(x, n_samples=num_samples, batch_size=1000)
    return measure(runs, rounds, num_data * num_samples)


def chunks_of(program: nn.Module, x: Tensor, num_samples: int, compiled: bool) -> Round:
    """Log-weights in the blocks of `pv.log_likelihood`, by a graph that is compiled once."""
    from pyro_vae.evaluation.log_weights import Blocks, CompiledGuide, weights_of_block
    from pyro_vae.evaluation.proposals import Guide
    from pyro_vae.runtime.conditioned import conditioned

    x = x.to(DEVICE)
    with conditioned(program, x, seed=0) as given:
        blocks = Blocks.of(given, Guide(), num_samples)
    proposal = CompiledGuide("on" if compiled else "off", 1)

    def run() -> None:
        with conditioned(program, x, seed=0) as given:
            for part, few in blocks.over(given, seed=0):
                weights_of_block(part, few, proposal, blocks.draws)

    run()
    return run


def growth(rounds: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Medians, in microseconds, of our compiled and eager steps as the work grows."""
    found = {}
    for what, (values, case_of) in GROWTH.items():
        medians: dict[str, list[float]] = {"values": values, "ours": [], "ours, eager": []}
        for value in values:
            case = case_of(value)
            batches = torch.bernoulli(torch.rand(steps, *case.batch)).to(DEVICE).unbind()
            runs = {
                "ours": over(ours(case, True), batches),
                "ours, eager": over(ours(case, False), batches),
            }
            for name, row in measure(runs, rounds, steps).items():
                medians[name].append(row["median_us"])
        found[what] = medians
    return found


# what is written


def markdown(results: Results) -> str:
    lines = [
        "| case | contender | median us | minimum us | ours / theirs | of minima |",
        "|---|---|---|---|---|---|",
    ]
    for case, rows in results.items():
        lines += [
            f"| {case} | {name} | {row['median_us']:.4g} | {row['min_us']:.4g} | "
            f"{row['ours_over_theirs']:.2f} | "
            f"{row['ours_over_theirs_of_minima']:.2f} |"
            for name, row in rows.items()
        ]
    return "\n".join(lines) + "\n"


def markdown_of_all(machines: dict[str, Any]) -> str:
    parts = [f"## {name}\n{markdown(entry['cases'])}" for name, entry in machines.items()]
    return "\n".join(parts)


def figure(machines: dict[str, Any], path: Path) -> None:
    """Each ratio on each machine, and the range that they span."""
    from matplotlib.figure import Figure

    ratios: dict[str, dict[str, float]] = {}  # by pair, by machine
    for machine, entry in machines.items():
        for case, rows in entry["cases"].items():
            for name, row in rows.items():
                if not name.startswith("ours"):
                    found = ratios.setdefault(f"{case}: {name}", {})
                    found[machine] = row["ours_over_theirs"]
    pairs = [*ratios][::-1]
    drawing = Figure(figsize=(9, 1.4 + 0.24 * len(pairs)), layout="constrained", dpi=90)
    ax = drawing.subplots()
    ax.hlines(
        range(len(pairs)),
        [min(ratios[pair].values()) for pair in pairs],
        [max(ratios[pair].values()) for pair in pairs],
        color="lightgray",
        linewidth=4,
    )
    for machine in machines:
        places = [i for i, pair in enumerate(pairs) if machine in ratios[pair]]
        ax.plot([ratios[pairs[i]][machine] for i in places], places, "o", label=machine)
    ax.set_yticks(range(len(pairs)), pairs)
    ax.axvline(1, color="black", linewidth=1)
    ax.set(xlabel="our time / theirs (below 1: ours is faster)", xlim=(0, None))
    ax.margins(y=0.01)
    drawing.legend(loc="outside upper center", fontsize="small")
    drawing.savefig(path)


def figure_of_growth(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    drawing = Figure(figsize=(10, 2.8), layout="constrained", dpi=90)
    for ax, (what, medians) in zip(drawing.subplots(1, len(found)), found.items()):
        for name in ("ours", "ours, eager"):
            ax.loglog(
                medians["values"],
                [us / 1000 for us in medians[name]],
                "o-",
                label={"ours": "compiled", "ours, eager": "eager"}[name],
            )
        ax.set(xlabel=what, xticks=medians["values"], xticklabels=medians["values"])
        ax.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
    drawing.axes[0].set_ylabel("ms per step")
    drawing.axes[0].legend()
    drawing.savefig(path)


def main(argv: list[str]) -> None:
    names = [*(case.name for case in CASES), "importance sampling", "growth"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(argv)
    written = Measurements(options.out / "steps.json")
    known = written.here
    known.setdefault("cases", {})
    if (
        torch.backends.cpu.get_cpu_capability() == "AVX2"
    ):  # for torch.compile too, which asks the CPU
        torch._inductor.config.cpp.simdlen = 256
    with pyro.validation_enabled(False):
        for name in options.cases:
            torch.manual_seed(0)
            if name == "growth":
                known["growth"] = growth(options.rounds, options.steps)
                figure_of_growth(known["growth"], options.out / "growth.png")
            elif name == "importance sampling":
                known["cases"][name] = importance_sampling(options.rounds)
            else:
                case = next(case for case in CASES if case.name == name)
                batches = (
                    torch.bernoulli(torch.rand(options.steps, *case.batch)).to(DEVICE).unbind()
                )
                known["cases"][name] = measure(
                    contenders(case, batches), options.rounds, options.steps
                )
            print(
                markdown({name: known["cases"][name]})
                if name in known["cases"]
                else json.dumps(known["growth"]),
                flush=True,
            )
            known["cases"] = {
                name: known["cases"][name] for name in names if name in known["cases"]
            }
            written.write()
            (options.out / "steps.md").write_text(markdown_of_all(written.machines))
            figure(written.machines, options.out / "steps.png")


if __name__ == "__main__":
    main(sys.argv[1:])
