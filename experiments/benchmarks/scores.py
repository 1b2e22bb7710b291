"""Time scores: ours, as one writes them by hand, the same compiled, and their products alone.

    python experiments/benchmarks/scores.py [--cases annealing importance parts aggregate levels]
    [--rounds 5] [--out FOLDER]

All contenders of a case run in one process, in interleaved rounds; the first run of each, which
compiles, is not timed. Weights are untrained: of a VAE 784-400-20, or of two levels of 100 and 50
(``levels``). The scores by hand estimate the same number with as many draws,
chains and gradients, and the means must agree. The floor is the products of the decoder's layers,
by torch. Writes ``scores.json``, with one entry for each kind of machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import by_hand
import steps
import torch
from machines import Measurements
from torch import Tensor, nn

import pyro_vae as pv

HERE = Path(__file__).parent
Run = Callable[[], Tensor | None]
CHAINS, TEMPERATURES, LEAPFROG = 16, 200, 10
ROWS = 8192  # of a product: what one writes in a loop, for a cache's sake


def compiled(fn: Callable[..., Tensor], wanted: bool) -> Callable[..., Tensor]:
    return torch.compile(fn) if wanted else fn


# by hand


def importance(net: by_hand.Plain, x: Tensor, draws: int, compile: bool) -> Run:
    """Log p(x) of each datum by so many draws."""

    def log_weights(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        z = by_hand.draw(loc.expand(ROWS, -1), scale.expand(ROWS, -1))
        log_p = by_hand.log_standard(z) + by_hand.log_bernoulli(net.decoder(z), x)
        return log_p - by_hand.log_normal(z, loc, scale)

    weigh = compiled(log_weights, compile)

    @torch.no_grad()
    def run() -> Tensor:
        loc, scale = by_hand.normal(net.encoder(x))
        found = []
        for one, (mean, width) in zip(x, zip(loc, scale)):
            parts = [weigh(one[None], mean, width) for _ in range(draws // ROWS)]
            found.append(torch.cat(parts).logsumexp(0) - math.log(draws))
        return torch.stack(found)

    return run


def levels(net: by_hand.TwoLevels, x: Tensor, draws: int, compile: bool) -> Run:
    """The same of two levels."""

    def log_weights(x: Tensor) -> Tensor:
        loc, scale = by_hand.normal(net.first(x))
        q_1 = loc, scale
        z_1 = loc + scale * torch.randn(ROWS, loc.shape[-1])
        q_2 = by_hand.normal(net.second(z_1))
        z_2 = by_hand.draw(*q_2)
        log_p = by_hand.log_standard(z_2) + by_hand.log_bernoulli(net.decoder(z_1), x)
        log_p = log_p + by_hand.log_normal(z_1, *by_hand.normal(net.prior(z_2)))
        return log_p - by_hand.log_normal(z_1, *q_1) - by_hand.log_normal(z_2, *q_2)

    weigh = compiled(log_weights, compile)

    @torch.no_grad()
    def run() -> Tensor:
        found = []
        for one in x:
            parts = [weigh(one[None]) for _ in range(draws // ROWS)]
            found.append(torch.cat(parts).logsumexp(0) - math.log(draws))
        return torch.stack(found)

    return run


def annealing(net: by_hand.Plain, x: Tensor, compile: bool) -> Run:
    """Chains from the prior, whose step sizes follow their acceptance."""
    betas = pv.evaluation.Sigmoid()(torch.linspace(0, 1, TEMPERATURES + 1)).tolist()

    def log_likelihood(z: Tensor) -> Tensor:
        return by_hand.log_bernoulli(net.decoder(z), x)

    def log_f(z: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        each = log_likelihood(z)
        value = by_hand.log_standard(z) + beta * each
        return value.sum(), (value, each)

    slopes = torch.func.grad_and_value(log_f, has_aux=True)
    slopes = compiled(slopes, compile)

    @torch.no_grad()
    def run() -> Tensor:
        z = torch.randn(CHAINS, len(x), 20)
        weights, size = torch.zeros(CHAINS, len(x)), torch.full((len(x),), 0.1)
        each = log_likelihood(z)
        for before, now in itertools.pairwise(betas):
            weights = weights + (now - before) * each
            if now == 1.0:
                break
            beta = torch.tensor(now)
            slope, (_, (value, _)) = slopes(z, beta)
            momentum = torch.randn_like(z)
            start = value - momentum.square().sum(-1) / 2
            end, moving = z, momentum + 0.5 * size[:, None] * slope
            for i in range(LEAPFROG):
                end = end + size[:, None] * moving
                slope, (_, (value, last)) = slopes(end, beta)
                moving = moving + (1.0 if i < LEAPFROG - 1 else 0.5) * size[:, None] * slope
            ratio = value - moving.square().sum(-1) / 2 - start
            accepted = torch.rand_like(ratio).log() < ratio
            z = torch.where(accepted[..., None], end, z)
            each = torch.where(accepted, last, each)
            rate = ratio.exp().clamp(max=1).mean(0)
            size = (size * torch.exp(0.5 * (rate - 0.7))).clamp(1e-6, 1.5)
        return weights.logsumexp(0) - math.log(CHAINS)

    return run


def parts(net: by_hand.Plain, x: Tensor, draws: int, compile: bool) -> Run:
    """The reconstruction and the KL of each datum."""
    at_once = max(1, ROWS // draws)

    def both(x: Tensor) -> Tensor:
        loc, scale = by_hand.normal(net.encoder(x))
        shape = draws, *loc.shape
        z = by_hand.draw(loc.expand(shape), scale.expand(shape))
        kl = by_hand.log_normal(z, loc, scale) - by_hand.log_standard(z)
        found = torch.stack([by_hand.log_bernoulli(net.decoder(z), x), kl])
        return torch.cat([found.mean(1), found.std(1)])

    split = compiled(both, compile)

    @torch.no_grad()
    def run() -> Tensor:
        found = torch.cat([split(some) for some in x.split(at_once)], 1)
        return found[0] - found[1]

    return run


def aggregate(net: by_hand.Plain, x: Tensor, draws: int, compile: bool) -> Run:
    """The mutual information, the total correlation and the KL of each dimension."""

    def terms(z: Tensor, own: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        z = z[:, None]
        each = -0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        mixture = each.sum(-1).logsumexp(1) - math.log(len(loc))
        marginals = each.logsumexp(1) - math.log(len(loc))
        prior = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
        columns = [own - mixture, mixture - marginals.sum(-1), mixture - prior.sum(-1)]
        return torch.cat([torch.stack(columns, 1), marginals - prior], 1)

    each = compiled(terms, compile)

    @torch.no_grad()
    def run() -> Tensor:
        loc, scale = by_hand.normal(net.encoder(x))
        z = by_hand.draw(loc.expand(draws, *loc.shape), scale.expand(draws, *scale.shape))
        own = by_hand.log_normal(z, loc, scale)
        rows = zip(z.flatten(0, 1).split(100), own.flatten().split(100))
        return torch.cat([each(some, few, loc, scale) for some, few in rows]).mean(0)[:1]

    return run


# the products of the decoder


def products(widths: list[tuple[int, int]], rows: int, gradients: int = 0) -> Run:
    """Those of a decoder's layers for so many draws, with so many times those of its gradient."""
    matrices = [torch.randn(widths[i]) for i in range(len(widths))]
    inputs = [torch.randn(ROWS, before) for before, _ in widths]
    outputs = [torch.randn(ROWS, after) for _, after in widths]

    def run() -> None:
        for _ in range(rows // ROWS):
            for x, matrix in zip(inputs, matrices):
                torch.mm(x, matrix)
            for x, matrix in zip(outputs, matrices):
                for _ in range(gradients):
                    torch.mm(x, matrix.T)

    return run


# the cases


@dataclass(frozen=True)
class Case:
    """A score, and how it is had."""

    ours: Callable[[nn.Module, Tensor, str], Tensor]
    by_hand: Callable[[nn.Module, Tensor, bool], Run]
    floor: Run | None  # where it has products
    data: int
    within: float = 0.1  # nats, of means over the data
    net: Callable[[], nn.Module] = lambda: by_hand.Plain(784, [400], 20)
    program: Callable[[], nn.Module] = lambda: steps.plain(784, 400, 20)
    order: tuple[str, ...] = ("encoder", "decoder")

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Our program and the net by hand, of the same weights."""
        program, net = self.program(), self.net()
        mine = [p for part in self.order for p in net.get_submodule(part).parameters()]
        with torch.no_grad():
            for copy, weight in zip(mine, program.parameters(), strict=True):
                copy.copy_(weight)
        return program, net


def cases() -> dict[str, Case]:
    widths = [(20, 400), (400, 784)]
    evaluation, draws = pv.evaluation, ROWS
    annealed = 32
    gradients = CHAINS * annealed * TEMPERATURES * LEAPFROG
    two = [(50, 100), (100, 100), (100, 200), (100, 200), (200, 200), (200, 784)]
    return {
        "annealing": Case(
            lambda program, x, way: (
                evaluation.ais(
                    program, x, CHAINS, TEMPERATURES, num_leapfrog=LEAPFROG, compile=way
                ).values
            ),
            annealing,
            products(widths, gradients, gradients=1),
            data=annealed,
        ),
        "importance": Case(
            lambda program, x, way: pv.log_likelihood(program, x, draws, compile=way).values,
            lambda net, x, compile: importance(net, x, draws, compile),
            products(widths, 20 * draws),
            data=20,
        ),
        "levels": Case(
            lambda program, x, way: pv.log_likelihood(program, x, draws, compile=way).values,
            lambda net, x, compile: levels(net, x, draws, compile),
            products([*two, (100, 100), (100, 100), (100, 100)], 20 * draws),
            data=20,
            within=2.0,
            net=by_hand.TwoLevels,
            program=steps.two_levels,
            order=("prior", "first", "second", "decoder"),
        ),
        "parts": Case(
            lambda program, x, way: (
                evaluation.decompose(program, x, 128, compile=way)["elbo"].values
            ),
            lambda net, x, compile: parts(net, x, 128, compile),
            products(widths, 2048 * 128),
            data=2048,
        ),
        "aggregate": Case(
            lambda program, x, way: torch.tensor(
                [evaluation.aggregate_posterior(program, x, 10, compile=way).mutual_information]
            ),
            lambda net, x, compile: aggregate(net, x, 10, compile),
            None,
            data=1000,
        ),
    }


def contenders(case: Case, x: Tensor) -> dict[str, Run]:
    program, net = case.pair()
    found: dict[str, Run] = {
        "ours": lambda: case.ours(program, x, "on"),
        "ours, eager": lambda: case.ours(program, x, "off"),
        "by hand": case.by_hand(net, x, False),
        "by hand, torch.compile": case.by_hand(net, x, True),
    }
    return found if case.floor is None else found | {"floor": case.floor}


def check_equal(case: Case, runs: dict[str, Run]) -> None:
    """Stop unless the means of all scores agree."""
    found = {name: run() for name, run in runs.items()}
    means = {name: values.mean().item() for name, values in found.items() if values is not None}
    print({name: round(mean, 3) for name, mean in means.items()}, flush=True)
    if max(means.values()) - min(means.values()) > case.within:
        raise ValueError(f"the scores differ by more than {case.within} nats: {means}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = cases()
    parser.add_argument("--cases", nargs="+", choices=[*known], default=[*known])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(argv)
    written = Measurements(options.out / "scores.json")
    found = written.here.setdefault("cases", {})
    warnings.simplefilter("ignore", pv.evaluation.UnreliableEstimate)
    for name in options.cases:
        torch.manual_seed(0)
        case = known[name]
        x = torch.bernoulli(torch.rand(case.data, 784))
        runs = contenders(case, x)
        check_equal(case, runs)
        found[name] = steps.measure(runs, options.rounds, case.data, warm=False)
        print(steps.markdown({name: found[name]}), flush=True)
        written.write()


if __name__ == "__main__":
    main(sys.argv[1:])
