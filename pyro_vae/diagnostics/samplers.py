r"""Where draws of the latents come from: the guide, the guide resampled by its importance weights, or NUTS.

Each way is a callable ``draws(program, x, context, where, num_samples)`` that returns `Drawn`. NUTS
on p(z | x) is the
reference: it knows nothing of the guide, so chains from dispersed points can meet a mode that the
guide never visits, which neither Pareto k nor the effective number of draws can tell.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pyro.infer
import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.evaluation.proposals import Guide
from pyro_vae.evaluation.scores import summarize
from pyro_vae.runtime.latents import (
    Unconstrained,
    Values,
    check_no_auxiliary,
    densities,
    draw,
    frozen,
    in_rows,
    log_density,
)
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.traces import Plates
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = ["Drawn", "Draws", "FromGuide", "NUTS", "Resampled"]

START = ("prior", "guide")


FEWEST_STEPS = 4  # below, R-hat is not defined


INDEPENDENT = (
    "These draws are independent: R-hat, ESS, MCSE and autocorrelation are those of perfect chains whatever q is, and say "
    "nothing about how near q(z | x) is to p(z | x). Group diagnostics (ess, pareto_k) and compare_posteriors do."
)


RESAMPLED = (
    "These draws are resampled by importance weights and some repeat: R-hat, ESS and MCSE mean nothing for them. Group "
    "diagnostics holds the effective number of proposals and Pareto k."
)


CHAINS = "These draws are Markov chains, those of one datum apart from all others: R-hat, ESS and MCSE mean what they usually do."


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


Draws = Callable[[ProgramLike, Tensor, Tensor | None, Plates, int], Drawn]


@dataclass(frozen=True)
class FromGuide:
    """Independent draws from q(z | x).

    Example:
        >>> pv.to_inference_data(vae, torch.zeros(2, 1, 8, 8), 10, draws=FromGuide()).posterior["z"].shape
        (1, 10, 2, 2)
    """

    def __call__(
        self,
        program: ProgramLike,
        x: Tensor,
        context: Tensor | None,
        where: Plates,
        num_samples: int,
    ) -> Drawn:
        return Drawn(draw(program.guide, x, context, num_samples, where), INDEPENDENT)


@dataclass(frozen=True)
class Resampled:
    r"""Draws from the guide, drawn again with probabilities proportional to their importance weights.

    .. math:: \tilde z_j \sim q(z \mid x), \quad w_j = p(x, \tilde z_j) / q(\tilde z_j \mid x),
              \quad P(z_k = \tilde z_j) = w_j / \textstyle\sum_i w_i, \quad j = 1 \ldots R K

    As R grows they become draws from p(z | x), if q reaches all of it. Some occur more than once.
    The effective number of proposals and Pareto k of each datum go with them (``ess``,
    ``pareto_k``).

    Args:
        ratio: proposals R for each draw.
        proposal: what proposes, one of `pyro_vae.evaluation.proposals` that is a guide: `Guide`,
            `Widened` or `Refined`.

    Raises:
        InvalidInput: on ratio < 1, or a guide with auxiliary sites.

    Source: Rubin (1988), Using the SIR Algorithm to Simulate Posterior Distributions.

    Example:
        >>> pv.to_inference_data(vae, torch.zeros(2, 1, 8, 8), 10, draws=Resampled(ratio=20)).diagnostics["pareto_k"].shape
        (2,)
    """

    ratio: int = 10
    proposal: Any = field(default_factory=Guide)

    def __post_init__(self) -> None:
        check_count("ratio", self.ratio)

    def __call__(
        self,
        program: ProgramLike,
        x: Tensor,
        context: Tensor | None,
        where: Plates,
        num_samples: int,
    ) -> Drawn:
        check_no_auxiliary(program, x, context, where)
        guide = self.proposal.guide(program, x, context, where)
        values = draw(guide, x, context, self.ratio * num_samples, where)
        log_prior, log_rest, log_q = densities(program, values, x, context, where, guide=guide)
        weights = (log_prior + log_rest - log_q).double()
        chosen = torch.multinomial(weights.softmax(0).T, num_samples, replacement=True).T  # (K, N)
        score = summarize(weights)
        return Drawn(
            {name: _rows_at(value, chosen, where) for name, value in values.items()},
            RESAMPLED,
            per_datum={"ess": score.ess, "pareto_k": score.pareto_k},
        )


@dataclass(frozen=True)
class NUTS:
    """Draws from p(z | x) by Pyro's No-U-Turn sampler, the parameters of the program as they are.

    Each datum has chains of its own, in unconstrained space and in double precision, whatever that
    of the program. Their R-hat and effective number of draws go with them; R-hat far above 1 says
    that the chains did not meet, be it that they were too short, or that the posterior has modes
    that a chain does not move between. A chain costs some ten to twenty evaluations of the decoder
    and its gradient a step: half a minute a datum for a 784-400-20 VAE on one CPU core.

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
        >>> idata = pv.to_inference_data(vae, torch.zeros(1, 1, 8, 8), 120, draws=NUTS(num_chains=2, warmup=60))
        >>> idata.posterior["z"].shape
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
        if not 0 < self.target_acceptance < 1:
            raise InvalidInput(
                "target_acceptance",
                got=repr(self.target_acceptance),
                expected="a probability between 0 and 1",
                fix="pass 0.8",
            )

    def __call__(
        self,
        program: ProgramLike,
        x: Tensor,
        context: Tensor | None,
        where: Plates,
        num_samples: int,
    ) -> Drawn:
        if num_samples % self.num_chains or num_samples < FEWEST_STEPS * self.num_chains:
            raise InvalidInput(
                "num_samples",
                got=str(num_samples),
                expected=f"a multiple of the {self.num_chains} chains, "
                f"{FEWEST_STEPS} draws of each or more",
                fix=f"pass {max(FEWEST_STEPS, -(-num_samples // self.num_chains)) * self.num_chains}",
            )
        double = _in_double(program)
        dtype = next((p.dtype for p in double.parameters()), torch.float64)
        x = x.to(dtype)
        context = (
            context.to(dtype) if context is not None and context.is_floating_point() else context
        )
        steps = (self.warmup + num_samples // self.num_chains) * self.num_chains * len(x)
        each = []
        with progress_bar("NUTS", total=steps, shown=self.progress) as advance, frozen(double):
            for n in range(len(x)):
                datum = _Posterior(
                    double, x[n : n + 1], None if context is None else context[n : n + 1], where
                )
                each.append(datum.chains(self, num_samples // self.num_chains, advance))
        data_axis = where.data_dim - where.particle_dim
        values = {
            name: torch.cat([one.values[name].movedim(data_axis, 0) for one in each]).movedim(
                0, data_axis
            )
            for name in each[0].values
        }
        per_draw = {
            name: torch.cat([one.per_draw[name] for one in each], dim=1)
            for name in each[0].per_draw
        }
        return Drawn(values, CHAINS, self.num_chains, per_draw=per_draw)


class _Posterior:
    """p(z | x) of one datum in unconstrained space."""

    def __init__(self, program: ProgramLike, x: Tensor, context: Tensor | None, where: Plates):
        self.program, self.x, self.context, self.where = program, x, context, where
        self.latents = Unconstrained(program, x, context, where)

    def potential(self, values: dict[str, Tensor]) -> Tensor:
        """Minus the logarithm of the joint density at u (D,)."""
        constrained, log_jacobian = self.latents.unpack(values["u"][None, None])
        log_prior, log_rest = log_density(
            self.program.model, constrained, self.x, self.context, 1, self.where
        )
        return -(log_prior + log_rest + log_jacobian).sum()

    def chains(self, settings: NUTS, num_steps: int, advance: Callable[..., None]) -> Drawn:
        fn = self.program.model if settings.start == "prior" else self.program.guide
        with torch.no_grad():
            starts = self.latents.pack(
                draw(fn, self.x, self.context, settings.num_chains, self.where)
            )[:, 0]
        paths, diverging = [], []
        for start in starts:
            kernel = pyro.infer.NUTS(
                potential_fn=self.potential,
                target_accept_prob=settings.target_acceptance,
                max_tree_depth=settings.max_tree_depth,
            )
            chain = pyro.infer.MCMC(
                kernel,
                num_steps,
                settings.warmup,
                initial_params={"u": start},
                disable_progbar=True,
                hook_fn=lambda *_: advance(1),
            )
            chain.run()
            paths.append(chain.get_samples()["u"])
            diverged = torch.zeros(num_steps, dtype=torch.bool)
            diverged[chain.diagnostics()["divergences"]["chain 0"]] = True
            diverging.append(diverged)
        with torch.no_grad():
            values, _ = self.latents.unpack(torch.cat(paths)[:, None])
        return Drawn(values, per_draw={"diverging": torch.cat(diverging)[:, None]})


def _rows_at(value: Tensor, chosen: Tensor, where: Plates) -> Tensor:
    r"""Of a site's draws those numbered ``chosen`` (K, N), for each datum its own."""
    rows = in_rows(value, where)
    picked = rows[chosen, torch.arange(rows.shape[1], device=rows.device)]
    return picked.movedim(1, where.data_dim - where.particle_dim)


def _in_double(program: ProgramLike) -> ProgramLike:
    """A copy of a program in double precision; a program of plain functions, which has no copies, as it is."""
    try:
        copied = copy.deepcopy(program)
        copied.double()
        return copied
    except InvalidInput:
        return program
