r"""Where the nats go: parts of a bound, active latents, the gap to log p(x).

All of it is made of draws from the guide and of the densities of model and guide at them, so it
works for any program; what needs more, densities of single dimensions, says so and is ``None``
where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike, Trace, sites_of
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.datasets.shown import result_html, result_words
from pyro_vae.evaluation.active import ActiveUnits, active_units
from pyro_vae.evaluation.aggregate import AggregatePosterior, aggregate_posterior
from pyro_vae.evaluation.first_graph import A_TEST_SET, SAVED_BY_A_BLOCK, FirstGraph, of_block
from pyro_vae.evaluation.importance import evaluate, summary_error, warn_of_heavy_tails
from pyro_vae.evaluation.importance_score import ImportanceScore, warn_of_rounding
from pyro_vae.evaluation.proposals import Guide, Proposal, Refitted
from pyro_vae.evaluation.scores import Score, concatenate, elbo_score, rounding_of
from pyro_vae.runtime.blocks import Blocks, fewest_runs
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.latent_pairs import latent_sites
from pyro_vae.runtime.progress import progress_bar
from pyro_vae.runtime.settings import COMPILE, Compile
from pyro_vae.runtime.summed import latents_alone
from pyro_vae.runtime.traces import site_log_prob, terms_of
from pyro_vae.validation import InvalidInput, check_choice, check_count

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "InferenceGap",
    "active_units",
    "aggregate_posterior",
    "decompose",
    "inference_gap",
]


def decompose(
    program: ProgramLike,
    data: Data,
    num_samples: int = 100,
    *,
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> dict[str, Score]:
    r"""Split the ELBO of each datum into its parts.

    .. math:: \mathrm{ELBO} = \underbrace{\mathrm{E}_q \log p(x \mid z)}_{\text{reconstruction}}
              - \sum_s \underbrace{\mathrm{E}_q \log \frac{q_s}{p_s}}_{\text{kl of site } s}

    The sites are the latents of the program, each given those before it: levels of a hierarchy one
    by one. Factors of the model count as reconstruction; an auxiliary site of the guide as a KL
    whose p is 1.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: number of draws K.
        seed: seed of the draws; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the densities as one graph where that pays; equal within
            rounding.
        progress: show a bar.

    Returns:
        Scores ``"elbo"``, ``"reconstruction"``, ``"kl"`` and, for each latent site, ``"kl/NAME"``.

    Raises:
        InvalidInput: on unusable data or settings, or a program without a bound.

    Example:
        >>> sorted(decompose(vae, torch.zeros(3, 1, 8, 8), 10))
        ['elbo', 'kl', 'kl/z', 'reconstruction']
    """
    check_count("num_samples", num_samples)
    check_choice("compile", compile, COMPILE)
    data = as_dataset(data)
    parts: dict[str, list[Score]] = {}
    rounding = 0.0
    bar = progress_bar("parts of the ELBO", total=len(data), shown=progress)
    with conditioned(program, data, seed) as given, bar as advance:
        blocks = Blocks.of(given, _drawing_of_terms, num_samples, fewest_runs(given))
        terms_of_block = _compiled_terms(given, blocks, compile)
        for part, few in blocks.over(given, seed):
            runs = [terms_of_block(part, count) for count in blocks.draws]
            for name in runs[0]:
                terms = torch.cat([run[name] for run in runs])[:, : few.stop - few.start]
                rounding = max(rounding, rounding_of(terms).max().item())
                parts.setdefault(name, []).append(_score(terms, part, blocks.draws))
            advance(few.stop - few.start)
    warn_of_rounding(rounding, stacklevel=4)
    return {
        name: replace(concatenate(scores), seed=seed, sha256=data.sha256)
        for name, scores in parts.items()
    }


def _drawing_of_terms(part: Conditioned) -> Callable[[int], dict[str, Tensor]]:
    return partial(_terms, part)


def _compiled_terms(
    given: Conditioned, blocks: Blocks, compile: Compile
) -> Callable[[Conditioned, int], dict[str, Tensor]]:
    """What `_terms` gives of a block, as one graph where that pays."""
    names = [*_terms(given[:1], 1)]
    runs = -(-A_TEST_SET // blocks.size) * len(blocks.draws)
    first = FirstGraph("off" if given.plates.one_draw else compile, SAVED_BY_A_BLOCK, runs)

    def terms(part: Conditioned, count: int) -> dict[str, Tensor]:
        inputs, values = of_block(part, lambda here: tuple(_terms(here, count).values()))
        graph = first.of(values, inputs, (count, len(part)))
        return _terms(part, count) if graph is None else dict(zip(names, graph(*inputs)))

    return terms


def _terms(given: Conditioned, num_samples: int) -> dict[str, Tensor]:
    """The ELBO's parts at K draws (K, N), by name."""
    guide, model = given.traces(num_samples)
    shape = (num_samples, len(given))
    latents = latent_sites(guide)
    terms = {
        f"kl/{name}": site_log_prob(site, given.plates, shape) for name, site in latents.items()
    }
    split = _split if not given.plates.summed else _split_of_sums
    priors, reconstruction = split(model, given, latents, shape)
    for name, value in priors.items():
        terms[f"kl/{name}"] = terms[f"kl/{name}"] - value
    kl = sum(terms.values(), start=given.zeros(shape))
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl} | terms


Split: TypeAlias = tuple[dict[str, Tensor], Tensor]


def _split(
    model: Trace, given: Conditioned, latents: Collection[str], shape: tuple[int, int]
) -> Split:
    """The log-prior (K, N) of each latent given those before it, and all else in the model."""
    priors, rest = dict[str, Tensor](), given.zeros(shape)
    for name, site in sites_of(model).items():
        value = site_log_prob(site, given.plates, shape)
        if name in latents:
            priors[name] = value
        else:
            rest = rest + value
    return priors, rest


def _split_of_sums(
    model: Trace, given: Conditioned, latents: Collection[str], shape: tuple[int, int]
) -> Split:
    """The same where some latents are summed out, from the densities of ever more latents.

    A prior may depend on a state that x depends on too. So log p(z_i | z_1 .. z_(i - 1)) is the
    difference of two sums over all states, and what the model has beyond is log p(x | z).
    """

    def density(trace: Trace) -> Tensor:
        return sum(terms_of(trace, given.plates, shape).values(), given.zeros(shape))

    priors, before, names = dict[str, Tensor](), given.zeros(shape), list[str]()
    for name in filter(latents.__contains__, sites_of(model)):
        names.append(name)
        joint = density(latents_alone(model, names))
        priors[name], before = joint - before, joint
    return priors, density(model) - before


def _score(terms: Tensor, given: Conditioned, draws: tuple[int, ...]) -> Score:
    """The mean over draws (K, N) of each datum, from runs of so many draws."""
    score = elbo_score(terms)
    if given.plates.is_deterministic:
        return score.with_error(rounding_of(terms))
    if given.noise is not None:
        return score.with_error(summary_error(elbo_score, terms, draws))
    return score


@dataclass(frozen=True, repr=False)
class GapScore(Score):
    """How far a bound lies below another score of the same data, in nats; the least where told."""

    is_least: Tensor = field(kw_only=True)

    @property
    def is_bound(self) -> Tensor:
        """Whether the upper score is known only to be a lower bound (N,)."""
        return self.is_least


@dataclass(frozen=True, repr=False)
class InferenceGap:
    r"""What lies between log p(x) and the ELBO, for each datum, in nats.

    .. math:: \log p(x) - \mathrm{ELBO}(q) = \underbrace{\log p(x) -
              \mathrm{ELBO}(q^*)}_{\text{approximation}} + \underbrace{\mathrm{ELBO}(q^*) -
              \mathrm{ELBO}(q)}_{\text{amortisation}}

    Args:
        inference: the whole; a lower bound where log p(x) is known only as one.
        approximation: what the best member q* of the guide's family still lacks; likewise.
        amortization: what the encoder loses against that.
    """

    inference: Score
    approximation: Score
    amortization: Score

    __repr__, _repr_html_ = result_words, result_html


def inference_gap(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    refinement: Refitted = Refitted(steps=300),
    log_p: Score | None = None,
    proposal: Proposal | None = None,
    seed: int = 0,
    progress: bool = False,
) -> InferenceGap:
    r"""Split the inference gap of each datum, by refining the guide for that datum.

    How good q* is depends on ``refinement``; too few steps make the approximation gap too large and
    the amortisation gap too small, never the reverse but for Monte Carlo error.

    Args:
        program: any program with continuous, reparametrised latents.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: draws K for each of the three scores.
        refinement: how q* is found; see `pyro_vae.evaluation.proposals.Refitted` for what its
            family is.
        log_p: log p(x) of the same data if it is known better, by `ais` for instance; no upper
            bound.
        proposal: what log p(x) is estimated with otherwise; by default the refined guide, whose
            draws serve both its scores, so that no approximation gap is below 0. Its Monte Carlo
            error is that of two scores from separate draws, which is larger than its own.
        seed: seed of the draws; the caller's random state is left as it was.
        progress: show a bar for each score.

    Raises:
        InvalidInput: on unusable data or K < 1, for an upper bound as ``log_p``, or where log p(x)
            would be estimated by a guide that takes one value of a discrete latent and never
            reaches the others.

    Warns:
        UnreliableEstimate: where the estimate of log p(x) is.

    Source: Cremer, Li and Duvenaud (2018), Inference Suboptimality in Variational Autoencoders.

    Example:
        >>> gap = inference_gap(vae, torch.zeros(2, 1, 8, 8), refinement=Refitted(steps=50))
        >>> gap.inference.values.shape
        torch.Size([2])
    """
    if log_p is not None and log_p.sign == "<=":
        raise InvalidInput(
            "log_p",
            got="an upper bound",
            expected="an estimate of log p(x), or a lower bound",
            fix="pass what pv.evaluation.ais gives",
        )
    data = as_dataset(data)
    scored = partial(evaluate, program, data, num_samples, progress=progress)
    guide = scored(proposal=Guide(), seed=seed)
    own = guide["elbo"]
    if log_p is None and proposal is None:  # said before the guide is refined, which takes long
        _check_reaches_all(guide["log_likelihood"])
    refined = scored(proposal=refinement, seed=seed + 1)
    best = refined["elbo"]
    if log_p is None:
        by = refined if proposal is None else scored(proposal=proposal, seed=seed + 2)
        log_p = by["log_likelihood"]
        _check_reaches_all(log_p)
        if isinstance(log_p, ImportanceScore):
            warn_of_heavy_tails(log_p, proposal or refinement, stacklevel=3)

    def difference(a: Score, b: Score) -> GapScore:
        return GapScore(
            a.values - b.values,
            (a.mc_se.square() + b.mc_se.square()).sqrt(),
            num_samples,
            seed=seed,
            sha256=data.sha256,
            is_least=a.is_bound,
        )

    return InferenceGap(difference(log_p, own), difference(log_p, best), difference(best, own))


def _check_reaches_all(score: Score) -> None:
    """Raise `InvalidInput` if log p(x) is a bound by a guide that takes one value of a latent."""
    if isinstance(score, ImportanceScore) and score.is_restricted:
        raise InvalidInput(
            "program",
            got="a guide that takes one value of a discrete latent",
            expected="log p(x) with all of its values in it",
            fix="pass log_p=, or proposal=pv.evaluation.Defensive(0.3) where they are few",
        )
