r"""Annealed importance sampling, and bounds from both sides on simulated data.

Chains walk along densities between a start that can be drawn from and the posterior,

.. math:: \log f_t(u) = (1 - \beta_t) \log f_0(u) + \beta_t \log f_1(u), \quad f_1(u) = p(x, z)
          \left|\frac{dz}{du}\right|, \quad z = T(u),

with u the program's continuous latents in unconstrained space and f_0 the prior, or the guide. Each
density is left invariant by Hamiltonian Monte Carlo, for all data and chains at once. The step size
of each datum at each temperature is found by pilot chains of their own and fixed from then on: step
sizes that went on adapting to the chains they move would bias the estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from pyro import validation_enabled
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Tensors
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import facts_html, plus_minus, result_html, result_words
from pyro_vae.evaluation.annealed_score import AnnealedScore, UpperBound
from pyro_vae.evaluation.hmc import Chains, paths_in_blocks
from pyro_vae.evaluation.importance_score import warn_of_rounding
from pyro_vae.evaluation.scores import Score, concatenate
from pyro_vae.evaluation.temperatures import Geometric, Linear, Schedule, Sigmoid, temperatures
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.settings import Compile
from pyro_vae.runtime.simulation import Template
from pyro_vae.validation import check_count

__all__ = [
    "Geometric",
    "Linear",
    "RateDistortion",
    "Sandwich",
    "Sigmoid",
    "ais",
    "bdmc",
    "rate_distortion",
]


@dataclass(frozen=True, repr=False)
class Sandwich:
    r"""Lower and upper bounds on log p(x) of simulated data.

    Forward chains give the lower bounds, reverse chains the upper ones.

    Args:
        lower: the lower bounds.
        upper: the upper bounds; their ``mc_se`` is that of the chains given the one posterior draw
            that they start from.
        x: the simulated data (N, \*event), a dictionary of such where there are several sites.
        context: the context (N, ...) that they were simulated under, or ``None``.
    """

    lower: AnnealedScore
    upper: AnnealedScore
    x: Tensors
    context: Tensors | None

    @property
    def gap(self) -> float:
        """The mean difference of the bounds, within which log p(x) is known."""
        return (self.upper.values - self.lower.values).mean().item()

    @property
    def gap_se(self) -> float:
        """The standard error of `gap` over the simulated data.

        It holds all randomness, that of the posterior draws too.
        """
        return Score(self.upper.values - self.lower.values, self.lower.mc_se, 1).se

    def __str__(self) -> str:
        lower, upper = self.lower.mean, self.upper.mean
        bounds = f"{lower:.3f} <= log p(x) <= {upper:.3f}"
        if lower > upper:
            bounds = f"crossed bounds: lower {lower:.3f}, upper {upper:.3f}"
        return (
            f"{bounds}, gap {plus_minus(self.gap, self.gap_se, 3)} nats "
            f"({len(self.lower.values)} simulated data, {self.lower.num_samples} chains, "
            f"{self.lower.num_temperatures} temperatures)"
        )

    def __repr__(self) -> str:
        return f"Sandwich({self})"

    def _repr_html_(self) -> str:
        facts = {
            "lower bound": f"{self.lower.mean:.3f}",
            "upper bound": f"{self.upper.mean:.3f}",
            "gap": plus_minus(self.gap, self.gap_se, 3),
            "simulated data": f"{len(self.lower.values):,}",
            "chains": f"{self.lower.num_samples:,}",
            "temperatures": f"{self.lower.num_temperatures:,}",
        }
        crossed = ", crossed" if self.gap < 0 else ""
        return facts_html(f"bounds on log p(x){crossed}, nats per datum", facts)


@dataclass(frozen=True, repr=False)
class RateDistortion:
    r"""The rates and distortions that a decoder can reach, in nats.

    Each is a mean over data at one temperature.

    Args:
        temperatures: the inverse temperatures :math:`\beta` (T,), the slope of the curve being
            :math:`-\beta`.
        rate: upper bounds on the rate, :math:`\mathrm{KL}(p_\beta(z \mid x) \,\|\, p(z))` (T,).
        distortion: :math:`-\mathrm{E}_{p_\beta} \log p(x \mid z)` (T,).
        rate_se: standard errors of the rate over data (T,); NaN for a single datum.
        distortion_se: standard errors of the distortion over data (T,).
        num_samples: the number of chains K for each datum.
        seed: the seed of the draws.
        sha256: the SHA-256 of the data.
    """

    temperatures: Tensor
    rate: Tensor
    distortion: Tensor
    rate_se: Tensor
    distortion_se: Tensor
    num_samples: int
    seed: int
    sha256: str

    __repr__, _repr_html_ = result_words, result_html


@in_fixed_blocks
def ais(
    program: ProgramLike,
    data: Data,
    num_chains: int = 16,
    num_temperatures: int = 500,
    *,
    schedule: Schedule = Sigmoid(),
    num_leapfrog: int = 10,
    start: Literal["prior", "guide"] = "prior",
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> AnnealedScore:
    r"""Estimate log p(x) of each datum by annealed importance sampling.

    .. math:: \widehat{\log p}(x) = \log \frac1C \sum_c w_c, \quad
              \log w_c = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \log
              \frac{f_1(u_{t-1})}{f_0(u_{t-1})}

    with :math:`u_0 \sim f_0` and :math:`u_t` a Hamiltonian Monte Carlo transition from
    :math:`u_{t-1}` that leaves
    :math:`f_t` invariant. The w are unbiased for p(x), so the estimate is a lower bound on log p(x)
    in expectation, whatever the guide is; it repairs what a poor guide does to `log_likelihood`,
    and starting from the prior it also finds modes that the guide misses.

    Args:
        program: any program whose latents are continuous; constrained ones are annealed in
            unconstrained space.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_chains: chains C for each datum.
        num_temperatures: T.
        schedule: from [0, 1] to the inverse temperature, `Linear`, `Sigmoid`, `Geometric` or a
            function of one's own.
        num_leapfrog: leapfrog steps of each transition.
        start: ``"prior"`` or ``"guide"``.
        seed: seed of the chains; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the densities as one graph where that pays. They are equal
            within rounding, which chains amplify: the results agree within their errors.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data or settings, or discrete latents.

    Source: Neal (2001), Annealed Importance Sampling; Wu, Burda, Salakhutdinov and Grosse (2017)
    for decoders.

    Example:
        >>> x = torch.zeros(3, 1, 8, 8)
        >>> pv.evaluation.ais(vae, x, num_chains=2, num_temperatures=5).values.shape
        torch.Size([3])
    """
    chains = Chains(num_chains, num_temperatures, num_leapfrog, start, compile)
    betas = temperatures(schedule, num_temperatures)
    data = as_dataset(data)
    bar = progress_bar("annealing", total=len(data) * num_temperatures, shown=progress)
    parts = []
    with conditioned(program, data, seed) as given, bar as advance:
        for path, _ in paths_in_blocks(given, chains, seed, advance):
            parts.append(path.score(betas, path.pilot(betas)))
        eps = torch.finfo(given.dtype).eps
    score = replace(concatenate(parts), seed=seed, sha256=data.sha256)
    warn_of_rounding(eps * score.values.abs().max().item(), stacklevel=4)
    return score


@in_fixed_blocks
def bdmc(
    program: ProgramLike,
    num_data: int = 100,
    num_chains: int = 16,
    num_temperatures: int = 500,
    *,
    context: Tensors | None = None,
    like: Data | None = None,
    schedule: Schedule = Sigmoid(),
    num_leapfrog: int = 10,
    start: Literal["prior", "guide"] = "prior",
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> Sandwich:
    r"""Bound log p(x) from both sides on simulated data: bidirectional Monte Carlo.

    The latents that made a simulated datum are a draw from its exact posterior. Chains that start
    there and walk the path of `ais` backwards give weights that are unbiased for 1 / p(x), and so
    an upper bound in expectation,

    .. math:: \widehat{\log p}(x) = -\log \frac1C \sum_c \exp\Big(-\sum_{t=1}^{T}
              (\beta_t - \beta_{t-1}) \log \frac{f_1(u_{t-1})}{f_0(u_{t-1})}\Big).

    The gap of the bounds says how accurate `ais` with the same settings is on data like the model's
    own; about other data it says nothing for certain.

    Args:
        program: any program whose latents are continuous and whose event shape is known.
        num_data: how many data to simulate, all at once, so that each depends on their number; not
            used with a context, which has one entry for each.
        num_chains: chains for each datum and direction.
        num_temperatures: T.
        context: context (N, ...) for a conditional program.
        like: real data instead, taken in turn, see `calibrate`.
        schedule: see `ais`.
        num_leapfrog: leapfrog steps of each transition.
        start: ``"prior"`` or ``"guide"``.
        seed: seed of data and chains; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the densities as one graph where that pays. They are equal
            within rounding, which chains amplify: the results agree within their errors.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable settings or discrete latents.

    Source: Grosse, Ghahramani and Adams (2015), Sandwiching the Marginal Likelihood Using
    Bidirectional Monte Carlo.

    Example:
        >>> pv.evaluation.bdmc(vae, 3, num_chains=2, num_temperatures=5).x.shape
        torch.Size([3, 1, 8, 8])
    """
    check_count("num_data", num_data)
    chains = Chains(num_chains, num_temperatures, num_leapfrog, start, compile)
    betas = temperatures(schedule, num_temperatures)
    template = Template.of(program, num_data, context, like)
    total = 2 * template.num * num_temperatures
    bar = progress_bar("annealing both ways", total=total, shown=progress)
    lower, upper = [], []
    with evaluating(program, seed), bar as advance:
        trace, x = template.draw(program)
        given = Conditioned.of(program, x, template.context)
        with validation_enabled(False):
            for path, _ in paths_in_blocks(given, chains, seed, advance):
                steps = path.pilot(betas)
                lower.append(path.score(betas, steps))
                upper.append(path.score(betas[::-1], steps.flip(0), path.latents_of(trace)))
        eps = torch.finfo(given.dtype).eps
    sha256 = as_dataset((x, template.context)).sha256
    below, above = (
        replace(concatenate(parts), seed=seed, sha256=sha256) for parts in (lower, upper)
    )
    upper_bound = UpperBound(**(vars(above) | {"values": -above.values}))
    warn_of_rounding(eps * below.values.abs().max().item(), stacklevel=4)
    return Sandwich(below, upper_bound, x, template.context)


@in_fixed_blocks
def rate_distortion(
    program: ProgramLike,
    data: Data,
    num_chains: int = 16,
    num_temperatures: int = 500,
    *,
    points: int = 20,
    schedule: Schedule = Sigmoid(),
    num_leapfrog: int = 10,
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> RateDistortion:
    r"""Trace the rate-distortion curve of a decoder with its prior, whatever the encoder.

    Chains of `ais` from the prior pass through
    :math:`p_\beta(z \mid x) \propto p(z)\, p(x \mid z)^\beta`, which minimise rate + :math:`\beta`
    distortion. With their weights so far, normalised over the chains of a datum,

    .. math:: D_\beta = -\mathrm{E}_{p_\beta}[\log p(x \mid z)], \quad
              R_\beta = -\beta D_\beta - \log \mathrm{E}_{p(z)}[p(x \mid z)^\beta].

    An encoder of one's own gives the point (KL, -reconstruction) of `decompose`, on the curve or
    above it.

    Args:
        program: any program whose latents are continuous.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_chains: chains for each datum.
        num_temperatures: temperatures from 0 to 1.
        points: how many of them to keep.
        schedule: see `ais`.
        num_leapfrog: leapfrog steps of each transition.
        seed: seed of the chains; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the densities as one graph where that pays. They are equal
            within rounding, which chains amplify: the results agree within their errors.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data or settings, or discrete latents.

    Source: Huang, Makhzani, Cao and Grosse (2020), Evaluating Lossy Compression Rates of Deep
    Generative Models.

    Example:
        >>> x = torch.zeros(3, 1, 8, 8)
        >>> rate_distortion(vae, x, num_chains=4, num_temperatures=10, points=5).rate.shape
        torch.Size([5])
    """
    chains = Chains(num_chains, num_temperatures, num_leapfrog, compile=compile)
    check_count("points", points)
    betas = temperatures(schedule, num_temperatures)
    kept = torch.linspace(1, num_temperatures, points).round().long().unique().tolist()
    data = as_dataset(data)
    bar = progress_bar("annealing", total=len(data) * (num_temperatures + 1), shown=progress)
    rates, distortions = [], []
    with conditioned(program, data, seed) as given, bar as advance:
        for path, _ in paths_in_blocks(given, chains, seed, advance):
            # What is wanted at a temperature is known after its transition, so the last temperature
            # is walked at too.
            longer = [*betas, 1.0]
            states = path.walk(longer, path.pilot(longer), path.begin(num_chains))
            pairs = [
                _rate_and_distortion(betas[i], before.weights, state.point.advantage)
                for i, (before, state) in enumerate(pairwise(states), start=1)
                if i in kept
            ]
            rates.append(torch.stack([rate for rate, _ in pairs])[:, : path.count])
            distortions.append(torch.stack([far for _, far in pairs])[:, : path.count])
    rate, distortion = torch.cat(rates, dim=1), torch.cat(distortions, dim=1)
    unknown = torch.full_like(rate[:, 0], math.nan)  # of one datum
    errors = [
        part.std(1) / math.sqrt(len(data)) if len(data) > 1 else unknown
        for part in (rate, distortion)
    ]
    return RateDistortion(
        torch.tensor([betas[i] for i in kept]),
        rate.mean(1),
        distortion.mean(1),
        errors[0],
        errors[1],
        num_chains,
        seed,
        data.sha256,
    )


def _rate_and_distortion(
    beta: float, log_weights: Tensor, log_likelihood: Tensor
) -> tuple[Tensor, Tensor]:
    distortion = -(log_weights.softmax(0) * log_likelihood).sum(0)
    return -beta * distortion - (log_weights.logsumexp(0) - math.log(len(log_weights))), distortion
