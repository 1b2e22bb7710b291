r"""Samplers of the latents: the guide, the guide resampled by importance weights, or NUTS.

A sampler is called with a program given data and the number of draws, and returns `Drawn`. NUTS on
p(z | x) is the reference. It knows nothing of the guide, so chains from dispersed points can meet a
mode that the guide never visits. Neither Pareto k nor the effective number of draws can tell that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import pyro.infer
import torch
from torch import Tensor

from pyro_vae.compilation.capture import Captured
from pyro_vae.contracts import ProgramLike
from pyro_vae.diagnostics.turns import Ask, in_turns
from pyro_vae.evaluation.importance_score import summarize
from pyro_vae.evaluation.proposals import Guide, GuideProposal
from pyro_vae.runtime.conditioned import Conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.latents import Unconstrained, Values, frozen, in_rows, out_of_rows
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.traces import Plates
from pyro_vae.validation import InvalidInput, as_number, check_choice, check_count, map_tensors

__all__ = ["Drawn", "FromGuide", "NUTS", "Resampled", "Sampler", "in_double"]

START = ("prior", "guide")
FEWEST_STEPS = 4  # below, R-hat is not defined

INDEPENDENT = (
    "These draws are independent: R-hat, ESS, MCSE and autocorrelation are those of perfect "
    "chains whatever q is, and say nothing about how near q(z | x) is to p(z | x). Group "
    "diagnostics (ess, pareto_k) and compare_posteriors do. For means and intervals alone: "
    "az.summary(idata, kind='stats')."
)

RESAMPLED = (
    "These draws are resampled by importance weights and some repeat: R-hat, ESS and MCSE mean "
    "nothing for them. Group diagnostics holds the effective number of proposals and Pareto k."
)

CHAINS = (
    "These draws are Markov chains, those of one datum apart from all others: R-hat, ESS and MCSE "
    "mean what they usually do."
)


@dataclass(frozen=True)
class Drawn:
    """Draws of the latents of N data, K of each.

    Args:
        values: by site, K draws for each of N data, in the shape that the site has under the plate
            of draws.
        note: what ArviZ's diagnostics say about them.
        chains: Markov chains that they come from, one after the other; 0 for draws that are no
            chain's.
        per_draw: further numbers of each draw (K, N).
        per_datum: further numbers of each datum (N,).
    """

    values: Values
    note: str = ""
    chains: int = 0
    per_draw: dict[str, Tensor] = field(default_factory=dict)
    per_datum: dict[str, Tensor] = field(default_factory=dict)


Sampler = Callable[[Conditioned, int], Drawn]


@dataclass(frozen=True)
class FromGuide:
    """Independent draws from q(z | x).

    Example:
        >>> drawn = pv.to_inference_data(vae, torch.zeros(2, 1, 8, 8), 10, sampler=FromGuide())
        >>> drawn.posterior["z"].shape
        (1, 10, 2, 2)
    """

    def __call__(self, given: Conditioned, num_samples: int) -> Drawn:
        return Drawn(given.draw(given.guide, num_samples), INDEPENDENT)


@dataclass(frozen=True)
class Resampled:
    r"""Draws from the guide, resampled in proportion to their importance weights.

    .. math:: \tilde z_j \sim q(z \mid x), \quad w_j = p(x, \tilde z_j) / q(\tilde z_j \mid x),
              \quad P(z_k = \tilde z_j) = w_j / \textstyle\sum_i w_i, \quad j = 1 \ldots R K

    As R grows they become draws from p(z | x), if q reaches all of it. Some occur more than once.
    The effective number of proposals and Pareto k of each datum go with them (``ess``,
    ``pareto_k``).

    Args:
        ratio: proposals R for each draw.
        proposal: what proposes, one of `pyro_vae.evaluation.proposals` that is a guide: `Guide`,
            `Widened` or `Refitted`.

    Raises:
        InvalidInput: on ratio < 1, or a guide with auxiliary sites.

    Source: Rubin (1988), Using the SIR Algorithm to Simulate Posterior Distributions.

    Example:
        >>> sampler = Resampled(ratio=20)
        >>> drawn = pv.to_inference_data(vae, torch.zeros(2, 1, 8, 8), 10, sampler=sampler)
        >>> drawn.diagnostics["pareto_k"].shape
        (2,)
    """

    ratio: int = 10
    proposal: GuideProposal = field(default_factory=Guide)

    def __post_init__(self) -> None:
        check_count("ratio", self.ratio)

    def __call__(self, given: Conditioned, num_samples: int) -> Drawn:
        given.check_no_auxiliary()
        guide = self.proposal.guide(given)
        values = given.draw(guide, self.ratio * num_samples)
        log_prior, log_rest, log_q = given.densities(values, guide)
        weights = (log_prior + log_rest - log_q).double()
        chosen = torch.multinomial(weights.softmax(0).T, num_samples, replacement=True).T  # (K, N)
        score = summarize(weights)
        return Drawn(
            {name: _rows_at(value, chosen, given.plates) for name, value in values.items()},
            RESAMPLED,
            per_datum={"ess": score.ess, "pareto_k": score.pareto_k},
        )


@dataclass(frozen=True)
class NUTS:
    """Draws from p(z | x) by Pyro's No-U-Turn sampler, parameters held fixed.

    Each datum has chains of its own, in unconstrained space and in double precision, whatever that
    of the program, if the program can run in it. The chains of a datum take turns, so that one
    evaluation serves them all. Their R-hat and effective number of draws go with
    them; R-hat far above 1 says that the chains did not meet, be it that they were too short, or
    that the posterior has modes that a chain does not move between. A chain costs some ten to
    twenty evaluations of the decoder and its gradient a step: half a minute a datum for a
    784-400-20 VAE on one CPU core.

    Args:
        num_chains: chains for each datum; the number of draws is divided among them.
        warmup: steps of each chain, not kept, that adapt step size and mass matrix.
        start: what the chains' starting points are drawn from, ``"prior"`` for dispersed ones or
            ``"guide"``.
        target_acceptance: the acceptance probability that the step size is adapted to.
        max_tree_depth: at most 2 to this many leapfrog steps a draw.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable settings, a number of draws that the chains cannot share, or a
            latent that is discrete or has no map to real numbers.

    Source: Hoffman and Gelman (2014), The No-U-Turn Sampler.

    Example:
        >>> sampler = NUTS(num_chains=2, warmup=60)
        >>> drawn = pv.to_inference_data(vae, torch.zeros(1, 1, 8, 8), 120, sampler=sampler)
        >>> drawn.posterior["z"].shape
        (2, 60, 1, 2)
    """

    num_chains: int = 4
    warmup: int = 300
    start: Literal["prior", "guide"] = "prior"
    target_acceptance: float = 0.8
    max_tree_depth: int = 8
    progress: bool = False

    def __post_init__(self) -> None:
        check_count("num_chains", self.num_chains, minimum=2)  # one alone has no R-hat
        check_count("warmup", self.warmup)
        check_count("max_tree_depth", self.max_tree_depth)
        check_choice("start", self.start, START)
        if not 0 < as_number(self.target_acceptance) < 1:
            raise InvalidInput(
                "target_acceptance",
                got=repr(self.target_acceptance),
                expected="a probability between 0 and 1",
                fix="pass 0.8",
            )

    def steps_of_chains(self, num_samples: int) -> int:
        """The number of draws of each chain.

        Raises:
            InvalidInput: where the chains cannot share the draws, or have too few.
        """
        if num_samples % self.num_chains or num_samples < FEWEST_STEPS * self.num_chains:
            fewest = max(FEWEST_STEPS, -(-num_samples // self.num_chains)) * self.num_chains
            raise InvalidInput(
                "num_samples",
                got=str(num_samples),
                expected=f"a multiple of the {self.num_chains} chains, "
                f"{FEWEST_STEPS} draws of each or more",
                fix=f"pass {fewest}",
            )
        return num_samples // self.num_chains

    def __call__(self, given: Conditioned, num_samples: int) -> Drawn:
        per_chain = self.steps_of_chains(num_samples)
        double = in_double(given)
        steps = (self.warmup + per_chain) * self.num_chains * len(given)
        bar = progress_bar("NUTS", total=steps, shown=self.progress)
        with bar as advance, frozen(double.program):
            each = [
                _Posterior(one).chains(self, per_chain, advance) for one, _ in double.in_chunks(1)
            ]
        data_axis = given.plates.data_axis
        values = {
            name: torch.cat([one.values[name] for one in each], dim=data_axis)
            for name in each[0].values
        }
        per_draw = {
            name: torch.cat([one.per_draw[name] for one in each], dim=1)
            for name in each[0].per_draw
        }
        return Drawn(values, CHAINS, self.num_chains, per_draw=per_draw)


class _Posterior:
    """p(z | x) of one datum in unconstrained space."""

    def __init__(self, given: Conditioned):
        self.given = given
        self.latents = Unconstrained(given.trace(given.joint, 1), given.plates)

    def potential(self, u: Tensor) -> Tensor:
        """Minus the logarithm of the joint density at K points (K, D), as (K,)."""
        constrained, log_jacobian = self.latents.unpack(u[:, None])
        log_prior, log_rest = self.given.log_density(self.given.model, constrained)
        return -(log_prior + log_rest + log_jacobian).sum(1)

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The potential (K,) at K points (K, D), and its gradient (K, D)."""
        points = u.detach().requires_grad_(True)
        with torch.enable_grad():
            values = self.potential(points)
        return values.detach(), torch.autograd.grad(values.sum(), points)[0]

    def captured(self, u: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The potential with its gradient as one graph, to the same bits without Pyro's handlers.

        A trajectory takes many steps, and a path of latents many sites in each. What cannot be
        captured is run as it is.
        """

        def of_points(u: Tensor) -> tuple[Tensor, Tensor]:  # a method has one input more
            return self.value_and_gradient(u)

        try:
            graph = Captured(of_points, [u])
        except (InvalidInput, RuntimeError):
            return self.value_and_gradient
        graph.hoist()
        return lambda u: cast(tuple[Tensor, Tensor], graph(u))

    def chains(self, settings: NUTS, num_steps: int, advance: Callable[..., None]) -> Drawn:
        fn = self.given.model if settings.start == "prior" else self.given.guide
        with torch.no_grad():
            starts = self.latents.pack(self.given.draw(fn, settings.num_chains))[:, 0]
        chains = [_Chain(settings, num_steps, advance, start) for start in starts]
        in_turns(chains, self.captured(starts), list(starts))
        with torch.no_grad():
            values, _ = self.latents.unpack(torch.cat([chain.path for chain in chains])[:, None])
        diverging = torch.cat([chain.diverging for chain in chains])
        return Drawn(values, per_draw={"diverging": diverging[:, None]})


class _Chain:
    """One chain of Pyro's sampler, and what it has drawn."""

    def __init__(self, settings: NUTS, num_steps: int, advance: Callable[..., None], start: Tensor):
        self.settings, self.num_steps, self.advance = settings, num_steps, advance
        self.start, self.path = start, start
        self.diverging = torch.zeros(num_steps, dtype=torch.bool)

    def __call__(self, ask: Ask) -> None:
        kernel = pyro.infer.NUTS(
            potential_fn=lambda values: cast(Tensor, _WithGradient.apply(values["u"], ask)),
            target_accept_prob=self.settings.target_acceptance,
            max_tree_depth=self.settings.max_tree_depth,
        )
        kernel.initial_params = {"u": self.start}
        kernel.setup(self.settings.warmup)
        values, path = kernel.initial_params, []
        for _ in range(self.settings.warmup + self.num_steps):
            values = kernel.sample(values)
            path.append(values["u"])
            self.advance(1)
        self.path = torch.stack(path[self.settings.warmup :])
        self.diverging[kernel.diagnostics()["divergences"]] = True
        kernel.cleanup()


class _WithGradient(torch.autograd.Function):
    """A number whose gradient is found along with it."""

    @staticmethod
    def forward(ctx, u: Tensor, ask: Ask) -> Tensor:
        value, gradient = ask(u)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, outer: Tensor) -> tuple[Tensor, None]:
        return outer * ctx.saved_tensors[0], None


def _rows_at(value: Tensor, chosen: Tensor, plates: Plates) -> Tensor:
    r"""Select from a site's draws those numbered ``chosen`` (K, N), datum by datum."""
    rows = in_rows(value, plates)
    return out_of_rows(rows[chosen, torch.arange(rows.shape[1], device=rows.device)], plates)


def in_double(given: Conditioned) -> Conditioned:
    """A copy of a program and its data in double precision, if the program can run in it.

    It keeps its own precision if it is of plain functions, which cannot be copied, or makes
    tensors of its own in another one.
    """
    try:
        program = copy.deepcopy(given.program)
        program.double()
        double = _like_parameters_of(program, given)
        drawn = latent_sites(double.trace(double.joint, 1)).values()
    except (InvalidInput, RuntimeError):
        return given
    real = [site["value"] for site in drawn if site["value"].is_floating_point()]
    return double if all(value.dtype == torch.float64 for value in real) else given


def _like_parameters_of(program: ProgramLike, given: Conditioned) -> Conditioned:
    """A program given the same data, in the precision of its parameters."""
    dtype = next((p.dtype for p in program.parameters()), torch.float64)

    def convert(value: Tensor) -> Tensor:
        return value.to(dtype) if value.is_floating_point() else value

    x, context = map_tensors(convert, given.x), map_tensors(convert, given.context)
    return replace(given, program=program, x=x, context=context)
