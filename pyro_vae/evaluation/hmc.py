"""Hamiltonian Monte Carlo along a path of densities, for all data and chains at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pyro_vae.contracts import StochasticFunction, Trace
from pyro_vae.evaluation.annealed_densities import Densities, Point, Runs
from pyro_vae.evaluation.annealed_score import AnnealedScore
from pyro_vae.evaluation.importance_score import summarize
from pyro_vae.runtime.blocks import Blocks
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Unconstrained
from pyro_vae.runtime.settings import COMPILE, Compile
from pyro_vae.runtime.traces import NonFiniteLogWeight
from pyro_vae.validation import check_choice, check_count

__all__ = ["AnnealedPath", "ChainState", "Chains", "paths_in_blocks"]

START = ("prior", "guide")
PILOT_CHAINS, PILOT_WARMUP, PILOT_TEMPERATURES = 4, 30, 60
TARGET_ACCEPTANCE, ADAPTATION = 0.7, 0.5
SMALLEST_STEP, LARGEST_STEP = 1e-6, 1.5
JITTER = 0.2  # without it, trajectories through a normal density can close upon themselves


@dataclass
class ChainState:
    """Chains at one time: their places, their weights so far, their last acceptance."""

    point: Point
    weights: Tensor
    acceptance: Tensor


@dataclass(frozen=True)
class Chains:
    """Which chains are run for each datum.

    Args:
        num_chains: chains C for each datum.
        num_temperatures: T.
        num_leapfrog: leapfrog steps of each transition.
        start: what f_0 is, ``"prior"`` or ``"guide"``.
        compile: whether their densities are compiled; ``"auto"`` where that pays.
    """

    num_chains: int
    num_temperatures: int
    num_leapfrog: int
    start: str = "prior"
    compile: Compile = "auto"

    def __post_init__(self) -> None:
        check_count("num_chains", self.num_chains)
        check_count("num_leapfrog", self.num_leapfrog)
        check_choice("start", self.start, START)
        check_choice("compile", self.compile, COMPILE)

    def runs(self, blocks: Blocks) -> Runs:
        """How often the densities of a block of data are computed."""
        pilots = PILOT_WARMUP + min(PILOT_TEMPERATURES, self.num_temperatures)
        by_chains = Counter({PILOT_CHAINS: pilots * self.num_leapfrog})
        for count in blocks.draws:
            by_chains[count] += self.num_temperatures * self.num_leapfrog
        return Runs(by_chains, blocks.size)

    def first_density(self, given: Conditioned) -> StochasticFunction:
        """What f_0 is drawn from and scored by."""
        return given.model if self.start == "prior" else given.guide


@dataclass
class AnnealedPath:
    """The densities between the start and the posterior for a block of data, and chains along them.

    Args:
        given: the program given the block's data.
        latents: how the latents are packed.
        densities: what computes log f_0 and log f_1.
        chains: which chains are run.
        at_once: how many of a datum's chains are run at once; they add up to all of them.
        few: which of the data are in the block; those beyond are padding.
        advance: what is told how many of the data have taken another step.
    """

    given: Conditioned
    latents: Unconstrained
    densities: Densities
    chains: Chains
    at_once: tuple[int, ...]
    few: slice
    advance: Callable[..., None]

    @property
    def count(self) -> int:
        """How many data the block has without its padding."""
        return self.few.stop - self.few.start

    def point(self, u: Tensor) -> Point:
        """The densities at u (C, n, D) with both gradients."""
        return self.densities(self.given, u.detach())

    def begin(self, num_chains: int) -> Tensor:
        """Draws from f_0, unconstrained (C, n, D)."""
        first = self.chains.first_density(self.given)
        return self.latents.pack(self.given.draw(first, num_chains))

    def latents_of(self, trace: Trace) -> Tensor:
        """The latents of the block's simulated data, unconstrained (1, n, D)."""
        sites = latent_sites(trace)
        packed = self.latents.pack({name: site["value"][None] for name, site in sites.items()})
        own = packed[:, self.few]
        padding = own[:, -1:].expand(-1, len(self.given) - self.count, -1)
        return torch.cat([own, padding], dim=1)

    def transition(self, start: Point, beta: float, step: Tensor) -> tuple[Point, Tensor]:
        """Take a Hamiltonian Monte Carlo transition that leaves f_beta invariant.

        It returns where the transition leads, and its acceptance (C, n).
        """
        u = start.u
        jitter = 1 + JITTER * (2 * torch.rand(u.shape[:2], device=u.device, dtype=u.dtype) - 1)
        size = (step * jitter)[..., None]
        momentum = torch.randn_like(u)
        before = start.log_f_at(beta) - momentum.square().sum(-1) / 2
        momentum = torch.addcmul(momentum, size, start.gradient_at(beta), value=0.5)
        end = self.point(torch.addcmul(u, size, momentum))
        for _ in range(self.chains.num_leapfrog - 1):
            momentum = torch.addcmul(momentum, size, end.gradient_at(beta))
            end = self.point(torch.addcmul(end.u, size, momentum))
        momentum = torch.addcmul(momentum, size, end.gradient_at(beta), value=0.5)
        log_ratio = end.log_f_at(beta) - momentum.square().sum(-1) / 2 - before
        # A NaN, from a step too far, is not accepted.
        accepted = torch.rand_like(log_ratio).log() < log_ratio
        acceptance = log_ratio.nan_to_num(nan=-torch.inf).exp().clamp(max=1)
        return Point(
            torch.where(accepted[..., None], end.u, start.u),
            torch.where(accepted, end.log_f, start.log_f),
            torch.where(accepted[..., None], end.gradients, start.gradients),
        ), acceptance

    def pilot(self, betas: list[float]) -> Tensor:
        """Find step sizes (T - 1, n) for the inner temperatures, by a few chains of their own.

        The pilots stop at some of the temperatures only; those up to the next have the same step
        size.
        """
        inner = betas[1:-1]
        if not inner:
            return self.given.zeros((0, len(self.given)))
        stride = -(-len(inner) // PILOT_TEMPERATURES)
        point, steps = self.point(self.begin(PILOT_CHAINS)), []
        step = self.given.zeros((len(self.given),)) + 0.1
        for i, beta in enumerate([inner[0]] * PILOT_WARMUP + inner[::stride]):
            point, acceptance = self.transition(point, beta, step)
            step = step * torch.exp(ADAPTATION * (acceptance.mean(0) - TARGET_ACCEPTANCE))
            step = step.clamp(SMALLEST_STEP, LARGEST_STEP)
            if i >= PILOT_WARMUP:
                steps.append(step)
        return torch.stack(steps).repeat_interleave(stride, dim=0)[: len(inner)]

    def walk(self, betas: list[float], steps: Tensor, u: Tensor) -> Iterator[ChainState]:
        """Walk chains from u along ``betas``, up or down.

        It yields their state before each transition, and at the end.
        """
        point = self.point(u)
        acceptance = weights = torch.zeros_like(point.advantage)
        if torch.isnan(point.advantage).any():
            datum = int(torch.isnan(point.advantage).any(0).nonzero()[0])
            raise NonFiniteLogWeight(datum, "where its chains start")
        for i, (before, beta) in enumerate(pairwise(betas)):
            weights = weights + (beta - before) * point.advantage
            yield ChainState(point, weights, acceptance)
            if i < len(steps):
                point, acceptance = self.transition(point, beta, steps[i])
            self.advance(self.count)

    def score(self, betas: list[float], steps: Tensor, u: Tensor | None = None) -> AnnealedScore:
        """Estimate log p(x) from chains along ``betas``, started at u or at draws from f_0.

        Many chains are run in parts.
        """
        weights, acceptances = [], []
        num_chains = self.chains.num_chains
        for count in self.at_once:
            begin = self.begin(count) if u is None else u.expand(count, -1, -1)
            total = self.given.zeros((len(self.given),))
            try:
                for state in self.walk(betas, steps, begin):
                    total = total + state.acceptance.mean(0)
            except NonFiniteLogWeight as error:
                raise error.within(self.few) from None
            weights.append(state.weights)
            acceptances.append(total / max(1, len(steps)) * count / num_chains)
        summary = summarize(torch.cat(weights)[:, : self.count])
        return AnnealedScore(
            summary.values,
            summary.mc_se,
            num_chains,
            ess=summary.ess,
            acceptance=sum(acceptances[1:], acceptances[0])[: self.count],
            num_temperatures=len(betas) - 1,
            num_leapfrog=self.chains.num_leapfrog,
            start=self.chains.start,
        )


def paths_in_blocks(
    given: Conditioned, chains: Chains, seed: int, advance: Callable[..., None]
) -> Iterator[tuple[AnnealedPath, slice]]:
    """A path for each block of the data, and which of the data are in it.

    Blocks are as in `pyro_vae.runtime.blocks`: a datum's chains do not depend on the other data.
    """
    if chains.start == "guide":
        given.check_no_auxiliary()
    one = given[:1]
    latents = Unconstrained(one.trace(one.joint, 1), given.plates)
    eager = Densities(latents, chains.start == "guide")

    def points(part: Conditioned) -> Callable[[int], Point]:
        probe = AnnealedPath(part, latents, eager, chains, (), slice(0), advance)
        return lambda count: probe.point(probe.begin(count))

    blocks = Blocks.of(given, points, chains.num_chains)
    densities = Densities(latents, chains.start == "guide", chains.runs(blocks), chains.compile)
    for part, few in blocks.over(given, seed):
        part = part.fitted() if chains.start == "guide" else part
        yield AnnealedPath(part, latents, densities, chains, blocks.draws, few, advance), few
