"""Scores by importance sampling: the ELBO and log p(x) of each datum, with errors.

Everything is made of the log-weights (K, N) of `pyro_vae.runtime.traces`. Words: scores are nats
per datum, higher is better. Two errors are kept apart: ``mc_se``, one for each datum, is the Monte
Carlo error of its score and falls with K; ``se`` is the standard error of the mean over data and
falls with N.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from pyro_vae.contracts import ProgramLike
from pyro_vae.datasets.dataset import Data, as_dataset
from pyro_vae.evaluation.conditional_score import difference, only_parts
from pyro_vae.evaluation.global_score import PredictiveScore
from pyro_vae.evaluation.global_weights import local_bound, score_with_globals
from pyro_vae.evaluation.importance_score import (
    ImportanceScore,
    UnreliableEstimate,
    summarize,
    warn_of_rounding,
)
from pyro_vae.evaluation.kept_scores import KeptScores
from pyro_vae.evaluation.log_weights import MOST_PARTS, Passes, Weighed, iterate_log_weights
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.evaluation.proposals import Guide, Proposal, to_try_after
from pyro_vae.evaluation.scores import Score, concatenate, elbo_score, rounding_of
from pyro_vae.runtime.global_latents import HasGlobals
from pyro_vae.runtime.memory import in_fixed_blocks
from pyro_vae.runtime.settings import Compile, Settings
from pyro_vae.validation import check_count

__all__ = [
    "elbo",
    "evaluate",
    "importance_weights",
    "log_joint",
    "log_likelihood",
    "validation_elbo",
]


@in_fixed_blocks
def elbo(
    program: ProgramLike,
    data: Data,
    num_samples: int = 100,
    *,
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> Score:
    r"""Estimate the evidence lower bound of each datum.

    .. math:: \widehat{\mathrm{ELBO}}(x) = \frac1K \sum_k \log w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    With global latents it is a `GlobalELBO`: their KL is kept apart from the parts of the data.

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        num_samples: number of draws K.
        seed: seed of the draws; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the guide's log-weights as one graph where there are enough of
            them for it to pay, which is decided by counting and so is the same every time.
        progress: show a bar.

    Raises:
        InvalidInput: on unusable data, K < 1, or a program without a bound.

    Example:
        >>> pv.elbo(vae, torch.zeros(3, 1, 8, 8), num_samples=10).values.shape
        torch.Size([3])
    """
    return evaluate(
        program,
        data,
        num_samples,
        seed=seed,
        compile=compile,
        progress=progress,
        summaries={"elbo": elbo_score},
    )["elbo"]


@in_fixed_blocks
def log_likelihood(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    proposal: Proposal = Guide(),
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
    given: Sequence[str] = (),
) -> ImportanceScore:
    r"""Estimate log p(x) of each datum by importance sampling.

    .. math:: \widehat{\log p}(x) = \log \frac1K \sum_k w_k, \quad
              w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

    with q the guide, or what ``proposal`` makes of it.

    With global latents it is a `PredictiveScore`, of log p(x | training data), and the draws are
    divided between both kinds. Its expectation is a lower bound on log p(x) that tightens with K.
    The Monte Carlo error is the delta method's, :math:`\mathrm{sd}(w) / (\sqrt K\, \bar w)`,
    with the bias of the logarithm, and wider where weights are skewed. Where Pareto k is above
    its threshold or near it, the value is a lower bound (`is_heavy`), likely too low by more
    than that error. Look at the other data too, for a single k is noisy. On twelve models with
    exact values, curved decoders among them, 95% intervals at K = 1000 covered 93% to 97% of the
    data that had one where at most a quarter of all were bounds, 74% or more where at most half
    were, and down to none beyond that (``experiments/evaluation``). Neither k nor ESS can see a
    mode of the posterior that q misses altogether: there both look perfect, and annealing from
    the prior (`pyro_vae.ais`) or NUTS is the remedy. (ArviZ's group ``log_likelihood`` holds
    log p(x | z) for each draw; this is log p(x).)

    Args:
        program: any program.
        data: a data set, a tensor x (N, \*event), or a pair (x, context); with a context it is log
            p(x | context).
        num_samples: number of draws K.
        proposal: what draws the latents, see `pyro_vae.evaluation.proposals`; by default the guide.
        seed: seed of the draws; the caller's random state is left as it was.
        compile: ``"auto"`` compiles the guide's log-weights as one graph where there are enough of
            them for it to pay, which is decided by counting and so is the same every time.
        progress: show a bar.
        given: names of the parts of x that the others are scored given,
            :math:`\log p(x_a \mid x_b) = \log p(x_a, x_b) - \log p(x_b)`. Both are estimated, from
            draws of their own, see `pyro_vae.evaluation.ConditionalScore`.

    Raises:
        InvalidInput: on unusable data, K < 1, a program without a density, weights that are NaN
            or all zero, or ``given`` that names no parts of x, or all.

    Source: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders; Vehtari et al.
    (2024) for k.

    Example:
        >>> score = pv.log_likelihood(vae, torch.zeros(3, 1, 8, 8), num_samples=20)
        >>> score.values.shape, score.ess.shape, score.pareto_k.shape
        (torch.Size([3]), torch.Size([3]), torch.Size([3]))
    """

    def estimated(data: Data, seed: int) -> ImportanceScore:
        score = evaluate(
            program,
            data,
            num_samples,
            proposal=proposal,
            seed=seed,
            compile=compile,
            progress=progress,
            summaries={"log_likelihood": summarize},
        )["log_likelihood"]
        assert isinstance(score, ImportanceScore)
        return score

    score = estimated(data, seed)
    if given:
        # From a seed of its own, so that the two errors are independent.
        score = difference(score, estimated(only_parts(data, given), seed + 1))
    warn_of_heavy_tails(score, proposal, stacklevel=4)
    return score


def warn_of_heavy_tails(score: ImportanceScore, proposal: Proposal, stacklevel: int) -> None:
    """Warn where the tail of the weights says that log p(x) is likely larger than stated."""
    if score.above_threshold and not score.is_restricted:
        warnings.warn(
            f"Pareto k is above or near {pareto_k_threshold(score.num_samples):.2f} for "
            f"{score.above_threshold} of {len(score.values)} data: their log-likelihoods are "
            "likely too low by more than the stated error. "
            f"{_advice(score, proposal)}, or use a more flexible posterior",
            UnreliableEstimate,
            stacklevel=stacklevel,
        )


def _advice(score: ImportanceScore, proposal: Proposal) -> str:
    if isinstance(score, PredictiveScore):  # of few draws of the global latents
        total = 10 * score.num_samples * score.local_draws
        return f"Take ten times as many draws (num_samples={total:_})"
    wider = [
        f"pv.evaluation.Widened({each.factor}{', of=pv.evaluation.Refitted()' if each.of else ''})"
        for each in to_try_after(proposal)
    ]
    wide = f"Draw from a wider guide (proposal={', or '.join(wider)}), " if wider else ""
    return f"{wide}{'a' if wide else 'A'}nneal (pv.evaluation.ais)"


@in_fixed_blocks
def evaluate(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    proposal: Proposal = Guide(),
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
    summaries: dict[str, Callable[[Tensor], Score]] | None = None,
    kept: KeptScores | None = None,
) -> dict[str, Score]:
    """Make several scores from one set of draws: by default the ELBO and log p(x).

    They are called ``"elbo"`` and ``"log_likelihood"``.

    Arguments and errors are those of `log_likelihood`; ``summaries`` maps a name to a function from
    log-weights (K, n) to a `Score`. ``kept`` writes scores as they are made, and leaves out what it
    has: those of data one after the other from the first.

    Data are scored in blocks of about 16 MiB of activations, on a GPU of 256 MiB; their size
    follows from the program and K. Each datum is encoded once, its K draws taken together; only
    where they alone exceed a block are they taken in parts.

    Example:
        >>> sorted(evaluate(vae, torch.zeros(3, 1, 8, 8), num_samples=50))
        ['elbo', 'log_likelihood']
    """
    check_count("num_samples", num_samples)
    summaries = summaries or {"elbo": elbo_score, "log_likelihood": summarize}
    data = as_dataset(data)
    settings = Settings(seed, compile, progress)
    try:
        start = 0 if kept is None else kept.start_of(len(data))
        weighed = iterate_log_weights(program, data, num_samples, proposal, settings, start=start)
        with closing(weighed) as weights:
            scores = _summarized(weights, summaries, kept)
    except HasGlobals:
        scores = score_with_globals(program, data, num_samples, proposal, settings)
    return {
        name: replace(score, seed=seed, sha256=data.sha256)
        for name, score in scores.items()
        if name in summaries
    }


def _summarized(
    weights: Iterator[Weighed],
    summaries: Mapping[str, Callable[[Tensor], Score]],
    kept: KeptScores | None,
) -> dict[str, Score]:
    """Scores made from log-weights of a few data at a time."""
    parts: dict[str, list[Score]] = {name: [] for name in summaries}
    rounding = 0.0
    for weighed in weights:
        few: dict[str, Score] = {}
        rounding = max(rounding, rounding_of(weighed.weights).max().item())
        for name, summary in summaries.items():
            few[name] = _score_of(weighed, summary)
        if kept is not None:
            for name in summaries if not any(parts.values()) else ():
                parts[name] = kept.before(name, few[name])
            kept.add(few)
        for name, score in few.items():
            parts[name].append(score)
            if len(parts[name]) >= MOST_PARTS:
                parts[name] = [concatenate(parts[name])]
    warn_of_rounding(rounding, stacklevel=5)
    return {name: concatenate(scores) for name, scores in parts.items()}


def _score_of(weighed: Weighed, summary: Callable[[Tensor], Score]) -> Score:
    """One score of a few data, with what is known of their draws."""
    score = summary(weighed.weights)
    if weighed.is_exact:
        score = score.with_error(rounding_of(weighed.weights))
    elif weighed.runs:
        score = score.with_error(summary_error(summary, weighed.weights, weighed.runs))
    if not isinstance(score, ImportanceScore):
        return score
    if weighed.with_states is not None and weighed.log_error is not None:
        summed = summary(weighed.with_states)
        assert isinstance(summed, ImportanceScore)
        return summed.with_more_error((weighed.log_error - summed.values).exp())
    if weighed.is_restricted:
        return score.as_bound()
    return score.with_ties_as_bounds() if weighed.hides_states else score


def summary_error(
    summary: Callable[[Tensor], Score], weights: Tensor, draws: tuple[int, ...]
) -> Tensor:
    """The Monte Carlo error (N,) where only runs of the guide, of so many draws, are independent.

    It is the spread of the runs' own values about the value of all, with the bias that such a
    spread gives a logarithm.
    """
    runs = [summary(part).values for part in weights.split(draws)]
    if len(runs) == 1:
        return torch.full_like(runs[0], math.nan)
    spread = elbo_score(torch.stack(runs)).mc_se
    whole = summary(weights).values
    return torch.hypot(spread, whole - torch.stack(runs).mean(0))


def validation_elbo(
    program: ProgramLike,
    data: Data,
    settings: Settings,
    *,
    looked_at: bool,
    passes: Passes | None = None,
) -> float:
    """Estimate the mean ELBO from one draw for each datum, between the epochs of a training run.

    A run looks at the program (`Conditioned.checked`) before its first step, and here after its
    first epoch, when what mixes data with a weight of zero at first has another one. With global
    latents it is the local part alone, which bounds what is predicted of these data.
    """
    weighed = iterate_log_weights(
        program, data, 1, Guide(), settings, looked_at=looked_at, passes=passes
    )
    try:
        with closing(weighed):
            return concatenate([elbo_score(few.weights) for few in weighed]).mean
    except HasGlobals:
        return local_bound(program, data, settings.seed)


@in_fixed_blocks
def log_joint(program: ProgramLike, data: Data, *, seed: int = 0) -> Score:
    r"""Compute log p(x, z) of each datum at its point, for a guide that is a Delta.

    It is minus the training loss, and no bound on log p(x).

    .. math:: \log p(x, \mu(x)), \quad q(z \mid x) = \delta(z - \mu(x))

    Under a flat prior it is :math:`\log p(x \mid \mu(x))`. Two autoencoders of one latent size can
    be compared by it on the same data; one with a wider latent always can be better, whatever it
    knows about x.

    Args:
        program: a program whose guide is a point.
        data: a data set, a tensor x (N, \*event), or a pair (x, context).
        seed: seed of what else the guide may draw.

    Raises:
        InvalidInput: on unusable data.

    Example:
        >>> autoencoder = pv.VAE(
        ...     prior=pv.priors.Flat(2),
        ...     likelihood=pv.likelihoods.Normal(3, pv.networks.MLP(2, [8])),
        ...     posterior=pv.posteriors.Delta(2, pv.networks.MLP(3, [8])),
        ... )
        >>> log_joint(autoencoder, torch.zeros(5, 3)).values.shape
        torch.Size([5])
    """
    data = as_dataset(data)
    settings = Settings(seed, compile="off")
    with closing(iterate_log_weights(program, data, 1, Guide(), settings, scored=False)) as weighed:
        score = concatenate([elbo_score(few.weights) for few in weighed])
    return replace(score, seed=seed, sha256=data.sha256)


@in_fixed_blocks
def importance_weights(
    program: ProgramLike,
    data: Data,
    num_samples: int = 1000,
    *,
    proposal: Proposal = Guide(),
    seed: int = 0,
) -> Tensor:
    """Draw the log-weights (K, N) that the ELBO and `log_likelihood` are made of.

    The same arguments give the same draws. They are for figures of a few data. Of a guide that
    draws discrete latents `log_likelihood` also sums over the states that are rare among them.

    Example:
        >>> importance_weights(vae, torch.zeros(3, 1, 8, 8), num_samples=50).shape
        torch.Size([50, 3])
    """
    check_count("num_samples", num_samples)
    settings = Settings(seed)
    with closing(iterate_log_weights(program, data, num_samples, proposal, settings)) as weighed:
        return torch.cat([few.weights for few in weighed], dim=1)
