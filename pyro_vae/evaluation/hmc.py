"""Hamiltonian Monte Carlo along a path of densities, for all data and chains at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.evaluation.scores import AnnealedScore, summarize
from pyro_vae.runtime.latents import Unconstrained, check_no_auxiliary, draw, frozen, log_density
from pyro_vae.runtime.memory import bytes_allocated
from pyro_vae.runtime.traces import NonFiniteLogWeight, Plates, find_plates

__all__ = ["AnnealedPath", "ChainState", "Point", "paths_in_chunks"]

PILOT_CHAINS, PILOT_WARMUP, PILOT_TEMPERATURES = 4, 30, 60


TARGET_ACCEPTANCE, ADAPTATION = 0.7, 0.5


SMALLEST_STEP, LARGEST_STEP = 1e-6, 1.5


JITTER = 0.2  # without it, trajectories through a normal density can close upon themselves


# chains


@dataclass
class Point:
    """Where chains are: u (C, n, D), log f_0 and log f_1 there (2, C, n), and the gradients of both (2, C, n, D)."""

    u: Tensor
    log_f: Tensor
    gradients: Tensor

    @property
    def advantage(self) -> Tensor:
        """log f_1 - log f_0 (C, n)."""
        return self.log_f[1] - self.log_f[0]

    def at(self, beta: float) -> tuple[Tensor, Tensor]:
        """log f_beta and its gradient."""
        return (
            (1 - beta) * self.log_f[0] + beta * self.log_f[1],
            (1 - beta) * self.gradients[0] + beta * self.gradients[1],
        )


@dataclass
class ChainState:
    """Chains at one time: where they are, their weights so far, and the acceptance that led there."""

    point: Point
    weights: Tensor
    acceptance: Tensor


@dataclass
class AnnealedPath:
    """The densities between the start and the posterior for a few data, and chains along them."""

    program: ProgramLike
    x: Tensor
    context: Tensor | None
    where: Plates
    latents: Unconstrained
    start: str
    num_leapfrog: int
    rows: int
    advance: Callable[..., None]

    def log_densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(log f_0, log f_1) at u (C, n, D)."""
        values, log_jacobian = self.latents.unpack(u)
        given = (values, self.x, self.context, len(u), self.where)
        log_prior, log_rest = log_density(self.program.model, *given)
        log_start = (
            log_prior if self.start == "prior" else log_density(self.program.guide, *given)[0]
        )
        return log_start + log_jacobian, log_prior + log_rest + log_jacobian

    def point(self, u: Tensor) -> Point:
        """The densities at u, with both gradients, so that a change of temperature costs nothing."""
        with frozen(self.program):
            u = u.detach().requires_grad_()
            first, last = self.log_densities(u)
            (towards_last,) = torch.autograd.grad(last.sum(), u, retain_graph=True)
            (towards_first,) = torch.autograd.grad(first.sum(), u)
        return Point(
            u.detach(),
            torch.stack([first, last]).detach(),
            torch.stack([towards_first, towards_last]),
        )

    def begin(self, num_chains: int) -> Tensor:
        """Draws from f_0, unconstrained (C, n, D)."""
        fn = self.program.model if self.start == "prior" else self.program.guide
        return self.latents.pack(draw(fn, self.x, self.context, num_chains, self.where))

    def latents_of(self, trace, few: slice) -> Tensor:
        """The latents of simulated data, unconstrained (1, n, D)."""
        values = {name: trace.nodes[name]["value"][None] for name in self.latents.transforms}
        return self.latents.pack(values)[:, few]

    def transition(self, start: Point, beta: float, step: Tensor) -> tuple[Point, Tensor]:
        """A Hamiltonian Monte Carlo transition that leaves f_beta invariant: where it leads, and its acceptance (C, n)."""
        u = start.u
        jitter = 1 + JITTER * (2 * torch.rand(u.shape[:2], device=u.device, dtype=u.dtype) - 1)
        size = (step * jitter)[..., None]
        momentum = torch.randn_like(u)
        log_f, gradient = start.at(beta)
        before = log_f - momentum.square().sum(-1) / 2
        end = start
        for _ in range(self.num_leapfrog):
            momentum = momentum + size * gradient / 2
            end = self.point(end.u + size * momentum)
            log_f, gradient = end.at(beta)
            momentum = momentum + size * gradient / 2
        log_ratio = log_f - momentum.square().sum(-1) / 2 - before
        accepted = (
            torch.rand_like(log_ratio).log() < log_ratio
        )  # a NaN, from a step too far, is no acceptance
        acceptance = log_ratio.nan_to_num(nan=-torch.inf).exp().clamp(max=1)
        return Point(
            torch.where(accepted[..., None], end.u, start.u),
            torch.where(accepted, end.log_f, start.log_f),
            torch.where(accepted[..., None], end.gradients, start.gradients),
        ), acceptance

    def pilot(self, betas: list[float]) -> Tensor:
        """Step sizes (T - 1, n) for every temperature but the first and the last, from a few chains of their own.

        The pilots stop at some of the temperatures only; those up to the next have the same step
        size.
        """
        inner = betas[1:-1]
        if not inner:
            return self.x.new_zeros(0, len(self.x))
        stride = -(-len(inner) // PILOT_TEMPERATURES)
        point, step, steps = (
            self.point(self.begin(PILOT_CHAINS)),
            self.x.new_full((len(self.x),), 0.1),
            [],
        )
        for i, beta in enumerate([inner[0]] * PILOT_WARMUP + inner[::stride]):
            point, acceptance = self.transition(point, beta, step)
            step = step * torch.exp(ADAPTATION * (acceptance.mean(0) - TARGET_ACCEPTANCE))
            step = step.clamp(SMALLEST_STEP, LARGEST_STEP)
            if i >= PILOT_WARMUP:
                steps.append(step)
        return torch.stack(steps).repeat_interleave(stride, dim=0)[: len(inner)]

    def walk(self, betas: list[float], steps: Tensor, u: Tensor) -> Iterator[ChainState]:
        """Chains from u along ``betas``, up or down, as they are before each transition and at the end."""
        point = self.point(u)
        acceptance = weights = torch.zeros_like(point.advantage)
        if torch.isnan(point.advantage).any():
            raise NonFiniteLogWeight(
                int(torch.isnan(point.advantage).any(0).nonzero()[0]), "where its chains start"
            )
        for i, (before, beta) in enumerate(pairwise(betas)):
            weights = weights + (beta - before) * point.advantage
            yield ChainState(point, weights, acceptance)
            if i < len(steps):
                point, acceptance = self.transition(point, beta, steps[i])
            self.advance(len(self.x))

    def score(
        self,
        betas: list[float],
        steps: Tensor,
        num_chains: int,
        few: slice,
        u: Tensor | None = None,
    ) -> AnnealedScore:
        """The estimate from chains along ``betas``, started at u or at draws from f_0; chains in parts if they are many."""
        weights, acceptances = [], []
        for done in range(0, num_chains, self.rows):
            chains = min(self.rows, num_chains - done)
            begin = self.begin(chains) if u is None else u.expand(chains, -1, -1)
            total = self.x.new_zeros(len(self.x))
            try:
                for state in self.walk(betas, steps, begin):
                    total = total + state.acceptance.mean(0)
            except NonFiniteLogWeight as error:
                raise error.shifted_by(few.start) from None
            weights.append(state.weights)
            acceptances.append(total / max(1, len(steps)) * chains / num_chains)
        summary = summarize(torch.cat(weights))
        return AnnealedScore(
            summary.values,
            summary.mc_se,
            num_chains,
            ess=summary.ess,
            acceptance=sum(acceptances[1:], acceptances[0]),
            num_temperatures=len(betas) - 1,
            num_leapfrog=self.num_leapfrog,
            start=self.start,
        )


def paths_in_chunks(
    program: ProgramLike,
    x: Tensor,
    context: Tensor | None,
    start: str,
    num_chains: int,
    num_leapfrog: int,
    memory_budget: int,
    advance: Callable[..., None],
) -> Iterator[tuple[AnnealedPath, slice]]:
    """Paths for a few data at a time, so that the chains of all keep within the memory budget."""
    where = find_plates(program, x, context)
    if start == "guide":
        check_no_auxiliary(program, x, context, where)
    latents = Unconstrained(program, x, context, where)
    with validation_enabled(False):
        one = slice(0, 1)
        probe = AnnealedPath(
            program,
            x[one],
            None if context is None else context[one],
            where,
            latents,
            start,
            num_leapfrog,
            1,
            advance,
        )
        rows = max(
            1, memory_budget // bytes_allocated(lambda chains: probe.point(probe.begin(chains)))
        )
        size = max(1, rows // num_chains)
        for begin in range(0, len(x), size):
            few = slice(begin, begin + size)
            yield (
                replace(
                    probe, x=x[few], context=None if context is None else context[few], rows=rows
                ),
                few,
            )
