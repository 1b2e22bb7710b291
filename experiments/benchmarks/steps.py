"""What a training step costs: ours against hand-written PyTorch, Pyro's SVI, pythae, NumPyro, and the floor.

    python experiments/benchmarks/steps.py [--cases mlp-128 digits] [--rounds 12] [--steps 40]

All contenders of a case run in one process, in interleaved rounds, on the same batches; ratios are medians over rounds of
ours / theirs, so a machine whose speed drifts drifts for all. Peers that are not installed are left out
(``uv sync --group peers`` installs them). Writes ``steps.json``, ``steps.md`` and ``steps.png`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import peers
import pyro
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compilation import LossAndGradients, Update

HERE = Path(__file__).parent
Step = Callable[[Tensor], object]


@dataclass(frozen=True)
class Case:
    """A program and the batches that it is trained on."""

    name: str
    build: Callable[[], nn.Module]
    batch: tuple[int, ...]
    objective: Callable[[], object] = pv.objectives.ELBO
    sizes: tuple[int, int, int] | None = None  # (features, hidden, latent) of a plain VAE, for the hand-written peers


def plain(event: tuple[int, ...], hidden: int, latent: int, prior=pv.priors.StandardNormal) -> pv.VAE:
    nets = pv.networks
    return pv.VAE(prior(latent), pv.likelihoods.Bernoulli(event, nets.MLP(latent, [hidden])),
                  pv.posteriors.DiagonalNormal(latent, nets.MLP(event, [hidden])))


def convolutional() -> pv.VAE:
    nets = pv.networks
    return pv.VAE(pv.priors.StandardNormal(20),
                  pv.likelihoods.Bernoulli((1, 28, 28), nets.ConvTranspose(20, (28, 28), [32, 16], hidden=[128])),
                  pv.posteriors.DiagonalNormal(20, nets.Conv((1, 28, 28), [16, 32], hidden=[128])))


CASES = [
    Case("mlp-128", lambda: plain((784,), 400, 20), (128, 784), sizes=(784, 400, 20)),
    Case("mlp-1024", lambda: plain((784,), 400, 20), (1024, 784), sizes=(784, 400, 20)),
    Case("digits", lambda: plain((64,), 128, 2), (128, 64), sizes=(64, 128, 2)),
    Case("convolutional", convolutional, (128, 1, 28, 28)),
    Case("mixture prior", lambda: plain((784,), 400, 20, lambda d: pv.priors.GaussianMixture(d, 50)), (128, 784)),
]


# ------------------------------------------------------------------------------------------------------- contenders

def ours(case: Case, x: Tensor, compiled: bool) -> Step:
    program, objective = case.build(), case.objective()
    parameters = list(program.parameters())

    def loss(x: Tensor) -> Tensor:
        return objective.differentiable_loss(program.model, program.guide, x) / len(x)

    step = LossAndGradients(loss, parameters, lambda n: compiled)
    update = Update(torch.optim.Adam(parameters, lr=1e-3, fused=True), parameters)

    def run(x: Tensor) -> Tensor:
        value, gradients = step(x)
        update(gradients)
        return value

    run(x)
    return run


def svi(case: Case, x: Tensor) -> Step:
    program = case.build()

    def guide(x: Tensor) -> None:
        pyro.module(f"{case.name}", program)
        program.guide(x)

    pyro.clear_param_store()
    return pyro.infer.SVI(program.model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()).step


class HandWritten(nn.Module):
    """The VAE that one writes without a library: the closed-form KL, one fused optimiser."""

    def __init__(self, features: int, hidden: int, latent: int):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, x: Tensor) -> Tensor:
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = F.softplus(raw) + 1e-4
        logits = self.decoder(loc + scale * torch.randn_like(scale))
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        return (F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl) / len(x)


def hand_written(case: Case, x: Tensor, compiled: bool) -> Step:
    net = HandWritten(*case.sizes)
    loss_of = torch.compile(net) if compiled else net
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def run(x: Tensor) -> Tensor:
        loss = loss_of(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run(x)
    return run


def floor(case: Case, x: Tensor) -> Step:
    """The step's own matrix products and the fused optimiser, and nothing else."""
    features, hidden, latent = case.sizes
    shapes = [(features, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, features)]
    weights = [torch.randn(inputs, outputs) * 0.01 for inputs, outputs in shapes]
    inputs = [torch.randn(len(x), n) for n, _ in shapes]
    errors = [torch.randn(len(x), n) for _, n in shapes]
    parameters = [*weights, *(torch.zeros(outputs) for _, outputs in shapes)]
    gradients = [torch.zeros_like(p) for p in parameters]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.ones(()) for _ in parameters]

    def run(x: Tensor) -> None:
        for i, weight in enumerate(weights):
            torch.mm(inputs[i], weight)  # forward
            torch.mm(inputs[i].t(), errors[i], out=gradients[i])  # the weight's gradient
            if i:  # the input's gradient, which the data do not need
                torch.mm(errors[i], weight.t())
        torch._fused_adam_(parameters, gradients, first, second, [], steps, lr=0.0, beta1=0.9, beta2=0.999, weight_decay=0.0,
                           eps=1e-8, amsgrad=False, maximize=False)

    return run


def contenders(case: Case, x: Tensor) -> dict[str, Step]:
    steps: dict[str, Step] = {"ours": ours(case, x, compiled=True), "ours, eager": ours(case, x, compiled=False),
                              "Pyro SVI.step": svi(case, x)}
    if case.sizes is not None:
        steps |= {"floor": floor(case, x), "hand-written": hand_written(case, x, compiled=False),
                  "hand-written, torch.compile": hand_written(case, x, compiled=True)}
        steps |= peers.steps(*case.sizes, x)
    return steps


# ------------------------------------------------------------------------------------------------------ measurement

def measure(case: Case, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    batches = torch.bernoulli(torch.rand(8, *case.batch)).unbind()
    runs = contenders(case, batches[0])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            for j in range(steps):
                run(batches[j % len(batches)])
            finish(run)
            if i:  # the first round warms caches up
                seconds[name].append((time.perf_counter() - start) / steps)
    return {name: {"median_us": 1e6 * statistics.median(values), "min_us": 1e6 * min(values),
                   "ours_over_theirs": statistics.median(a / b for a, b in zip(seconds["ours"], values))}
            for name, values in seconds.items()}


def finish(run: Step) -> None:
    """Waits for work that a contender has only queued."""
    getattr(run, "wait", lambda: None)()


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| case | contender | median us/step | minimum | ours / theirs |", "|---|---|---|---|---|"]
    for case, rows in results.items():
        lines += [f"| {case} | {name} | {row['median_us']:.0f} | {row['min_us']:.0f} | {row['ours_over_theirs']:.2f} |"
                  for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def figure(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(8, 1.2 + 0.28 * sum(len(rows) + 1 for rows in results.values())), layout="constrained", dpi=120)
    panels = drawing.subplots(len(results), 1, squeeze=False, gridspec_kw={"height_ratios": [len(rows) for rows in results.values()]})
    for (case, rows), ax in zip(results.items(), panels[:, 0]):
        names = sorted(rows, key=lambda name: -rows[name]["median_us"])
        bars = ax.barh(names, [rows[name]["median_us"] for name in names],
                       color=["tab:orange" if name == "ours" else "tab:blue" for name in names])
        ax.bar_label(bars, [f" {rows[name]['median_us']:,.0f}" for name in names])
        ax.set(title=case, xlabel="microseconds per step" if ax is panels[-1, 0] else "")
        ax.margins(x=0.12)
    drawing.savefig(path)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "threads": str(torch.get_num_threads())}
    for name in ("torch", "pyro-ppl", "pythae", "numpyro", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(argv)
    results = {}
    with pyro.validation_enabled(False):
        for case in CASES:
            if case.name in options.cases:
                results[case.name] = measure(case, options.rounds, options.steps)
                print(markdown({case.name: results[case.name]}), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "steps.json").write_text(json.dumps({"versions": versions(), "cases": results}, indent=1) + "\n")
    (options.out / "steps.md").write_text(markdown(results))
    figure(results, options.out / "steps.png")


if __name__ == "__main__":
    main(sys.argv[1:])
